"""The records that one node holds for one overlay: bounded, with quotas, expiring, newest wins.

Decides what is kept and why the rest is refused; a refusal is a returned word, because it is expected.
Leaves signatures to `record` and sending to `overlay`. Several owners may write under one key; each
has one record there, replaced only by a higher sequence number of its own.

When all is full, room is made at the expense of the owner who holds the most, and only for one who would still
hold less than that owner keeps: so a flood, however long, drops the flooder's records and nobody else's. It is
max-min fairness (Demers, Keshav and Shenker 1989: the longest queue pays) applied to memory.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable

from .record import Record
from .replaced import Replaced

# Against floods: records per owner and holder, writes per minute, bytes of one owner and in all.
MAX_RECORDS_PER_OWNER = 64
MAX_WRITES_PER_MINUTE = 60
MAX_OWNER_BYTES = 2**20
MAX_BYTES = 64 * 2**20
# Owners under one key: what a reader can page through in a few datagrams.
MAX_OWNERS_PER_KEY = 64
# Owners whose writes of the last minute are counted; the longest silent one is forgotten first.
MAX_WRITERS = 4_096
# Entries of the expiry queue beyond twice the live records: more are those of replaced records, and are cleaned out.
MAX_EXPIRY_SLACK = 256
# What a record weighs beside its bytes: measured about 600 B of objects, rounded up.
_OVERHEAD_BYTES = 1_024

STORED = "stored"
KNOWN = "known"


class Shelf:
    """Records by key and owner."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.evictions = 0
        # Told of two records with one sequence number: a fraud, which they prove.
        self.on_contradiction: Callable[[Record, Record], None] | None = None
        self._by_key: dict[bytes, dict[bytes, Record]] = {}
        self._keys_of_owner: dict[bytes, set[bytes]] = {}
        self._bytes_of_owner: dict[bytes, int] = {}
        # (minus bytes, owner), with outdated entries among them: the heaviest owner is first.
        self._heaviest: list[tuple[int, bytes]] = []
        self._writes: OrderedDict[bytes, deque[int]] = OrderedDict()
        self._expiries: list[tuple[int, bytes, bytes, int]] = []
        self._replaced = Replaced()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def judge(self, key: bytes, record: Record, now_ms: int) -> str:
        """What `put` would say of this record, but for the rate of writing and the room in all."""
        self.expire(now_ms)
        if record.expires_ms <= now_ms:
            return "expired"
        under_key = self._by_key.get(key, {})
        held = under_key.get(record.owner)
        if held is not None:
            if record.envelope.id == held.envelope.id:
                return KNOWN
            if record.seq == held.seq:
                if self.on_contradiction is not None:
                    self.on_contradiction(held, record)
                return "conflict: another record has this sequence number"
            if record.seq < held.seq:
                return "stale"
        elif self._replaced.is_stale(key, record, now_ms):
            return "stale"
        elif len(under_key) >= MAX_OWNERS_PER_KEY and not record.sole:
            # The one owner of a value of one writer cannot be kept out by those who squat on its key.
            return "full: too many owners under this key"
        elif len(self._keys_of_owner.get(record.owner, ())) >= MAX_RECORDS_PER_OWNER:
            return "quota: too many records of this owner"
        before = _weight(held) if held is not None else 0
        if self._bytes_of_owner.get(record.owner, 0) - before + _weight(record) > MAX_OWNER_BYTES:
            return "quota: too many bytes of this owner"
        return STORED

    def put(self, key: bytes, record: Record, now_ms: int, *, limited: bool = True) -> str:
        """`stored`, `known` (the same record again), or the reason why not.

        `limited=False` is for what this node writes itself: quotas hold, the write rate does not.
        """
        outcome = self.judge(key, record, now_ms)
        if outcome != STORED:
            return outcome
        held = self._by_key.get(key, {}).get(record.owner)
        weight = _weight(record) - (_weight(held) if held is not None else 0)
        if limited and not self.may_write(record.owner, now_ms):
            return "rate: too many writes in a minute"
        if self.used_bytes + weight > self.max_bytes and not self._make_room(record.owner, weight):
            return "full"
        self._keep(key, record, weight)
        return STORED

    def _keep(self, key: bytes, record: Record, weight: int) -> None:
        under_key = self._by_key.setdefault(key, {})
        held = under_key.get(record.owner)
        if held is None:
            self._count += 1
        else:
            self._replaced.note(key, held, record)
        under_key[record.owner] = record
        self._keys_of_owner.setdefault(record.owner, set()).add(key)
        self._weigh(record.owner, weight)
        heapq.heappush(self._expiries, (record.expires_ms, key, record.owner, record.seq))
        if len(self._expiries) > 2 * self._count + MAX_EXPIRY_SLACK:
            self._expiries = [entry for entry in self._expiries if self._is_live(*entry)]
            heapq.heapify(self._expiries)

    def _is_live(self, expires_ms: int, key: bytes, owner: bytes, seq: int) -> bool:
        held = self._by_key.get(key, {}).get(owner)
        return held is not None and held.seq == seq

    def get(self, key: bytes, now_ms: int) -> list[Record]:
        """The live records under a key, by owner."""
        self.expire(now_ms)
        held = self._by_key.get(key)
        return [held[owner] for owner in sorted(held)] if held else []

    def get_of(self, key: bytes, owner: bytes, now_ms: int) -> Record | None:
        """The live record of one owner under a key."""
        self.expire(now_ms)
        return self._by_key.get(key, {}).get(owner)

    def all_keys(self) -> list[bytes]:
        """Every key that something lies under, in order."""
        return sorted(self._by_key)

    def bytes_of(self, owner: bytes) -> int:
        """What one owner's records weigh."""
        return self._bytes_of_owner.get(owner, 0)

    def expire(self, now_ms: int) -> None:
        """Drop what has run out."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, key, owner, seq = heapq.heappop(self._expiries)
            held = self._by_key.get(key, {}).get(owner)
            if held is not None and held.seq == seq:
                self._drop(key, held)

    def may_write(self, owner: bytes, now_ms: int) -> bool:
        """Whether an owner may write once more in this minute; asking counts."""
        writes = self._writes.setdefault(owner, deque())
        self._writes.move_to_end(owner)
        if len(self._writes) > MAX_WRITERS:
            self._writes.popitem(last=False)
        while writes and writes[0] <= now_ms - 60_000:
            writes.popleft()
        if len(writes) >= MAX_WRITES_PER_MINUTE:
            return False
        writes.append(now_ms)
        return True

    def _drop(self, key: bytes, record: Record) -> None:
        owners = self._by_key[key]
        del owners[record.owner]
        self._count -= 1
        if not owners:
            del self._by_key[key]
        keys = self._keys_of_owner[record.owner]
        keys.discard(key)
        self._weigh(record.owner, -_weight(record))
        if not keys:
            # Its writes stay counted: else records that live for a moment would have no rate.
            del self._keys_of_owner[record.owner]

    def _weigh(self, owner: bytes, change_bytes: int) -> None:
        self.used_bytes += change_bytes
        now_bytes = self._bytes_of_owner.get(owner, 0) + change_bytes
        if not now_bytes:
            self._bytes_of_owner.pop(owner, None)
            return
        self._bytes_of_owner[owner] = now_bytes
        heapq.heappush(self._heaviest, (-now_bytes, owner))
        if len(self._heaviest) > 64 + 4 * len(self._bytes_of_owner):
            self._heaviest = [(-each_bytes, each) for each, each_bytes in self._bytes_of_owner.items()]
            heapq.heapify(self._heaviest)

    def _heaviest_owner(self) -> bytes:
        while self._heaviest:
            minus_bytes, owner = self._heaviest[0]
            if self._bytes_of_owner.get(owner) == -minus_bytes:
                return owner
            heapq.heappop(self._heaviest)
        return b""

    def _make_room(self, owner: bytes, weight: int) -> bool:
        """Drop records of the heaviest owners; all of them stay when even that would not do."""
        dropped: list[tuple[bytes, Record]] = []
        while self.used_bytes + weight > self.max_bytes:
            heaviest = self._heaviest_owner()
            if heaviest == owner or self.bytes_of(heaviest) <= self.bytes_of(owner) + weight:
                for key, record in dropped:
                    self._keep(key, record, _weight(record))
                return False
            dropped.append(self._first_to_expire(heaviest))
            self._drop(*dropped[-1])
        self.evictions += len(dropped)
        return True

    def _first_to_expire(self, owner: bytes) -> tuple[bytes, Record]:
        at = {key: self._by_key[key][owner] for key in sorted(self._keys_of_owner[owner])}
        key = min(at, key=lambda each: (at[each].expires_ms, each))
        return key, at[key]


def _weight(record: Record) -> int:
    return len(record.raw) + len(record.blob) + _OVERHEAD_BYTES
