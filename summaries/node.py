"""One trie node at one holder: its rows, its entries, its split bits and what it last claimed.

A trie node is a leaf (rows), an aggregation point (entries), or both while it splits. Decides what
its zone is and what it would answer; holder.py decides whom to tell. Pure state: no messages out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from summaries.messages import EntryFact, Offer, Posting
from summaries.packing import Packable
from summaries.point import Rows
from summaries.schema import Schema
from summaries.trie import LEVEL_BITS, Prefix, destination, needed_splits, region, split_bit
from summaries.zone import Zone, zone_of

MAX_ENTRY_HOLDERS = 8  # holders remembered a child: R = 3, plus those that churn left behind
TOMBSTONE_S = 1_350  # three TTLs of 450 s: longer than any late copy of the advert stays valid
MAX_TOMBSTONES = 4_096  # a node: eight times the capacity of a leaf
MAX_VOTERS = 64  # holders whose word on splits is remembered a node: as many as it has children
HANDED_S = 60  # twice what a search may take: whoever saw a row here may ask for its advert
MAX_HANDED = 4_096  # a node: eight times the capacity of a leaf
ENTRY_LIFE_MS = 90_000  # three heartbeats of 30 s
LEFT_MS = 30_000  # as long as a search may take: whoever began before a row stood elsewhere still finds it here
MAX_LEFT = 4_096  # a node: twice the capacity of a leaf


@dataclass(slots=True)
class Entry:
    """What one holder of a child last said; replaced only by a higher (incarnation, version)."""

    incarnation: int
    version: int
    zone: Zone
    heard_ms: int


@dataclass(slots=True)
class Waiter:
    """A request that is answered once our parent knows a zone that includes `zone`: an insert's, or an offer's."""

    request: object
    zone: Zone
    offer: Offer | None = None


@dataclass(slots=True)
class TrieNode:
    prefix: Prefix
    schema: Schema
    rows: Rows
    splits: int = 0
    entries: dict[Prefix, dict[bytes, Entry]] = field(default_factory=dict)
    tombstones: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    votes: dict[bytes, int] = field(default_factory=dict)  # split bits that one holder each told us of
    handed: dict[int, tuple[int, int]] = field(default_factory=dict)  # id: key, and until when that is worth knowing
    left: Rows | None = None  # rows that moved to another leaf lately: for searches under way, counted by nobody
    left_until_ms: dict[tuple[int, int], int] = field(default_factory=dict)
    zone: Zone = field(init=False)
    claimed: Zone = field(init=False)  # what we last told our parent
    settled: bool = False  # and whether a quorum of its holders has it
    climbing: int = 0  # groups of the parent's holders that have not got the claim on its way yet
    grew: bool = False  # whether the zone outgrew a claim lately: the next one leaves room
    told_ms: int = 0  # when the last claim set out
    climb_ms: int = 0  # no claim sets out before
    failures: int = 0  # claims since the last one that a quorum took
    version: int = 0
    refresh_ms: int = 0
    hand_over_ms: int = 0  # when our turn to hand rows down comes
    ready: bool = False
    waiters: list[Waiter] = field(default_factory=list)
    matching: tuple[tuple[object, ...], tuple[int, list[Packable]]] | None = field(
        default=None, compare=False
    )  # what answer.py found last, and for which question
    _compared: tuple[Zone, Zone, bool] | None = None  # claim, zone, and whether the one covers the other

    def __post_init__(self) -> None:
        self.zone = self.claimed = Zone.empty(self.schema)

    @property
    def is_split(self) -> bool:
        return bool(self.splits and self.splits & split_bit(self.prefix))

    @property
    def is_covered(self) -> bool:
        """Whether all that is here is inside what we last told our parent. Asked every second, and seldom new."""
        known = self._compared
        if known is None or known[0] is not self.claimed or known[1] is not self.zone:
            known = self._compared = self.claimed, self.zone, self.claimed.covers(self.zone)
        return known[2]

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting this node."""
        return not (len(self.rows) or self.entries or self.waiters or self.is_split or self.left_until_ms)

    def destination(self, key: int) -> Prefix:
        return destination(self.prefix, self.splits, key)

    def mark(self, splits: int) -> bool:
        """Add the split bits that lie at or below this node; whether any was new."""
        before = self.splits
        self.splits |= splits & region(self.prefix)
        return self.splits != before

    def vote(self, splits: int, voter: bytes) -> bool:
        """Another holder says that these are split: they are once two say so. Whether any was new.

        Splits are for ever, and one liar is near many prefixes: by its word alone every trie would be shredded.
        """
        said = splits & region(self.prefix) & ~self.splits
        if not said:
            return False
        agreed = 0
        for other in sorted(self.votes):
            agreed |= self.votes[other] & said if other != voter else 0
        if voter not in self.votes and len(self.votes) >= MAX_VOTERS:
            del self.votes[next(iter(self.votes))]
        self.votes[voter] = self.votes.get(voter, 0) | said
        return self.mark(agreed)

    def overflow(self, capacity: int) -> bool:
        """Mark the splits that a leaf above capacity needs; whether there were any."""
        if self.is_split or len(self.rows) <= capacity:
            return False
        return self.mark(splits_for(self.prefix, self.rows.keys(), capacity))

    def hear(self, child: Prefix, holder: bytes, incarnation: int, version: int, zone: Zone, now_ms: int) -> bool:
        """Take an entry in, unless it is not newer than the one held; whether it was taken."""
        holders = self.entries.setdefault(child, {})
        old = holders.get(holder)
        if old is not None and (incarnation, version) <= (old.incarnation, old.version):
            return False
        if old is None and len(holders) >= MAX_ENTRY_HOLDERS:
            stalest = min(sorted(holders), key=lambda one: holders[one].heard_ms)
            del holders[stalest]
        before = max((entry.zone.count for entry in holders.values()), default=0)
        leaves = max((entry.zone.leaves for entry in holders.values()), default=0)
        holders[holder] = Entry(incarnation, version, zone, now_ms)
        # What is told again, or by another replica, is the same set: only what it grew by is counted.
        self.zone = self.zone.widened(zone, max(zone.count - before, 0), max(zone.leaves - leaves, 0))
        return True

    def lacks(self, postings: Sequence[Posting]) -> tuple[int, ...]:
        """The places of those postings that are not here, or that searches are not led to yet."""
        found = [self.rows.find(one.id, one.key) for one in postings]
        return tuple(
            place
            for place, (point, one) in enumerate(zip(found, postings))
            if point is None or point.seq < one.seq or not self.claimed.covers(zone_of(self.schema, point))
        )

    def hand(self, id: int, key: int, now_ms: int) -> None:
        """A row is below now: drop it, and remember for a while where it went."""
        self.rows.drop(id, key)
        if len(self.handed) >= MAX_HANDED:
            del self.handed[next(iter(self.handed))]
        self.handed[id] = key, now_ms // 1000 + HANDED_S

    def leave(self, id: int, key: int, now_ms: int) -> None:
        """The server's row stands under another key by now. A search that looked there before finds it here."""
        point, raw = self.rows.find(id, key), self.rows.raw_of(id, key)
        self.rows.drop(id, key)
        if point is not None and raw is not None and len(self.left_until_ms) < MAX_LEFT:
            self.left = self.left or Rows(self.schema)
            self.left.put(point, key, raw)
            self.left_until_ms[id, key] = now_ms + LEFT_MS

    def shown(self, now_ms: int) -> list[Rows]:
        """The rows that searches are shown."""
        if self.left is not None:
            for id, key in [one for one, until_ms in self.left_until_ms.items() if until_ms <= now_ms]:
                self.left.drop(id, key)
                del self.left_until_ms[id, key]
            if not self.left_until_ms:
                self.left = None
        return [self.rows] if self.left is None else [self.rows, self.left]

    def shows(self, below: Prefix, zone: Zone) -> bool:
        """Whether a reader of this aggregation point is led to `below`, if it looks for something in this zone."""
        length = min(below.length, self.prefix.length + LEVEL_BITS)
        known = Zone.empty(self.schema)
        for entry in self.entries.get(Prefix(below.bits >> (below.length - length), length), {}).values():
            if entry.zone.count:
                known = known.union(entry.zone)
        return known.count > 0 and known.covers(zone)

    def children(self) -> list[tuple[Prefix, Zone, list[bytes]]]:
        """Every child with something in it: its holders' zones united, and those holders."""
        found = []
        for child in sorted(self.entries):
            zone, holders = Zone.empty(self.schema), []
            for holder, entry in sorted(self.entries[child].items()):
                if entry.zone.count:
                    zone = zone.same_set(entry.zone)
                    holders.append(holder)
            if holders:
                found.append((child, zone, holders))
        return found

    def holders_of(self, child: Prefix) -> tuple[bytes, ...]:
        """Who told of a child, as long as it has something."""
        return tuple(sorted(one for one, entry in self.entries.get(child, {}).items() if entry.zone.count))

    def frontier(self) -> list[Prefix]:
        """The unsplit prefixes below a split node that is no aggregation point itself."""
        if self.prefix.is_anchor or not self.is_split:
            return []
        found, work, end = [], [self.prefix], self.prefix.anchor.length + LEVEL_BITS
        while work:
            here = work.pop()
            if here.length < end and self.splits & split_bit(here):
                work += [here.child(1), here.child(0)]
            else:
                found.append(here)
        return found

    def facts(self) -> list[EntryFact]:
        return [
            EntryFact(child, holder, entry.incarnation, entry.version, entry.zone)
            for child, holders in sorted(self.entries.items())
            for holder, entry in sorted(holders.items())
        ]

    def rebuild(self, now_ms: int, wall_ms: int) -> None:
        """Drop what expired and recompute the zone, as tight as rows and entries allow."""
        self.rows.drop_expired(wall_ms // 1000)
        for child in sorted(self.entries):
            holders = self.entries[child]
            for holder in [one for one in holders if holders[one].heard_ms + ENTRY_LIFE_MS <= now_ms]:
                del holders[holder]
            if not holders:
                del self.entries[child]
        self.handed = {one: held for one, held in self.handed.items() if held[1] > now_ms // 1000}
        self.tombstones = {one: seq for one, seq in self.tombstones.items() if seq[1] > now_ms // 1000}
        shown, *left = self.shown(now_ms)
        zone = Zone.of_rows(shown)
        for rows in left:
            zone = zone.widened(Zone.of_rows(rows), 0, 0)
        for _, child_zone, _ in self.children():
            zone = zone.union(child_zone)
        self.zone = zone

    def bury(self, id: int, key: int, seq: int, now_ms: int) -> None:
        """Remember that rows up to `seq` under this key are gone."""
        if len(self.tombstones) >= MAX_TOMBSTONES:
            del self.tombstones[next(iter(self.tombstones))]
        buried = self.tombstones.get((id, key), (-1, 0))[0]
        self.tombstones[id, key] = (max(seq, buried), now_ms // 1000 + TOMBSTONE_S)


def splits_for(prefix: Prefix, keys: list[int], capacity: int) -> int:
    """The split bits of a leaf that holds more than `capacity` keys: as few as leave no child above it."""
    return needed_splits(prefix, keys, capacity)
