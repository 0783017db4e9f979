"""Datagrams: one MAC, one place in the window, each counter once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dht import datagram
from dht.datagram import REPLAY_WINDOW, ReplayWindow


@given(st.lists(st.integers(0, 2_000), max_size=300))
def test_each_counter_is_admitted_at_most_once_and_none_behind_the_window(counters: list[int]) -> None:
    window, seen, highest = ReplayWindow(), {0}, 0
    for counter in counters:
        expected = counter not in seen and counter > highest - REPLAY_WINDOW
        assert window.admit(counter) == expected
        if expected:
            seen.add(counter)
            highest = max(highest, counter)


def test_a_jump_to_the_end_of_all_counters_costs_nothing() -> None:
    window = ReplayWindow()
    assert window.admit(2**64 - 1) and not window.admit(2**64 - 1) and window.admit(2**64 - 2)
    assert not window.admit(5)


@given(st.binary(max_size=datagram.MAX_BODY_BYTES), st.integers(0, 10_000))
def test_one_flipped_bit_spoils_a_datagram(body: bytes, bit: int) -> None:
    data = datagram.seal(datagram.REQUEST, 7, 2**63, 9, body, b"k" * 32)
    assert len(data) <= datagram.MAX_DATAGRAM_BYTES and datagram.genuine(data, b"k" * 32)
    flipped = bytearray(data)
    bit %= 8 * len(data)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not datagram.genuine(bytes(flipped), b"k" * 32)
    assert not datagram.genuine(data, b"l" * 32)


def test_tags_depend_on_network_and_dimension() -> None:
    pairs = ((b"n", "cpu"), (b"n", "mem"), (b"m", "cpu"), (b"nc", "pu"))
    assert len({datagram.overlay_tag(network, dimension) for network, dimension in pairs}) == 4
