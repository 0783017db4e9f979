"""Holders and servers that are slow, or dead: nobody waits for them where others can tell, and nothing is missed."""

from __future__ import annotations

from random import Random

import pytest
from summaries_world import TIMEOUT_MS, World, attributes

from summaries.parse import parse
from summaries.point import Point
from summaries.publish import Publication
from summaries.query import Query, matcher
from summaries.schema import Schema
from summaries.trie import ROOT

SAMPLE = [attributes(Random(seed)) for seed in range(200)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
NAME = "price.cpu"
SLOW_MS = 200  # more than three times the longest round trip of the world but one


def made(seed: int, nodes: int, count: int, **options: object) -> tuple[World, list[bytes]]:
    world = World(seed, nodes, SCHEMA, capacity=8, **options)  # type: ignore[arg-type]
    return world, [world.advert(1 + number, 1, SAMPLE[number]) for number in range(count)]


@pytest.mark.parametrize("text", ["cores >= 0", "cores >= 0 limit 10", "cores >= 0 order by price.cpu limit 5"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_dead_holder_costs_a_moment_and_no_time_out(text: str, strict: bool) -> None:
    world, raws = made(5, 6, 60)
    world.publish_all(raws, [NAME])
    world.run(20_000)
    query = parse(text, currency="USD")
    whole = world.search(query, dimension=NAME, strict=strict)
    for dead in world.names:
        world.down = {dead}
        began_ms = world.now_ms
        result = world.search(query, dimension=NAME, strict=strict, slow_ms=lambda: SLOW_MS)
        assert result.complete and len(result.matches) == len(whole.matches)
        assert world.now_ms - began_ms < TIMEOUT_MS
        world.run(TIMEOUT_MS + 1)


def test_without_a_word_on_slowness_a_dead_holder_costs_its_time_out() -> None:
    world, raws = made(5, 6, 60)
    world.publish_all(raws, [NAME])
    world.run(20_000)
    world.down = {world.nearest(NAME, ROOT)[0]}
    took = []
    for turn in range(3):
        began_ms = world.now_ms
        assert world.search(parse("cores >= 0"), dimension=NAME, turn=turn).complete
        took.append(world.now_ms - began_ms)
    assert max(took) >= TIMEOUT_MS


def test_a_dead_server_is_shown_by_its_holders_after_a_moment() -> None:
    world, raws = made(6, 6, 40)
    world.publish_all(raws, [NAME])
    world.run(20_000)
    dead = {world.adverts[raw].contact for raw in raws[:7]}
    world.down |= dead
    began_ms = world.now_ms
    result = world.search(parse("cores >= 0"), dimension=NAME, slow_ms=lambda: SLOW_MS)
    assert result.complete and len(result.matches) == 40
    assert {one.contact for one in result.matches if one.point is not None} >= dead
    assert world.now_ms - began_ms < TIMEOUT_MS


@pytest.mark.parametrize("seed", range(12))
def test_whatever_was_acknowledged_is_found_however_many_are_called_slow(seed: int) -> None:
    """Under loss and duplicates, and with answers that come before, while and after others are asked in their place."""
    world, raws = made(seed, 9, 120, loss=0.05, duplicates=0.1)
    random = Random(seed)
    for start in range(0, len(raws), 15):
        batch: list[Publication] = [world.publish(NAME, raw) for raw in raws[start : start + 15]]
        world.run(until=lambda batch=batch: all(one.finished for one in batch))  # type: ignore[misc]
        durable = {world.adverts[raw].id for raw, one in zip(raws[start:], batch) if one.durable}
        world.down = {world.adverts[raw].contact for raw in random.sample(raws, 5)}
        text = random.choice(["cores >= 0", "cores >= 0 order by price.cpu", "cores >= 0 limit 1000"])
        result = world.search(
            parse(text, currency="USD"), dimension=NAME, turn=seed, slow_ms=lambda: random.randrange(1, 120)
        )
        assert not result.complete or durable <= set(result.ids())
        assert len(result.ids()) == len(result.matches)
        world.down = set()


@pytest.mark.parametrize("seed", range(4))
def test_all_dimensions_are_compared_though_any_is_called_slow(seed: int) -> None:
    world, raws = made(seed, 9, 40)
    names = [one.name for one in SCHEMA.dimensions]
    world.publish_all(raws, names)
    world.run(20_000)
    random = Random(seed)
    for text in ("cores >= 4 and price.cpu <= 1 USD/h", "cores >= 4 or net.available >= 1 Mbps"):
        query = parse(text, currency="USD")
        for dead in range(3):
            world.down = set(random.sample(world.names, 1)) if dead else set()
            expected = {one.id for one in world.adverts.values() if matches(query, one)}
            result = world.search(query, turn=random.getrandbits(32), slow_ms=lambda: random.randrange(1, 120))
            assert result.complete and set(result.ids()) == expected


def matches(query: Query, point: Point) -> bool:
    return matcher(query.where)(point.attributes)


@pytest.mark.parametrize("exact", [False, True])
def test_a_census_asks_others_in_the_place_of_slow_ones(exact: bool) -> None:
    world, raws = made(5, 6, 60)
    world.publish_all(raws, [NAME])
    world.run(40_000)
    query, random = parse("cores >= 0"), Random(1)
    for dead in world.names:
        world.down = {dead}
        began_ms = world.now_ms
        result = world.census(query, dimension=NAME, whole=not exact, slow_ms=lambda: SLOW_MS)
        assert not result.unreachable and (not exact or result.least <= 60 <= result.most)
        assert world.now_ms - began_ms < TIMEOUT_MS
        world.run(TIMEOUT_MS + 1)
    world.down = set()
    for _ in range(10):
        result = world.census(
            query, dimension=NAME, whole=not exact, turn=random.getrandbits(8), slow_ms=lambda: random.randrange(1, 120)
        )
        assert not result.unreachable and (not exact or result.total.count == 60)
