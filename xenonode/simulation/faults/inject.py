"""Injections to what happens in a world, each at its time under the virtual clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from xenonode.simulation.errors import SimulationError
from xenonode.simulation.faults import byzantine, disks, hosts, weather
from xenonode.simulation.faults.kinds import LEDGER_ROT, Injection
from xenonode.simulation.faults.scene import FaultyWorld, Scene
from xenonode.simulation.faults.weather import Weather

Work = Callable[[Injection], Awaitable[None]]


class Injector:
    """Does faults to one world; `scene.bites` counts what really happened, by kind."""

    def __init__(self, world: FaultyWorld) -> None:
        scene = self.scene = Scene(world)
        change = partial(weather.conditions, scene, Weather(scene.network))
        self.work: dict[str, Work] = {
            **dict.fromkeys(("loss", "duplication", "reordering", "corruption", "delay", "mtu"), change),
            **dict.fromkeys(
                ("partition", "partition_one_way", "partition_regional"), partial(weather.partition, scene)
            ),
            "clog": partial(weather.clog, scene),
            "swizzle": partial(weather.swizzle, scene),
            "nat": partial(weather.nat, scene),
            **dict.fromkeys(("crash", "corp_away"), partial(hosts.crash, scene)),
            "crash_loop": partial(hosts.crash_loop, scene),
            "cold_restart": partial(hosts.cold_restart, scene),
            "churn": partial(hosts.churn, scene),
            "address_change": partial(hosts.address_change, scene),
            **dict.fromkeys(("pause", "slow_cpu"), partial(hosts.pace, scene)),
            **dict.fromkeys(("clock_skew", "clock_jump"), partial(hosts.clock, scene)),
            **dict.fromkeys(("disk_lost_write", "disk_torn_write"), partial(disks.cut_write, scene)),
            **dict.fromkeys(("disk_bit_rot", LEDGER_ROT), partial(disks.bit_rot, scene)),
            "disk_full": partial(disks.full, scene),
            **dict.fromkeys(byzantine.LIES, partial(byzantine.lie, scene)),
        }

    async def run(self, injections: Sequence[Injection]) -> Counter[str]:
        """Until the last one is over, and everybody is back."""
        began_s = self.scene.loop.time()

        async def one(injection: Injection) -> None:
            await asyncio.sleep(max(0.0, began_s + injection.at_ms / 1_000 - self.scene.loop.time()))
            self.scene.simulation.trace.note("fault", str(injection).encode())
            await self.work[injection.kind](injection)

        missing = sorted({one.kind for one in injections} - set(self.work))
        if missing:
            raise SimulationError(f"nobody does {', '.join(missing)}")
        await asyncio.gather(*(one(injection) for injection in injections))
        return self.scene.bites


async def inject(world: FaultyWorld, injections: Sequence[Injection]) -> Counter[str]:
    """Do all of it; how often each kind really struck. Times count from now."""
    return await Injector(world).run(injections)
