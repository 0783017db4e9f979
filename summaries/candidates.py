"""Rows that match by a holder's word, on their way to adverts that match by their servers'.

Decides which candidates are finished (probed, or fetched from a holder), verifies and matches what comes back, and
keeps all that are not rejected in the order of their ranks. Nothing is returned on a holder's word.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from summaries.asks import REPLICAS, Ask, Outcome, Probe
from summaries.errors import RemoteError
from summaries.idset import IdSet
from summaries.messages import AdvertIs, Fetch, Row
from summaries.point import Point
from summaries.query import Query, matches
from summaries.result import Match, Tally
from summaries.trie import Prefix
from summaries.visit import Source

MAX_PROBES = 32  # servers probed at once
MAX_CANDIDATES = 100_000

Finish = Literal["probe", "fetch", "none"]
Verify = Callable[[bytes, int], Point | None]


@dataclass(slots=True)
class Candidate:
    """One server whose row matches."""

    row: Row
    dimension: str
    prefix: Prefix
    sources: list[Source]  # replicas that showed this row: each may be asked for the advert
    depth: int
    state: Literal["new", "probing", "verified", "rejected"] = "new"
    match: Match | None = None
    rank: int = 0
    seq: int = 0  # the newest seen of this server: in a row, or verified


class Candidates:
    """All candidates of one search. What is to be asked goes to `out`, numbered by `numbers`."""

    def __init__(
        self,
        query: Query,
        verify: Verify,
        finish: Finish,
        exclude: IdSet,
        tally: Tally,
        numbers: Iterator[int],
        out: list[Ask | Probe],
    ) -> None:
        self._query, self._verify, self._finish, self._exclude = query, verify, finish, exclude
        self._tally, self._numbers, self._out = tally, numbers, out
        self._fetches: dict[int, Candidate] = {}
        self._probes: dict[int, Candidate] = {}
        self._candidates: dict[int, Candidate] = {}
        self._live: list[tuple[int, int]] = []  # (rank, id) of every candidate not rejected
        self._fresh: deque[int] = deque()
        self.unverified: dict[int, None] = {}

    @property
    def is_busy(self) -> bool:
        return bool(self._fetches or self._probes)

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
        for row in rows:
            if row.id in self._exclude:
                continue
            old = self._candidates.get(row.id)
            if old is None:
                if len(self._candidates) >= MAX_CANDIDATES:
                    return False
            elif old.seq >= row.seq or old.state == "probing":
                if old.row.seq == row.seq and old.prefix == prefix and len(old.sources) < REPLICAS:
                    old.sources.append(source)
                continue
            else:
                self._drop_live(old)
            made = Candidate(row, dimension, prefix, [source], depth, rank=row.rank, seq=row.seq)
            self._candidates[row.id] = made
            insort(self._live, (made.rank, row.id))
            if self._finish == "none":
                made.state, made.match = "verified", Match(row.id, row.seq, row.rank, row.contact)
            elif old is None or old.state != "new":
                self._fresh.append(row.id)
        return True

    def fetched(self, ask: Ask, reply: Outcome, now_ms: int) -> None:
        """Take in a holder's copy of an advert, if that was asked for."""
        candidate = self._fetches.pop(ask.number, None)
        if candidate is not None:
            advert = reply.advert if isinstance(reply, AdvertIs) else b""
            self._judge(candidate, advert, None, now_ms, last_chance=True)

    def probed(self, probe: Probe, advert: bytes | None, now_ms: int, round_trip_us: int | None) -> None:
        """Take in a server's current signed advert (None: it did not answer)."""
        candidate = self._probes.pop(probe.number, None)
        if candidate is not None:
            self._judge(candidate, advert or b"", round_trip_us, now_ms, last_chance=False)

    def finish(self, floor: int) -> None:
        """Ask for the proofs of those that will be in the answer; nothing unread ranks below `floor`."""
        limit, ordered = self._query.limit, bool(self._query.order.by)
        if limit is None:
            while self._fresh and len(self._probes) + len(self._fetches) < MAX_PROBES:
                self._finish_one(self._candidates[self._fresh.popleft()])
            return
        # Without an order any that verify will do: what is under way already must not be overtaken.
        under_way = sum(self._candidates[id].state != "new" for _, id in self._live) if not ordered else 0
        for rank, id in self._live[:limit] if ordered else list(self._live):
            if rank >= floor if ordered else under_way >= limit:
                break
            under_way += self._candidates[id].state == "new"
            if len(self._probes) + len(self._fetches) >= MAX_PROBES:
                break
            self._finish_one(self._candidates[id])

    def _finish_one(self, candidate: Candidate) -> None:
        if candidate.state != "new":
            return
        candidate.state = "probing"
        self._tally.rounds = max(self._tally.rounds, candidate.depth + 1)
        if self._finish == "fetch" or not candidate.row.contact:
            self._fetch(candidate)
            return
        probe = Probe(next(self._numbers), candidate.row.contact, candidate.row.id, candidate.row.seq)
        self._probes[probe.number] = candidate
        self._tally.rpcs += 1
        self._tally.probes += 1
        self._out.append(probe)

    def _judge(
        self, candidate: Candidate, advert: bytes, round_trip_us: int | None, now_ms: int, *, last_chance: bool
    ) -> None:
        """Verify a candidate's signed advert and match it exactly."""
        row = candidate.row
        point: Point | None = None
        if advert:
            try:
                point = self._verify(advert, now_ms)
            except RemoteError:
                point = None
        if point is not None and (point.id != row.id or (last_chance and point.seq < row.seq)):
            point = None
        if point is None and candidate.sources:
            self._fetch(candidate)  # the server is silent: a leaf replica's copy is the fall-back
            return
        self._drop_live(candidate)
        if point is None:
            candidate.state = "rejected"
            self.unverified[row.id] = None
            return
        candidate.seq = max(candidate.seq, point.seq)
        expired = point.gone or point.expires_s <= now_ms // 1000
        if expired or not matches(self._query, point.attributes):
            candidate.state = "rejected"
            self._tally.rejected += 1
            return
        candidate.state, candidate.rank = "verified", self._query.order.rank(point.attributes)
        candidate.match = Match(
            point.id, point.seq, candidate.rank, point.contact or row.contact, point, advert, round_trip_us
        )
        insort(self._live, (candidate.rank, row.id))

    def _fetch(self, candidate: Candidate) -> None:
        question = Fetch(candidate.prefix, candidate.row.id)
        source = candidate.sources.pop(0)
        number = next(self._numbers)
        ask = Ask(number, candidate.dimension, candidate.prefix, question, source.holder, source.replica)
        self._fetches[ask.number] = candidate
        self._tally.rpcs += 1
        self._out.append(ask)

    def _drop_live(self, candidate: Candidate) -> None:
        place = bisect_left(self._live, (candidate.rank, candidate.row.id))
        if place < len(self._live) and self._live[place] == (candidate.rank, candidate.row.id):
            del self._live[place]
