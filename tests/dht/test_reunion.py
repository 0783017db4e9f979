"""A network that was parted for so long that each side forgot the other is one again once packets pass."""

from __future__ import annotations

import asyncio

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
