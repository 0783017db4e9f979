"""When clients want something, and what they ask for: open-loop arrivals, queries drawn around adverts that exist.

Decides the process (Poisson, multiplied during a surge, by thinning, so that a surge begins on time) and the text of a
query of each class. Leaves asking to the runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import cast

from summaries.point import Point
from summaries.query import Query, matches, print_query
from summaries.rank import Order
from xenonode.simulation.scenario import Workload
from xenonode.simulation.search_bench.queries import draw


def arrivals(rng: Random, rate_per_s: float, workload: Workload, duration_s: float) -> Iterator[float]:
    """The moments in 0..duration_s at which something arrives."""
    surges = workload.surge_for_s > 0
    highest = rate_per_s * max(1.0, workload.surge_times if surges else 1.0)
    if not highest:
        return
    time_s = 0.0
    while (time_s := time_s + rng.expovariate(highest)) < duration_s:
        surge = surges and workload.surge_at_s <= time_s < workload.surge_at_s + workload.surge_for_s
        if rng.random() * highest < rate_per_s * (workload.surge_times if surge else 1.0):
            yield time_s


def draw_class(rng: Random, workload: Workload) -> str:
    """A class of queries, by the mix's weights."""
    names = sorted(workload.mix)
    return rng.choices(names, [workload.mix[name] for name in names])[0]


def draw_query(rng: Random, kind: str, points: list[Point]) -> str:
    """The text of a query of this class, which at least one of the adverts answers."""

    def count(query: Query, most: int) -> int:
        return min(sum(matches(query, point.attributes) for point in points), most + 1)

    if kind == "nearest":  # as a client writes it: near means near itself
        (query,) = draw(rng, "conjunction", points, 1, count)
        return print_query(Query(query.where, Order("latency"), 10))
    (query,) = draw(rng, kind, points, 1, count)
    return print_query(query)


def draw_cores(rng: Random, workload: Workload) -> float:
    """A session's size: evenly by its logarithm, since small ones are many."""
    least, most = cast("tuple[float, float]", workload.session_cores)
    return float(least * (most / least) ** rng.random())
