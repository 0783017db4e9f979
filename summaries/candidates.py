"""Rows that match by a holder's word, on their way to adverts that match by their servers'.

Decides which candidates are finished (probed, or fetched from a holder), verifies and matches what comes back, and
keeps all that are not rejected in the order of their ranks. Nothing is returned on a holder's word, and nothing is
given up on one: every holder that showed a row is asked for the advert before a server counts as unverified. While a
server is slow its advert is fetched from a holder as well, and whichever comes first will do.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from summaries.asks import REPLICAS, Ask, Outcome, Probe
from summaries.attributes import Attributes
from summaries.errors import RemoteError
from summaries.idset import IdSet
from summaries.messages import AdvertIs, Fetch, Moved, Row
from summaries.point import Point
from summaries.query import Query, matcher
from summaries.result import Match, Tally
from summaries.trie import Prefix
from summaries.visit import Source

MAX_PROBES = 32  # servers probed at once
MAX_CANDIDATES = 100_000
MAX_SHOWN = 2 * REPLICAS  # holders asked for one advert: those of a leaf and of one below it
MAX_CONTACTS = 3  # places at which one server is looked for: liars among its row's holders may name others
MAX_JUNK = 4  # rows whose advert is no good, before a replica's rows that nobody else shows are passed over
MAX_PLACES = 12  # Moved answers followed for one advert: deeper than any trie

# As Match(...) and Probe(...), in half their time: a search makes one of each for every answer.
_MATCH, _PROBE = partial(tuple.__new__, Match), partial(tuple.__new__, Probe)

Finish = Literal["probe", "fetch", "none"]
Verify = Callable[[bytes, int], Point | None]
_Shown = tuple[int, Prefix, Source]


@dataclass(slots=True)
class Candidate:
    """One server whose row matches, and who said so: a liar's row must not hide an honest one of the same server."""

    row: Row
    dimension: str
    depth: int
    rank: int
    seq: int  # the newest seen of this server: in a row, or verified
    state: Literal["new", "probing", "verified", "rejected"] = "new"
    match: Match | None = None  # kept while a row that claims to be newer is looked into
    own: bool = False  # whether the server itself answered: then what holders say of it counts no more
    contacts: tuple[bytes, ...] = ()  # where to ask the server
    asked: tuple[bytes, ...] = ()  # of all places that were ever to be asked
    shown: tuple[_Shown, ...] = ()  # who showed a row: each may be asked for the advert
    evaded: bool = False  # whether somebody who showed a row had nothing, or nothing to say, when asked for its advert
    witness: tuple[Prefix, Source] | None = None  # who was asked last for the advert
    places: int = 0  # that an advert was said to have moved to
    waits: int = 0  # questions for its advert that are open
    late: int = 0  # the same, of those that are slower than usual

    def claim(self, row: Row, prefix: Prefix, source: Source) -> None:
        """One more replica shows a row of this server."""
        if row.contact and row.contact not in self.asked and len(self.asked) < MAX_CONTACTS:
            self.asked += (row.contact,)
            self.contacts += (row.contact,)
        if len(self.shown) < MAX_SHOWN:
            self.shown += ((row.seq, prefix, source),)


