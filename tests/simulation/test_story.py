"""A session's whole story on a network that loses, doubles and reorders, while a server and XenoCorp go and return."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from xenonode.simulation.network import Conditions
from xenonode.simulation.world import World

from .platform_world import PaidSession, ask
from .test_world import check_money

SEEDS = range(1, 11)
FAULTS = Conditions(jitter_us=5_000, loss_ppm=10_000, duplicate_ppm=10_000, reorder_ppm=20_000)
QUIET_S = 100.0
"""Longer than what a silent holder said is believed, so that every replica is back."""


async def story(world: World) -> dict[str, Any]:
    await world.begin()
    network, host, server = world.simulation.network, world.clients[0], world.servers[3]
    network.conditions = FAULTS
    session = PaidSession(world, host, server)
    await session.open()
    await asyncio.sleep(15.0)
    server.crash()
    await asyncio.sleep(5.0)
    await server.restart()
    await asyncio.sleep(10.0)
    world.corp.crash()
    await asyncio.sleep(40.0)
    await world.corp.restart()
    await asyncio.sleep(10.0)
    await session.stop()
    network.conditions = Conditions(jitter_us=500)
    await asyncio.sleep(QUIET_S)
    return {"questions": await ask(world, host), "account": await session.account()}


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_charged_twice_and_everything_is_found_again(seed: int) -> None:
    with World(seed, servers=10, leaf_capacity=4) as world:
        told = world.run(story(world))
        print(f"seed {seed}: trace {world.trace.hexdigest()}")
        for question in told["questions"]:
            assert question["equal"] and question["complete"], question
        check_money(told["account"])
