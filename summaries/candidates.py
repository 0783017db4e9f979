"""Rows that match by a holder's word, on their way to adverts that match by their servers'.

Decides which candidates are finished (probed, or fetched from a holder), verifies and matches what comes back, and
keeps those that are not rejected, where there is a limit in the order of their ranks. Nothing is returned on a
holder's word, and nothing is given up on one: every holder that showed a row is asked for the advert before a server
counts as unverified. While a server is slow its advert is fetched from a holder as well, and whichever comes first
will do.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import Literal

from summaries.asks import REPLICAS, Ask, Outcome, Probe
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
_ID, _RANK = itemgetter(Match._fields.index("id")), itemgetter(Match._fields.index("rank"))

Finish = Literal["probe", "fetch", "none"]
Verify = Callable[[bytes, int], Point | None]
_Shown = tuple[int, Prefix, Source]


@dataclass(frozen=True, slots=True)
class Page:
    """Where rows were shown: in one answer of one replica."""

    dimension: str
    prefix: Prefix
    depth: int
    source: Source


@dataclass(slots=True)
class Inquiry:
    """Who can be asked for one server's advert, and who was. Most servers answer at once, and need none."""

    contacts: tuple[bytes, ...]  # where to ask the server
    asked: tuple[bytes, ...]  # of all places that were ever to be asked
    shown: tuple[_Shown, ...]  # who showed a row: each may be asked for the advert
    waits: int  # questions for the advert that are open
    late: int = 0  # the same, of those that are slower than usual
    evaded: bool = False  # whether somebody who showed a row had nothing, or nothing to say, when asked for its advert
    witness: tuple[Prefix, Source] | None = None  # who was asked last for the advert
    places: int = 0  # that an advert was said to have moved to

    def claim(self, row: Row, page: Page) -> None:
        """One more replica shows a row of this server."""
        if row.contact and row.contact not in self.asked and len(self.asked) < MAX_CONTACTS:
            self.asked += (row.contact,)
            self.contacts += (row.contact,)
        if len(self.shown) < MAX_SHOWN:
            self.shown += ((row.seq, page.prefix, page.source),)


@dataclass(slots=True)
class Candidate:
    """One server whose row matches, and who said so: a liar's row must not hide an honest one of the same server."""

    row: Row
    page: Page  # where a row of it was shown first
    rank: int
    seq: int  # the newest seen of this server: in a row, or verified
    state: Literal["new", "probing", "verified", "rejected"] = "new"
    match: Match | None = None  # kept while a row that claims to be newer is looked into
    own: bool = False  # whether the server itself answered: then what holders say of it counts no more
    inquiry: Inquiry | None = None  # once the server's own answer to one question is not all there is


