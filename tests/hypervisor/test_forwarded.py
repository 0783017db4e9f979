"""Guests behind ports of an address that others can reach: the contract, and the ports' own life."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypervisor import forwarded, guest_image, remote
from hypervisor.adapter import Ability, Capabilities, Handle, Hypervisor, Running
from hypervisor.environment import EnvironmentSpec
from hypervisor.errors import CapacityError, UnknownGuestError
from hypervisor.forwarded import ForwardedHypervisor
from hypervisor.simulated import SimulatedHypervisor, SimulatedMachine

from .contract import HypervisorContract, cleaning
from .machines import machine
from .test_forwarder import echo_server
from .test_simulated import ALL_ABILITIES, SimulatedBench

REACHED = "127.0.0.2"


class LocalGuests(SimulatedHypervisor):
    """Simulated guests whose ssh address is known on this machine only, as on a bridge."""

    port = 22

    async def probe(self) -> Capabilities:
        found = await super().probe()
        return dataclasses.replace(found, abilities=found.abilities | {Ability.SSH})

    async def create(self, spec: EnvironmentSpec) -> Handle:
        return self._local(await super().create(spec))

    async def reconcile(self) -> list[Running]:
        found = await super().reconcile()
        return [dataclasses.replace(running, handle=self._local(running.handle)) for running in found]

    def _local(self, handle: Handle) -> Handle:
        return dataclasses.replace(handle, ssh_host="127.0.0.1", ssh_port=self.port)


class ForwardedBench(SimulatedBench):
    def __init__(self, folder: Path) -> None:
        super().__init__(ALL_ABILITIES)
        self.folder, self.target = folder, 22
        self.hypervisor = self.open("mine")

    def open(self, owner: str) -> ForwardedHypervisor:
        inner = LocalGuests(self.machine, owner)
        inner.port = self.target
        return ForwardedHypervisor(inner, REACHED, self.folder / f"{owner}.json")

    async def kill_and_reopen(self) -> None:
        assert isinstance(self.hypervisor, ForwardedHypervisor)
        await self.hypervisor._forwarder.aclose()  # what the kernel does to a killed process's sockets
        self.hypervisor = self.open("mine")

    async def stranger(self) -> Hypervisor:
        return self.open("theirs")


class TestForwarded(HypervisorContract):
    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[ForwardedBench]:
        return cleaning(ForwardedBench(folder))


@pytest.mark.guest
class TestRealGuestsForwarded(HypervisorContract):
    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[ForwardedBench]:
        guest_image.build(guest_image.default_cache())
        return machine(remote.EMBEDDED, forwarded_to=REACHED)

    # What does not depend on the way to a guest is proved of the adapter itself; each would boot guests again.
    test_the_agreed_cpu_share_holds_while_another_guest_burns_beside_it = None
    test_memory_is_resized_within_its_ceiling_and_seen_inside = None
    test_a_paused_guest_uses_no_cpu_and_goes_on_when_resumed = None


async def answers(handle: Handle) -> bool:
    try:
        reader, writer = await asyncio.open_connection(handle.ssh_host, handle.ssh_port)
    except OSError:
        return False
    try:
        writer.write_eof()
        return (await reader.read()).startswith(b"SSH-2.0")
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def guest_host(folder: Path) -> AsyncIterator[ForwardedBench]:
    server, port = await echo_server()
    bench = ForwardedBench(folder)
    bench.target = port
    bench.hypervisor = bench.open("mine")
    try:
        yield bench
    finally:
        await bench.hypervisor.aclose()
        server.close()


def test_a_guest_answers_at_the_servers_own_address_until_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guest_host(tmp_path) as bench:
            one, two = [await bench.hypervisor.create(bench.spec(name)) for name in ("one", "two")]
            assert one.ssh_host == REACHED and one.ssh_port != two.ssh_port
            assert forwarded.FIRST_PORT <= one.ssh_port < forwarded.FIRST_PORT + forwarded.PORTS
            assert await answers(one) and await answers(two)
            await bench.hypervisor.stop("one")
            assert not await answers(one) and await answers(two)
            await bench.hypervisor.destroy("one")
            bench.machine.power_off("mine", "two")
            await bench.hypervisor.usage(["two"])
            assert not await answers(two)
            await bench.hypervisor.destroy("two")
            assert json.loads((tmp_path / "mine.json").read_text())["ports"] == {}

    asyncio.run(scenario())


def test_where_the_machine_has_another_address_a_guest_is_reached_at_the_same_port_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guest_host(tmp_path) as bench:
            handle = await bench.hypervisor.create(bench.spec("one"))
            assert isinstance(bench.hypervisor, ForwardedHypervisor)
            await bench.hypervisor.move("127.0.0.3")
            [running] = await bench.hypervisor.reconcile()
            assert running.handle == dataclasses.replace(handle, ssh_host="127.0.0.3")
            assert await answers(running.handle) and not await answers(handle)
            bench.hypervisor.show("192.0.2.7")  # a router's, which leads to it
            [running] = await bench.hypervisor.reconcile()
            assert (running.handle.ssh_host, running.handle.ssh_port) == ("192.0.2.7", handle.ssh_port)

    asyncio.run(scenario())


def test_after_a_kill_a_guest_is_reached_at_the_same_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guest_host(tmp_path) as bench:
            handle = await bench.hypervisor.create(bench.spec("one"))
            await bench.kill_and_reopen()
            assert not await answers(handle)
            [running] = await bench.hypervisor.reconcile()
            assert running.handle == handle
            assert await answers(handle)

    asyncio.run(scenario())


def test_a_port_that_another_program_holds_is_had_again_once_it_is_free(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guest_host(tmp_path) as bench:
            handle = await bench.hypervisor.create(bench.spec("one"))
            await bench.kill_and_reopen()
            squatter = await asyncio.start_server(lambda reader, writer: writer.close(), REACHED, handle.ssh_port)
            [running] = await bench.hypervisor.reconcile()
            assert running.handle == handle and not await answers(handle)
            assert list(await bench.hypervisor.usage(["one"])) == ["one"]
            squatter.close()
            await squatter.wait_closed()
            await bench.hypervisor.usage(["one"])
            assert await answers(handle)

    asyncio.run(scenario())


def test_ports_are_bounded_and_a_guest_without_one_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarded, "PORTS", 2)

    async def scenario() -> None:
        async with guest_host(tmp_path) as bench:
            for name in ("one", "two"):
                await bench.hypervisor.create(bench.spec(name))
            with pytest.raises(CapacityError):
                await bench.hypervisor.create(bench.spec("three"))
            assert [running.handle.id for running in await bench.hypervisor.reconcile()] == ["one", "two"]

    asyncio.run(scenario())


def test_ports_of_guests_that_are_gone_are_forgotten_and_a_damaged_file_stops_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guest_host(tmp_path) as bench:
            await bench.hypervisor.create(bench.spec("one"))
            await bench.kill_and_reopen()
            del bench.machine.guests["mine", "one"]
            assert await bench.hypervisor.reconcile() == []
            assert json.loads((tmp_path / "mine.json").read_text())["ports"] == {}
            with pytest.raises(UnknownGuestError):
                await bench.hypervisor.destroy("one")
            for damaged in ("", "[]", '{"version": 1}', '{"version": 1, "ports": {"one": "x"}}', '{"version": 9}'):
                (tmp_path / "mine.json").write_text(damaged)
                await bench.kill_and_reopen()
                assert await bench.hypervisor.reconcile() == []

    asyncio.run(scenario())


def test_clients_are_told_the_router_that_forwards_the_ports(tmp_path: Path) -> None:
    async def scenario() -> None:
        inner = LocalGuests(ForwardedBench(tmp_path).machine, "mine")
        hypervisor = ForwardedHypervisor(inner, REACHED, tmp_path / "ports.json", seen_at="192.0.2.7")
        handle = await hypervisor.create(EnvironmentSpec("one", "micro", 400, 1 << 28))
        assert handle.ssh_host == "192.0.2.7" and handle.ssh_port >= forwarded.FIRST_PORT
        await hypervisor.destroy("one")
        await hypervisor.aclose()

    asyncio.run(scenario())


def test_a_guest_without_ssh_gets_no_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        plain = SimulatedMachine(now_ms=lambda: 0, rng=random.Random(1))
        hypervisor = ForwardedHypervisor(SimulatedHypervisor(plain, "mine"), REACHED, tmp_path / "ports.json")
        spec = EnvironmentSpec("one", "micro", 400, 1 << 28)
        assert (await hypervisor.create(spec)).ssh_port == 0

    asyncio.run(scenario())
