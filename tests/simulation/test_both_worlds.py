"""The same conversation on real sockets, with TLS and files, and in simulation tells the same."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from hypervisor.simulated import SimulatedHypervisor, SimulatedMachine
from xenonode.catalogue import ServerShape
from xenonode.client import Client
from xenonode.config import ClientConfig, CorpConfig
from xenonode.corp_node import CorpNode
from xenonode.env import LiveEnv
from xenonode.home import LiveHome
from xenonode.model.entity import Address
from xenonode.server_node import ServerNode
from xenonode.simulation.machines import image
from xenonode.simulation.world import World, server_config

from .both_worlds import converse

SERVERS = 3
FIRST_PORT = 27_410
CREDIT = "1000 USD"


async def live(folder: Path, shapes: list[ServerShape]) -> list[Any]:
    """XenoCorp, servers and a client on loopback, each with a folder of its own."""
    env = LiveEnv()
    async with AsyncExitStack() as ending:
        ports = iter(range(FIRST_PORT, FIRST_PORT + 100))

        def place() -> Address:
            return Address("127.0.0.1", next(ports))

        corp_config = CorpConfig(folder=folder / "corp", udp=place(), control=place())
        network = await CorpNode.found(corp_config, env)
        corp = await CorpNode.start(corp_config, env)
        ending.push_async_callback(corp.close)
        for number, shape in enumerate(shapes):
            config = server_config(f"server-{number}", "127.0.0.1", shape)
            config = replace(config, udp=place(), control=place(), folder=folder / f"server-{number}")
            machine = SimulatedMachine(
                now_ms=env.now_ms, rng=Random(number), cpus=shape.cores, memory_bytes=shape.share.memory_bytes,
                images=(image(0),),
            )  # fmt: skip
            home = LiveHome(config.folder)
            node = await ServerNode.run(config, env, home, network.read_bytes(), SimulatedHypervisor(machine))
            ending.push_async_callback(node.close)
        client_config = ClientConfig(
            folder=folder / "client", network=network, legal_name="client-0", country="DE",
            email="client-0@example.org", proof_reference="proof of client-0",
        )  # fmt: skip
        client = await Client.open(client_config, env)
        ending.push_async_callback(client.close)
        entity = (await client.member.register()).entity
        operator = await Client.open_operator(corp_config, env)
        await operator.credit(entity, CREDIT)
        await operator.close()
        return await converse(client, len(shapes))


def test_real_sockets_and_simulation_tell_the_same(tmp_path: Path) -> None:
    with World(5, servers=SERVERS) as world:

        async def simulated() -> list[Any]:
            await world.begin()
            return await world.clients[0].call(lambda client: converse(client, SERVERS))

        in_simulation = world.run(simulated())
        shapes = [server.shape for server in world.servers]
    on_sockets = asyncio.run(live(tmp_path, shapes))
    assert on_sockets == in_simulation
    assert ("order", "closed", 0, True) in in_simulation
