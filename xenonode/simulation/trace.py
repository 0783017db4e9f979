"""The trace hash: two runs are the same run when, and only when, their hashes agree.

Decides: what enters the hash, and how entries are told apart (each carries its kind, time and length). The network
notes each datagram and stream segment; a ledger or a checker may `note` whatever else must be repeatable.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xenonode.simulation.loop import VirtualLoop

DIGEST_BYTES = 16  # 128 bits: an accidental collision between two runs will not be seen
_HEADER = struct.Struct("<QHI")


class Trace:
    """The running hash over all that happened, in order. `listener` hears of each entry: when, its kind, both parts."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self.listener: Callable[[int, str, bytes, bytes], None] | None = None
        self._names: dict[str, bytes] = {}

    def note(self, kind: str, data: bytes, rest: bytes = b"") -> None:
        """Enter one thing that happened now: `data`, then `rest`."""
        now_ns, name = self._loop.now_ns, self._names.get(kind) or self._name(kind)
        self._hash.update(_HEADER.pack(now_ns, len(name), len(data) + len(rest)) + name + data)
        if rest:
            self._hash.update(rest)
        if self.listener is not None:
            self.listener(now_ns, kind, data, rest)

    def _name(self, kind: str) -> bytes:
        name = self._names[kind] = kind.encode()
        return name

    def hexdigest(self) -> str:
        """Return the hash so far."""
        return self._hash.hexdigest()


class Untraced(Trace):
    """Keeps nothing, so it proves nothing: for who measures what tracing costs, or needs every second."""

    def note(self, kind: str, data: bytes, rest: bytes = b"") -> None:
        """Forget what happened."""
