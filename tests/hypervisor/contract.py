"""The contract of adapter.Hypervisor as tests: every adapter passes it, or refuses what it did not declare.

A module for one adapter subclasses `HypervisorContract` and gives it a `Bench`: how to open the adapter, let
time pass, and, where guests run code, reach into them. Declared abilities are exercised; for each one that
is not declared the contract checks that it is refused and that nothing was changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hypervisor import hostkeys
from hypervisor.adapter import Ability, Handle, Hypervisor
from hypervisor.environment import MIB, EnvironmentSpec, State
from hypervisor.errors import (
    AlreadyExistsError,
    ImageError,
    InvalidSpecError,
    StateError,
    UnknownGuestError,
    UnsupportedError,
)

HOST_KEY = hostkeys.host_key(b"\x07" * 32)


class Bench:
    """One adapter under test, on one machine."""

    hypervisor: Hypervisor
    image = "micro"
    resizes_memory = True
    cpu_ms_per_s = 400  # 1000 where no quota is declared: only whole CPUs can be enforced there

    def spec(self, name: str, **changes: Any) -> EnvironmentSpec:
        fields: dict[str, Any] = {
            "image": self.image,
            "cpu_ms_per_s": self.cpu_ms_per_s,
            "boot_cpu_ms_per_s": 1000,
            "memory_bytes": 160 * MIB,
            "memory_max_bytes": 256 * MIB if self.resizes_memory else 160 * MIB,
            "ssh_host_key": HOST_KEY,
        }
        return EnvironmentSpec(name, **{**fields, **changes})

    async def elapse(self, duration_ms: int) -> None:
        raise NotImplementedError

    async def ready(self, handle: Handle) -> None:
        """Wait until the guest takes commands (nothing to do where no code runs)."""

    async def burn(self, handle: Handle) -> None:
        """Make the guest want a whole CPU (nothing to do where it always does)."""

    async def talk(self, handle: Handle) -> None:
        """Make the guest receive and send at least 100,000 bytes."""

    async def write_disk(self, handle: Handle) -> None:
        """Make the guest write at least 1 MiB to its scratch disk."""

    async def memory_seen(self, handle: Handle) -> int | None:
        """Bytes of memory that the guest sees; None where no code runs."""
        return None

    async def kill_and_reopen(self) -> None:
        """Kill the adapter's process with SIGKILL and start over with the same state."""
        raise NotImplementedError

    async def stranger(self) -> Hypervisor:
        """The same machine for another owner."""
        raise NotImplementedError


