"""The records that one node holds for one overlay: bounded, with quotas, expiring, newest wins.

Decides what is kept and why the rest is refused; a refusal is a returned word, because it is expected.
Leaves signatures to `record` and sending to `overlay`. Several owners may write under one key; each
has one record there, replaced only by a higher sequence number of its own. Quotas are those of accounts: all keys of
one entity together, since keys cost less than entities; whoever brings records of unknown owners answers for them.

When all is full, room is made at the expense of the account that holds the most, and only for one that would still
hold less than that account keeps: so a flood, however long, drops the flooder's records and nobody else's. It is
max-min fairness (Demers, Keshav and Shenker 1989: the longest queue pays) applied to memory.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from .aging import Aging
from .record import Record
from .replaced import Replaced
from .writers import MAX_BROUGHT

# Against floods: records per account and holder, writes per minute, bytes of one account and in all.
MAX_RECORDS_PER_OWNER = 64
MAX_WRITES_PER_MINUTE = 60
MAX_OWNER_BYTES = 2**20
_OWNERS_QUOTAS = (MAX_RECORDS_PER_OWNER, MAX_OWNER_BYTES)
# The same for what one entity brings of owners who are not known: a neighbour hands over and repairs many at once.
MAX_BROUGHT_BYTES = 2 * MAX_OWNER_BYTES
MAX_BYTES = 64 * 2**20
# Owners under one key: what a reader can page through in a few datagrams.
MAX_OWNERS_PER_KEY = 64
# Accounts whose writes of the last minute are counted; the longest silent one is forgotten first.
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
        # By account: the keys and owners of its records, and their weight.
        self._places: dict[str, set[tuple[bytes, bytes]]] = {}
        self._bytes: dict[str, int] = {}
        # (minus bytes, account), with outdated entries among them: the heaviest account is first.
        self._heaviest: list[tuple[int, str]] = []
        self._writes: Aging[str, deque[int]] = Aging()
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
        return self._within_quotas(key, record, held)

    def _within_quotas(self, key: bytes, record: Record, held: Record | None) -> str:
        account = record.payer
        same = held is not None and held.payer == account
        most, most_bytes = (MAX_BROUGHT, MAX_BROUGHT_BYTES) if record.is_brought else _OWNERS_QUOTAS
        if not same and len(self._places.get(account, ())) >= most:
            return "quota: too many records of this owner"
        before = _weight(held) if held is not None and same else 0
        if self._bytes.get(account, 0) - before + _weight(record) > most_bytes:
            return "quota: too many bytes of this owner"
        return STORED

    def put(self, key: bytes, record: Record, now_ms: int, *, limited: bool = True) -> str:
        """`stored`, `known` (the same record again), or the reason why not.

        `limited=False` is for what this node writes itself: quotas hold, the write rate does not.
        """
        outcome = self.judge(key, record, now_ms)
        held = self._by_key.get(key, {}).get(record.owner)
        if outcome == KNOWN and held is not None and record.account:
            self._hand_over(key, held, record)
        if outcome != STORED:
            return outcome
        account = record.payer
        weight = _weight(record) - (_weight(held) if held is not None else 0)
        added = weight if held is not None and held.payer == account else _weight(record)
        # How often a member brings what is others' is counted by `Writers`.
        if limited and not record.is_brought and not self.may_write(account, now_ms):
            return "rate: too many writes in a minute"
        if self.used_bytes + weight > self.max_bytes and not self._make_room(account, weight, added):
            return "full"
        self._keep(key, record)
        return STORED

    def _hand_over(self, key: bytes, held: Record, again: Record) -> None:
        """The same record, brought by its owner's own entity: it answers for it from now on, if its quotas allow."""
        told = replace(held, account=again.account)
        if told.payer != held.payer and self._within_quotas(key, told, held) == STORED:
            self._discharge(key, held)
            self._by_key[key][held.owner] = told
            self._charge(key, told)

    def _keep(self, key: bytes, record: Record) -> None:
        under_key = self._by_key.setdefault(key, {})
        held = under_key.get(record.owner)
        if held is None:
            self._count += 1
        else:
            self._replaced.note(key, held, record)
            self._discharge(key, held)
        under_key[record.owner] = record
        self._charge(key, record)
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

    def held_as(self, key: bytes, raw: bytes, now_ms: int) -> Record | None:
        """The live record with exactly these bytes: it was checked when it came, and needs no second look."""
        self.expire(now_ms)
        for record in self._by_key.get(key, {}).values():
            if record.raw == raw:
                return record
        return None

    def all_keys(self) -> list[bytes]:
        """Every key that something lies under, in order."""
        return sorted(self._by_key)

    def bytes_of(self, account: str) -> int:
        """What one account's records weigh."""
        return self._bytes.get(account, 0)

    def expire(self, now_ms: int) -> None:
        """Drop what has run out."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, key, owner, seq = heapq.heappop(self._expiries)
            held = self._by_key.get(key, {}).get(owner)
            if held is not None and held.seq == seq:
                self._drop(key, held)

    def may_write(self, account: str, now_ms: int) -> bool:
        """Whether an account may write once more in this minute; asking counts."""
        writes = self._writes.setdefault(account, deque())
        self._writes.touch(account)
        if len(self._writes) > MAX_WRITERS:
            self._writes.pop_oldest()
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
        self._discharge(key, record)

    def _charge(self, key: bytes, record: Record) -> None:
        account = record.payer
        self._places.setdefault(account, set()).add((key, record.owner))
        self._weigh(account, _weight(record))

    def _discharge(self, key: bytes, record: Record) -> None:
        account = record.payer
        places = self._places[account]
        places.discard((key, record.owner))
        self._weigh(account, -_weight(record))
        if not places:
            # Its writes stay counted: else records that live for a moment would have no rate.
            del self._places[account]

    def _weigh(self, account: str, change_bytes: int) -> None:
        self.used_bytes += change_bytes
        now_bytes = self._bytes.get(account, 0) + change_bytes
        if not now_bytes:
            self._bytes.pop(account, None)
            return
        self._bytes[account] = now_bytes
        heapq.heappush(self._heaviest, (-now_bytes, account))
        if len(self._heaviest) > 64 + 4 * len(self._bytes):
            self._heaviest = [(-each_bytes, each) for each, each_bytes in self._bytes.items()]
            heapq.heapify(self._heaviest)

    def _heaviest_account(self) -> str:
        while self._heaviest:
            minus_bytes, account = self._heaviest[0]
            if self._bytes.get(account) == -minus_bytes:
                return account
            heapq.heappop(self._heaviest)
        return ""

    def _make_room(self, account: str, weight: int, added: int) -> bool:
        """Drop records of the heaviest accounts; all of them stay when even that would not do.

        `weight` is what is lacking in all, `added` what the account will weigh more.
        """
        dropped: list[tuple[bytes, Record]] = []
        while self.used_bytes + weight > self.max_bytes:
            heaviest = self._heaviest_account()
            if heaviest == account or self.bytes_of(heaviest) <= self.bytes_of(account) + added:
                for key, record in dropped:
                    self._keep(key, record)
                return False
            dropped.append(self._first_to_expire(heaviest))
            self._drop(*dropped[-1])
        self.evictions += len(dropped)
        return True

    def _first_to_expire(self, account: str) -> tuple[bytes, Record]:
        held = {(key, owner): self._by_key[key][owner] for key, owner in sorted(self._places[account])}
        place = min(held, key=lambda each: (held[each].expires_ms, each))
        return place[0], held[place]


def _weight(record: Record) -> int:
    return len(record.raw) + len(record.blob) + _OVERHEAD_BYTES
