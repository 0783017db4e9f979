"""A network that was parted for so long that each side forgot the other is one again once packets pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dht.contact import Address
from dht.joining import Joining
from dht.walk import Walk
from xenonode.simulation.overlays import OverlayNode, OverlayWorld

DIMENSION = "cores"
APART_S, TOGETHER_S = 120.0, 240.0


def known(nodes: list[OverlayNode], others: list[OverlayNode]) -> int:
    """How many contacts of others the nodes' tables hold."""
    addresses = {node.address for node in others}
    tables = [node.overlay(DIMENSION).table.by_id.values() for node in nodes]
    return sum(contact.address in addresses for table in tables for contact in table)


def test_both_sides_of_a_long_partition_find_each_other_without_a_restart() -> None:
    with OverlayWorld(7, 40, (DIMENSION,)) as world:
        world.begin()
        left, right = world.nodes[:15], world.nodes[15:]
        network = world.simulation.network
        network.partition("apart", [one.node.host.name for one in left], [one.node.host.name for one in right])

        async def live(for_s: float) -> None:
            ends_s = world.simulation.loop.time() + for_s
            while world.simulation.loop.time() < ends_s:
                await asyncio.gather(*(node.find(DIMENSION, world.random_key()) for node in world.nodes))
                await asyncio.sleep(5.0)

        world.simulation.run(live(APART_S))
        assert known(left, right) == known(right, left) == 0, "each side takes itself for all there is"
        network.heal("apart")
        world.simulation.run(live(TOGETHER_S))
        for node in world.nodes:
            key = world.random_key()
            assert world.simulation.run(node.find(DIMENSION, key)) == world.nearest(DIMENSION, key)
        assert sum(node.endpoint.counters["reunions"] for node in world.nodes) > 0


def test_who_is_gone_for_good_costs_four_small_questions_a_minute() -> None:
    with OverlayWorld(3, 20, (DIMENSION,)) as world:
        world.begin()
        for node in world.nodes[10:]:
            node.crash()

        async def look_around() -> None:
            for _ in range(4):
                await asyncio.gather(*(node.find(DIMENSION, world.random_key()) for node in world.living()))

        world.simulation.run(look_around())
        before = world.questions()
        world.simulation.run(asyncio.sleep(600.0))
        per_node_minute = (world.questions() - before) / 10 / 10
        assert per_node_minute < 12, per_node_minute


DIMENSIONS = ("cores", "location", "price.cpu")
NEAR = 8


def lacking(world: OverlayWorld) -> int:
    """How many nodes do not know all of those nearest to them, over all dimensions."""
    count = 0
    for dimension in DIMENSIONS:
        for node in world.nodes:
            overlay = node.overlay(dimension)
            near = world.nearest(dimension, overlay.node_id, NEAR + 1)[1:]
            count += any(contact.node_id not in overlay.table.by_id for contact in near)
    return count


def test_every_overlay_is_whole_again_after_a_partition_though_a_peer_leads_into_one_at_a_time() -> None:
    with OverlayWorld(5, 60, DIMENSIONS, traced=False) as world:
        world.begin()
        network = world.simulation.network
        left, right = world.nodes[:25], world.nodes[25:]
        network.partition("apart", [one.node.host.name for one in left], [one.node.host.name for one in right])

        async def live(for_s: float) -> None:
            ends_s = world.simulation.loop.time() + for_s
            while world.simulation.loop.time() < ends_s:
                await asyncio.gather(
                    *(node.find(dimension, world.random_key()) for node in world.nodes for dimension in DIMENSIONS)
                )
                await asyncio.sleep(10.0)

        world.simulation.run(live(APART_S))
        assert lacking(world) > 50
        network.heal("apart")
        world.simulation.run(asyncio.sleep(TOGETHER_S / 2))
        assert lacking(world) == 0


async def look_up(world: OverlayWorld, nodes: list[OverlayNode], every_s: float) -> None:
    """Forty seconds of lookups by each in each overlay: whoever is away is missed."""
    for _ in range(round(40.0 / every_s)):
        await asyncio.gather(*(node.find(dimension, world.random_key()) for node in nodes for dimension in DIMENSIONS))
        await asyncio.sleep(every_s)


def test_a_peer_that_was_away_for_a_moment_makes_nobody_look_around_in_all_overlays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = 0
    begin = Walk.begin

    def counted(walk: Walk) -> None:
        nonlocal begun
        begun += 1
        begin(walk)

    with OverlayWorld(5, 120, DIMENSIONS, traced=False) as world:
        world.begin()
        network = world.simulation.network
        away, rest = world.nodes[:3], world.nodes[3:]

        network.partition("away", [one.node.host.name for one in away], [one.node.host.name for one in rest])
        world.simulation.run(look_up(world, rest, 10.0))
        network.heal("away")
        monkeypatch.setattr(Walk, "begin", counted)
        world.simulation.run(asyncio.sleep(30.0))
        reunions = sum(node.endpoint.counters["reunions"] for node in rest)
        assert reunions > 20 and begun < 1.5 * reunions


def test_a_peer_that_has_left_a_dimension_is_looked_around_from_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    enter_through = Joining.enter_through

    def noted(joining: Joining, address: Address, look: bool, then: Callable[[bool | None], None]) -> None:
        if look:
            looked.append(joining._overlay.dimension)
        enter_through(joining, address, look, then)

    with OverlayWorld(5, 3, DIMENSIONS, traced=False) as world:
        world.begin()
        one, other = world.nodes[0], world.nodes[1]
        world.simulation.run(other.node.start(other.overlay("cores").leave(), "leave"))
        one.node.call(one.endpoint.sessions.peers.clear)
        monkeypatch.setattr(Joining, "enter_through", noted)
        for _ in DIMENSIONS:
            one.node.call(one.endpoint.reunion.meet, other.address)
            world.simulation.run(asyncio.sleep(1.0))
    assert looked == ["cores", "location", "location", "price.cpu"]


def test_whoever_was_away_for_a_moment_is_known_again_to_all_near_it_though_others_were_met_first() -> None:
    with OverlayWorld(1, 60, DIMENSIONS, traced=False) as world:
        world.begin()
        network = world.simulation.network
        away, rest = world.nodes[:4], world.nodes[4:]

        network.partition("away", [one.node.host.name for one in away], [one.node.host.name for one in rest])
        world.simulation.run(look_up(world, rest, 5.0))
        assert lacking(world) > 20
        network.heal("away")
        world.simulation.run(asyncio.sleep(45.0))
        assert lacking(world) == 0
