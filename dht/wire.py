"""Canonical, bounded msgpack: the one way in which values become bytes.

Decides which bytes are a value and which value has which bytes, so that a signature over a value means
one thing. Leaves signing to `envelope` and datagrams to `datagram`. msgpack 1.x silently accepts
duplicate keys, long-form integers, NaN and ext types; hence signed values are decoded, encoded again
and compared. Datagram bodies (`pack`, `unpack`) only keep the limits, because the MAC already says who
wrote them and nobody signs them.
"""

from __future__ import annotations

import unicodedata
from typing import Any, TypeAlias

import msgpack

from .errors import LocalError, WireError

Value: TypeAlias = "bool | int | str | bytes | list[Value] | dict[str, Value] | None"

# Nesting of a signed value; the deepest message of the platform uses 5 levels.
MAX_DEPTH = 8
# Nesting of a datagram body: rows in lists in a message.
MAX_BODY_DEPTH = 6
# The largest signed value: what a chunked record may weigh.
MAX_VALUE_BYTES = 65_536
# The largest datagram body, so that the whole stays under 1,200 bytes.
MAX_BODY_BYTES = 1_163
_MIN_INT = -(2**63)
_MAX_INT = 2**64 - 1

# What has one form only.
_PLAIN = frozenset((bytes, int, bool))

_packer = msgpack.Packer(use_bin_type=True, strict_types=True)


def encode(value: Value) -> bytes:
    """The one byte string that stands for `value`; LocalError for what the wire cannot carry."""
    try:
        packed: bytes = _packer.pack(_canonical(value, 1))
    except (ValueError, OverflowError, TypeError) as error:
        _packer.reset()
        raise LocalError(f"not a value of the wire: {error}") from None
    return packed


def decode(data: bytes, *, max_bytes: int = MAX_VALUE_BYTES) -> Value:
    """The value that `data` stands for, if `data` is exactly how we would have written it."""
    if len(data) > max_bytes:
        raise WireError(f"{len(data)} bytes are more than the {max_bytes} allowed here")
    value: Value = _unpack(data, max_map=len(data))
    try:
        _check_canonical(value, 1)
        again = _packer.pack(value)
    except (ValueError, OverflowError, TypeError) as error:
        _packer.reset()
        raise WireError(f"not a value of the wire: {error}") from None
    if again != data:
        raise WireError("not in canonical form (duplicate or unsorted keys, or a long form)")
    return value


def pack(array: list[Any]) -> bytes:
    """The bytes of a datagram body: a positional array of integers, strings, bytes and arrays."""
    try:
        packed: bytes = _packer.pack(array)
    except (ValueError, OverflowError, TypeError) as error:
        _packer.reset()
        raise LocalError(f"not a body of the wire: {error}") from None
    return packed


def unpack(data: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> list[Any]:
    """The positional array in a datagram body; maps, floats, ext types and deep nesting are refused."""
    if len(data) > max_bytes:
        raise WireError(f"a body of {len(data)} bytes; at most {max_bytes} are allowed")
    array = _unpack(data, max_map=0)
    if type(array) is not list:
        raise WireError("a body must be an array")
    _check_body(array, 1)
    return array


def unpack_flat(data: bytes) -> list[Any]:
    """`unpack` for who checks the type of each field itself, as the reader of every datagram does."""
    array = _unpack(data, max_map=0)
    if type(array) is not list:
        raise WireError("a body must be an array")
    return array


def _unpack(data: bytes, *, max_map: int) -> Any:
    try:
        # Text, bytes and arrays may be as long as the data: `unpackb` has that bound by itself.
        return msgpack.unpackb(data, raw=False, max_map_len=max_map, max_ext_len=0)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException, RecursionError) as error:
        # UnicodeDecodeError, ExtraData, FormatError and StackError are all ValueErrors.
        raise WireError(f"malformed msgpack: {type(error).__name__}") from None


def _check_body(array: list[Any], depth: int) -> None:
    if depth > MAX_BODY_DEPTH:
        raise WireError(f"nested deeper than {MAX_BODY_DEPTH}")
    for item in array:
        kind = type(item)
        if kind is list:
            _check_body(item, depth + 1)
        elif kind is not int and kind is not bytes and kind is not str and kind is not bool and item is not None:
            raise WireError(f"a {kind.__name__} has no place in a body")


def _check_canonical(value: Any, depth: int) -> None:
    """ValueError unless `_canonical` would give the value back as it is; it is read only, because most are right."""
    kind = type(value)
    if kind is str:
        if not value.isascii() and not unicodedata.is_normalized("NFC", value):
            raise ValueError("text that is not in Unicode normal form C")
    elif kind is dict:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        before = ""
        for key, item in value.items():
            if type(key) is not str:
                raise ValueError("a key that is not a string")
            if key < before:
                raise ValueError("keys that are not sorted")
            before = key
            if not key.isascii():
                _check_canonical(key, depth)
            if type(item) not in _PLAIN:
                _check_canonical(item, depth + 1)
    elif kind is list:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        for item in value:
            if type(item) not in _PLAIN:
                _check_canonical(item, depth + 1)
    elif kind is not int and kind is not bytes and kind is not bool and value is not None:
        raise ValueError(f"a {kind.__name__}")


def _canonical(value: Any, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is bytes:
        return value
    if kind is int:
        if not _MIN_INT <= value <= _MAX_INT:
            raise ValueError("an integer beyond 64 bits")
        return value
    if kind is str:
        if not value.isascii() and not unicodedata.is_normalized("NFC", value):
            raise ValueError("text that is not in Unicode normal form C")
        return value
    if kind is list or kind is tuple:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        return [_canonical(item, depth + 1) for item in value]
    if kind is dict:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        for key in value:
            if type(key) is not str:
                raise ValueError("a key that is not a string")
        return {_canonical(key, depth): _canonical(value[key], depth + 1) for key in sorted(value)}
    raise ValueError(f"a {kind.__name__}")