class Candidates:
    """All candidates of one search. What is to be asked goes to `out`, numbered by `numbers`."""

    def __init__(
        self,
        query: Query,
        verify: Verify,
        finish: Finish,
        exclude: IdSet | None,
        within: IdSet | None,
        tally: Tally,
        numbers: Iterator[int],
        out: list[Ask | Probe],
        salts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._limit, self._ordered = query.limit, bool(query.order.by)
        self._verify, self._finish, self._exclude = verify, finish, exclude or ()
        self._matches, self._rank = matcher(query.where), query.order.rank
        self._within, self._salts = within, salts
        self._tally, self._numbers, self._out = tally, numbers, out
        self._fetches: dict[int, tuple[Candidate, int]] = {}
        self._probes: dict[int, Candidate] = {}
        self._slow: set[int] = set()  # probes and fetches that take longer than usual
        self._busy = 0  # candidates that are being looked into
        self._candidates: dict[int, Candidate] = {}
        self._rejected = 0  # of them
        self._live: list[tuple[int, int]] = []  # with a limit: (rank, id) of every candidate not rejected, in order
        self._fresh: deque[Candidate] = deque()
        self._junk: Counter[tuple[Prefix, Source]] = Counter()  # rows that a replica made up
        self.unverified: dict[int, None] = {}

    @property
    def is_busy(self) -> bool:
        return self._busy > 0

    @property
    def count(self) -> int:
        """How many are not rejected."""
        return len(self._candidates) - self._rejected

    def better(self, bound: int) -> int:
        """How many rank below `bound`; where there is a limit."""
        return bisect_left(self._live, (bound, -1))

    def found(self) -> tuple[Match, ...]:
        """The best that are verified."""
        found = [one.match for one in self._candidates.values() if one.state == "verified" and one.match is not None]
        found.sort(key=_ID)
        if self._ordered:
            found.sort(key=_RANK)
        return tuple(found[: self._limit])

    def offer(self, page: Page, rows: tuple[Row, ...]) -> bool:
        """Take in rows of one answer; whether there was room for all."""
        candidates, exclude, within = self._candidates, self._exclude, self._within
        for row in rows:
            id, seq, rank, _ = row
            if id in exclude or (within is not None and id not in within):
                continue
            old = candidates.get(id)
            if old is None:
                if len(candidates) >= MAX_CANDIDATES:
                    return False
                candidates[id] = made = Candidate(row, page, rank, seq)
                self._renew(made)
            elif not old.own:
                self._claimed_again(old, row, page)
        return True

    def _claimed_again(self, old: Candidate, row: Row, page: Page) -> None:
        newer = row.seq > old.seq
        old.seq = max(old.seq, row.seq)
        if self._finish != "none":
            self._inquire(old).claim(row, page)
        if self._finish == "none" or old.state == "new":
            if newer or (row.seq == old.row.seq and row.rank < old.rank):
                # The best that anybody claims: the advert itself will tell, and a false row must not push it back.
                self._rerank(old, row.rank if self._finish == "none" else min(row.rank, old.rank))
                old.row = row
                if self._finish == "none":
                    old.match = Match(*row)
        elif (old.state == "verified" and newer) or (old.state == "rejected" and (newer or row.id in self.unverified)):
            self.unverified.pop(row.id, None)
            self._rerank(old, row.rank)
            old.row, old.state = row, "new"
            self._fresh.append(old)

    def _renew(self, candidate: Candidate) -> None:
        """A new one is to be looked into, or shown as it is."""
        row = candidate.row
        if self._limit is not None:
            insort(self._live, (candidate.rank, row.id))
        if self._finish == "none":
            candidate.state, candidate.match = "verified", Match(*row)
        else:
            self._fresh.append(candidate)

    def _rerank(self, candidate: Candidate, rank: int) -> None:
        """It ranks elsewhere, and if it was rejected it is no more."""
        self._drop_live(candidate)
        self._rejected -= candidate.state == "rejected"
        candidate.rank = rank
        if self._limit is not None:
            insort(self._live, (rank, candidate.row.id))

    def _reject(self, candidate: Candidate) -> None:
        self._drop_live(candidate)
        self._rejected += candidate.state != "rejected"
        candidate.state = "rejected"

    def _inquire(self, candidate: Candidate) -> Inquiry:
        """What is to be known about who can be asked, from now on."""
        if candidate.inquiry is None:
            contact, page = candidate.row.contact, candidate.page
            at, waits = (contact,) if contact else (), int(candidate.state == "probing")
            shown = ((candidate.row.seq, page.prefix, page.source),)
            candidate.inquiry = Inquiry(() if waits else at, at, shown, waits)
        return candidate.inquiry

    def fetched(self, ask: Ask, reply: Outcome, now_ms: int) -> None:
        """Take in a holder's copy of an advert, or where it has handed it, if that was asked for."""
        candidate, seq = self._fetches.pop(ask.number, (None, 0))
        if candidate is None:
            return
        inquiry = self._inquire(candidate)
        if isinstance(reply, Moved) and ask.prefix.covers(reply.prefix) and inquiry.places < MAX_PLACES:
            inquiry.places += 1
            if reply.prefix != ask.prefix:
                there = tuple((seq, reply.prefix, Source(None, replica)) for replica in range(REPLICAS))
                inquiry.shown = there + tuple(one for one in inquiry.shown if one not in there)
        advert = reply.advert if isinstance(reply, AdvertIs) else b""
        inquiry.witness = (ask.prefix, Source(ask.holder, ask.replica))
        inquiry.evaded = inquiry.evaded or not advert
        self._settle(inquiry, ask.number)
        self._judge(candidate, advert, None, now_ms, seq)

    def probed(self, probe: Probe, advert: bytes | None, now_ms: int, round_trip_us: int | None) -> None:
        """Take in a server's current signed advert (None: it did not answer)."""
        candidate = self._probes.pop(probe.number, None)
        if candidate is not None:
            if candidate.inquiry is not None:
                self._settle(candidate.inquiry, probe.number)
            self._judge(candidate, advert or b"", round_trip_us, now_ms, None)

    def slow(self, number: int) -> None:
        """A server, or a holder of its advert, takes longer than usual: the next one is asked as well."""
        candidate = self._probes.get(number) or self._fetches.get(number, (None, 0))[0]
        if candidate is not None and candidate.state == "probing" and number not in self._slow:
            inquiry = self._inquire(candidate)
            self._slow.add(number)
            inquiry.waits -= 1
            inquiry.late += 1
            if not inquiry.waits:
                self._ask_next(candidate, inquiry)

    def _settle(self, inquiry: Inquiry, number: int) -> None:
        """A question for this candidate's advert is over."""
        if number in self._slow:
            self._slow.discard(number)
            inquiry.late -= 1
        else:
            inquiry.waits -= 1

    def finish(self, floor: int) -> bool:
        """Ask for the proofs of those that will be in the answer; nothing unread ranks below `floor`.

        Returns whether some were passed over: then there is room for others, read or unread.
        """
        limit, ordered, fresh = self._limit, self._ordered, self._fresh
        if limit is None:
            while fresh and self._busy < MAX_PROBES:
                self._finish_one(fresh.popleft())
            return False
        if self._busy >= MAX_PROBES:
            return False
        before, candidates = len(self._live), self._candidates
        # Without an order any that verify will do: what is under way already must not be overtaken.
        under_way = sum(candidates[id].state != "new" for _, id in self._live) if not ordered else 0
        for rank, id in self._live[:limit] if ordered else self._live.copy():
            if rank >= floor if ordered else under_way >= limit:
                break
            candidate = candidates[id]
            if candidate.state == "new":
                under_way += 1
                if self._busy >= MAX_PROBES:
                    break
                self._finish_one(candidate)
        return len(self._live) < before

    def _finish_one(self, candidate: Candidate) -> None:
        if candidate.state != "new":
            return
        inquiry, contact, depth = candidate.inquiry, candidate.row.contact, candidate.page.depth
        if self._junk:
            inquiry = self._inquire(candidate)
            if len(inquiry.shown) == 1 and self._junk[_witness(inquiry.shown[0])] >= MAX_JUNK:
                self._reject(candidate)
                self._tally.rejected += 1
                return
        if self._tally.rounds <= depth:
            self._tally.rounds = depth + 1
        if inquiry is None and contact and self._finish == "probe":
            self._busy += 1
            self._probe(candidate, contact)
        else:
            self._busy += self._ask_next(candidate, self._inquire(candidate))
        candidate.state = "probing"

    def _ask_next(self, candidate: Candidate, inquiry: Inquiry) -> bool:
        """Ask the server, where it is said to be, or else who showed its row; whether anybody is left to ask."""
        if self._finish == "probe" and inquiry.contacts:
            contact, inquiry.contacts = inquiry.contacts[0], inquiry.contacts[1:]
            self._probe(candidate, contact)
        elif inquiry.shown:
            shown, inquiry.shown = inquiry.shown[0], inquiry.shown[1:]
            self._fetch(candidate, *shown)
        else:
            return False
        inquiry.waits += 1
        return True

    def _probe(self, candidate: Candidate, contact: bytes) -> None:
        (id, seq, _, _), number, tally = candidate.row, next(self._numbers), self._tally
        self._probes[number] = candidate
        tally.rpcs += 1
        tally.probes += 1
        self._out.append(_PROBE((number, contact, id, seq)))

    def _judge(
        self, candidate: Candidate, advert: bytes, round_trip_us: int | None, now_ms: int, copy_of: int | None
    ) -> None:
        """Verify a candidate's signed advert and match it exactly; a holder's copy must be as new as its row was."""
        id, point = candidate.row.id, None
        if advert:
            try:
                point = self._verify(advert, now_ms)
            except RemoteError:
                point = None
        if point is None or point.id != id or (copy_of is not None and point.seq < copy_of):
            self._unproved(candidate)
            return
        if candidate.state == "probing":
            self._busy -= 1
        elif copy_of is not None:
            return  # a slow one, after another had settled it
        candidate.own, candidate.seq = copy_of is None, point.seq
        if point.gone or point.expires_s <= now_ms // 1000 or not self._matches(point.attributes):
            candidate.match = None
            self._reject(candidate)
            self._tally.rejected += 1
            return
        rank = self._rank(point.attributes) if self._ordered else 0
        if candidate.rank != rank or candidate.state == "rejected":
            self._rerank(candidate, rank)
            self.unverified.pop(id, None)
        candidate.state = "verified"
        contact = point.contact or candidate.row.contact
        candidate.match = _MATCH((id, point.seq, rank, contact, point, advert, round_trip_us))

    def _unproved(self, candidate: Candidate) -> None:
        """Whoever was asked for an advert had none that is good: ask the next, or go by what is known."""
        if candidate.state != "probing":
            return  # a slow one, after another had settled it
        if candidate.inquiry is None:
            self._inquire(candidate).waits = 0  # its one question is over
        inquiry = self._inquire(candidate)
        if inquiry.waits or self._ask_next(candidate, inquiry) or inquiry.late:
            return
        self._busy -= 1
        if candidate.match is not None:
            candidate.state = "verified"
            if candidate.rank != candidate.match.rank:
                self._rerank(candidate, candidate.match.rank)
            return
        self._reject(candidate)
        if inquiry.evaded:
            self.unverified[candidate.row.id] = None
        else:  # each showed an advert, and none is good: rows that they made up
            self._tally.rejected += 1
            if inquiry.witness is not None:
                self._junk[inquiry.witness] += 1

    def _fetch(self, candidate: Candidate, seq: int, prefix: Prefix, source: Source) -> None:
        number, question = next(self._numbers), Fetch(prefix, candidate.row.id)
        dimension = candidate.page.dimension
        salt = self._salts.get(dimension, 0)
        ask = Ask(number, dimension, prefix, question, source.holder, source.replica, salt=salt)
        self._fetches[ask.number] = candidate, seq
        self._tally.rpcs += 1
        self._out.append(ask)

    def _drop_live(self, candidate: Candidate) -> None:
        here = (candidate.rank, candidate.row.id)
        place = bisect_left(self._live, here)
        if place < len(self._live) and self._live[place] == here:
            del self._live[place]


def _witness(shown: _Shown) -> tuple[Prefix, Source]:
    _, prefix, source = shown
    return prefix, Source(source.holder, source.replica)
