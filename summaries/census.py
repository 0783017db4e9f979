"""What all adverts that match a query come to, as a state machine: asks out, answers in, aggregates at the end.

Decides which trie to go down, whom to ask, and what the outcome is worth. Without `whole`, every leaf that passes is
read from all replicas but one, which must agree: then counts, sums and groups are exact. With it, a child all of whose
adverts certainly pass is taken at the word of its parent's entry, as old as that says. What could not be read, or is in
dispute between replicas, is told as bounds. All of it is holders' word: nobody's advert is fetched.

    start() -> asks;  answered(ask, reply, now_ms) -> more asks;  finished -> result
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from summaries.asks import REPLICAS, Absent, Ask, Outcome
from summaries.errors import LocalError
from summaries.filter import Filter
from summaries.messages import NotReady, Tallied, Tally, TallyChild, TallyPart
from summaries.plan import ranked
from summaries.query import Query, filter_of
from summaries.schema import ENVIRONMENT, Schema
from summaries.sums import Aggregate
from summaries.tallying import GROUPS
from summaries.trie import ROOT, Prefix
from summaries.visit import Source

MAX_READS = 64  # trie nodes read at once, as a search does
MAX_RPCS = 20_000
MAX_PAGES = 256  # of one replica's answer
MAX_RETRIES = 3


@dataclass(frozen=True, slots=True)
class CensusResult:
    """`groups` are certain; `most` counts also what was not read. `age_ms`: of the oldest summary that was believed."""

    dimension: str
    groups: Mapping[str, Aggregate]
    least: int
    most: int
    age_ms: int
    summarised_leaves: int
    leaves: int
    aggregation_points: int
    rpcs: int
    rounds: int
    unreachable: tuple[Prefix, ...]
    disputed: tuple[Prefix, ...]  # replicas differed: rows were moving, or one of them lies
    confirmed: bool  # whether each node's word is two replicas' word
    listed: bool = False  # whether a search listed them instead, since replicas differed

    @property
    def exact(self) -> bool:
        """Whether every leaf that may hold a match was read, and its replicas agreed."""
        return self.confirmed and not (self.unreachable or self.disputed) and self.least == self.most

    @property
    def total(self) -> Aggregate:
        found = Aggregate()
        for one in self.groups.values():
            found += one
        return found


@dataclass(slots=True)
class _Reading:
    """One source's answer, page by page."""

    source: Source
    digest_only: bool
    parts: list[TallyPart] = field(default_factory=list)
    children: list[TallyChild] = field(default_factory=list)
    digest: int = 0
    pages: int = 0
    retries: int = 0
    splitting: bool = False
    late: bool = False  # slower than usual: others are asked meanwhile

    def restart(self) -> None:
        self.parts, self.children, self.pages = [], [], 0


@dataclass(slots=True)
class _Node:
    """One trie node being read."""

    prefix: Prefix
    count: int
    depth: int
    need: int
    sources: deque[Source]
    holders: tuple[bytes, ...]
    readings: list[_Reading] = field(default_factory=list)  # complete ones
    open: int = 0
    late: int = 0  # sources asked that are slower than usual, and count once they answer
    closed: bool = False
    failed: int = 0
    absent: int = 0
    again: int = 0  # whole readings after the first
    below: list[TallyChild] = field(default_factory=list)  # named with this one, to be read after it


