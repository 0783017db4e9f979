"""A holder whose wall clock jumps: adverts expire by it, and nothing else is timed by it."""

from __future__ import annotations

from random import Random

import pytest
from summaries_world import World, attributes

from summaries.asks import Probe
from summaries.memory import Memory
from summaries.schema import Schema
from summaries.trie import ROOT

SAMPLE = [attributes(Random(seed)) for seed in range(300)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
NAME = "price.cpu"
JUMP_MS = 600_000
TTL_S = 180
SWEPT_MS = 20_000  # a rebuild and a few ticks


def make(count: int) -> tuple[World, list[bytes]]:
    world = World(1, 6, SCHEMA, capacity=8)
    return world, [world.advert(1 + number, 1, SAMPLE[number], ttl_s=TTL_S) for number in range(count)]


@pytest.mark.parametrize("jump_ms", [JUMP_MS, -JUMP_MS])
def test_rows_expire_on_time_once_a_clock_that_jumped_is_right_again(jump_ms: int) -> None:
    """Full seeds 70 and 90: after a clock had been ahead, nothing was swept until its time had come."""
    world, raws = make(40)
    world.publish_all(raws[:20], [NAME])
    jumped = world.nearest(NAME, ROOT)[0]
    world.ahead_ms[jumped] = jump_ms
    world.run(30_000)
    del world.ahead_ms[jumped]
    world.publish_all(raws[20:], [NAME])
    assert sum(len(node.rows) for node in world.holders[jumped, NAME].nodes().values()) > 0
    world.run(TTL_S * 1_000 + SWEPT_MS)
    assert sum(len(node.rows) for node in world.holders[jumped, NAME].nodes().values()) == 0


@pytest.mark.parametrize("jump_ms", [JUMP_MS, -JUMP_MS])
def test_an_aggregation_point_knows_its_children_though_its_clock_jumps(jump_ms: int) -> None:
    world, raws = make(40)
    world.publish_all(raws, [NAME])
    world.run(20_000)
    jumped = world.nearest(NAME, ROOT)[0]
    before = world.holders[jumped, NAME].nodes()[ROOT].children()
    world.ahead_ms[jumped] = jump_ms
    world.run(SWEPT_MS)
    after = world.holders[jumped, NAME].nodes()[ROOT].children()
    assert len(before) > 2 and [child for child, _, _ in after] == [child for child, _, _ in before]


def test_a_server_that_lost_its_number_is_held_again_once_its_last_advert_has_ended() -> None:
    """Full seed 55: its clock was ahead, then its disk was lost; one holder kept what it had signed before for ever."""
    world, raws = make(40)
    jumped = world.nearest(NAME, ROOT)[0]
    world.ahead_ms[jumped] = JUMP_MS
    world.run(30_000)
    del world.ahead_ms[jumped]
    world.publish_all([world.advert(41, JUMP_MS, SAMPLE[0], ttl_s=TTL_S), *raws], [NAME])
    world.run(TTL_S * 1_000 + SWEPT_MS)
    newest = world.advert(41, 1, SAMPLE[0], ttl_s=TTL_S)
    assert all(one.durable for one in world.publish_all([newest], [NAME]))
    world.run(5_000)
    rows = [
        node.rows.raw_of(41) == newest
        for name in world.names
        for node in world.holders[name, NAME].nodes().values()
        if node.rows.raw_of(41) is not None
    ]
    assert rows == [True, True, True]


def test_whoever_searches_again_asks_servers_anew_when_its_clock_was_set_back() -> None:
    world, (raw,) = make(1)
    memory, point = Memory(world.verify), world.adverts[raw]
    probe = Probe(1, point.contact, point.id, point.seq)
    memory.shown(probe, raw, None, world.now_ms)
    assert memory.recall(probe, world.now_ms + 1_000) is not None
    assert memory.recall(probe, world.now_ms - 1_000) is None
