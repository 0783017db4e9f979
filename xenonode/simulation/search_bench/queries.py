"""The questions that a search benchmark asks, by class, drawn around adverts that exist.

Decides the mix: a conjunction names two to five attributes and is satisfied by the advert that it was drawn around,
whose other attributes are where they are, so that correlations of real machines count. A query has 1 to 1,000 answers
in all, limit or not: who gets more narrows the question (that all classes answer those too is for the tests to show).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

from summaries.filter import Comparison, Coordinate
from summaries.point import Point
from summaries.query import Condition, Near, Query, conjunction, disjunction
from summaries.rank import Order
from xenonode.catalogue import REGIONS

CLASSES = ("conjunction", "union", "topk", "nearest", "cheapest_within")
LIMIT = 10
MANY = 1_000
DRAWS_MAX = 200  # of one query with 1 to 1,000 answers
NARROWED = 20  # draws after each of which one attribute more is named: among a million adverts two of five match many
_AMOUNTS = ("cpu.available", "cores", "memory.available", "disk.available", "net.available")
_PRICES = ("price.cpu", "price.memory", "price.disk")
_WITHIN_US = (20_000, 40_000, 80_000)

Count = Callable[[Query, int], int]


def draw(rng: Random, kind: str, points: list[Point], queries: int, count: Count) -> list[Query]:
    """`queries` queries of a class. `count` says how many adverts match one, as far as it matters."""
    found = []
    for _ in range(queries):
        query = _one(rng, kind, points)
        for drawn in range(DRAWS_MAX):
            if 1 <= count(query, MANY) <= MANY:
                break
            query = _one(rng, kind, points, drawn // NARROWED)
        found.append(query)
    return found


def _one(rng: Random, kind: str, points: list[Point], more: int = 0) -> Query:
    where = _conjunction(rng, rng.choice(points), more)
    if kind == "conjunction":
        return Query(where)
    if kind == "union":
        others = [_conjunction(rng, rng.choice(points), more) for _ in range(rng.choice((1, 1, 2)))]
        return Query(disjunction(where, *others))
    if kind == "topk":
        return Query(where, Order("price.cpu", currency="USD"), LIMIT)
    host = random_host(rng)
    if kind == "nearest":
        return Query(where, Order("latency", hosts=(host,)), LIMIT)
    near = Near((host,), rng.choice(_WITHIN_US))
    return Query(conjunction(near, where), Order("price.cpu", currency="USD"), LIMIT)


def _conjunction(rng: Random, point: Point, more: int) -> Condition:
    values = point.attributes
    known = (*_AMOUNTS, *_PRICES, "os", "feature", "country")
    names = rng.sample(known, min(rng.choice((2, 3, 3, 4, 5)) + more, len(known)))
    return conjunction(*(_test(rng, name, values) for name in names))


def _test(rng: Random, name: str, values: Any) -> Condition:
    if name == "os":
        kind, chosen, _ = rng.choice(values["environments"])
        return Comparison(kind, "=", chosen)
    if name in ("feature", "country"):
        value = rng.choice(values["feature"]) if name == "feature" else values["country"]
        return Comparison(name, "=", value)
    value = cast(int, values[name])
    if name in _PRICES:
        return Comparison(name, "<=", value + rng.choice((0, value // 20)), "USD")
    if name == "cores":
        return Comparison(name, rng.choice((">=", "=")), value)
    return Comparison(name, ">=", max(1, value - rng.choice((0, value // 10))))


def random_host(rng: Random) -> Coordinate:
    """Somewhere near a city that has servers."""
    place = REGIONS[rng.choice(sorted(REGIONS))].location
    return (place.x_us + round(rng.gauss(0, 5_000)), place.y_us + round(rng.gauss(0, 5_000)), place.z_us, 1_000)
