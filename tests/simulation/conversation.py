"""A busy conversation over datagrams (asyncio-dgram, unmodified) and streams, with faults; prints its trace hash.

Run as a program by the tests, so that two processes with different hash seeds can be compared.
"""

from __future__ import annotations

import asyncio
import sys

import asyncio_dgram

from xenonode.simulation.network import Conditions
from xenonode.simulation.run import Simulation

STORMY = Conditions(latency_us=15_000, jitter_us=5_000, loss_ppm=50_000, duplicate_ppm=30_000, reorder_ppm=50_000)


async def serve() -> None:
    async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000):
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    await asyncio.start_server(echo_stream, port=80)
    stream = await asyncio_dgram.bind(("0.0.0.0", 7))
    while True:
        data, address = await stream.recv()
        await stream.send(data + b"!", address)


async def talk(name: str, servers: list[str]) -> int:
    heard = 0
    for server in servers:
        stream = await asyncio_dgram.connect((server, 7))
        for number in range(20):
            await stream.send(f"{name} {number}".encode())
            try:
                async with asyncio.timeout(0.2):
                    await stream.recv()
                    heard += 1
            except TimeoutError:
                pass
        stream.close()
        reader, writer = await asyncio.open_connection(server, 80)
        writer.write(f"{name} speaks".encode() * 3_000)
        writer.write_eof()
        heard += len(await reader.read())
        writer.close()
    return heard


def run(seed: int) -> tuple[str, int]:
    """Return the trace hash and how much was heard."""
    with Simulation(seed, conditions=STORMY) as simulation:
        servers = [simulation.add_node(f"server-{number}") for number in range(3)]
        for server in servers:
            server.start(serve())
        addresses = [server.host.address for server in servers]
        clients = [simulation.add_node(f"client-{number}") for number in range(5)]

        async def main() -> int:
            talks = {client.start(talk(client.host.name, addresses)) for client in clients}
            done, _ = await asyncio.wait(talks)
            return sum(task.result() for task in done)

        heard = simulation.run(main())
        return simulation.trace.hexdigest(), heard


if __name__ == "__main__":
    print(*run(int(sys.argv[1])))
