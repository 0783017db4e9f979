"""A server's row moves to another leaf while searches read: each finds it where it was or where it is."""

from __future__ import annotations

from random import Random

import pytest
from summaries_world import GIB, World, attributes

from summaries.node import LEFT_MS, TrieNode
from summaries.parse import parse
from summaries.point import Point, Rows
from summaries.schema import Schema
from summaries.trie import ROOT, keys_of

SAMPLE = [attributes(Random(seed)) for seed in range(300)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
NAME = "memory.available"
SERVERS = 120
MOVED_EVERY_MS = 40


@pytest.mark.parametrize(("seed", "loss"), [(1, 0.0), (2, 0.0), (1, 0.05), (2, 0.05)])
def test_a_whole_answer_has_every_server_though_rows_move_all_the_time(seed: int, loss: float) -> None:
    world, rng = World(seed, 12, SCHEMA, capacity=8, loss=loss), Random(seed)
    values = [dict(one) for one in SAMPLE[:SERVERS]]
    made = [world.publish(NAME, world.advert(1 + place, 1, one)) for place, one in enumerate(values)]
    world.run(until=lambda: all(one.finished for one in made))
    world.run(5_000)
    durable = {place + 1 for place, one in enumerate(made) if one.durable}
    numbers = [1] * SERVERS

    def move() -> None:
        place = rng.randrange(SERVERS)
        if made[place].finished and made[place].durable:
            memory = values[place]["memory.total"]
            assert isinstance(memory, int)
            values[place]["memory.available"] = rng.randrange(0, memory + 1, GIB // 4)
            numbers[place] += 1
            raw = world.advert(1 + place, numbers[place], values[place])
            made[place] = world.publish(NAME, raw, made[place].postings)
        world.later(MOVED_EVERY_MS, move)

    world.later(1, move)
    whole = 0
    for _ in range(8):
        result = world.search(parse("cores >= 0"), dimension=NAME)
        whole += result.complete
        assert not result.complete or durable <= set(result.ids())
        world.run(500)
    assert whole >= 4


def test_a_row_that_left_is_shown_as_long_as_a_search_may_take_and_keeps_its_place_in_the_zone() -> None:
    point = Point.from_attributes(SCHEMA, id=7, seq=1, expires_s=10_000, attributes=SAMPLE[0], contact=b"c" * 26)
    node, key = TrieNode(ROOT, SCHEMA, Rows(SCHEMA)), keys_of(SCHEMA, NAME, point)[0]
    node.rows.put(point, key, b"advert")
    node.rebuild(1_000, 1_000)
    zone = node.zone
    node.leave(7, key, 1_000)
    assert not len(node.rows) and not node.is_idle  # nobody counts it
    node.rebuild(1_000 + LEFT_MS - 1, 1_000)
    assert [rows.raw_of(7) for rows in node.shown(1_000 + LEFT_MS - 1)] == [None, b"advert"]
    assert node.zone.covers(zone)
    node.rebuild(1_000 + LEFT_MS, 1_000)
    assert not node.zone.count and node.is_idle and node.shown(1_000 + LEFT_MS) == [node.rows]


def test_rows_that_left_widen_the_zone_and_are_counted_by_nobody() -> None:
    node, keys = TrieNode(ROOT, SCHEMA, Rows(SCHEMA)), {}
    for number, sample in enumerate(SAMPLE[:10]):
        point = Point.from_attributes(
            SCHEMA, id=number, seq=1, expires_s=10_000, attributes=sample, contact=bytes([number]) * 26
        )
        keys[number] = keys_of(SCHEMA, NAME, point)[0]
        node.rows.put(point, keys[number], b"advert")
    node.rebuild(1_000, 1_000)
    whole = node.zone
    for number in range(5):
        node.leave(number, keys[number], 1_000)
    node.rebuild(1_001, 1_000)
    assert node.zone.covers(whole) and (node.zone.count, node.zone.leaves) == (5, 1)
