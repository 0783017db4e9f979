"""Recall on a quiet network: every class of question, asked of the real holders, against a look at every advert.

Decides which clients ask (in turn, half of them with roots that they remember) and what is counted. Nothing is lost and
nothing changes, so the answer must be the oracle's: all of it, nothing else, and called complete. A question follows
from the seed and its number alone, so that any of them can be asked anywhere, and once more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from random import Random

from summaries.bulk import build
from summaries.execute import Search
from summaries.group import Group
from summaries.parse import parse
from summaries.point import Point
from summaries.query import Query
from summaries.result import SearchResult
from xenonode.first_schema import first_schema
from xenonode.simulation.recall_bench.groups import PLACEMENT, Groups
from xenonode.simulation.recall_bench.questions import MANY, Columns, Drawing, Question
from xenonode.simulation.search_bench.adverts import AdvertSet
from xenonode.simulation.search_bench.network import Cost, IndexNetwork

BOUNDS = (0, 1, 10, 100, 1_000)  # of the table of how many matched


@dataclass(slots=True)
class Tally:
    """What came of the questions of one class."""

    questions: int = 0
    due: int = 0
    found: int = 0
    wrong: int = 0
    partial: int = 0
    few: int = 0  # with 1 to 1,000 matches
    rpcs: int = 0
    cpu_s: float = 0.0
    matches: Counter[str] = field(default_factory=Counter)
    worst: list[str] = field(default_factory=list)  # questions that were not answered whole

    @property
    def recall(self) -> float:
        return self.found / self.due if self.due else 1.0

    def count(self, due: int, found: int, wrong: int, matching: int, rpcs: int) -> None:
        """One question more."""
        self.questions += 1
        self.due += due
        self.found += found
        self.wrong += wrong
        self.rpcs += rpcs
        self.few += 1 <= matching <= MANY
        self.matches[bucket(matching)] += 1

    def add(self, other: Tally) -> None:
        """Both together."""
        for name in ("questions", "due", "found", "wrong", "partial", "few", "rpcs", "cpu_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.matches.update(other.matches)
        self.worst += other.worst


class Quiet:
    """One set of adverts in the tries of every dimension, and questions about them."""

    def __init__(self, seed: int, adverts: int, nodes: int, capacity: int) -> None:
        schema = first_schema()
        self.adverts = AdvertSet(schema, seed, adverts)
        self.network = IndexNetwork(self.adverts, seed, nodes, count().__next__, capacity)
        for dimension in schema.dimensions:
            name = dimension.name
            nearest = partial(self.network.nearest, name)
            self.network.install(name, build(schema, name, self.adverts.adverts, capacity, nearest))
        self.network.read_roots()
        points = [point for point, _ in self.adverts.adverts]
        self.columns = Columns([point.id for point in points], [point.attributes for point in points])
        self.drawing = Drawing(Random(seed), self.columns)
        self.groups = Groups(self.columns, self.adverts.by_id)
        self.kinds = (*self.drawing.classes, PLACEMENT)
        self._seed = seed

    def run(self, first: int, end: int) -> dict[str, Tally]:
        """A tally a class, for the questions from one number to another; their classes take turns."""
        tallies = {kind: Tally() for kind in self.kinds}
        for number in range(first, end):
            kind, round_ = self.kinds[number % len(self.kinds)], number // len(self.kinds)
            rng = self.drawing.begin(f"{self._seed} {number}")
            if kind == PLACEMENT:
                self._place(self.groups.draw(rng), tallies[kind], remembered=bool(round_ % 2))
            else:
                self._ask(self.drawing.draw(kind), tallies[kind], remembered=bool(round_ % 2))
        return tallies

    def _ask(self, question: Question, tally: Tally, *, remembered: bool) -> None:
        result = self._search(parse(question.text, currency="USD").resolve({}, (0, 0, 0, 0)), remembered, Cost())
        due, found, wrong = question.verdict([match.id for match in result.matches], self.columns)
        tally.count(due, found, wrong, int(question.mask.sum()), result.counts.rpcs)
        tally.partial += not result.complete
        if found < due or wrong or not result.complete:
            tally.worst.append(question.text)

    def _place(self, group: Group, tally: Tally, *, remembered: bool) -> None:
        def answered(query: Query, cost: Cost) -> list[Point]:
            result = self._search(query, remembered, cost)
            tally.partial += not result.complete
            return [self.adverts.by_id[match.id] for match in result.matches]

        due, found, wrong, questions = self.groups.verdict(group, answered)
        tally.count(due, found, wrong, self.groups.fewest(group), questions)
        if found < due or wrong:
            tally.worst.append(str(group))

    def _search(self, query: Query, remembered: bool, cost: Cost) -> SearchResult:
        client = self.network.next_client()
        search = Search(
            self.adverts.schema,
            query,
            self.adverts.verify,
            roots=client.roots if remembered else {},
            turn=self.network.turn(),
            max_rpcs=8 * len(self.columns.ids) + 1_000,  # enough for a question that matches everything
        )
        self.network.search(search, cost)
        return search.result


def bucket(matching: int) -> str:
    """The line of the distribution that a number of matches belongs to."""
    for low, high in pairwise(BOUNDS):
        if matching <= high:
            return str(high) if high - low <= 1 and matching else "0" if not matching else f"{low + 1} to {high}"
    return f"above {BOUNDS[-1]}"
