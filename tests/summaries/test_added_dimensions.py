"""Dimensions that a schema gained: of a number and of a text, beside tries whose zones know nothing of them."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from summaries_queries import queries
from summaries_world import World, attributes
from test_search_recall import Values, check

from summaries.dimension import Dimension, equi_depth
from summaries.filter import CompiledFilter
from summaries.parse import parse
from summaries.point import Point
from summaries.query import Query, filter_of, matches
from summaries.schema import Schema
from summaries.zone import Zone


@cache
def grown() -> tuple[World, Values, Schema]:
    """60 adverts under a schema with two dimensions more, and the schema of before."""
    random = Random(3)
    values = {random.getrandbits(64): attributes(random) for _ in range(60)}
    before = Schema.from_sample(list(values.values()), most=256)  # type: ignore[arg-type]
    uptime = Dimension("uptime", "s", "ordered", equi_depth([one["uptime"] for one in values.values()], 64))  # type: ignore[misc]
    owner = Dimension("owner", "", "ordered", tuple(range(1 << 54, 1 << 62, 1 << 54)))
    schema = Schema(3, (*before.dimensions, uptime, owner))
    world = World(3, 4, schema, capacity=8)
    raws = [world.advert(id, 1, one, ttl_s=100_000) for id, one in values.items()]
    assert all(one.durable for one in world.publish_all(raws, ["uptime", "owner", "cores"], 60))
    world.run(30_000)
    return world, values, before


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(queries, st.sampled_from(["uptime", "owner"]))
def test_recall_is_whole_in_an_added_trie(query: Query, dimension: str) -> None:
    world, values, _ = grown()
    check(world, values, query, dimension=dimension)


def test_a_text_is_looked_up_where_its_hash_puts_it() -> None:
    world, values, _ = grown()
    everything = check(world, values, parse("cores >= 1"), dimension="owner")
    for number in range(20):
        found = check(world, values, parse(f'owner = "owner-{number}"'), dimension="owner")
        assert found.counts.leaves < everything.counts.leaves
    check(world, values, parse('not owner = "owner-1" and owner != "owner-2"'), dimension="owner")


@pytest.mark.parametrize("text", ["uptime >= 900000 s", 'owner = "owner-7"', "uptime between [10 s, 500 s]"])
def test_a_zone_of_before_rules_nothing_out_by_what_it_does_not_say(text: str) -> None:
    world, values, before = grown()
    query = parse(text)
    compiled = CompiledFilter(world.schema, filter_of(query)[0])
    for id, one in values.items():
        point = Point.from_attributes(before, id=id, seq=1, expires_s=9, attributes=one)  # type: ignore[arg-type]
        assert compiled.passes(Zone.of_point(before, point))
        assert compiled.passes(Zone.of_point(world.schema, point)) >= matches(query, one)  # type: ignore[arg-type]