class Candidates:
    """All candidates of one search. What is to be asked goes to `out`, numbered by `numbers`."""

    def __init__(
        self,
        query: Query,
        verify: Verify,
        finish: Finish,
        exclude: IdSet,
        within: IdSet | None,
        tally: Tally,
        numbers: Iterator[int],
        out: list[Ask | Probe],
        salts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._query, self._verify, self._finish, self._exclude = query, verify, finish, exclude if len(exclude) else ()
        self._matches = matcher(query.where)
        self._rank: Callable[[Attributes], int] = query.order.rank if query.order.by else lambda attributes: 0
        self._within, self._salts = within, salts
        self._tally, self._numbers, self._out = tally, numbers, out
        self._fetches: dict[int, tuple[Candidate, int]] = {}
        self._probes: dict[int, Candidate] = {}
        self._slow: set[int] = set()  # probes and fetches that take longer than usual
        self._busy = 0  # candidates that are being looked into
        self._candidates: dict[int, Candidate] = {}
        self._live: list[tuple[int, int]] = []  # (rank, id) of every candidate not rejected
        self._fresh: deque[int] = deque()
        self._junk: Counter[tuple[Prefix, Source]] = Counter()  # rows that a replica made up
        self.unverified: dict[int, None] = {}

    @property
    def is_busy(self) -> bool:
        return self._busy > 0

    @property
    def is_idle(self) -> bool:
        """Whether `finish` has nobody to ask, were there no limit."""
        return not self._fresh

    @property
    def count(self) -> int:
        """How many are not rejected."""
        return len(self._live)

    def better(self, bound: int) -> int:
        """How many rank below `bound`."""
        return bisect_left(self._live, (bound, -1))

    def found(self, limit: int | None) -> tuple[Match, ...]:
        """The best that are verified."""
        found = [self._candidates[id].match for _, id in self._live if self._candidates[id].state == "verified"]
        return tuple([match for match in found if match is not None][:limit])

    def offer(self, dimension: str, prefix: Prefix, depth: int, rows: tuple[Row, ...], source: Source) -> bool:
        """Take in rows of one answer; whether there was room for all."""
        candidates, exclude, within = self._candidates, self._exclude, self._within
        for row in rows:
            id, seq, rank, contact = row
            if id in exclude or (within is not None and id not in within):
                continue
            old = candidates.get(id)
            if old is None:
                if len(candidates) >= MAX_CANDIDATES:
                    return False
                at, shown = (contact,) if contact else (), ((seq, prefix, source),)
                made = Candidate(row, dimension, depth, rank, seq, "new", None, False, at, at, shown)
                candidates[id] = made
                self._renew(made, rank, True)
            elif not old.own:
                self._claimed_again(old, row, prefix, source)
        return True

    def _claimed_again(self, old: Candidate, row: Row, prefix: Prefix, source: Source) -> None:
        newer = row.seq > old.seq
        old.seq = max(old.seq, row.seq)
        old.claim(row, prefix, source)
        if self._finish == "none" or old.state == "new":
            if newer or (row.seq == old.row.seq and row.rank < old.rank):
                self._drop_live(old)
                old.row = row
                # The best that anybody claims: the advert itself will tell, and a false row must not push it back.
                self._renew(old, row.rank if self._finish == "none" else min(row.rank, old.rank), False)
        elif (old.state == "verified" and newer) or (old.state == "rejected" and (newer or row.id in self.unverified)):
            self.unverified.pop(row.id, None)
            self._drop_live(old)
            old.row, old.state = row, "new"
            self._renew(old, row.rank, True)

    def _renew(self, candidate: Candidate, rank: int, fresh: bool) -> None:
        """This candidate is worth looking into, at this rank."""
        row, candidate.rank = candidate.row, rank
        insort(self._live, (rank, row.id))
        if self._finish == "none":
            candidate.state, candidate.match = "verified", Match(row.id, row.seq, row.rank, row.contact)
        elif fresh:
            self._fresh.append(row.id)

    def fetched(self, ask: Ask, reply: Outcome, now_ms: int) -> None:
        """Take in a holder's copy of an advert, or where it has handed it, if that was asked for."""
        candidate, seq = self._fetches.pop(ask.number, (None, 0))
        if candidate is None:
            return
        if isinstance(reply, Moved) and ask.prefix.covers(reply.prefix) and candidate.places < MAX_PLACES:
            candidate.places += 1
            if reply.prefix != ask.prefix:
                there = tuple((seq, reply.prefix, Source(None, replica)) for replica in range(REPLICAS))
                candidate.shown = there + tuple(one for one in candidate.shown if one not in there)
        advert = reply.advert if isinstance(reply, AdvertIs) else b""
        candidate.witness = (ask.prefix, Source(ask.holder, ask.replica))
        candidate.evaded = candidate.evaded or not advert
        self._settle(candidate, ask.number)
        self._judge(candidate, advert, None, now_ms, seq)

    def probed(self, probe: Probe, advert: bytes | None, now_ms: int, round_trip_us: int | None) -> None:
        """Take in a server's current signed advert (None: it did not answer)."""
        candidate = self._probes.pop(probe.number, None)
        if candidate is not None:
            self._settle(candidate, probe.number)
            self._judge(candidate, advert or b"", round_trip_us, now_ms, None)

    def slow(self, number: int) -> None:
        """A server, or a holder of its advert, takes longer than usual: the next one is asked as well."""
        candidate = self._probes.get(number) or self._fetches.get(number, (None, 0))[0]
        if candidate is not None and candidate.state == "probing" and number not in self._slow:
            self._slow.add(number)
            candidate.waits -= 1
            candidate.late += 1
            if not candidate.waits:
                self._ask_next(candidate)

    def _settle(self, candidate: Candidate, number: int) -> None:
        """A question for this candidate's advert is over."""
        if number in self._slow:
            self._slow.discard(number)
            candidate.late -= 1
        else:
            candidate.waits -= 1

    def finish(self, floor: int) -> bool:
        """Ask for the proofs of those that will be in the answer; nothing unread ranks below `floor`.

        Returns whether some were passed over: then there is room for others, read or unread.
        """
        before = len(self._live)
        limit, ordered = self._query.limit, bool(self._query.order.by)
        if limit is None:
            while self._fresh and self._busy < MAX_PROBES:
                self._finish_one(self._candidates[self._fresh.popleft()])
            return False
        # Without an order any that verify will do: what is under way already must not be overtaken.
        under_way = sum(self._candidates[id].state != "new" for _, id in self._live) if not ordered else 0
        for rank, id in self._live[:limit] if ordered else list(self._live):
            if rank >= floor if ordered else under_way >= limit:
                break
            under_way += self._candidates[id].state == "new"
            if self._busy >= MAX_PROBES:
                break
            self._finish_one(self._candidates[id])
        return len(self._live) < before

    def _finish_one(self, candidate: Candidate) -> None:
        if candidate.state != "new":
            return
        if self._junk and len(candidate.shown) == 1 and self._junk[_witness(candidate.shown[0])] >= MAX_JUNK:
            candidate.state = "rejected"
            self._drop_live(candidate)
            self._tally.rejected += 1
            return
        candidate.state = "probing"
        if self._tally.rounds <= candidate.depth:
            self._tally.rounds = candidate.depth + 1
        self._busy += self._ask_next(candidate)

    def _ask_next(self, candidate: Candidate) -> bool:
        """Ask the server, where it is said to be, or else who showed its row; whether anybody is left to ask."""
        if self._finish == "probe" and candidate.contacts:
            contact, candidate.contacts = candidate.contacts[0], candidate.contacts[1:]
            row, number = candidate.row, next(self._numbers)
            self._probes[number] = candidate
            self._tally.rpcs += 1
            self._tally.probes += 1
            self._out.append(_PROBE((number, contact, row.id, row.seq)))
        elif candidate.shown:
            shown, candidate.shown = candidate.shown[0], candidate.shown[1:]
            self._fetch(candidate, *shown)
        else:
            return False
        candidate.waits += 1
        return True

    def _judge(
        self, candidate: Candidate, advert: bytes, round_trip_us: int | None, now_ms: int, copy_of: int | None
    ) -> None:
        """Verify a candidate's signed advert and match it exactly; a holder's copy must be as new as its row was."""
        row = candidate.row
        point: Point | None = None
        if advert:
            try:
                point = self._verify(advert, now_ms)
            except RemoteError:
                point = None
        if point is not None and (point.id != row.id or (copy_of is not None and point.seq < copy_of)):
            point = None
        looking = candidate.state == "probing"
        if not looking and (point is None or copy_of is not None):
            return  # a slow one, after another had settled it
        if point is None and (candidate.waits or self._ask_next(candidate) or candidate.late):
            return
        self._busy -= looking
        if point is None and candidate.match is None:
            self._drop_live(candidate)
            candidate.state = "rejected"
            if candidate.evaded:
                self.unverified[row.id] = None
            else:  # each showed an advert, and none is good: rows that they made up
                self._tally.rejected += 1
                if candidate.witness is not None:
                    self._junk[candidate.witness] += 1
            return
        if point is not None:
            candidate.own, candidate.seq, candidate.match = copy_of is None, point.seq, None
            if point.gone or point.expires_s <= now_ms // 1000 or not self._matches(point.attributes):
                self._drop_live(candidate)
                candidate.state = "rejected"
                self._tally.rejected += 1
                return
            rank, contact = self._rank(point.attributes), point.contact or row.contact
            match = _MATCH((point.id, point.seq, rank, contact, point, advert, round_trip_us))
            candidate.match = match
        assert candidate.match is not None
        revived = candidate.state == "rejected"
        candidate.state = "verified"
        if revived or candidate.rank != candidate.match.rank:
            self._drop_live(candidate)
            candidate.rank = candidate.match.rank
            insort(self._live, (candidate.rank, row.id))
            self.unverified.pop(row.id, None)

    def _fetch(self, candidate: Candidate, seq: int, prefix: Prefix, source: Source) -> None:
        number, question = next(self._numbers), Fetch(prefix, candidate.row.id)
        salt = self._salts.get(candidate.dimension, 0)
        ask = Ask(number, candidate.dimension, prefix, question, source.holder, source.replica, salt=salt)
        self._fetches[ask.number] = candidate, seq
        self._tally.rpcs += 1
        self._out.append(ask)

    def _drop_live(self, candidate: Candidate) -> None:
        place = bisect_left(self._live, (candidate.rank, candidate.row.id))
        if place < len(self._live) and self._live[place] == (candidate.rank, candidate.row.id):
            del self._live[place]


def _witness(shown: _Shown) -> tuple[Prefix, Source]:
    _, prefix, source = shown
    return prefix, Source(source.holder, source.replica)
