"""Canonical msgpack: one value, one byte string; any bytes in, no crash out."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht import wire
from dht.errors import LocalError, WireError

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(st.characters(codec="ascii"), max_size=20)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcz", max_size=3), inner, max_size=4),
    max_leaves=20,
)


def depth(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(values.filter(lambda value: depth(value) <= wire.MAX_DEPTH))
def test_what_is_encoded_decodes_to_the_same(value: Any) -> None:
    assert wire.decode(wire.encode(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_decode_canonically_or_are_refused(data: bytes) -> None:
    try:
        value = wire.decode(data)
    except WireError:
        return
    assert wire.encode(value) == data


@given(st.binary(max_size=200))
def test_any_bytes_unpack_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(wire.unpack(data), list)


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\xa1a\x01\xa1a\x02",  # a duplicate key
        b"\x82\xa1b\x01\xa1a\x02",  # unsorted keys
        b"\xcd\x00\x01",  # a long-form integer
        b"\xd9\x01a",  # a long-form string
        b"\xcb" + struct.pack(">d", float("nan")),
        b"\xcb" + struct.pack(">d", 1.0),
        b"\xd4\x01\x00",  # an ext type
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x91" * 5000 + b"\x01",
        b"\x91" * 9 + b"\x01",
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x01\x00",  # a trailing byte
        b"\xa1\xff",  # bad UTF-8
        b"\xa3e\xcc\x81",  # not NFC
        b"\x81\x01\x02",  # a key that is no string
        b"\x81\xc4\x01a\x02",
        b"",
        b"\xc1",
    ],
    ids=lambda data: data[:6].hex(),
)
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(data)


@pytest.mark.parametrize("value", [1.5, {1: 2}, object(), 2**64, -(2**63) - 1, "e\u0301", "\ud800", {"a", "b"}])
def test_what_the_wire_cannot_carry_is_our_misuse(value: Any) -> None:
    with pytest.raises(LocalError):
        wire.encode(value)


def test_more_bytes_than_allowed_are_refused() -> None:
    with pytest.raises(WireError):
        wire.decode(wire.encode(b"x" * 100), max_bytes=100)


@pytest.mark.parametrize("body", [{"a": 1}, [1.0], [{"a": 1}], 7, [msgpack.ExtType(1, b"")], [[[[[[[1]]]]]]]])
def test_bodies_with_foreign_shapes_are_refused(body: Any) -> None:
    with pytest.raises(WireError):
        wire.unpack(msgpack.packb(body))


@given(st.lists(leaves | st.lists(leaves, max_size=3), max_size=6))
def test_a_packed_body_unpacks_to_itself(body: list[Any]) -> None:
    assert wire.unpack(wire.pack(body)) == body


def test_a_refused_body_leaves_nothing_behind() -> None:
    with pytest.raises(LocalError):
        wire.pack([1, object()])
    assert wire.pack([2]) == b"\x91\x02"
