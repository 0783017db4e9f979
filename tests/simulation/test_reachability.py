"""A server that others cannot reach refuses to serve and says what to do; one that they can is not kept waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from xenonode.errors import XenoError
from xenonode.simulation.world import World

SERVERS = 8


class Firewall:
    """Lets in to one host only those whom it has written to, as translators and many firewalls do."""

    def __init__(self, world: World, address: str) -> None:
        self.address, self.closed, self.dropped = address, True, 0
        self._written: set[tuple[str, int]] = set()
        self._network = world.simulation.network
        self._send = self._network.send_datagram
        self._network.send_datagram = self.send  # type: ignore[method-assign]

    def send(self, source: Any, source_port: int, data: bytes, to: tuple[str, int], refused: Any) -> None:
        if source.address == self.address:
            self._written.add(to)
        elif to[0] == self.address and self.closed and (source.address, source_port) not in self._written:
            self.dropped += 1
            return
        self._send(source, source_port, data, to, refused)


def test_a_server_behind_a_strict_firewall_refuses_to_start_until_it_is_open() -> None:
    async def story(world: World) -> None:
        await world.corp.start()
        for server in world.servers[:-1]:
            await server.start()
        last, loop = world.servers[-1], asyncio.get_running_loop()
        wall = Firewall(world, last.node.host.address)
        with pytest.raises(XenoError, match="forward this UDP port") as caught:
            await last.start()
        assert caught.value.code == "unreachable" and wall.dropped
        wall.closed = False
        await asyncio.sleep(60)  # others call for the same address only so often
        began_s = loop.time()
        await last.start()
        assert last.running is not None
        assert last.running.status()["reachability"] == "direct"
        # What a start takes with nobody to ask, and one round of questions.
        assert loop.time() - began_s < 10

    with World(21, servers=SERVERS, leaf_capacity=4) as world:
        world.run(story(world))
