"""The records that one node holds for one overlay: bounded, with quotas, expiring, newest wins.

Decides what is kept and why the rest is refused; a refusal is a returned word, because it is expected.
Leaves signatures to `record` and sending to `overlay`. Several owners may write under one key; each
has one record there, replaced only by a higher sequence number of its own.
"""

from __future__ import annotations

import heapq
from collections import deque

from .record import Record

# Against floods: records per owner and holder, writes per minute, bytes in all.
MAX_RECORDS_PER_OWNER = 64
MAX_WRITES_PER_MINUTE = 60
MAX_BYTES = 64 * 2**20
# Owners under one key: what a reader can page through in a few datagrams.
MAX_OWNERS_PER_KEY = 64
# What a record weighs beside its bytes: measured about 600 B of objects, rounded up.
_OVERHEAD_BYTES = 1_024

STORED = "stored"
KNOWN = "known"


class Shelf:
    """Records by key and owner."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._by_key: dict[bytes, dict[bytes, Record]] = {}
        self._keys_of_owner: dict[bytes, set[bytes]] = {}
        self._writes: dict[bytes, deque[int]] = {}
        self._expiries: list[tuple[int, bytes, bytes, int]] = []

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    def put(self, key: bytes, record: Record, now_ms: int, *, limited: bool = True) -> str:
        """`stored`, `known` (the same record again), or the reason why not.

        `limited=False` is for what this node writes itself: quotas hold, the write rate does not.
        """
        self.expire(now_ms)
        if record.expires_ms <= now_ms:
            return "expired"
        held = self._by_key.get(key, {}).get(record.owner)
        if held is not None:
            if record.envelope.id == held.envelope.id:
                return KNOWN
            if record.seq == held.seq:
                return "conflict: another record has this sequence number"
            if record.seq < held.seq:
                return "stale"
        elif len(self._by_key.get(key, ())) >= MAX_OWNERS_PER_KEY:
            return "full: too many owners under this key"
        elif len(self._keys_of_owner.get(record.owner, ())) >= MAX_RECORDS_PER_OWNER:
            return "quota: too many records of this owner"
        weight = _weight(record) - (_weight(held) if held is not None else 0)
        if self.used_bytes + weight > self.max_bytes:
            return "full"
        if limited and not self._may_write(record.owner, now_ms):
            return "rate: too many writes in a minute"
        self.used_bytes += weight
        self._by_key.setdefault(key, {})[record.owner] = record
        self._keys_of_owner.setdefault(record.owner, set()).add(key)
        heapq.heappush(self._expiries, (record.expires_ms, key, record.owner, record.seq))
        return STORED

    def get(self, key: bytes, now_ms: int) -> list[Record]:
        """The live records under a key, by owner."""
        self.expire(now_ms)
        held = self._by_key.get(key)
        return [held[owner] for owner in sorted(held)] if held else []

    def keys(self) -> list[bytes]:
        """Every key that something lies under, in order."""
        return sorted(self._by_key)

    def expire(self, now_ms: int) -> None:
        """Drop what has run out."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, key, owner, seq = heapq.heappop(self._expiries)
            held = self._by_key.get(key, {}).get(owner)
            if held is not None and held.seq == seq:
                self._drop(key, held)

    def _drop(self, key: bytes, record: Record) -> None:
        self.used_bytes -= _weight(record)
        owners = self._by_key[key]
        del owners[record.owner]
        if not owners:
            del self._by_key[key]
        keys = self._keys_of_owner[record.owner]
        keys.discard(key)
        if not keys:
            del self._keys_of_owner[record.owner]
            self._writes.pop(record.owner, None)

    def _may_write(self, owner: bytes, now_ms: int) -> bool:
        writes = self._writes.setdefault(owner, deque())
        while writes and writes[0] <= now_ms - 60_000:
            writes.popleft()
        if len(writes) >= MAX_WRITES_PER_MINUTE:
            return False
        writes.append(now_ms)
        return True


def _weight(record: Record) -> int:
    return len(record.raw) + _OVERHEAD_BYTES
