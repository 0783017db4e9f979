"""Control connections between simulated nodes, under faults that no loopback shows."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from xenonode.control.client import connect
from xenonode.control.errors import ControlError
from xenonode.control.hello import HelloTransport
from xenonode.control.server import Caller, serve
from xenonode.simulation.network import Conditions
from xenonode.simulation.run import SimulatedNode, Simulation

PORT = 7_001


async def add(caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.2)
    return {"sum": body["a"] + body["b"]}


def transport_of(node: SimulatedNode) -> HelloTransport:
    signer = node.env.scheme.generate(node.env.seed("key"))
    return HelloTransport(node.env.scheme, signer, node.env.rng("hello"))


def key_of(node: SimulatedNode) -> bytes:
    return node.env.scheme.generate(node.env.seed("key")).public_key


async def listen(node: SimulatedNode) -> None:
    await serve("0.0.0.0", PORT, {"add": add}, transport=transport_of(node))


async def ask(client: SimulatedNode, server: SimulatedNode, number: int) -> list[int]:
    transport = transport_of(client)
    connection = await connect(server.host.address, PORT, key_of(server), transport=transport)
    sums = []
    for index in range(number):
        reply = await connection.call("add", {"a": index, "b": 1}, timeout_ms=60_000)
        sums.append(reply["sum"])
    await connection.close()
    return sums


def conversation(seed: int) -> str:
    with Simulation(seed, conditions=Conditions(loss_ppm=150_000, jitter_us=30_000)) as simulation:
        server = simulation.add_node("server")
        server.start(listen(server))
        clients = [simulation.add_node(f"client-{number}") for number in range(4)]

        async def main() -> None:
            await asyncio.sleep(0.1)
            replies = await asyncio.gather(*(client.start(ask(client, server, 10)) for client in clients))
            assert replies == [list(range(1, 11))] * 4

        simulation.run(main())
        return simulation.trace.hexdigest()


def test_conversations_survive_loss_and_repeat_exactly() -> None:
    assert conversation(1) == conversation(1) != conversation(2)


def test_a_server_that_loses_power_mid_call_times_out_and_answers_after_its_restart() -> None:
    with Simulation(1) as simulation:
        server, client = simulation.add_node("server"), simulation.add_node("client")
        server.start(listen(server))

        async def calls() -> None:
            connection = await connect(server.host.address, PORT, key_of(server), transport=transport_of(client))
            call = asyncio.ensure_future(connection.call("add", {"a": 1, "b": 1}, timeout_ms=5_000))
            await asyncio.sleep(0.1)
            server.crash()
            with pytest.raises(ControlError) as caught:
                await call
            assert caught.value.code == "timeout"
            with pytest.raises(ControlError) as caught:
                await connect(server.host.address, PORT, key_of(server), transport=transport_of(client))
            assert caught.value.code == "unreachable"
            server.restart()
            server.start(listen(server))
            await asyncio.sleep(0.1)
            with pytest.raises(ControlError) as caught:  # the new incarnation resets the old connection
                await connection.call("add", {"a": 1, "b": 1})
            assert caught.value.code == "unreachable"
            assert await ask(client, server, 2) == [1, 2]
            await connection.close()

        simulation.run(client.start(calls()))  # type: ignore[arg-type]


def test_a_replayed_hello_proves_nothing() -> None:
    with Simulation(1) as simulation:
        server, client, liar = (simulation.add_node(name) for name in ("server", "client", "liar"))
        server.start(listen(server))
        overheard: list[bytes] = []

        class Recording(random.Random):
            """The same nonce as the client drew, since a replay repeats it."""

            def randbytes(self, n: int) -> bytes:
                return b"n" * n

        async def honest() -> None:
            signer = client.env.scheme.generate(client.env.seed("key"))

            class Overheard:
                public_key = signer.public_key

                def sign(self, message: bytes) -> bytes:
                    overheard.append(signer.sign(message))
                    return overheard[-1]

            transport = HelloTransport(client.env.scheme, Overheard(), Recording())
            await (await connect(server.host.address, PORT, key_of(server), transport=transport)).close()

        async def replay() -> None:
            class Parrot:
                public_key = key_of(client)

                def sign(self, message: bytes) -> bytes:
                    return overheard[0]

            transport = HelloTransport(liar.env.scheme, Parrot(), Recording())
            with pytest.raises(ControlError) as caught:
                await connect(server.host.address, PORT, key_of(server), transport=transport)
            assert caught.value.code == "certificate_refused"

        simulation.run(client.start(honest()))  # type: ignore[arg-type]
        simulation.run(liar.start(replay()))  # type: ignore[arg-type]
