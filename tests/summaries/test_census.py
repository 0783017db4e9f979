"""Aggregates of what matches, against brute force over every published advert."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from summaries_queries import queries
from summaries_world import World, attributes
from test_search_recall import wide

from summaries.census import Census
from summaries.errors import LocalError, MessageError
from summaries.messages import Tallied, TallyChild, TallyPart
from summaries.parse import parse
from summaries.point import Point, Rows
from summaries.query import Query, filter_of, matches
from summaries.schema import Schema
from summaries.sums import AGGREGATE, FREE, Aggregate, sum_of
from summaries.trie import ROOT, Prefix, keys_of

Values = dict[int, dict[str, object]]
SMALL = Schema.from_sample([attributes(Random(seed)) for seed in range(50)], most=64)  # type: ignore[arg-type]


def truth(values: Values, query: Query) -> list[dict[str, object]]:
    return [one for one in values.values() if matches(query, one)]  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(queries, st.sampled_from(["", "country", "region"]), st.sampled_from([None, "cores", "location"]))
def test_a_census_that_read_every_leaf_is_exact(query: Query, group: str, dimension: str | None) -> None:
    world, values = wide()
    query = query.resolve({}, (0, 0, 0, 1_000))
    if not filter_of(query)[1]:
        return
    result = world.census(query, group=group, dimension=dimension)
    wanted = truth(values, query)
    assert result.exact, result
    assert result.least == result.most == result.total.count == len(wanted)
    assert result.total.free == tuple(sum(int(str(one[name])) for one in wanted) for name in FREE)
    names = {str(one[group]) if group else "" for one in wanted}
    assert set(result.groups) == names
    for name, found in result.groups.items():
        assert found.count == sum(not group or one[group] == name for one in wanted)


@cache
def settled() -> tuple[World, Values]:
    """A world of its own, whose nodes have told their sums."""
    random = Random(5)
    values = {random.getrandbits(64): attributes(random) for _ in range(300)}
    world = World(5, 6, Schema.from_sample(list(values.values())[:200], most=256), capacity=16)  # type: ignore[arg-type]
    raws = [world.advert(id, 1, one, ttl_s=100_000) for id, one in values.items()]
    assert all(one.durable for one in world.publish_all(raws, ["price.cpu"], 80))
    world.run(400_000)  # three levels, told by the first of each prefix's holders every half minute
    return world, values


def test_summaries_answer_for_whole_ranges_and_say_how_old_they_are() -> None:
    world, values = settled()
    everything = world.census(parse(""), whole=True, dimension="price.cpu")
    read = world.census(parse(""), dimension="price.cpu")
    assert read.exact and not everything.exact and 0 < everything.age_ms <= 300_000
    assert everything.least == everything.most == len(values) == read.total.count
    assert everything.total == read.total and everything.summarised_leaves
    assert everything.rpcs * 4 < read.rpcs
    part = world.census(parse("price.cpu <= 0.02 USD/h and cores >= 1"), whole=True, dimension="price.cpu")
    wanted = len(truth(values, parse("price.cpu <= 0.02 USD/h and cores >= 1")))
    assert part.least == part.most == wanted


def test_a_census_sees_what_was_acknowledged_a_moment_after_the_last_one() -> None:
    random = Random(8)
    values = {random.getrandbits(64): attributes(random) for _ in range(13)}
    world = World(8, 3, Schema.from_sample(list(values.values()), most=64), capacity=64)  # type: ignore[arg-type]
    *first, last = (world.advert(id, 1, one) for id, one in values.items())
    assert all(one.durable for one in world.publish_all(first, ["price.cpu"]))
    before = world.census(parse(""), group="region", dimension="price.cpu")
    assert len(before.groups) > 1 and before.total.count == len(first)
    assert all(one.durable for one in world.publish_all([last], ["price.cpu"]))
    after = world.census(parse(""), group="region", dimension="price.cpu")
    assert after.exact and after.total.count == len(values)


def test_what_cannot_be_read_is_told_as_bounds() -> None:
    world, values = settled()
    result = world.census(parse("cores >= 1"), dimension="price.cpu", max_rpcs=12)
    assert result.unreachable and not result.exact
    assert result.least < len(values) <= result.most


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 99), unique=True, min_size=1), st.integers(0, 100), st.sampled_from([0.1, 0.5, 0.9]))
def test_sketches_merge_and_bracket_the_true_quantile(chosen: list[int], cut: int, share: float) -> None:
    world, values = wide()
    rows = Rows(world.schema)
    for id, one in values.items():
        point = Point.from_attributes(world.schema, id=id, seq=1, expires_s=9, attributes=one)  # type: ignore[arg-type]
        rows.put(point, keys_of(world.schema, "cores", point)[0], b"")
    whole = Aggregate.of_rows(rows, chosen)
    assert sum_of([Aggregate.of_rows(rows, chosen[:cut]), Aggregate.of_rows(rows, chosen[cut:])]) == whole
    assert AGGREGATE[1](AGGREGATE[0](whole)) == whole
    for priced in whole.priced:
        prices = sorted(
            rows.points[at].number("price.cpu") for at in chosen
            if rows.points[at].attributes["currency"] == priced.currency
        )  # fmt: skip
        found = priced.quantile(world.schema, "price.cpu", share)
        true = prices[max(-int(-share * len(prices) // 1) - 1, 0)]
        assert found is not None and found.least <= true <= found.most and found.least <= found.value <= found.most


def test_a_census_refuses_what_it_cannot_count() -> None:
    world, _ = wide()
    for options in ({"group": "colour"}, {"dimension": "environment"}):
        with pytest.raises(LocalError):
            Census(world.schema, parse("cores >= 1"), **options)  # type: ignore[arg-type]
    with pytest.raises(MessageError):
        AGGREGATE[1]([1, [0, 0, 0], []])


def test_a_census_reads_what_lies_below_a_prefix_that_splits_after_it() -> None:
    census = Census(SMALL, parse("cores >= 0"), dimension="price.cpu")
    half, quarter, other = Prefix(0, 1), Prefix(0, 2), Prefix(1, 1)
    named = tuple(TallyChild(one, 5, 3, (b"a", b"b")) for one in (half, quarter, other))
    below = [each for ask in census.start() for each in census.answered(ask, Tallied(ROOT, (), named, 3, 7, False))]
    assert {ask.prefix for ask in below} == {half, other}
    after = [each for ask in below for each in census.answered(ask, Tallied(ask.prefix, (), (), 0, 8, False))]
    assert {ask.prefix for ask in after} == {quarter}


def test_what_lies_below_a_prefix_that_cannot_be_read_is_read_all_the_same() -> None:
    census = Census(SMALL, parse("cores >= 0"), dimension="price.cpu")
    half, quarter = Prefix(0, 1), Prefix(0, 2)
    named = tuple(TallyChild(one, 5, 3, (b"a", b"b")) for one in (half, quarter))
    asks = [each for ask in census.start() for each in census.answered(ask, Tallied(ROOT, (), named, 2, 7, False))]
    assert {ask.prefix for ask in asks} == {half}
    while asks and {ask.prefix for ask in asks} == {half}:
        asks = [each for ask in asks for each in census.answered(ask, None)]
    assert {ask.prefix for ask in asks} == {quarter}
    assert half in census.result.unreachable and not census.result.exact


def test_rows_below_a_prefix_that_its_holders_believe_whole_are_not_counted_twice_as_exact() -> None:
    census = Census(SMALL, parse("cores >= 0"), dimension="price.cpu")
    half, quarter = Prefix(0, 1), Prefix(0, 2)
    named = tuple(TallyChild(one, 5, 3, (b"a", b"b")) for one in (half, quarter))
    part = (TallyPart("", 0, 0, Aggregate(count=5)),)
    replies = {ROOT: ((), named), half: (part, ()), quarter: (part, ())}
    asks = census.start()
    while asks:
        ask, *asks = asks
        parts, children = replies[ask.prefix]
        asks += census.answered(ask, Tallied(ask.prefix, parts, children, len(parts + children), 7, False))
    assert not census.result.exact and (census.result.least, census.result.most) == (5, 10)


@pytest.mark.parametrize(
    "known_holders, digests, exact",
    [
        (2, (7, 7, 7, 7, 7), True),
        (2, (7, 8, 8, 8, 8), True),
        (2, (7, 8, 7, 8, 7), True),  # two of three
        (4, (7, 8, 7, 8, 7), False),  # a pair of four says nothing of what the other pair has
        (4, (7, 7, 7, 8, 8), True),
    ],
)
def test_all_replicas_but_one_must_agree(known_holders: int, digests: tuple[int, ...], exact: bool) -> None:
    census = Census(SMALL, parse("cores >= 0"), dimension="price.cpu")
    half = Prefix(0, 1)
    replicas = dict(zip(((b"a", 0), (b"b", 0), (None, 0), (None, 1), (None, 2)), digests))
    asks = census.start()
    while asks:
        ask, *asks = asks
        if ask.prefix == ROOT:
            asks += census.answered(
                ask, Tallied(ROOT, (), (TallyChild(half, 5, known_holders, (b"a", b"b")),), 1, 7, False)
            )
            continue
        digest = replicas[ask.holder, ask.replica]
        asks += census.answered(
            ask, Tallied(half, (TallyPart("", 0, 0, Aggregate(count=digest)),), (), 1, digest, False)
        )
    assert census.result.exact is exact
