"""A search as a state machine: asks out, answers in, and at the end what matches.

Decides what to ask next and when to stop. It goes down the chosen tries best-first: nodes whose
bound is least are read first, many at once; with a limit it stops when no unread node can hold
anything better than what it has. Finalists are probed: a server's current signed advert is
verified and matched exactly, so nothing is returned on a holder's word. A strict search unites
replicas (visit.py); what could not be read makes the result partial, and is named.

    start() -> asks;  answered(ask, reply) -> more asks;  probed(probe, advert) -> more;
    slow(ask or probe) -> more;  finished -> result.
    The driver sends, waits, says what is slow, and enforces time-outs.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from itertools import count
from types import MappingProxyType

from summaries.answer import digest_of
from summaries.asks import ABSENT, REPLICAS, Absent, Ask, Outcome, Probe
from summaries.attributes import LARGEST
from summaries.candidates import Candidates, Finish, Page, Verify
from summaries.errors import LocalError
from summaries.explain import Explanation, NodeRead, describe
from summaries.filter import Filter, compiled
from summaries.idset import IdSet
from summaries.impossible import is_impossible
from summaries.messages import Answer, Child, NotReady, Read
from summaries.plan import Part, choose, doubled, make_plan
from summaries.query import Query, filter_of
from summaries.rank import LAST
from summaries.reading import MAX_RETRIES, Reading, Span
from summaries.result import Counts, Match, SearchResult, Tally
from summaries.roots import RootView
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix
from summaries.visit import Source, Visit

MAX_READS = 128  # trie nodes read at once: answers of 150 kB, within what a socket buffers
MAX_WAVE = 64  # with a limit (search.md: waves of up to 64)
FIRST_WAVE = 2  # with a limit: the root, then waves of 4, 8 .. 64, so that a small limit reads little
FIRST_WAVE_WARM = 4  # without having to wait for the root
MAX_RPCS = 20_000  # a search's whole budget: a hundred times what a conjunction over 1M adverts needs
MAX_DOUBTFUL = 256  # prefixes read on one replica's word that rests on one replica's word; a trie in mid-split has 95
MAX_UNREACHABLE = 1_000  # of the ranges that the budget left out, how many are named
OVERFETCH = 4  # rows asked of a leaf beyond the limit, for those that fail their probe
NEVER = LAST + 1


class Search:
    """One query's execution. The query's hosts must be resolved to coordinates.

    A `doubting` search reads every replica, of two tries for each part of the plan: it misses only what all holders of
    one prefix in each hide together. Roots are read from the copies in `group`, where there are any (copying.py); of a
    dimension that has several tries, `salts` says which one is read (salting.py).
    """

    def __init__(
        self,
        schema: Schema,
        query: Query,
        verify: Verify,
        *,
        strict: bool = True,
        finish: Finish = "probe",
        exclude: IdSet | None = None,
        within: IdSet | None = None,
        dimension: str | None = None,
        max_rpcs: int = MAX_RPCS,
        roots: Mapping[str, RootView] | None = None,
        turn: int = 0,
        replicas: int = REPLICAS,
        doubting: bool = False,
        group: int = 0,
        salts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        if "latency" in query.order.keys and not query.order.hosts:
            raise LocalError("resolve the query's hosts to coordinates first")
        self._schema, self._query = schema, query
        self._max_rpcs = max_rpcs
        self._strict = strict
        asked, self._exact = filter_of(query)
        self._filter = Filter(tuple(term for term in asked.terms if not is_impossible(term)))
        self._roots, self._turn = {} if doubting else roots or {}, turn
        self._replicas, self._doubting = replicas, doubting
        self._group = 0 if doubting else group  # all of a root's replicas are its own holders
        self._salts = salts
        self._named = dimension
        self._parts: list[Part] = []
        self._comparing: dict[str, int] = {}
        if dimension is not None:
            schema.dimension(dimension)
        self._compared: dict[int, Visit] = {}
        self._nodes: list[Visit] = []  # that were read, for the explanation
        self._window = MAX_READS if query.limit is None else FIRST_WAVE
        self._wave = 1  # reads until the next wave; the root is a wave of its own
        self._heap: list[tuple[int, int, int, Visit]] = []  # what is read next first: see _queue
        self._active: dict[int, Visit] = {}
        self._readings: dict[int, tuple[Reading, Span]] = {}
        self._seen: dict[tuple[int, Prefix], Visit] = {}
        self._unreachable: dict[tuple[str, Prefix], None] = {}
        self._doubtful = 0
        self._tally = Tally()
        self._numbers = count(1)
        self._now_ms = 0
        self._out: list[Ask | Probe] = []
        self._candidates = Candidates(
            query, verify, finish, exclude, within, self._tally, self._numbers, self._out, salts
        )
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
        views = {
            name: view for name, view in self._roots.items()
            if view.is_fresh(self._now_ms) and not view.has_rows and view.salt == self._salts.get(name, 0)
        }  # fmt: skip
        self._roots = views
        if self._named is not None:  # a caller that compares plans
            self._parts = [Part(self._named, self._filter)]
            return
        plan = make_plan(self._schema, self._filter, ordered, limited, views)
        self._parts = list(doubled(self._schema, plan.parts) if self._doubting else plan.parts)
        if len(plan.candidates) > 1 and not self._doubting:
            self._comparing = dict.fromkeys(plan.candidates, 0)
            self._parts = [Part(name, self._filter) for name in self._comparing]

    def _begin(self, part: int) -> None:
        """Read the root of a part's trie; or, where we know it, what passes below it at once."""
        bound = -LAST if self._query.order.by else 0
        name = self._parts[part].dimension
        group = 0 if name in self._salts else self._group
        visit = Visit(part, ROOT, bound, 0, 1, limit=self._leaf_limit(), group=group)
        self._seen[part, ROOT] = visit
        view = self._roots.get(name)
        if view is None:
            self._launch(visit)
            return
        condition = compiled(self._schema, self._parts[part].filter)
        passing = view.passing(self._schema, condition, self._query.order)
        self._tally.root_age_ms = max(self._tally.root_age_ms, self._now_ms - view.read_ms)
        self._tally.pruned += len(view.children) - len(passing)
        self._window = max(self._window, FIRST_WAVE_WARM)
        if self._strict:
            visit.digests.add(digest_of([child for child, _ in passing], [mark for _, mark in passing]))
            self._launch(visit)
        self._descend(part, {child.prefix: child for child, _ in passing}, 1)

    def answered(self, ask: Ask, reply: Outcome, now_ms: int) -> list[Ask | Probe]:
        """Take in the reply to an ask (None: no answer; ABSENT: no such replica)."""
        self._now_ms = now_ms
        self._candidates.fetched(ask, reply, now_ms)
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
        self._candidates.probed(probe, advert, now_ms, round_trip_us)
        if self._query.limit is None:  # then what is read next does not depend on how good this one is
            self._candidates.finish(NEVER)
        else:
            self._pump()
        return self._flush() if self._out else []

    def slow(self, ask: Ask | Probe, now_ms: int) -> list[Ask | Probe]:
        """Nothing came yet, though it usually would have: others are asked as well, and whoever answers first will do.

        Not where all replicas are to be heard: who doubts waits for each of them.
        """
        self._now_ms = now_ms
        reading, _ = self._readings.get(ask.number, (None, (0, 0)))
        if reading is None:
            self._candidates.slow(ask.number)
        elif not (reading.late or self._doubting) and id(reading.visit) in self._active:
            visit, reading.late = reading.visit, True
            self._ask_more(visit, visit.slow(reading.digest_only))
            if visit.is_over:
                self._close(visit)
                self._pump()
        return self._flush()

    @property
    def finished(self) -> bool:
        return self._started and not (self._active or self._candidates.is_busy)

    @property
    def result(self) -> SearchResult:
        """What was found so far; final once finished."""
        unread = sum(visit.count for _, _, _, visit in self._heap) + sum(one.count for one in self._active.values())
        candidates = self._candidates
        return SearchResult(
            candidates.found(),
            self._tally.counts(),
            tuple(sorted(self._unreachable)),
            tuple(sorted(candidates.unverified)),
            candidates.count,
            candidates.count + unread,
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
        strict = self._strict and not self._comparing
        visit.prepare(strict, self._turn, self._replicas, every=self._doubting)
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
            question = Read(
                visit.prefix, part.filter, self._query.order, visit.limit, LARGEST, 2 if self._strict else 1,
                span[0], reading.digest_only,
            )
            ask = Ask(
                next(self._numbers), part.dimension, visit.prefix, question, reading.source.holder,
                reading.source.replica, named, after_ms, group=visit.group,
                salt=self._salts.get(part.dimension, 0),
            )
            self._readings[ask.number] = reading, span
            self._tally.rpcs += 1
            self._tally.rounds = max(self._tally.rounds, visit.depth + reading.round)
            self._out.append(ask)

    def _read(self, reading: Reading, span: Span, ask: Ask, reply: Outcome) -> None:
        visit, whole = reading.visit, list[Source]()
        if id(visit) not in self._active:  # others were quicker
            if reading.late:
                reading.late = False
                visit.late -= 1
                visit.sources.append(reading.source)  # of roots that are compared one may have to be confirmed yet
            return
        if reading.late:
            reading.late = False
            visit.back(reading.digest_only)
        if isinstance(reply, Answer) and reply.prefix == visit.prefix:
            visit.take(reply)
            dimension = self._parts[visit.part].dimension
            page = Page(dimension, visit.prefix, visit.depth, reading.source)
            if reply.rows and not self._candidates.offer(page, reply.rows):
                self._unreachable[dimension, visit.prefix] = None
            if reply.rows:
                visit.last_rank = max(visit.last_rank, reply.rows[-1].rank)
            reading.took(span, reply)
            if self._tally.rpcs >= self._max_rpcs and reading.todo:
                reading.todo.clear()
                reading.cut = True
        elif isinstance(reply, NotReady) and visit.group:
            visit.sources.clear()  # the root has rows of its own, or the copy is new
            reading.lost(span)
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
        if visit.group and not visit.is_complete:
            self._seen[visit.part, ROOT] = own = visit.itself()
            self._launch(own)
            return
        if not visit.is_complete and not self._comparing:
            self._unreachable[self._parts[visit.part].dimension, visit.prefix] = None
        self._nodes.append(visit)
        self._tally.aggregation_points += bool(visit.children)
        self._tally.leaves += not visit.children
        self._tally.pruned += visit.pruned
        self._wave -= 1
        if self._wave <= 0:  # a wave is over: the next may be twice as large
            self._window = self._wave = min(self._window * 2, MAX_READS if self._query.limit is None else MAX_WAVE)
        if self._comparing and visit.prefix == ROOT:
            self._compared[visit.part] = visit
            if len(self._compared) < len(self._parts):
                return
            visit = self._choose()
            if self._strict and visit.is_complete:
                visit.confirm()
            if visit.group and visit.is_over and not visit.is_complete:  # one of its copies answered, the others do not
                self._seen[visit.part, ROOT] = visit = visit.itself()
                self._launch(visit)
            elif not visit.is_over:
                self._active[id(visit)] = visit
                self._ask_more(visit, [])
            elif not visit.is_complete:
                self._unreachable[self._parts[visit.part].dimension, ROOT] = None
        partly = visit.limit and visit.matched > visit.rows and visit.rows >= visit.limit
        if partly and id(visit) not in self._active:
            # The leaf has more than we asked for, none better than the last that it gave.
            below = list(visit.named().values())
            rest = Visit(
                visit.part, visit.prefix, min([visit.last_rank, *(child.bound for child in below)]),
                visit.matched - visit.rows, 1, visit.depth + 1, visit.known_holders, visit.holders, visit.limit * 8,
                below=below,
            )
            self._queue(rest)
        else:
            self._descend(visit.part, visit.named(), visit.depth + 1, visit)

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

    def _descend(
        self, part: int, children: Mapping[Prefix, Child], depth: int, parent: Visit | None = None
    ) -> None:
        """Queue what was named together; what lies below another one of them only after that one was read.

        A prefix that splits hands its rows down. Whoever read the child first and the prefix afterwards could miss
        a row on its way between them; read from above, a row is met in the one or in the other.
        """
        above: Visit | None = None
        for prefix in sorted(children, key=lambda one: (one.first, one.length)):
            child = children[prefix]
            doubts = 0 if parent is None else parent.doubts_of(prefix)
            if doubts > 1 and not self._may_doubt(part, prefix):
                continue
            if above is not None and above.prefix.covers(prefix):
                above.below.append(child)
                above.bound = min(above.bound, child.bound)
                continue
            if above is not None:
                self._queue(above)
            above = Visit(
                part, prefix, child.bound, child.count, child.leaves, depth, child.known_holders, child.holders,
                self._leaf_limit(), doubts=doubts,
            )
            before = self._seen.get((part, prefix))
            if before is not None:  # read before it was named anew: has anything changed since?
                above.digests.update(before.digests)
            self._seen[part, prefix] = above
        if above is not None:
            self._queue(above)

    def _may_doubt(self, part: int, prefix: Prefix) -> bool:
        """Whether to follow, once more, one replica's word that rests on one replica's word.

        A liar may name as many prefixes as it likes, and other liars hold some of those: without a bound, the search
        would drown in what they make up.
        """
        self._doubtful += 1
        if self._doubtful > MAX_DOUBTFUL:
            if len(self._unreachable) < MAX_UNREACHABLE:
                self._unreachable[self._parts[part].dimension, prefix] = None
            return False
        return True

    def _queue(self, visit: Visit) -> None:
        # With a limit the best first, of equals the deeper: leaves end a search. Else all must be read, and aggregation
        # points first: one that waited for a hundred leaves would make those below it wait as long once more.
        every = self._query.limit is None
        order = (visit.leaves <= 1, visit.prefix.length) if every else (visit.bound, -visit.prefix.length)
        heappush(self._heap, (*order, next(self._numbers), visit))

    def _leaf_limit(self) -> int:
        limit = self._query.limit
        return 0 if limit is None or not self._exact else limit + OVERFETCH

    # ----- what next

    def _pump(self) -> None:
        if not self._comparing:
            while self._go_on():
                pass

    def _go_on(self) -> bool:
        """Read and finish what is next; whether that made room for more."""
        limit, ordered = self._query.limit, bool(self._query.order.by)
        if self._tally.rpcs >= self._max_rpcs:
            # Only a lying holder, or a query for nearly everything, comes here: say what was left out.
            for _, _, _, visit in sorted(self._heap)[:MAX_UNREACHABLE]:
                self._unreachable[self._parts[visit.part].dimension, visit.prefix] = None
            self._heap.clear()
        while self._heap and len(self._active) < self._window:
            bound = self._heap[0][0]
            if limit is not None:
                # Enough that is certainly better (with an order), or enough of anything (without).
                better = self._candidates.better(bound) if ordered else self._candidates.count
                if better >= limit:
                    break
            self._launch(heappop(self._heap)[3])
        if limit is None:
            return self._candidates.finish(NEVER)
        floor = min((visit.bound for visit in self._active.values()), default=NEVER)
        if self._heap:
            floor = min(floor, self._heap[0][0])
        return self._candidates.finish(floor)

    def _flush(self) -> list[Ask | Probe]:
        out = self._out.copy()
        self._out.clear()
        return out


__all__ = ["ABSENT", "Counts", "Match", "Search", "SearchResult"]
