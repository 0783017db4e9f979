"""A session outlives its server's address: whoever searches finds the server where it is now."""

from __future__ import annotations

import asyncio

from xenonode.simulation.faults.hosts import address_change
from xenonode.simulation.faults.kinds import Injection
from xenonode.simulation.faults.scene import Scene
from xenonode.simulation.lease import Lease, settled_once
from xenonode.simulation.node_host import UDP_PORT
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


def test_a_server_whose_address_changes_while_it_runs_is_found_within_half_a_minute_and_its_session_goes_on() -> None:
    async def story() -> str:
        await world.begin()
        client, server, loop = world.clients[0], world.servers[-1], asyncio.get_running_loop()
        running = server.running
        assert running is not None
        lease = Lease(world, client, server)
        await lease.open()
        await asyncio.sleep(30.0)
        key, former = running.home.signer.public_key, server.node.host.address
        fault = Injection("address_change", 0, 1_000, (server.node.host.name,), {"live": 1})
        await address_change(Scene(world), fault)
        moved_s, there = loop.time(), server.node.host.address
        assert there != former
        while loop.time() < moved_s + 30.0:
            await asyncio.sleep(1.0)
            answer = await client.call(lambda client: client.finding.search("cores >= 1"))
            hosts = {each.advert.advert.control.host for each in answer.servers if each.advert.server_key == key}
            if hosts == {there} and answer.complete:
                break
        assert hosts == {there} and answer.complete and server.running is running
        assert running.publisher.last is not None and not running.publisher.last.pending  # in all dimensions
        for overlay in running.peer.overlays():
            others = [each.running.peer.endpoint.overlay(overlay.dimension) for each in world.servers[:-1]]
            known = [other.table.by_id[overlay.node_id].address for other in others]
            assert set(known) == {running.peer.endpoint.address} == {(there, UDP_PORT)}, overlay.dimension
        await asyncio.sleep(30.0)
        await asyncio.wait_for(lease.stop(), 60.0)
        return settled_once(await lease.account())

    with World(6, servers=4) as world:
        assert world.run(story()) == ""


def test_values_that_a_server_gives_out_itself_are_read_from_where_it_moved_to() -> None:
    value = bytes(range(256)) * 400  # more than overlays hold

    async def story() -> None:
        await world.begin()
        server, client = world.servers[0], world.clients[0]
        key = server.running.home.signer.public_key.hex()
        await server.node.start(server.running._publish_value("table", value, 600_000))
        assert await client.call(lambda client: client.values.get(key, "table")) == value
        server.move()
        await asyncio.sleep(20.0)
        assert await client.call(lambda client: client.values.get(key, "table")) == value

    with World(7, servers=5) as world:
        world.run(story())
