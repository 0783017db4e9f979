"""A server that comes back while nobody else is there: its guests are metered, and paid for in the end."""

from __future__ import annotations

import asyncio
from typing import Any

from xenonode.search.searching import SearchAnswer
from xenonode.server_node import ServerNode
from xenonode.simulation.lease import Lease
from xenonode.simulation.world import ServerHost, World

from .test_world import check_money


def running(server: ServerHost) -> ServerNode:
    assert server.running is not None
    return server.running


def test_a_lone_server_restarts_without_xenocorp_and_its_session_goes_on() -> None:
    async def story(world: World) -> dict[str, Any]:
        await world.begin()
        server = world.servers[0]
        session = Lease(world, world.clients[0], server)
        await session.open()
        world.corp.crash()
        server.crash()
        await server.restart()
        (before,) = running(server).sessions.sessions.values()
        await asyncio.sleep(60.0)
        (after,) = running(server).sessions.sessions.values()
        assert before.state == after.state == "running"
        assert after.due_nano > before.due_nano
        await world.corp.restart()
        await asyncio.sleep(60.0)
        assert running(server).peer.joined("cores") is not None, "it joined the network as soon as there was one"
        await session.stop()
        return await session.account()

    with World(11, servers=1, leaf_capacity=4) as world:
        account = world.run(story(world))
    check_money(account)


def test_a_client_whose_only_seed_is_away_enters_further_overlays_through_servers_that_it_met() -> None:
    async def story(world: World) -> list[SearchAnswer]:
        await world.begin()
        (client,) = world.clients
        await client.call(lambda own: own.finding.search("cores >= 1"))
        world.corp.crash()
        return [
            await client.call(lambda own, text=text: own.finding.search(text))
            for text in ("memory.available >= 0 MiB", "price.cpu >= 0 USD/h", "near(coord(0, 0, 0, 0), 20 s)")
        ]

    with World(3, servers=6, clients=1, leaf_capacity=4) as world:
        for answer in world.run(story(world)):
            assert answer.complete and len(answer.servers) == 6
