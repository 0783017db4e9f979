"""Ranges become sets, and sets are combined: `summaries` alone, without a network."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from summaries_queries import queries
from summaries_world import attributes

from summaries.collection import Collection
from summaries.parse import QueryError
from summaries.point import Point
from summaries.query import AllOf, AnyOf, Not, Query, matches
from summaries.schema import Schema


@cache
def servers() -> Collection:
    values = [attributes(Random(seed)) for seed in range(400)]
    schema = Schema.from_sample(values, most=128)  # type: ignore[arg-type]
    points = [
        Point.from_attributes(schema, id=number, seq=1, expires_s=1, attributes=one)  # type: ignore[arg-type]
        for number, one in enumerate(values)
    ]
    return Collection(schema, points, capacity=16)


def wanted(query: Query) -> set[int]:
    return {id for id in servers().everything() if matches(query, servers().point(id).attributes)}


def test_ranges_are_combined_to_sets_by_their_text() -> None:
    many, cheap = servers().ids("cores >= 16"), servers().ids("price.cpu <= 0.03 USD/h")
    assert 0 < len(many & cheap) < len(many) < len(many | cheap) < len(servers())
    assert many & cheap == servers().ids("cores >= 16 and price.cpu <= 0.03 USD/h")
    assert many | cheap == servers().ids("cores >= 16 or price.cpu <= 0.03 USD/h")
    assert many - cheap == servers().ids("cores >= 16 and not price.cpu <= 0.03 USD/h")
    assert servers().ids("cores >= 16 and cores <= 8") == servers().ids("") - servers().everything()
    with pytest.raises(QueryError):
        servers().ids("corse >= 1")


@settings(max_examples=100, deadline=None)
@given(queries, queries)
def test_the_algebra_of_ranges_is_that_of_sets_and_of_conditions(one: Query, other: Query) -> None:
    a, b = one.resolve({}, (0, 0, 0, 0)), other.resolve({}, (0, 0, 0, 0))
    first, second = servers().ids(a), servers().ids(b)
    assert set(first) == wanted(a) and set(second) == wanted(b)
    assert set(first | second) == wanted(Query(AnyOf((a.where, b.where)))) == set(first) | set(second)
    assert first & second == servers().ids(Query(AllOf((a.where, b.where))))
    assert first - second == servers().ids(Query(AllOf((a.where, Not(b.where)))))
