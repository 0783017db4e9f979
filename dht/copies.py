"""Copies that readers leave on the path to a much-read value: few, short-lived, apart from what the node holds.

Decides how long a copy lives: half as long for each bit that the node is farther from the key than those who hold
the record, and never past the record's own expiry. Pure.
Source: Maymounkov and Mazieres 2002, section 2.5 (a lifetime exponentially inverse to the distance, against
over-caching). Copies are only given to readers who ask for one owner's value and accept an answer of that age.
"""

from __future__ import annotations

from .aging import Aging
from .record import Record

# A copy at the edge of the holders lives for so long; a reader of a copy sees nothing older than this.
COPY_LIFE_MS = 300_000
# Shorter lives are not worth a place.
MIN_COPY_LIFE_MS = 2_000
# Records of at most 1,000 bytes: a quarter of a MiB an overlay.
MAX_COPIES = 256


def copy_life_ms(own_distance: int, holder_distance: int) -> int:
    """How long a node at this distance keeps a copy, when the farthest holder is at that one."""
    halvings = max(0, own_distance.bit_length() - holder_distance.bit_length())
    life_ms = COPY_LIFE_MS >> min(halvings, 64)
    return life_ms if life_ms >= MIN_COPY_LIFE_MS else 0


class Copies:
    """Copies by key and owner, the longest unread forgotten first."""

    def __init__(self) -> None:
        self._kept: Aging[tuple[bytes, bytes], tuple[int, Record]] = Aging()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: bytes, record: Record, life_ms: int, now_ms: int) -> bool:
        """Keep a copy, unless it is no newer than the one that is there; whether it was kept."""
        until_ms = min(record.expires_ms, now_ms + life_ms)
        if until_ms <= now_ms:
            return False
        name = (key, record.owner)
        known = self._kept.get(name)
        if known is not None and known[0] > now_ms and known[1].seq >= record.seq:
            # Renewing would let readers keep an old value alive for ever.
            return False
        self._kept[name] = (until_ms, record)
        self._kept.touch(name)
        if len(self._kept) > MAX_COPIES:
            self._kept.pop_oldest()
        return True

    def get(self, key: bytes, owner: bytes, now_ms: int) -> Record | None:
        """The live copy of one owner's record."""
        name = (key, owner)
        kept = self._kept.get(name)
        if kept is None:
            return None
        if kept[0] <= now_ms:
            del self._kept[name]
            return None
        self._kept.touch(name)
        return kept[1]
