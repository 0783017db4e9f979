"""A session's whole story while a server and XenoCorp go and return on a bad network; prints JSON. Run as a program."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from platform_world import ask

from xenonode.simulation.lease import Lease
from xenonode.simulation.network import Conditions
from xenonode.simulation.world import World

FAULTS = Conditions(jitter_us=5_000, loss_ppm=10_000, duplicate_ppm=10_000, reorder_ppm=20_000)
QUIET_S = 100.0
"""Longer than what a silent holder said is believed, so that every replica is back."""


async def story(world: World) -> dict[str, Any]:
    await world.begin()
    network, host, server = world.simulation.network, world.clients[0], world.servers[3]
    network.conditions = FAULTS
    session = Lease(world, host, server)
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


def main(seed: int) -> None:
    with World(seed, servers=10, leaf_capacity=4) as world:
        told = world.run(story(world))
        statistics = world.simulation.network.statistics
        told |= {"trace": world.trace.hexdigest(), "lost": statistics.lost, "duplicated": statistics.duplicated}
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]))
