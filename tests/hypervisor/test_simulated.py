from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from hypervisor.adapter import Ability, Handle, Hypervisor
from hypervisor.environment import State
from hypervisor.simulated import ALL_ABILITIES, Load, SimulatedHypervisor, SimulatedMachine

from .contract import Bench, HypervisorContract, cleaning


class SimulatedBench(Bench):
    def __init__(self, abilities: frozenset[Ability]) -> None:
        self.now = 1_000_000
        self.cpu_ms_per_s = 400 if Ability.CPU_QUOTA in abilities else 1000
        self.resizes_memory = Ability.RESIZE_MEMORY in abilities
        self.machine = SimulatedMachine(
            now_ms=lambda: self.now,
            rng=random.Random(1),
            abilities=abilities,
            load=lambda spec, rng: Load(1000, 8_000_000, 8_000_000, 0, 4_000_000),
        )
        self.hypervisor = SimulatedHypervisor(self.machine, "mine")

    async def elapse(self, duration_ms: int) -> None:
        self.now += duration_ms

    async def talk(self, handle: Handle) -> None:
        self.now += 1000

    async def kill_and_reopen(self) -> None:
        self.hypervisor = SimulatedHypervisor(self.machine, "mine")

    async def stranger(self) -> Hypervisor:
        return SimulatedHypervisor(self.machine, "theirs")


class TestSimulated(HypervisorContract):
    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[Bench]:
        return cleaning(SimulatedBench(ALL_ABILITIES))


class TestSimulatedWithNothingDeclared(HypervisorContract):
    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[Bench]:
        return cleaning(SimulatedBench(frozenset()))


@pytest.mark.parametrize("ability", sorted(ALL_ABILITIES))
def test_each_ability_alone_may_be_missing(ability: Ability, tmp_path: Path) -> None:
    class WithoutOne(HypervisorContract):
        def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[Bench]:
            return cleaning(SimulatedBench(ALL_ABILITIES - {ability}))

    WithoutOne().test_what_is_not_declared_is_refused(tmp_path)


def test_the_same_seed_and_clock_give_the_same_use() -> None:
    import asyncio

    def once() -> list[object]:
        async def scenario() -> list[object]:
            now = [0]
            machine = SimulatedMachine(
                now_ms=lambda: now[0], rng=random.Random(7), load=lambda spec, rng: Load(rng.randrange(1000))
            )
            hypervisor = SimulatedHypervisor(machine)
            samples: list[object] = []
            for index in range(5):
                await hypervisor.create(SimulatedBench(ALL_ABILITIES).spec(f"g{index}"))
                now[0] += 1234
                samples.append(await hypervisor.usage([f"g{index}" for index in range(5)]))
            return samples

        return asyncio.run(scenario())

    assert once() == once()


def test_a_crashed_guest_stops_using_and_says_so(tmp_path: Path) -> None:
    import asyncio

    async def scenario() -> None:
        bench = SimulatedBench(ALL_ABILITIES)
        await bench.hypervisor.create(bench.spec("one"))
        bench.machine.crash("mine", "one")
        before = (await bench.hypervisor.usage(["one"]))["one"]
        await bench.elapse(5000)
        after = (await bench.hypervisor.usage(["one"]))["one"]
        assert after.state is State.CRASHED
        assert after.cpu_ns == before.cpu_ns

    asyncio.run(scenario())