class HypervisorContract:
    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[Bench]:
        raise NotImplementedError

    def run(self, folder: Path, scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with self.open(folder) as bench:
                await scenario(bench)

        asyncio.run(whole())

    def test_probe_tells_what_the_machine_has(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            capabilities = await bench.hypervisor.probe()
            assert capabilities.cpus >= 1
            assert capabilities.cpu_ms_per_s == capabilities.cpus * 1000
            assert capabilities.memory_bytes > 64 * MIB
            assert capabilities.virtualisation
            image = next(image for image in capabilities.images if image.id == bench.image)
            assert ("os", "linux") in {environment[:2] for environment in image.environments}

        self.run(tmp_path, scenario)

    def test_a_guest_lives_is_listed_and_leaves_nothing(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            handle = await hypervisor.create(bench.spec("one"))
            assert handle.id == "one"
            assert handle.ssh_host_key == hostkeys.public_line(HOST_KEY)
            [running] = await hypervisor.reconcile()
            assert (running.handle, running.state) == (handle, State.RUNNING)
            with pytest.raises(AlreadyExistsError):
                await hypervisor.create(bench.spec("one"))
            with pytest.raises((StateError, UnsupportedError)):
                await hypervisor.resume("one")
            usage = await hypervisor.usage(["one", "nobody"])
            assert list(usage) == ["one"]
            assert usage["one"].state is State.RUNNING
            await hypervisor.destroy("one")
            assert await hypervisor.reconcile() == []
            assert await hypervisor.usage(["one"]) == {}
            for call in (hypervisor.destroy, hypervisor.stop, hypervisor.pause, hypervisor.resume):
                with pytest.raises(UnknownGuestError):
                    await call("one")

        self.run(tmp_path, scenario)

    def test_an_unknown_image_and_a_negative_amount_are_refused(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            with pytest.raises(ImageError):
                await bench.hypervisor.create(bench.spec("one", image="no-such-image"))
            with pytest.raises(InvalidSpecError):
                bench.spec("one", cpu_ms_per_s=-1)
            assert await bench.hypervisor.reconcile() == []

        self.run(tmp_path, scenario)

    def test_what_is_not_declared_is_refused(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            declared = (await hypervisor.probe()).abilities
            handle = await hypervisor.create(bench.spec("one"))
            refused: dict[Ability, Callable[[], Awaitable[object]]] = {
                Ability.CPU_QUOTA: lambda: hypervisor.resize("one", cpu_ms_per_s=300),
                Ability.RESIZE_MEMORY: lambda: hypervisor.resize("one", memory_bytes=128 * MIB),
                Ability.PAUSE: lambda: hypervisor.pause("one"),
                Ability.SAVE: lambda: hypervisor.save("one"),
                Ability.CONSOLE: lambda: hypervisor.console("one"),
                Ability.NET_CAP: lambda: hypervisor.create(bench.spec("two", net_bit_per_s=1_000_000)),
                Ability.DISK: lambda: hypervisor.create(bench.spec("two", disk_bytes=16 * MIB)),
                Ability.DISK_CAP: lambda: hypervisor.create(
                    bench.spec("two", disk_bytes=16 * MIB, disk_byte_per_s=1_000_000)
                ),
            }
            for ability in sorted(set(refused) - declared):
                with pytest.raises(UnsupportedError):
                    await refused[ability]()
            if Ability.CPU_QUOTA not in declared:
                with pytest.raises(UnsupportedError):
                    await hypervisor.create(bench.spec("two", cpu_ms_per_s=300))
            usage = (await hypervisor.usage(["one"]))["one"]
            measured = {
                Ability.CPU_METER: usage.cpu_ns,
                Ability.MEMORY_METER: usage.memory_bytes,
                Ability.NET_METER: usage.net_rx_bytes,
            }
            for ability, counter in measured.items():
                assert (counter is not None) == (ability in declared), ability
            assert (handle.ssh_port > 0) == (Ability.SSH in declared)
            assert [found.handle.id for found in await hypervisor.reconcile()] == ["one"]
            assert (await hypervisor.usage(["one"]))["one"].state is State.RUNNING

        self.run(tmp_path, scenario)

    def test_another_owner_sees_and_touches_nothing(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            handle = await bench.hypervisor.create(bench.spec("one"))
            stranger = await bench.stranger()
            try:
                assert await stranger.reconcile() == []
                with pytest.raises(UnknownGuestError):
                    await stranger.destroy("one")
                twin = await stranger.create(bench.spec("one"))
                assert twin.id == handle.id
                assert twin.ssh_port == 0 or (twin.ssh_host, twin.ssh_port) != (handle.ssh_host, handle.ssh_port)
                await stranger.destroy("one")
            finally:
                await stranger.aclose()
            assert len(await bench.hypervisor.reconcile()) == 1

        self.run(tmp_path, scenario)

    def test_the_agreed_cpu_share_holds_while_another_guest_burns_beside_it(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            if not {Ability.CPU_QUOTA, Ability.CPU_METER} <= (await hypervisor.probe()).abilities:
                return  # the refusal is checked above
            agreed = {"one": 300, "two": 500}
            handles = [await hypervisor.create(bench.spec(name)) for name in agreed]
            for handle in handles:
                await bench.ready(handle)
                await bench.burn(handle)
            for name, share in agreed.items():
                effect = await hypervisor.resize(name, cpu_ms_per_s=share)
                assert effect.cpu_ms_per_s == share
            assert {found.handle.id: found.cpu_ms_per_s for found in await hypervisor.reconcile()} == agreed
            got = await shares(bench, list(agreed), 3000)
            for name, share in agreed.items():
                assert share * 0.9 <= got[name] <= share * 1.1, got
            await hypervisor.resize("one", cpu_ms_per_s=100)
            got = await shares(bench, ["one"], 2000)
            assert got["one"] <= 115, got

        self.run(tmp_path, scenario)

    def test_memory_is_resized_within_its_ceiling_and_seen_inside(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            if Ability.RESIZE_MEMORY not in (await hypervisor.probe()).abilities:
                return
            handle = await hypervisor.create(bench.spec("one"))
            await bench.ready(handle)
            before = await bench.memory_seen(handle)
            effect = await hypervisor.resize("one", memory_bytes=240 * MIB)
            assert effect.memory_bytes == 240 * MIB, effect
            assert (await hypervisor.usage(["one"]))["one"].memory_bytes == 240 * MIB
            seen = await bench.memory_seen(handle)
            if before is not None and seen is not None:
                assert abs(seen - before - 80 * MIB) < 4 * MIB, (before, seen)
            await hypervisor.resize("one", memory_bytes=128 * MIB)
            assert (await hypervisor.usage(["one"]))["one"].memory_bytes == 128 * MIB
            with pytest.raises(InvalidSpecError):
                await hypervisor.resize("one", memory_bytes=512 * MIB)

        self.run(tmp_path, scenario)

    def test_a_paused_guest_uses_no_cpu_and_goes_on_when_resumed(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            if Ability.PAUSE not in (await hypervisor.probe()).abilities:
                return
            handle = await hypervisor.create(bench.spec("one"))
            await bench.ready(handle)
            await bench.burn(handle)
            await hypervisor.pause("one")
            with pytest.raises(StateError):
                await hypervisor.pause("one")
            assert (await hypervisor.usage(["one"]))["one"].state is State.PAUSED
            if Ability.CPU_METER in (await hypervisor.probe()).abilities and await bench_burns(bench):
                assert (await shares(bench, ["one"], 1000))["one"] < 20
            await hypervisor.resume("one")
            assert (await hypervisor.usage(["one"]))["one"].state is State.RUNNING
            if await bench_burns(bench):
                assert (await shares(bench, ["one"], 1000))["one"] > 100

        self.run(tmp_path, scenario)

    def test_a_saved_guest_comes_back_and_its_counters_go_on(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            if Ability.SAVE not in (await hypervisor.probe()).abilities:
                return
            handle = await hypervisor.create(bench.spec("one"))
            await bench.ready(handle)
            before = (await hypervisor.usage(["one"]))["one"]
            await hypervisor.save("one")
            saved = (await hypervisor.usage(["one"]))["one"]
            assert saved.state is State.SAVED
            if saved.cpu_ns is not None and before.cpu_ns is not None:
                assert saved.cpu_ns >= before.cpu_ns
            with pytest.raises(StateError):
                await hypervisor.pause("one")
            await hypervisor.restore("one")
            await bench.ready(handle)
            restored = (await hypervisor.usage(["one"]))["one"]
            assert restored.state is State.RUNNING
            if saved.cpu_ns is not None and restored.cpu_ns is not None:
                assert restored.cpu_ns >= saved.cpu_ns
            [running] = await hypervisor.reconcile()
            assert running.handle == handle

        self.run(tmp_path, scenario)

    def test_traffic_and_disk_use_are_counted_as_the_guest_sees_them(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            abilities = (await hypervisor.probe()).abilities
            disk_bytes = 16 * MIB if Ability.DISK in abilities else 0
            handle = await hypervisor.create(bench.spec("one", disk_bytes=disk_bytes))
            await bench.ready(handle)
            before = (await hypervisor.usage(["one"]))["one"]
            await bench.talk(handle)
            if disk_bytes:
                await bench.write_disk(handle)
            after = (await hypervisor.usage(["one"]))["one"]
            if Ability.NET_METER in abilities and await bench_talks(bench):
                assert after.net_rx_bytes - before.net_rx_bytes >= 100_000  # type: ignore[operator]
                assert after.net_tx_bytes - before.net_tx_bytes >= 100_000  # type: ignore[operator]
            if Ability.DISK_METER in abilities and disk_bytes and await bench_talks(bench):
                assert after.disk_written_bytes - before.disk_written_bytes >= MIB  # type: ignore[operator]

        self.run(tmp_path, scenario)

    def test_a_guest_is_stopped_with_its_last_usage_readable(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            abilities = (await hypervisor.probe()).abilities
            handle = await hypervisor.create(bench.spec("one"))
            await bench.ready(handle)
            if Ability.CONSOLE in abilities:
                text = await hypervisor.console("one")
                assert b"login" in text
                assert await hypervisor.console("one", max_bytes=5) == (await hypervisor.console("one"))[-5:]
            before = (await hypervisor.usage(["one"]))["one"]
            last = await hypervisor.stop("one", grace_ms=8_000)
            assert last.state is State.STOPPED
            if last.cpu_ns is not None and before.cpu_ns is not None:
                assert last.cpu_ns >= before.cpu_ns
            again = (await hypervisor.usage(["one"]))["one"]
            assert (again.state, again.cpu_ns) == (State.STOPPED, last.cpu_ns), (before, last, again)
            with pytest.raises((StateError, UnsupportedError)):
                await hypervisor.resume("one")
            await hypervisor.stop("one")
            await hypervisor.destroy("one")

        self.run(tmp_path, scenario)

    def test_guests_and_meters_outlive_the_adapters_process(self, tmp_path: Path) -> None:
        async def scenario(bench: Bench) -> None:
            hypervisor = bench.hypervisor
            if Ability.RECONCILE not in (await hypervisor.probe()).abilities:
                return
            handle = await hypervisor.create(bench.spec("one"))
            await bench.ready(handle)
            await hypervisor.resize("one", cpu_ms_per_s=350)
            before = (await hypervisor.usage(["one"]))["one"]
            await bench.kill_and_reopen()
            [running] = await bench.hypervisor.reconcile()
            assert (running.handle, running.state, running.cpu_ms_per_s) == (handle, State.RUNNING, 350)
            after = (await bench.hypervisor.usage(["one"]))["one"]
            assert after.cpu_ns is not None and before.cpu_ns is not None
            assert before.cpu_ns <= after.cpu_ns
            await bench.ready(handle)
            await bench.hypervisor.pause("one")
            await bench.hypervisor.resume("one")
            await bench.hypervisor.destroy("one")
            assert await bench.hypervisor.reconcile() == []

        self.run(tmp_path, scenario)


async def shares(bench: Bench, ids: list[str], window_ms: int) -> dict[str, float]:
    """CPU used by each guest over a window, in ms/s, by the adapter's own counters and clock."""
    before = await bench.hypervisor.usage(ids)
    await bench.elapse(window_ms)
    after = await bench.hypervisor.usage(ids)
    result = {}
    for id in ids:
        earlier, later = before[id], after[id]
        assert earlier.cpu_ns is not None and later.cpu_ns is not None
        result[id] = (later.cpu_ns - earlier.cpu_ns) / 1000 / (later.at_ms - earlier.at_ms)
    return result


async def bench_burns(bench: Bench) -> bool:
    """Whether guests of this bench really use CPU (those of libvirt's test driver do not)."""
    return Ability.CPU_QUOTA in (await bench.hypervisor.probe()).abilities


async def bench_talks(bench: Bench) -> bool:
    """Whether guests of this bench have traffic of their own."""
    capabilities = await bench.hypervisor.probe()
    return Ability.SSH in capabilities.abilities or capabilities.virtualisation == "simulated"


@contextlib.asynccontextmanager
async def cleaning(bench: Bench) -> AsyncIterator[Bench]:
    """Ends every guest and the adapter, whatever a scenario did."""
    try:
        yield bench
    finally:
        for running in await bench.hypervisor.reconcile():
            await bench.hypervisor.destroy(running.handle.id)
        await bench.hypervisor.aclose()
