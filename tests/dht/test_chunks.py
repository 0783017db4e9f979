"""Values in parts: what is put together is what was signed, whoever sent the parts and in whatever order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht.chunking import MAX_INCOMING, MAX_INCOMING_PER_OWNER, Incoming
from dht.chunks import MAX_PAYLOAD_BYTES, PIECE_BYTES, Assembly, Manifest, cut, manifest_of
from dht.errors import LocalError, WireError
from dht.identity import ED25519
from dht.record import Record, open_record, seal_value


@given(st.integers(1, MAX_PAYLOAD_BYTES), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_parts_in_any_order_after_the_hashes_make_the_payload(size_bytes: int, seed: int) -> None:
    rng = random.Random(seed)
    payload = rng.randbytes(size_bytes)
    assembly, parts = Assembly(manifest_of(payload)), cut(payload)
    assert all(len(part) <= PIECE_BYTES for part in parts) and assembly.missing() == [0]
    assembly.add(0, parts[0])
    order = assembly.missing() * 2
    rng.shuffle(order)
    for index in order:
        assembly.add(index, parts[index])
    assert assembly.complete and assembly.payload() == payload
    assert assembly.held_bytes == sum(map(len, parts))


@given(st.integers(0, 3), st.binary(max_size=PIECE_BYTES))
def test_a_part_that_was_not_signed_never_enters(index: int, part: bytes) -> None:
    payload = bytes(2 * PIECE_BYTES) + b"end"
    assembly, parts = Assembly(manifest_of(payload)), cut(payload)
    assembly.add(0, parts[0])
    if part != parts[index]:
        with pytest.raises(WireError):
            assembly.add(index, part)
    assert index == 0 or part == parts[index] or index in assembly.missing()


def test_a_piece_before_the_hashes_or_past_the_end_is_refused() -> None:
    assembly, parts = Assembly(manifest_of(b"x" * 3_000)), cut(b"x" * 3_000)
    with pytest.raises(WireError, match="before"):
        assembly.add(1, parts[1])
    assembly.add(0, parts[0])
    for index in (4, -1, 65_535):
        with pytest.raises(WireError):
            assembly.add(index, parts[1])
    with pytest.raises(LocalError):
        assembly.payload()


@pytest.mark.parametrize(("size_bytes", "digest"), [(0, bytes(32)), (MAX_PAYLOAD_BYTES + 1, bytes(32)), (5, b"")])
def test_a_manifest_of_an_impossible_size_is_refused(size_bytes: int, digest: bytes) -> None:
    with pytest.raises(WireError):
        Manifest(size_bytes, digest)


def test_a_value_beyond_64_kib_is_refused_with_what_to_do() -> None:
    with pytest.raises(LocalError, match="control connection"):
        cut(bytes(MAX_PAYLOAD_BYTES + 1))


def large(owner: int, key: bytes, seq: int = 1) -> Record:
    signer = ED25519.generate(bytes([owner]) * 32)
    raw, blob = seal_value(signer, "cpu", key, seq, 100_000, bytes(5_000))
    assert blob == bytes(5_000)
    return open_record(raw, ED25519, "cpu", key, 0)


def test_the_values_that_are_taken_in_at_once_are_bounded_and_idle_ones_make_room() -> None:
    incoming = Incoming()
    keys = [bytes([n]) * 20 for n in range(MAX_INCOMING_PER_OWNER + 1)]
    begun = [incoming.begin(key, large(1, key), 0) for key in keys]
    assert begun == [[0]] * MAX_INCOMING_PER_OWNER + [None]
    assert incoming.begin(keys[0], large(2, keys[0]), 0) == [0]
    assert incoming.begin(keys[0], large(1, keys[0], seq=2), 0) == [0]
    assert incoming.begin(keys[0], large(1, keys[0]), 0) is None
    assert len(incoming) <= MAX_INCOMING
    assert incoming.begin(keys[-1], large(1, keys[-1]), 60_000) == [0] and len(incoming) == 1
    with pytest.raises(WireError):
        incoming.add(keys[0], large(1, keys[0]).owner, 0, b"", 60_000)
