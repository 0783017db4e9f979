"""Groups to be placed, for the search benchmark: two fronts near a city and apart from each other, a store near both.

Decides the mix, and how the cost of a group's parallel searches adds up: questions and bytes are summed, rounds are
those of the slowest member of each widening. Whoever answers the members' queries (holders, or a central index), the
choice among the candidates is the client's, by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from summaries.branching import Candidate
from summaries.filter import Comparison
from summaries.group import WIDTHS, Between, Group, GroupResult, GroupSearch, Member
from summaries.point import Point
from summaries.query import AllOf, Condition, Near, Query
from xenonode.simulation.search_bench.network import Cost
from xenonode.simulation.search_bench.queries import random_host

PLACEMENT = "placement"
METHODS = ("xenosearch", "xenosearch-strict", "xenosearch-cold", "xenosearch-strict-cold", "central-sqlite",
           "central-numpy")  # fmt: skip
_GIB = 1 << 30
Ask = Callable[[Query, Cost], Sequence[Point]]


def draw_groups(rng: Random, count: int) -> list[Group]:
    """`count` groups of three servers; a few of them cannot be placed."""
    return [_group(rng) for _ in range(count)]


def place_group(group: Group, ask: Ask, cost: Cost, widths: Sequence[int | None] = WIDTHS) -> GroupResult:
    """Place a group by the queries that `ask` answers."""
    search = GroupSearch(group, widths)
    while not search.finished:
        rounds = 0
        for at, query in search.wanted():
            one = Cost()
            points = ask(query, one)
            ranks = [(query.order.rank(point.attributes), point) for point in points]
            search.take(at, [Candidate(point.id, rank, point.location) for rank, point in ranks])
            rounds = max(rounds, one.rounds)
            _add(cost, one)
        cost.rounds += rounds
    return search.result


def _add(cost: Cost, one: Cost) -> None:
    cost.questions += one.questions
    cost.pages += one.pages
    cost.waits += one.waits
    cost.proofs += one.proofs
    cost.wasted += one.wasted
    cost.control_bytes += one.control_bytes
    cost.answer_bytes += one.answer_bytes
    cost.client_cpu_ns += one.client_cpu_ns
    cost.asked.update(one.asked)


def _group(rng: Random) -> Group:
    host = random_host(rng)
    near = Near((host,), rng.choice((40_000, 80_000)))
    wanted: Condition = Comparison("os", "=", "linux") if rng.random() < 0.5 else AllOf()
    front = Member("front", wanted, (rng.choice((500, 1_000, 2_000)), rng.choice((1, 2, 4)) * _GIB, 0), near, 2)
    store = Member("store", AllOf(), (rng.choice((1_000, 2_000)), 8 * _GIB, rng.choice((50, 200)) * _GIB))
    apart, together = rng.choice((5_000, 20_000)), rng.choice((40_000, 80_000))
    return Group((front, store), (Between("front", "front", apart), Between("front", "store", 0, together)))
