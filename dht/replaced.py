"""Sequence numbers that a shelf must remember longer than the records: against replays of what was replaced.

Decides which records that lie under no key any more are stale all the same. An old record may have been signed for
longer than the newer one that replaced it; when the newer one has run out, anybody who kept the old one could bring
it back, and nothing that the shelf still holds would speak against it. Pure.
"""

from __future__ import annotations

from .aging import Aging
from .record import Record

# What is remembered: a writer is allowed 60 writes a minute, so the last minute of 64 of them. The latest are kept.
MAX_REPLACED = 4_096


class Replaced:
    """The lowest sequence number that an owner may still use under a key, and until when that matters."""

    def __init__(self) -> None:
        self._least: Aging[tuple[bytes, bytes], tuple[int, int]] = Aging()

    def __len__(self) -> int:
        return len(self._least)

    def note(self, key: bytes, old: Record, new: Record) -> None:
        """`new` takes the place of `old`; it matters as long as any former one would be unexpired."""
        name = (key, new.owner)
        until_ms = max(old.expires_ms, self._least.pop(name, (0, 0))[1])
        if until_ms > new.expires_ms:
            self._least[name] = (new.seq, until_ms)
            if len(self._least) > MAX_REPLACED:
                self._least.pop_oldest()

    def is_stale(self, key: bytes, record: Record, now_ms: int) -> bool:
        """Whether this record was replaced by one that has gone since."""
        seq, until_ms = self._least.get((key, record.owner), (0, 0))
        if until_ms <= now_ms:
            self._least.pop((key, record.owner), None)
            return False
        return record.seq < seq
