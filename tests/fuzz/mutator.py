"""A seeded mutator of bytes and of datagram bodies."""

from __future__ import annotations

import random
from typing import Any

import msgpack

# Values at the edges of what the wire carries, and beyond.
EDGES: tuple[Any, ...] = (0, 1, -1, 127, 128, 255, 256, 65_535, 65_536, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
LONG = b"\xff" * 4
RAW_EDGES = (b"", b"\0", b"\xff" * 8, b"\xc1", b"\xdd" + LONG, b"\xdf" + LONG, b"\x91" * 64, b"\xc7\x01\x01\x00")


class Mutator:
    """`bytes_of(data)` and `fields_of(array)` give something near what they were given."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def bytes_of(self, data: bytes) -> bytes:
        """One to three small changes."""
        changed = bytearray(data)
        for _ in range(self.rng.randint(1, 3)):
            self._change(changed)
        return bytes(changed)

    def fields_of(self, array: list[Any]) -> bytes:
        """A packed array in which one place holds something else, or which is longer, shorter, or cut."""
        rng = self.rng
        fields = list(array)
        choice = rng.randrange(8)
        place = rng.randrange(len(fields)) if fields else 0
        if choice == 0 and fields:
            del fields[place]
        elif choice == 1:
            fields.insert(place, self.value())
        elif choice in (2, 3) and fields:
            fields[place] = self.value()
        elif choice == 4 and fields and isinstance(fields[place], list):
            return self.packed([*fields[:place], _Raw(self.fields_of(fields[place])), *fields[place + 1 :]])
        elif fields and isinstance(fields[place], bytes):
            fields[place] = self.bytes_of(fields[place])
        elif fields and isinstance(fields[place], int):
            fields[place] = rng.choice(EDGES)
        else:
            return self.bytes_of(self.packed(fields))
        return self.packed(fields)

    def value(self, depth: int = 0) -> Any:
        """Anything at all."""
        rng = self.rng
        choice = rng.randrange(9)
        if choice == 0:
            return None
        if choice == 1:
            return rng.choice((True, False))
        if choice <= 3:
            return rng.choice(EDGES)
        if choice == 4:
            return rng.randbytes(rng.choice((0, 1, 8, 20, 26, 32, 64, 300)))
        if choice == 5:
            return rng.choice(("", "x", "\u0301", "a" * 300))
        if choice == 6:
            return 1.5
        if choice == 7 and depth < 8:
            return [self.value(depth + 1) for _ in range(rng.randrange(4))]
        return {"x": 1} if rng.random() < 0.5 else []

    def _change(self, data: bytearray) -> None:
        rng = self.rng
        choice = rng.randrange(7)
        place = rng.randrange(len(data) + 1)
        if choice == 0 and data:
            data[place % len(data)] ^= 1 << rng.randrange(8)
        elif choice == 1 and data:
            data[place % len(data)] = rng.randrange(256)
        elif choice == 2:
            data[place:place] = rng.choice(RAW_EDGES)
        elif choice == 3:
            del data[place : place + rng.randrange(1, 9)]
        elif choice == 4:
            del data[place:]
        elif choice == 5:
            data[place:place] = data[place : place + rng.randrange(1, 33)]
        else:
            data += rng.randbytes(rng.randrange(1, 33))

    def packed(self, fields: list[Any]) -> bytes:
        parts = [each.data if isinstance(each, _Raw) else msgpack.packb(each, use_bin_type=True) for each in fields]
        count = len(parts)
        head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
        return head + b"".join(parts)


class _Raw:
    """Bytes that are packed already."""

    def __init__(self, data: bytes) -> None:
        self.data = data
