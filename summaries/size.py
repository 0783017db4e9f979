"""How many bytes a message takes on the wire, without making them.

The driver packs messages with msgpack in its shortest form; counting lets a holder fill a page to
just under the bound that a datagram sets. Source: the msgpack specification's format overview.
"""

from __future__ import annotations

from typing import Any

from summaries.errors import LocalError

MAX_MESSAGE_BYTES = 1_100  # a 1,200-byte datagram less its header, MAC and the overlay's own frame


def packed_size(value: Any) -> int:
    """The bytes that msgpack needs for a list, integer, text, bytes, bool or None."""
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, int):
        return _integer_size(value)
    if isinstance(value, bytes):
        length = len(value)
        return length + (2 if length < 1 << 8 else 3 if length < 1 << 16 else 5)
    if isinstance(value, str):
        length = len(value.encode())
        return length + (1 if length < 32 else 2 if length < 1 << 8 else 3 if length < 1 << 16 else 5)
    if isinstance(value, (list, tuple)):
        length = len(value)
        return (1 if length < 16 else 3 if length < 1 << 16 else 5) + sum(map(packed_size, value))
    raise LocalError(f"{type(value).__name__} does not travel")


def _integer_size(value: int) -> int:
    if -32 <= value < 128:
        return 1
    for size, bits in ((2, 8), (3, 16), (5, 32)):
        if -(1 << (bits - 1)) <= value < 1 << bits:
            return size
    return 9
