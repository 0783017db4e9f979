"""Coordinates and clocks that ride on answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.errors import WireError
from dht.vitals import OBSERVE_ALL, VITALS_BYTES, Vitals, unpack_vitals


def test_vitals_survive_the_wire() -> None:
    vitals = Vitals(random.Random(1))
    packed = vitals.pack(1_700_000_000_000)
    coordinate, clock_ms = unpack_vitals(packed + b"what follows")
    assert len(packed) == VITALS_BYTES and clock_ms == 1_700_000_000_000
    assert coordinate.distance_ms(vitals.coordinate) < 0.1


@given(st.binary(max_size=60))
def test_any_bytes_are_vitals_or_refused(data: bytes) -> None:
    try:
        unpack_vitals(data)
    except WireError:
        return
    assert len(data) >= VITALS_BYTES


def test_skew_is_the_median_of_distinct_peers_and_liars_cannot_move_it() -> None:
    vitals, now_ms = Vitals(random.Random(1)), 10**12
    for n in range(30):
        peer = Vitals(random.Random(n))
        claimed_ms = now_ms + (10**9 if n % 3 == 0 else 250)
        vitals.observe((f"10.0.0.{n + 1}", 1), 0.0, peer.pack(claimed_ms), now_ms)
        assert (vitals.clock_skew_ms() is None) == (n < 2)
    assert vitals.clock_skew_ms() == 250


def test_after_the_first_round_trips_only_some_are_samples() -> None:
    vitals, peer = Vitals(random.Random(1)), Vitals(random.Random(2)).pack(0)
    places = []
    for _ in range(OBSERVE_ALL + 40):
        vitals.observe(("10.0.0.1", 1), 50.0, peer, 0)
        places.append(vitals.coordinate)
    assert len(set(places[:OBSERVE_ALL])) > OBSERVE_ALL // 2 and len(set(places[OBSERVE_ALL:])) <= 6
    with pytest.raises(WireError):
        vitals.observe(("10.0.0.1", 1), 50.0, b"short", 0)
