"""A search as a state machine: asks out, answers in, and at the end what matches.

Decides what to ask next and when to stop. It goes down the chosen tries best-first: nodes whose
bound is least are read first, many at once; with a limit it stops when no unread node can hold
anything better than what it has. Finalists are probed: a server's current signed advert is
verified and matched exactly, so nothing is returned on a holder's word. A strict search unites
replicas (visit.py); what could not be read makes the result partial, and is named.

    start() -> asks;  answered(ask, reply) -> more asks;  probed(probe, advert) -> more;
    finished -> result.      The driver sends, waits, and enforces time-outs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

from summaries.answer import digest_of
from summaries.asks import ABSENT, REPLICAS, Absent, Ask, Outcome, Probe
from summaries.attributes import LARGEST
from summaries.errors import LocalError, RemoteError
from summaries.explain import Explanation, NodeRead, describe
from summaries.filter import CompiledFilter, Filter
from summaries.idset import IdSet
from summaries.messages import AdvertIs, Answer, Child, Fetch, NotReady, Read, Row
from summaries.plan import Part, choose, make_plan
from summaries.point import Point
from summaries.query import Query, filter_of, matches
from summaries.rank import LAST
from summaries.reading import MAX_RETRIES, Reading, Span
from summaries.roots import RootView
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix
from summaries.visit import Source, Visit

MAX_READS = 64  # trie nodes read at once (search.md: waves of up to 64)
FIRST_WAVE = 2  # with a limit: the root, then waves of 4, 8 .. 64, so that a small limit reads little
FIRST_WAVE_WARM = 4  # without having to wait for the root
MAX_PROBES = 32  # servers probed at once
MAX_CANDIDATES = 100_000
MAX_RPCS = 20_000  # a search's whole budget: a hundred times what a conjunction over 1M adverts needs
MAX_UNREACHABLE = 1_000  # of the ranges that the budget left out, how many are named
OVERFETCH = 4  # rows asked of a leaf beyond the limit, for those that fail their probe
NEVER = LAST + 1

Finish = Literal["probe", "fetch", "none"]
Verify = Callable[[bytes, int], Point | None]


@dataclass(frozen=True, slots=True)
class Match:
    """One advert that matches. Without a finish step, `point` is None and the row is hearsay."""

    id: int
    seq: int
    rank: int
    contact: bytes
    point: Point | None = None
    advert: bytes = b""
    round_trip_us: int | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What a search cost. `rounds` is the longest chain of questions that had to wait for another."""

    rpcs: int = 0
    rounds: int = 0
    aggregation_points: int = 0
    leaves: int = 0
    pruned: int = 0
    probes: int = 0
    rejected: int = 0  # candidates whose current advert does not match, or is gone
    root_age_ms: int = 0  # how old the oldest root was that was believed, or confirmed by digest


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`unreachable` names (dimension, prefix) of what could not be read by enough replicas."""

    matches: tuple[Match, ...]
    counts: Counts
    unreachable: tuple[tuple[str, Prefix], ...]
    unverified: tuple[int, ...]  # ids that match by a row, whose advert nobody would show
    least_total: int
    most_total: int

    @property
    def complete(self) -> bool:
        return not self.unreachable and not self.unverified

    def ids(self) -> IdSet:
        return IdSet(match.id for match in self.matches)


@dataclass(slots=True)
class _Candidate:
    row: Row
    dimension: str
    prefix: Prefix
    sources: list[Source]  # replicas that showed this row: each may be asked for the advert
    depth: int
    state: Literal["new", "probing", "verified", "rejected"] = "new"
    match: Match | None = None
    rank: int = 0
    seq: int = 0  # the newest seen of this server: in a row, or verified


@dataclass(slots=True)
class _Tally:
    rpcs: int = 0
    rounds: int = 0
    aggregation_points: int = 0
    leaves: int = 0
    pruned: int = 0
    probes: int = 0
    rejected: int = 0
    root_age_ms: int = 0


class Search:
    """One query's execution. The query's hosts must be resolved to coordinates."""

    def __init__(
        self,
        schema: Schema,
        query: Query,
        verify: Verify,
        *,
        strict: bool = True,
        finish: Finish = "probe",
        exclude: IdSet | None = None,
        dimension: str | None = None,
        max_rpcs: int = MAX_RPCS,
        roots: Mapping[str, RootView] | None = None,
        turn: int = 0,
    ) -> None:
        if query.order.by == "latency" and not query.order.hosts:
            raise LocalError("resolve the query's hosts to coordinates first")
        self._schema, self._query, self._verify = schema, query, verify
        self._max_rpcs = max_rpcs
        self._strict, self._finish, self._exclude = strict, finish, exclude or IdSet()
        self._filter, self._exact = filter_of(query)
        self._roots, self._turn = roots or {}, turn
        self._named = dimension
        self._parts: list[Part] = []
        self._comparing: dict[str, int] = {}
        if dimension is not None:
            schema.dimension(dimension)
        self._compared: dict[int, Visit] = {}
        self._nodes: list[Visit] = []  # that were read, for the explanation
        self._window = MAX_READS if query.limit is None else FIRST_WAVE
        self._wave = 1  # reads until the next wave; the root is a wave of its own
        self._heap: list[tuple[int, int, int, Visit]] = []
        self._active: dict[int, Visit] = {}
        self._readings: dict[int, tuple[Reading, Span]] = {}
        self._fetches: dict[int, _Candidate] = {}
        self._probes: dict[int, _Candidate] = {}
        self._seen: set[tuple[int, Prefix]] = set()
        self._candidates: dict[int, _Candidate] = {}
        self._live: list[tuple[int, int]] = []  # (rank, id) of every candidate not rejected
        self._fresh: deque[int] = deque()
        self._unreachable: dict[tuple[str, Prefix], None] = {}
        self._unverified: dict[int, None] = {}
        self._tally = _Tally()
        self._number = 0
        self._now_ms = 0
        self._out: list[Ask | Probe] = []
        self._started = False

    # ----- what the driver calls

    def start(self, now_ms: int) -> list[Ask | Probe]:
        """The first questions."""
        self._now_ms, self._started = now_ms, True
        if self._filter.terms:
            self._plan()
            for part in range(len(self._parts)):
                self._begin(part)
            self._pump()
        return self._flush()

    def _plan(self) -> None:
        """Which tries: as the caller says, by the roots that we know, or by comparing the roots of a few."""
        ordered, limited = self._query.order, self._query.limit is not None
        views = {name: view for name, view in self._roots.items() if view.is_fresh(self._now_ms) and not view.has_rows}
        self._roots = views
        if self._named is not None:  # a caller that compares plans
            self._parts = [Part(self._named, self._filter)]
            return
        plan = make_plan(self._schema, self._filter, ordered, limited, views)
        self._parts = list(plan.parts)
        if len(plan.candidates) > 1:
            self._comparing = dict.fromkeys(plan.candidates, 0)
            self._parts = [Part(name, self._filter) for name in self._comparing]

    def _begin(self, part: int) -> None:
        """Read the root of a part's trie; or, where we know it, what passes below it at once."""
        visit = Visit(part, ROOT, -LAST if self._query.order.by else 0, 0, 1, limit=self._leaf_limit())
        self._seen.add((part, ROOT))
        view = self._roots.get(self._parts[part].dimension)
        if view is None:
            self._launch(visit)
            return
        condition = CompiledFilter(self._schema, self._parts[part].filter)
        passing = view.passing(self._schema, condition, self._query.order)
        self._tally.root_age_ms = max(self._tally.root_age_ms, self._now_ms - view.read_ms)
        self._tally.pruned += len(view.children) - len(passing)
        self._window = max(self._window, FIRST_WAVE_WARM)
        if self._strict:
            visit.digests.add(digest_of([child for child, _ in passing], [mark for _, mark in passing]))
            self._launch(visit)
        for child, _ in passing:
            self._descend(part, child, 1)

    def answered(self, ask: Ask, reply: Outcome, now_ms: int) -> list[Ask | Probe]:
        """Take in the reply to an ask (None: no answer; ABSENT: no such replica)."""
        self._now_ms = now_ms
        candidate = self._fetches.pop(ask.number, None)
        if candidate is not None:
            advert = reply.advert if isinstance(reply, AdvertIs) else b""
            self._judge(candidate, advert, None, last_chance=True)
        reading, span = self._readings.pop(ask.number, (None, (0, 0)))
        if reading is not None:
            self._read(reading, span, ask, reply)
        self._pump()
        return self._flush()

    def probed(
        self, probe: Probe, advert: bytes | None, now_ms: int, round_trip_us: int | None = None
    ) -> list[Ask | Probe]:
        """Take in a server's current signed advert (None: it did not answer)."""
        self._now_ms = now_ms
        candidate = self._probes.pop(probe.number, None)
        if candidate is not None:
            self._judge(candidate, advert or b"", round_trip_us, last_chance=False)
        self._pump()
        return self._flush()

    @property
    def finished(self) -> bool:
        return self._started and not (self._readings or self._fetches or self._probes)

    @property
    def result(self) -> SearchResult:
        """What was found so far; final once finished."""
        limit = self._query.limit
        found = [self._candidates[id].match for _, id in self._live if self._candidates[id].state == "verified"]
        chosen = [match for match in found if match is not None][:limit]
        unread = sum(visit.count for _, _, _, visit in self._heap) + sum(one.count for one in self._active.values())
        tally = self._tally
        return SearchResult(
            tuple(chosen),
            Counts(
                tally.rpcs, tally.rounds, tally.aggregation_points, tally.leaves, tally.pruned, tally.probes,
                tally.rejected, tally.root_age_ms,
            ),
            tuple(sorted(self._unreachable)),
            tuple(sorted(self._unverified)),
            len(self._live),
            len(self._live) + unread,
        )

    @property
    def explanation(self) -> Explanation:
        """The plan, and every trie node that was read."""
        parts = self._parts
        nodes = (
            NodeRead(
                parts[visit.part].dimension, visit.prefix, visit.depth, visit.succeeded, len(visit.children),
                visit.pruned, visit.matched,
            )
            for visit in {id(one): one for one in self._nodes}.values()
        )
        return Explanation(tuple((part.dimension, describe(part.filter)) for part in parts), tuple(nodes))

    @property
    def filter(self) -> Filter:
        """What holders are asked: the query's condition, perhaps weakened."""
        return self._filter

    # ----- reading trie nodes

    def _launch(self, visit: Visit) -> None:
        # Roots that are only compared need one replica; the one that is chosen is then confirmed by a second.
        visit.prepare(self._strict and not self._comparing, self._turn)
        self._active[id(visit)] = visit
        self._ask_more(visit, [])

    def _ask_more(self, visit: Visit, whole: list[Source]) -> None:
        """Ask those who must be read whole after all, and as many more as are needed."""
        for source in whole:
            self._ask(Reading(visit, source, round=1))
        for source, digest_only in visit.next_sources():
            self._ask(Reading(visit, source, digest_only))

    def _ask(self, reading: Reading, after_ms: int = 0) -> None:
        visit = reading.visit
        part = self._parts[visit.part]
        named = tuple(dict.fromkeys(visit.holders)) if reading.source.holder is None else ()
        for span in reading.next_spans():
            self._number += 1
            question = Read(
                visit.prefix, part.filter, self._query.order, visit.limit, LARGEST, 2 if self._strict else 1,
                span[0], reading.digest_only,
            )
            ask = Ask(
                self._number, part.dimension, visit.prefix, question, reading.source.holder, reading.source.replica,
                named, after_ms,
            )
            self._readings[ask.number] = reading, span
            self._tally.rpcs += 1
            self._tally.rounds = max(self._tally.rounds, visit.depth + reading.round)
            self._out.append(ask)

    def _read(self, reading: Reading, span: Span, ask: Ask, reply: Outcome) -> None:
        visit, whole = reading.visit, list[Source]()
        if isinstance(reply, Answer) and reply.prefix == visit.prefix:
            visit.take(reply)
            self._offer(visit, reply.rows, reading.source)
            if reply.rows:
                visit.last_rank = max(visit.last_rank, reply.rows[-1].rank)
            reading.took(span, reply)
            if self._tally.rpcs >= self._max_rpcs and reading.todo:
                reading.todo.clear()
                reading.cut = True
        elif isinstance(reply, NotReady) and reading.retries < MAX_RETRIES:
            reading.retries += 1
            reading.open -= 1
            reading.todo.append(span)
            self._ask(reading, reply.retry_ms * reading.retries)
            return
        else:
            reading.lost(span)
        if not reading.is_over:
            self._ask(reading)
            return
        if reading.is_whole:
            visit.rows = max(visit.rows, 0 if reading.digest_only else reading.rows)
            whole = visit.answered(reading.source, reading.digest, reading.digest_only)
        else:
            whole = visit.miss(reading.source, reading.digest_only, absent=isinstance(reply, Absent))
        self._ask_more(visit, whole)
        if visit.is_over:
            self._close(visit)

    def _close(self, visit: Visit) -> None:
        del self._active[id(visit)]
        if not visit.is_complete and not self._comparing:
            self._unreachable[self._parts[visit.part].dimension, visit.prefix] = None
        self._nodes.append(visit)
        self._tally.aggregation_points += bool(visit.children)
        self._tally.leaves += not visit.children
        self._tally.pruned += visit.pruned
        self._wave -= 1
        if self._wave <= 0:  # a wave is over: the next may be twice as large
            self._window = self._wave = min(self._window * 2, MAX_READS)
        if self._comparing and visit.prefix == ROOT:
            self._compared[visit.part] = visit
            if len(self._compared) < len(self._parts):
                return
            visit = self._choose()
            if self._strict and visit.is_complete:
                visit.confirm()
            if not visit.is_over:
                self._active[id(visit)] = visit
                self._ask_more(visit, [])
            elif not visit.is_complete:
                self._unreachable[self._parts[visit.part].dimension, ROOT] = None
        for prefix in sorted(visit.children):
            self._descend(visit.part, visit.children[prefix], visit.depth + 1)
        partly = visit.limit and visit.matched > visit.rows and visit.rows >= visit.limit
        if partly and id(visit) not in self._active:
            # The leaf has more than we asked for, none better than the last that it gave.
            rest = Visit(
                visit.part, visit.prefix, visit.last_rank, visit.matched - visit.rows, 1, visit.depth + 1,
                visit.known_holders, visit.holders, visit.limit * 8,
            )
            self._queue(rest)

    def _choose(self) -> Visit:
        """The root, of those that could be read, that lets the fewest leaves through."""
        read = {part: root for part, root in self._compared.items() if root.is_complete} or self._compared
        passing = {
            self._parts[part].dimension: sum(child.leaves for child in root.children.values())
            for part, root in read.items()
        }
        name = choose(passing, self._schema, self._query.order, self._query.limit is not None)
        self._comparing = {}
        return next(root for part, root in read.items() if self._parts[part].dimension == name)

    def _descend(self, part: int, child: Child, depth: int) -> None:
        if (part, child.prefix) in self._seen:
            return
        self._seen.add((part, child.prefix))
        self._queue(
            Visit(
                part, child.prefix, child.bound, child.count, child.leaves, depth, child.known_holders, child.holders,
                self._leaf_limit(),
            )
        )

    def _queue(self, visit: Visit) -> None:
        self._number += 1
        # Among equals the deeper first: with a limit, leaves end a search and aggregation points do not.
        heappush(self._heap, (visit.bound, -visit.prefix.length, self._number, visit))

    def _leaf_limit(self) -> int:
        limit = self._query.limit
        return 0 if limit is None or not self._exact else limit + OVERFETCH

    # ----- candidates

    def _offer(self, visit: Visit, rows: tuple[Row, ...], source: Source) -> None:
        dimension = self._parts[visit.part].dimension
        for row in rows:
            if row.id in self._exclude:
                continue
            old = self._candidates.get(row.id)
            if old is None:
                if len(self._candidates) >= MAX_CANDIDATES:
                    self._unreachable[dimension, visit.prefix] = None
                    return
            elif old.seq >= row.seq or old.state == "probing":
                if old.row.seq == row.seq and old.prefix == visit.prefix and len(old.sources) < REPLICAS:
                    old.sources.append(source)
                continue
            else:
                self._drop_live(old)
            made = _Candidate(row, dimension, visit.prefix, [source], visit.depth, rank=row.rank, seq=row.seq)
            self._candidates[row.id] = made
            insort(self._live, (made.rank, row.id))
            if self._finish == "none":
                made.state, made.match = "verified", Match(row.id, row.seq, row.rank, row.contact)
            elif old is None or old.state != "new":
                self._fresh.append(row.id)

    def _drop_live(self, candidate: _Candidate) -> None:
        place = bisect_left(self._live, (candidate.rank, candidate.row.id))
        if place < len(self._live) and self._live[place] == (candidate.rank, candidate.row.id):
            del self._live[place]

    def _judge(self, candidate: _Candidate, advert: bytes, round_trip_us: int | None, *, last_chance: bool) -> None:
        """Verify a candidate's signed advert and match it exactly."""
        row = candidate.row
        point: Point | None = None
        if advert:
            try:
                point = self._verify(advert, self._now_ms)
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
            self._unverified[row.id] = None
            return
        candidate.seq = max(candidate.seq, point.seq)
        expired = point.gone or point.expires_s <= self._now_ms // 1000
        if expired or not matches(self._query, point.attributes):
            candidate.state = "rejected"
            self._tally.rejected += 1
            return
        candidate.state, candidate.rank = "verified", self._query.order.rank(point.attributes)
        candidate.match = Match(
            point.id, point.seq, candidate.rank, point.contact or row.contact, point, advert, round_trip_us
        )
        insort(self._live, (candidate.rank, row.id))

    def _fetch(self, candidate: _Candidate) -> None:
        self._number += 1
        question = Fetch(candidate.prefix, candidate.row.id)
        source = candidate.sources.pop(0)
        ask = Ask(self._number, candidate.dimension, candidate.prefix, question, source.holder, source.replica)
        self._fetches[ask.number] = candidate
        self._tally.rpcs += 1
        self._out.append(ask)

    # ----- what next

    def _pump(self) -> None:
        limit, ordered = self._query.limit, bool(self._query.order.by)
        if self._comparing:
            return
        if self._tally.rpcs >= self._max_rpcs:
            # Only a lying holder, or a query for nearly everything, comes here: say what was left out.
            for _, _, _, visit in sorted(self._heap)[:MAX_UNREACHABLE]:
                self._unreachable[self._parts[visit.part].dimension, visit.prefix] = None
            self._heap.clear()
        while self._heap and len(self._active) < self._window:
            bound = self._heap[0][0]
            if limit is not None:
                # Enough that is certainly better (with an order), or enough of anything (without).
                better = bisect_left(self._live, (bound, -1)) if ordered else len(self._live)
                if better >= limit:
                    break
            self._launch(heappop(self._heap)[3])
        if limit is None:
            while self._fresh and len(self._probes) + len(self._fetches) < MAX_PROBES:
                self._finish_one(self._candidates[self._fresh.popleft()])
            return
        floor = min((visit.bound for visit in self._active.values()), default=NEVER)
        if self._heap:
            floor = min(floor, self._heap[0][0])
        # Without an order any that verify will do: what is under way already must not be overtaken.
        under_way = sum(self._candidates[id].state != "new" for _, id in self._live) if not ordered else 0
        for rank, id in self._live[:limit] if ordered else list(self._live):
            if rank >= floor if ordered else under_way >= limit:
                break
            under_way += self._candidates[id].state == "new"
            if len(self._probes) + len(self._fetches) >= MAX_PROBES:
                break
            self._finish_one(self._candidates[id])

    def _finish_one(self, candidate: _Candidate) -> None:
        if candidate.state != "new":
            return
        candidate.state = "probing"
        self._tally.rounds = max(self._tally.rounds, candidate.depth + 1)
        if self._finish == "fetch" or not candidate.row.contact:
            self._fetch(candidate)
            return
        self._number += 1
        probe = Probe(self._number, candidate.row.contact, candidate.row.id, candidate.row.seq)
        self._probes[probe.number] = candidate
        self._tally.rpcs += 1
        self._tally.probes += 1
        self._out.append(probe)

    def _flush(self) -> list[Ask | Probe]:
        out, self._out = self._out, []
        return out


__all__ = ["ABSENT", "Counts", "Match", "Search", "SearchResult"]