class Census:
    """One query's aggregates. The query's hosts must be resolved; its order and limit are of no account."""

    def __init__(
        self,
        schema: Schema,
        query: Query,
        *,
        group: str = "",
        whole: bool = False,
        dimension: str | None = None,
        max_rpcs: int = MAX_RPCS,
        turn: int = 0,
        salts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        if group not in GROUPS:
            raise LocalError(f"adverts are grouped by one of {', '.join(GROUPS[1:])}, not by {group!r}")
        self._filter, exact = filter_of(query)
        if not exact:
            raise LocalError("this query is too large to be counted by holders: give it fewer alternatives")
        self.dimension = dimension or _trie(schema, self._filter)
        self._salt = salts.get(self.dimension, 0)
        if schema.dimension(self.dimension).kind == "categorical":
            raise LocalError("an advert stands in this trie once for each environment, so it cannot count adverts")
        self._group, self._whole = group, whole and not group
        self._max_rpcs, self._turn = max_rpcs, turn
        self._waiting: deque[_Node] = deque()
        self._asked: dict[int, tuple[_Node, _Reading]] = {}
        self._active = 0
        self._groups: dict[str, Aggregate] = {}
        self._unread = self._age_ms = self._summarised = self._leaves = self._points = self._rpcs = self._rounds = 0
        self._spare = 0  # of the counted, how many only one of two replicas knew
        self._unreachable: list[Prefix] = []
        self._disputed: list[Prefix] = []
        self._out: list[Ask] = []
        self._number = 0
        self._started = False

    def start(self) -> list[Ask]:
        """The first questions."""
        self._started = True
        if self._filter.terms:
            self._waiting.append(self._node(ROOT, 0, 1, (), 0))
        return self._pump()

    def answered(self, ask: Ask, reply: Outcome) -> list[Ask]:
        """Take in the reply to an ask (None: no answer; ABSENT: no such replica)."""
        node, reading = self._asked.pop(ask.number, (None, None))
        if node is not None and reading is not None and isinstance(ask.message, Tally) and not node.closed:
            if reading.late:
                reading.late = False
                node.late -= 1
                node.open += 1
            if isinstance(reply, Tallied) and reply.prefix == node.prefix:
                self._page(node, reading, ask.message, reply)
            elif isinstance(reply, NotReady) and reading.retries < MAX_RETRIES:
                reading.retries += 1
                self._ask(node, reading, ask.message.first, reply.retry_ms * reading.retries)
            else:
                self._miss(node, reading, absent=isinstance(reply, Absent))
        return self._pump()

    def slow(self, ask: Ask) -> list[Ask]:
        """Nothing came yet, though it usually would have: others are asked as well (as in execute.py)."""
        node, reading = self._asked.get(ask.number, (None, None))
        if node is not None and reading is not None and not (node.closed or reading.late):
            reading.late = True
            node.open -= 1
            node.late += 1
            self._consider(node)
        return self._pump()

    @property
    def finished(self) -> bool:
        return self._started and not self._active and not self._waiting

    @property
    def result(self) -> CensusResult:
        counted = sum(one.count for one in self._groups.values())
        pending = [*self._waiting, *{id(node): node for node, _ in self._asked.values() if not node.closed}.values()]
        return CensusResult(
            dimension=self.dimension,
            groups=dict(sorted(self._groups.items())),
            least=counted - self._spare,
            most=counted + self._unread + sum(_unread(node) for node in pending),
            age_ms=self._age_ms,
            summarised_leaves=self._summarised,
            leaves=self._leaves,
            aggregation_points=self._points,
            rpcs=self._rpcs,
            rounds=self._rounds,
            unreachable=(*self._unreachable, *(prefix for node in pending for prefix in _prefixes(node))),
            disputed=tuple(self._disputed),
            confirmed=not self._whole,
        )

    # ----- asking

    def _pump(self) -> list[Ask]:
        while self._waiting and self._active < MAX_READS:
            node = self._waiting.popleft()
            if self._rpcs >= self._max_rpcs:
                self._unreachable += _prefixes(node)
                self._unread += _unread(node)
                continue
            self._active += 1
            for place in range(min(node.need, len(node.sources))):
                self._begin(node, digest_only=place > 0)
        out, self._out = self._out, []
        return out

    def _node(self, prefix: Prefix, count: int, depth: int, holders: tuple[bytes, ...], known_holders: int) -> _Node:
        sources = deque(Source(holder) for holder in holders)
        first = 0 if holders else self._turn
        sources += [Source(None, (first + replica) % REPLICAS) for replica in range(REPLICAS)]
        # Summaries are as old as they are: only what is to be exact needs more than one replica's word.
        need = 1 if self._whole else max(2, known_holders - 1)
        return _Node(prefix, count, depth, need, sources, holders)

    def _begin(self, node: _Node, digest_only: bool) -> None:
        node.open += 1
        self._ask(node, _Reading(node.sources.popleft(), digest_only), 0)

    def _ask(self, node: _Node, reading: _Reading, first: int, after_ms: int = 0) -> None:
        self._number += 1
        self._rpcs += 1
        self._rounds = max(self._rounds, node.depth)
        question = Tally(node.prefix, self._filter, self._group, self._whole, first, reading.digest_only)
        source = reading.source
        exclude = node.holders if source.holder is None else ()
        self._asked[self._number] = node, reading
        self._out.append(
            Ask(
                self._number, self.dimension, node.prefix, question, source.holder, source.replica, exclude, after_ms,
                salt=self._salt,
            )
        )

    # ----- answers

    def _page(self, node: _Node, reading: _Reading, question: Tally, page: Tallied) -> None:
        if question.first and page.digest != reading.digest:  # it changed between two pages
            if reading.retries < MAX_RETRIES:
                reading.retries += 1
                reading.restart()
                self._ask(node, reading, 0)
            else:
                self._miss(node, reading)
            return
        reading.digest, reading.splitting = page.digest, page.splitting
        reading.parts += page.parts
        reading.children += page.children
        reading.pages += 1
        here = len(reading.parts) + len(reading.children)
        if not reading.digest_only and here < page.total:
            if (page.parts or page.children) and reading.pages < MAX_PAGES:
                self._ask(node, reading, here)
            else:
                self._miss(node, reading)
            return
        node.open -= 1
        node.readings.append(reading)
        self._consider(node)

    def _miss(self, node: _Node, reading: _Reading, *, absent: bool = False) -> None:
        node.open -= 1
        node.failed += not absent
        node.absent += absent
        if absent:
            node.sources = deque(
                one for one in node.sources if one.holder is not None or one.replica < reading.source.replica
            )
        elif not reading.source.again:
            node.sources.append(Source(reading.source.holder, reading.source.replica, True))
        self._consider(node)

    def _consider(self, node: _Node) -> None:
        """Ask more, or close.

        What is acknowledged stands at two replicas, so all but one of those that may have it must say the same.
        """
        if node.open:
            return
        whole = [one for one in node.readings if not one.digest_only]
        words = Counter(one.digest for one in node.readings)
        need = max(node.need, len(node.readings) - 1)
        agreed = [digest for digest, count in sorted(words.items()) if count >= need]
        if node.sources and not (whole and agreed):
            self._begin(node, digest_only=bool(whole))
            return
        if node.late and not (whole and agreed):
            return  # nobody else is left to ask
        # Read whole what two agree on, or else what the others have to add.
        unread = [one for one in node.readings if one.digest_only and (not agreed or one.digest in agreed)]
        known = {one.digest for one in whole}
        other = next((one for one in unread if one.digest not in known), None)
        if other is not None and not known & set(agreed) and node.again < MAX_RETRIES:
            node.again += 1
            node.readings.remove(other)
            node.open += 1
            self._ask(node, _Reading(other.source, False), 0)
            return
        self._close(node, [one for one in whole if not agreed or one.digest in agreed] or whole, bool(agreed))

    def _close(self, node: _Node, whole: list[_Reading], agreed: bool) -> None:
        self._active -= 1
        node.closed = True
        if not whole:
            self._give_up(node)
            return
        alone = len(node.readings) == 1 and node.absent > 0 and not node.failed  # there is no second nearest
        counts = [sum(part.aggregate.count for part in one.parts) for one in whole]
        best = whole[counts.index(max(counts))]
        children = {one.prefix: one for reading in whole for one in reading.children}
        # Others say that it was split, and two of its holders have not heard of it: its rows stand below it as well.
        twice = best.splitting or (max(counts) > 0 and any(child.prefix not in children for child in node.below))
        if not (agreed or alone) or twice:
            self._disputed.append(node.prefix)
            self._spare += max(counts) if twice else max(counts) - min(counts)
        for part in best.parts:
            self._groups[part.name] = self._groups.get(part.name, Aggregate()) + part.aggregate
            self._age_ms = max(self._age_ms, part.age_ms)
            self._summarised += part.leaves
        self._points += bool(children)
        self._leaves += not children
        self._descend(node, children)

    def _give_up(self, node: _Node) -> None:
        self._unreachable.append(node.prefix)
        self._unread += node.count
        self._descend(node, {})

    def _descend(self, node: _Node, children: Mapping[Prefix, TallyChild]) -> None:
        """Queue what is below a node that was read: the covering first, what lies below it once that was read.

        As searches do: a row that is handed down is then met above or below, never in neither.
        """
        named = {**{child.prefix: child for child in node.below}, **children}
        above: _Node | None = None
        for prefix in sorted(named, key=lambda one: (one.first, one.length)):
            child = named[prefix]
            if not (prefix.length > node.prefix.length and node.prefix.covers(prefix)):
                continue  # not its to name: a lying holder
            if above is not None and above.prefix.covers(prefix):
                above.below.append(child)
                continue
            above = self._node(prefix, child.count, node.depth + 1, child.holders, child.known_holders)
            self._waiting.append(above)


def _prefixes(node: _Node) -> list[Prefix]:
    return [node.prefix, *(child.prefix for child in node.below)]


def _unread(node: _Node) -> int:
    return node.count + sum(child.count for child in node.below)


def _trie(schema: Schema, filter_: Filter) -> str:
    """The trie whose range of the query is the smallest; any will do for what none tells apart."""
    shares: dict[str, float] = {}
    for term in filter_.terms:
        of_term = {name: share for share, name in ranked(schema, term)}
        for dimension in schema.dimensions:
            shares[dimension.name] = shares.get(dimension.name, 0.0) + of_term.get(dimension.name, 1.0)
    names = [name for name in shares if name != ENVIRONMENT]
    return min(names, key=lambda name: (shares[name], name != "price.cpu"), default="price.cpu")
