"""The simulated network: echo over unmodified libraries, faults as configured, draws that stay put, equal traces."""

from __future__ import annotations

import asyncio
import contextvars
import os
import pathlib
import subprocess
import sys
from collections.abc import Awaitable, Callable

import asyncio_dgram
import pytest

from xenonode.simulation.errors import SimulationError
from xenonode.simulation.invariants.broken import Ring
from xenonode.simulation.network import Conditions
from xenonode.simulation.run import SimulatedNode, Simulation
from xenonode.simulation.streams import StreamTransport

SCRIPT = pathlib.Path(__file__).with_name("conversation.py")


def run_elsewhere(seed: int, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, str(SCRIPT), str(seed)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_one_seed_gives_one_trace_in_processes_with_other_hash_seeds_and_another_seed_another() -> None:
    first = run_elsewhere(11, "1")
    assert len(first.split()[0]) == 32
    assert run_elsewhere(11, "4242") == first
    assert run_elsewhere(12, "1").split()[0] != first.split()[0]


async def count_datagrams(port: int, seen: list[tuple[int, bytes]]) -> None:
    stream = await asyncio_dgram.bind(("0.0.0.0", port))
    loop = asyncio.get_running_loop()
    while True:
        data, _ = await stream.recv()
        seen.append((loop.now_ns, data))  # type: ignore[attr-defined]


async def send_datagrams(to: str, number: int, every_s: float = 0.001) -> None:
    stream = await asyncio_dgram.connect((to, 9))
    for index in range(number):
        await stream.send(index.to_bytes(4, "big"))
        await asyncio.sleep(every_s)


def exchange(
    conditions: Conditions, *, number: int = 10_000, bystanders: int = 0
) -> tuple[list[tuple[int, bytes]], Simulation]:
    seen: list[tuple[int, bytes]] = []
    with Simulation(3, conditions=conditions) as simulation:
        noise: list[tuple[int, bytes]] = []
        for index in range(bystanders):
            simulation.add_node(f"bystander-{index}").start(count_datagrams(9, noise))
        source, destination = simulation.add_node("source"), simulation.add_node("destination")
        destination.start(count_datagrams(9, seen))
        others = [name for name in simulation.nodes if name.startswith("bystander")]
        for index, name in enumerate(others):
            target = simulation.nodes[others[index - 1]].host.address
            simulation.nodes[name].start(send_datagrams(target, number))

        async def main() -> None:
            await source.start(send_datagrams(destination.host.address, number))
            await asyncio.sleep(5)

        simulation.run(main())
    return seen, simulation


def test_loss_duplication_and_damage_come_as_often_as_configured() -> None:
    seen, simulation = exchange(Conditions(loss_ppm=100_000, duplicate_ppm=50_000, corrupt_ppm=20_000))
    statistics = simulation.network.statistics
    assert statistics.sent == 10_000
    assert 850 <= statistics.lost <= 1_150  # 1,000 expected, standard deviation 30
    assert 370 <= statistics.duplicated <= 530
    assert 120 <= statistics.corrupted <= 240
    assert len(seen) == statistics.delivered == 10_000 - statistics.lost + statistics.duplicated


def test_the_last_events_are_told_with_their_sizes() -> None:
    async def serve(address: str) -> None:
        await asyncio.start_server(lambda reader, writer: None, address, 9)

    async def say(to: str) -> None:
        await (await asyncio_dgram.connect((to, 9))).send(b"hello")
        _, writer = await asyncio.open_connection(to, 9)
        writer.write(b"hello again")
        await asyncio.sleep(1)

    with Simulation(1, conditions=Conditions(latency_us=1_000)) as simulation:
        ring = Ring(simulation.trace)
        source, destination = simulation.add_node("a"), simulation.add_node("b")
        simulation.run(destination.start(serve(destination.host.address)))
        simulation.run(source.start(say(destination.host.address)))
        told = ring.told({node.host.identity: name for name, node in simulation.nodes.items()})
    assert told[0] == "0.000000 s datagram a to b, 5 bytes, arrives 1.0 ms later"
    assert "0.002000 s stream a to b, 11 bytes, arrives 1.0 ms later" in told
    assert told[-1] == "1.002000 s end of a stream a to b, 0 bytes, arrives 1.0 ms later"


def test_reordering_happens_only_where_it_is_asked_for() -> None:
    steady, _ = exchange(Conditions(), number=500)
    assert [data for _, data in steady] == sorted(data for _, data in steady)
    shuffled, _ = exchange(Conditions(reorder_ppm=300_000), number=500)
    assert [data for _, data in shuffled] != sorted(data for _, data in shuffled)
    assert sorted(data for _, data in shuffled) == [data for _, data in steady]


def test_more_nodes_do_not_reshuffle_what_happens_between_two_others() -> None:
    conditions = Conditions(loss_ppm=100_000, jitter_us=9_000, duplicate_ppm=50_000)
    alone, _ = exchange(conditions, number=300)
    in_company, simulation = exchange(conditions, number=300, bystanders=4)
    assert simulation.network.statistics.sent == 5 * 300
    assert in_company == alone


def test_an_uplink_with_little_bandwidth_delays_what_is_sent_at_once() -> None:
    async def burst(to: str) -> None:
        stream = await asyncio_dgram.connect((to, 9))
        for _ in range(3):
            await stream.send(bytes(1_250))

    seen: list[tuple[int, bytes]] = []
    with Simulation(1, conditions=Conditions(latency_us=1_000, bandwidth_bit_per_s=10_000_000)) as simulation:
        source, destination = simulation.add_node("a"), simulation.add_node("b")
        destination.start(count_datagrams(9, seen))
        source.start(burst(destination.host.address))
        simulation.run(asyncio.sleep(1))
    assert [when_ns for when_ns, _ in seen] == [2_000_000, 3_000_000, 4_000_000]


def test_a_partition_blocks_until_it_is_healed_and_one_way_if_asked() -> None:
    seen: dict[str, list[tuple[int, bytes]]] = {"a": [], "b": []}
    with Simulation(1) as simulation:
        a, b = simulation.add_node("a"), simulation.add_node("b")
        for node in (a, b):
            node.start(count_datagrams(9, seen[node.host.name]))
        simulation.network.partition("one way", ["a"], ["b"], symmetric=False)

        async def main() -> None:
            for node, to in ((a, b), (b, a)):
                await node.start(send_datagrams(to.host.address, 3))
            await asyncio.sleep(1)
            assert (len(seen["b"]), len(seen["a"])) == (0, 3)
            simulation.network.heal("one way")
            await a.start(send_datagrams(b.host.address, 3))
            await asyncio.sleep(1)

        simulation.run(main())
    assert (len(seen["b"]), len(seen["a"])) == (3, 3)


def with_two_nodes(
    server: Callable[[], Awaitable[None]],
    client: Callable[[SimulatedNode], Awaitable[None]],
    conditions: Conditions | None = None,
) -> Simulation:
    with Simulation(1, conditions=conditions) as simulation:
        left, right = simulation.add_node("client"), simulation.add_node("server")
        right.start(server())  # type: ignore[arg-type]
        simulation.run(left.start(client(right)))  # type: ignore[arg-type]
    return simulation


def test_who_moves_takes_nobodys_address_in_a_large_world_either() -> None:
    with Simulation(1) as simulation:
        nodes = [simulation.add_node(f"host-{number}") for number in range(1_000)]
        for node in nodes[:300]:
            simulation.network.move(node.host)
        nodes += [simulation.add_node(f"host-{number}") for number in range(1_000, 1_500)]
        assert all(simulation.network.resolve(node.host.address) is node.host for node in nodes)


def test_datagrams_to_a_closed_port_tell_a_connected_socket() -> None:
    async def nothing() -> None: ...

    async def client(server: SimulatedNode) -> None:
        stream = await asyncio_dgram.connect((server.host.address, 9))
        await stream.send(b"anybody?")
        await asyncio.sleep(1)
        with pytest.raises(ConnectionRefusedError):
            await stream.send(b"hello?")

    with_two_nodes(nothing, client)


def test_a_port_can_be_bound_once_and_again_after_it_is_closed() -> None:
    async def nothing() -> None: ...

    async def client(server: SimulatedNode) -> None:
        stream = await asyncio_dgram.bind(("127.0.0.1", 9))
        with pytest.raises(OSError, match="in use"):
            await asyncio_dgram.bind(("0.0.0.0", 9))
        with pytest.raises(OSError, match="not an address"):
            await asyncio_dgram.bind((server.host.address, 9))
        stream.close()
        with pytest.raises(asyncio_dgram.TransportClosed):
            await stream.recv()
        again = await asyncio_dgram.bind(("0.0.0.0", 9))
        assert again.sockname[1] == 9

    with_two_nodes(nothing, client)


async def swallow_nothing() -> None:
    """Accept, and never read."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3_600)

    await asyncio.start_server(accept, port=80, limit=1_000)


def test_streams_keep_order_and_content_under_heavy_loss() -> None:
    async def server() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        await asyncio.start_server(accept, port=80)

    async def client(server: SimulatedNode) -> None:
        reader, writer = await asyncio.open_connection(server.host.address, 80)
        payload = bytes(range(256)) * 2_000
        writer.write(payload)
        writer.write_eof()
        assert await reader.read() == payload
        writer.close()
        await writer.wait_closed()

    with_two_nodes(server, client, Conditions(loss_ppm=300_000, jitter_us=50_000))


def test_a_writer_waits_when_nobody_reads() -> None:
    async def client(server: SimulatedNode) -> None:
        _, writer = await asyncio.open_connection(server.host.address, 80)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                while True:
                    writer.write(bytes(10_000))
                    await writer.drain()
        assert 50_000 < writer.transport.get_write_buffer_size() < 100_000  # type: ignore[attr-defined]

    with_two_nodes(swallow_nothing, client)


def test_connecting_to_a_closed_port_is_refused_and_to_a_crashed_host_times_out() -> None:
    async def client(server: SimulatedNode) -> None:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(server.host.address, 81)
        server.crash()
        with pytest.raises(TimeoutError):
            await asyncio.open_connection(server.host.address, 80)
        assert asyncio.get_running_loop().time() > 120

    with_two_nodes(swallow_nothing, client)


def test_a_restarted_host_resets_connections_of_its_former_life() -> None:
    async def client(server: SimulatedNode) -> None:
        reader, writer = await asyncio.open_connection(server.host.address, 80)
        server.crash()
        await asyncio.sleep(1)
        writer.write(b"are you there?")
        await asyncio.sleep(1)
        assert not reader.at_eof()  # without power there is no answer
        server.restart()
        with pytest.raises(ConnectionResetError):
            await reader.read()

    with_two_nodes(swallow_nothing, client)


def test_what_arrives_before_a_connection_has_begun_waits_for_it() -> None:
    with Simulation(1) as simulation:
        left, right = simulation.add_node("client"), simulation.add_node("server")

        async def story() -> None:
            here, there = (
                StreamTransport(simulation.network, host, (host.address, 1), ("", 1), contextvars.copy_context())
                for host in (left.host, right.host)
            )
            here.peer, there.peer = there, here
            here.arrive(b"early")  # as on a host that was held up: seed 65 of the whole platforms
            here.arrive(None)
            reader = asyncio.StreamReader()
            here.begin(asyncio.StreamReaderProtocol(reader))
            assert await reader.read() == b"early"

        simulation.run(left.start(story()))


def test_a_connection_given_up_before_a_closed_port_answers_is_forgotten() -> None:
    """Seed 810 of the whole platforms: who gave up had no other end to reset."""

    async def client(server: SimulatedNode) -> None:
        for _ in range(3):
            attempt = asyncio.ensure_future(asyncio.open_connection(server.host.address, 81))
            await asyncio.sleep(0)
            attempt.cancel()
            await asyncio.sleep(5)
            assert attempt.cancelled()

    with_two_nodes(swallow_nothing, client)


def test_tls_on_the_simulated_network_is_refused_with_the_reason() -> None:
    async def client(server: SimulatedNode) -> None:
        with pytest.raises(SimulationError, match="no ssl"):
            await asyncio.open_connection(server.host.address, 80, ssl=True)

    with_two_nodes(swallow_nothing, client)


def test_notes_enter_the_trace() -> None:
    def digest(note: bytes) -> str:
        with Simulation(1) as simulation:
            simulation.trace.note("transfer", note)
            return simulation.trace.hexdigest()

    assert digest(b"1 nano") == digest(b"1 nano") != digest(b"2 nano")
