"""One trie node being read by a search: whom to ask, and when enough of them have answered.

A strict read unites the answers of so many replicas that every acknowledged advert is in one of
them: two of three, or all but one of those that the parent knows. One replica is read whole; the
others say only the digest of what they would answer, at the same time, and are read whole when it
is another one. A relaxed read takes one. While a replica is slow another one is asked in its place; whichever
answer first are enough, since any quorum has every acknowledged advert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from summaries.asks import REPLICAS
from summaries.messages import Answer, Child
from summaries.trie import Prefix, splitmix64


@dataclass(frozen=True, slots=True)
class Source:
    """A replica to ask: a named holder, or the replica-th nearest node that was not named."""

    holder: bytes | None
    replica: int = 0
    again: bool = False  # the second and last time: a datagram may simply have been lost


@dataclass(slots=True)
class Visit:
    """The reading of one prefix in one part of the plan."""

    part: int
    prefix: Prefix
    bound: int = 0
    count: int = 0
    leaves: int = 1
    depth: int = 1
    known_holders: int = 0
    holders: tuple[bytes, ...] = ()
    limit: int = 0
    digests: set[int] = field(default_factory=set)  # of answers that were read whole, or are known already
    need: int = 1
    least: int = 1  # the same where the network has no more nodes to ask
    sources: list[Source] = field(default_factory=list)
    open: int = 0  # sources asked that are not settled, parked ones too
    late: int = 0  # sources asked that are slower than usual: others are asked meanwhile, and they still count
    whole: int = 0  # of these, how many are being read whole
    parked: list[tuple[Source, int]] = field(default_factory=list)  # their digest waits for a whole answer
    succeeded: int = 0
    failed: int = 0
    absent: int = 0
    children: dict[Prefix, Child] = field(default_factory=dict)
    namings: Counter[Prefix] = field(default_factory=Counter)  # how many replicas that were read whole named a child
    wholes: int = 0  # how many were read whole
    doubts: int = 0  # steps in a row on the way here that one replica alone told us of
    below: list[Child] = field(default_factory=list)  # named with this one, to be read after it
    group: int = 0  # of a root's holders: all that are asked belong to it, since one voice of each group is no quorum
    rows: int = 0  # the most that one replica returned
    matched: int = 0
    last_rank: int = 0
    pruned: int = 0

    def prepare(self, strict: bool, turn: int, replicas: int = REPLICAS, *, every: bool = False) -> None:
        """Decide how many answers are needed, and in which order to ask; `turn` spreads searches over the replicas."""
        if strict:
            # Two of three even where the parent has heard of one: two others may have a row that it lacks.
            spare = replicas // 2
            self.least = max(1, self.known_holders - spare)
            self.need = max(replicas - spare, self.least)
        if every:  # an honest one among liars is enough
            self.need = max(self.need, replicas)
        self.sources = sources_of(self.prefix, self.holders, turn, replicas)

    def confirm(self) -> None:
        """One replica is not enough after all: a strict search goes on from here."""
        self.need = 2

    def next_sources(self) -> list[tuple[Source, bool]]:
        """Those to ask now, so that enough answers are under way, and whether for their digest only."""
        chosen = []
        for _ in range(max(self.need - self.succeeded - self.open, 0)):
            if not self.sources:
                break
            digest_only = bool(self.whole or self.digests)
            self.open += 1
            self.whole += not digest_only
            chosen.append((self.sources.pop(0), digest_only))
        return chosen

    def answered(self, source: Source, digest: int, digest_only: bool) -> list[Source]:
        """A replica answered; which ones must be read whole after all."""
        if not digest_only:
            self.whole -= 1
            self.digests.add(digest)
            self.wholes += 1
        if digest_only and digest not in self.digests:
            self.parked.append((source, digest))
        else:
            self.open -= 1
            self.succeeded += 1
        return self._unpark()

    def miss(self, source: Source, digest_only: bool, *, absent: bool = False) -> list[Source]:
        """A replica did not answer: it gets another chance once all others had theirs; who must be read whole now."""
        self.open -= 1
        self.whole -= not digest_only
        if absent:
            self.absent += 1
            # Where there is no second nearest there is no third; the nearest may be yet to be asked.
            self.sources = [
                one for one in self.sources if one.holder is not None or one.again or one.replica < source.replica
            ]
        else:
            self.failed += 1
            if not source.again and not self.group:  # a copy is not waited for: there is the root itself
                self.sources.append(replace(source, again=True))
        return self._unpark()

    def slow(self, digest_only: bool) -> list[Source]:
        """A replica takes longer than it should: it is not waited for where another can be asked; who is read whole."""
        self.open -= 1
        self.whole -= not digest_only
        self.late += 1
        return self._unpark()

    def back(self, digest_only: bool) -> None:
        """A slow one has answered, or is given up: it counts as before."""
        self.late -= 1
        self.open += 1
        self.whole += not digest_only

    def _unpark(self) -> list[Source]:
        if self.whole:
            return []
        self.open -= sum(digest in self.digests for _, digest in self.parked)
        self.succeeded += sum(digest in self.digests for _, digest in self.parked)
        self.parked = [one for one in self.parked if one[1] not in self.digests]
        if not self.parked:
            return []
        source, _ = self.parked.pop(0)  # the next ones may have the same
        self.whole += 1
        return [source]

    @property
    def is_over(self) -> bool:
        return self.open == 0 and (self.succeeded >= self.need or not (self.sources or self.late))

    @property
    def is_complete(self) -> bool:
        """Whether nothing acknowledged can have been missed here."""
        return self.succeeded >= self.need or (self.succeeded >= self.least and self.absent > 0 and not self.failed)

    def itself(self) -> Visit:
        """To be read in the place of a copy that could not be: nothing heard there counts but what it contained."""
        return replace(
            self, depth=self.depth + 1, need=1, least=1, sources=[], open=0, late=0, whole=0, parked=[], succeeded=0,
            failed=0, absent=0, wholes=0, namings=Counter(), group=0,
        )  # fmt: skip

    def take(self, answer: Answer) -> None:
        """Unite one page with what other replicas said."""
        for child in answer.children:
            if child.prefix.parent != self.prefix and not self._is_below(child.prefix):
                continue  # not ours to name: a lying holder
            self.namings[child.prefix] += 1
            old = self.children.get(child.prefix)
            self.children[child.prefix] = child if old is None else _both(old, child)
        self.matched = max(self.matched, answer.matched)
        self.pruned = max(self.pruned, answer.pruned)

    def named(self) -> dict[Prefix, Child]:
        """What is to be read once this is read: the children, and what the parent named below this prefix.

        What the replicas here name themselves is read whatever its zone was when the parent was read: rows that this
        prefix hands down come to it all the time.
        """
        found = dict(self.children)
        for child in self.below:
            mine = found.get(child.prefix)
            found[child.prefix] = child if mine is None else _both(mine, child)
        return found

    def doubts_of(self, child: Prefix) -> int:
        """The same for a child: none where another replica names it, too, or all agree."""
        return self.doubts + 1 if self.wholes > 1 and self.namings[child] < 2 else 0

    def _is_below(self, child: Prefix) -> bool:
        return child.length > self.prefix.length and self.prefix.covers(child)


def sources_of(prefix: Prefix, holders: Sequence[bytes], turn: int, replicas: int = REPLICAS) -> list[Source]:
    """Whom to ask for a prefix: its named holders, then the nearest others; `turn` spreads searches over the replicas.

    Those who are named hold the prefix for certain, so any of them may begin. Of others the nearest is it most likely.
    """
    first = splitmix64(turn ^ prefix.first)
    if not holders:
        return [Source(None, (first + replica) % replicas) for replica in range(replicas)]
    start = first % len(holders)
    begun = [*holders[start:], *holders[:start]]
    return [Source(holder) for holder in begun] + [Source(None, replica) for replica in range(replicas)]


def _both(a: Child, b: Child) -> Child:
    holders = tuple(dict.fromkeys(a.holders + b.holders))
    known = max(a.known_holders, b.known_holders, len(holders))
    return Child(a.prefix, min(a.bound, b.bound), max(a.count, b.count), max(a.leaves, b.leaves), known, holders)
