"""Each fault of network, processor and disk does what its name says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from xenonode.simulation.disk import SimulatedDisk, Trap
from xenonode.simulation.errors import PowerLost
from xenonode.simulation.network import Conditions
from xenonode.simulation.run import SimulatedNode, Simulation


class Listener(asyncio.DatagramProtocol):
    """Notes when what arrived."""

    def __init__(self, run: Simulation) -> None:
        self.run, self.heard = run, list[tuple[float, bytes]]()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.heard.append((round(self.run.loop.time(), 3), data))


def both(run: Simulation) -> tuple[SimulatedNode, SimulatedNode, Listener, Listener]:
    """Two nodes with a port each, a hundred milliseconds apart."""
    nodes = [run.add_node("a"), run.add_node("b")]

    async def listen(node: SimulatedNode) -> Listener:
        _, listener = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Listener(run), local_addr=(node.host.address, 7)
        )
        return listener

    a, b = (run.run(_in(node, listen(node))) for node in nodes)
    return nodes[0], nodes[1], a, b


async def _in(node: SimulatedNode, work: Coroutine[Any, Any, Any]) -> Any:
    return await node.start(work)


def simulated(test: Callable[[Simulation], None]) -> None:
    with Simulation(1, conditions=Conditions(latency_us=100_000)) as run:
        test(run)


def test_a_clog_holds_packets_back_and_lets_them_go_at_once() -> None:
    def test(run: Simulation) -> None:
        a, b, ours, theirs = both(run)
        run.network.clogs["b"] = "clog", 5_000_000_000
        for number in range(3):
            a.call(ours.transport.sendto, bytes([number]), (b.host.address, 7))
        run.run(asyncio.sleep(6.0))
        assert theirs.heard == [(5.0, b"\0"), (5.0, b"\1"), (5.0, b"\2")] and run.network.bites["clog"] == 3

    simulated(test)


def test_a_translator_passes_only_answers() -> None:
    def test(run: Simulation) -> None:
        a, b, ours, theirs = both(run)
        run.network.translated["b"] = set()
        a.call(ours.transport.sendto, b"knock", (b.host.address, 7))
        run.run(asyncio.sleep(1.0))
        b.call(theirs.transport.sendto, b"hello", (a.host.address, 7))
        a.call(ours.transport.sendto, b"again", (b.host.address, 7))
        run.run(asyncio.sleep(1.0))
        assert [data for _, data in theirs.heard] == [b"again"] and run.network.bites["nat"] == 1
        assert [data for _, data in ours.heard] == [b"hello"]

    simulated(test)


def test_a_paused_node_does_nothing_and_then_everything_in_order() -> None:
    def test(run: Simulation) -> None:
        a, b, ours, theirs = both(run)
        life = b.host.incarnation
        assert life is not None
        run.loop.pace(life, None)
        for number in range(4):
            a.call(ours.transport.sendto, bytes([number]), (b.host.address, 7))
        run.run(asyncio.sleep(3.0))
        assert theirs.heard == []
        run.loop.pace(life, 0)
        run.run(asyncio.sleep(0.5))
        assert [data for _, data in theirs.heard] == [b"\0", b"\1", b"\2", b"\3"] and life.runs

    simulated(test)


def test_a_slow_processor_takes_its_time_for_each_callback() -> None:
    def test(run: Simulation) -> None:
        a, b, ours, theirs = both(run)
        life = b.host.incarnation
        assert life is not None
        run.loop.pace(life, 1_000_000_000)
        for number in range(3):
            a.call(ours.transport.sendto, bytes([number]), (b.host.address, 7))
        run.run(asyncio.sleep(5.0))
        moments = [at for at, _ in theirs.heard]
        assert [round(later - earlier, 3) for earlier, later in pairwise(moments)] == [1.0, 1.0]
        run.loop.pace(life, 0)
        a.call(ours.transport.sendto, b"!", (b.host.address, 7))
        run.run(asyncio.sleep(2.0))
        assert theirs.heard[-1][1] == b"!" and life.runs

    simulated(test)


def test_a_host_that_moved_is_found_at_its_new_address_only() -> None:
    def test(run: Simulation) -> None:
        a, b, ours, _ = both(run)
        old = b.host.address
        b.crash()
        assert run.network.move(b.host) == b.host.address != old
        a.call(ours.transport.sendto, b"?", (old, 7))
        run.run(asyncio.sleep(1.0))
        assert run.network.statistics.blocked == 1 and run.network.resolve(b.host.address) is b.host

    simulated(test)


@pytest.mark.parametrize("kept, left", [(0, b"whole"), (500, b"wholeto"), (999, b"wholetor")])
def test_power_that_fails_in_a_write_leaves_a_beginning_of_it(kept: int, left: bytes) -> None:
    disk, off = SimulatedDisk(), list[int]()
    disk.append("file", b"whole")
    disk.trap = Trap(0, kept, lambda: off.append(1))
    with pytest.raises(PowerLost):
        disk.append("file", b"torn")
    assert disk.read("file") == left and off == [1]


def test_a_replacement_is_there_or_not_and_never_half() -> None:
    for kept, left in ((400, b"old"), (600, b"new one")):
        disk = SimulatedDisk()
        disk.replace("file", b"old")
        disk.trap = Trap(0, kept, lambda: None)
        with pytest.raises(PowerLost):
            disk.replace("file", b"new one")
        assert disk.read("file") == left


def test_a_full_disk_refuses_and_keeps_what_it_had() -> None:
    disk = SimulatedDisk()
    disk.append("file", b"kept")
    disk.full = True
    with pytest.raises(OSError, match="no space"):
        disk.append("file", b"more")
    assert disk.read("file") == b"kept" and disk.refused == 1
