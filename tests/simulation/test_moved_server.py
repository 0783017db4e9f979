"""A session outlives its server's address: whoever searches finds the server where it is now."""

from __future__ import annotations

import asyncio

from xenonode.simulation.lease import Lease, settled_once
from xenonode.simulation.world import World


def test_a_session_whose_server_moved_is_ended_and_paid_once_a_search_has_found_it() -> None:
    async def story() -> str:
        await world.begin()
        client, server = world.clients[0], world.servers[-1]
        lease = Lease(world, client, server)
        await lease.open()
        await asyncio.sleep(30.0)
        server.crash()
        server.move()
        await server.restart()
        await asyncio.sleep(30.0)
        await client.call(lambda client: client.finding.search("cores >= 1"))
        await asyncio.wait_for(lease.stop(), 60.0)
        return settled_once(await lease.account())

    with World(5, servers=3) as world:
        assert world.run(story()) == ""
