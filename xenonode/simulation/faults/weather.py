"""Faults of the network: what holds between hosts while an injection lasts.

Decides how several that overlap add up: chances and delays are added, the smallest MTU counts. Where no weather is, the
network's own conditions hold, and sending costs nothing more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from xenonode.simulation.faults.kinds import KINDS, Injection
from xenonode.simulation.faults.scene import Scene
from xenonode.simulation.network import MILLION, Conditions, Host, Network


@dataclass(eq=False, slots=True)
class _Front:
    """One injection's change of conditions around its targets."""

    targets: frozenset[str]
    change: dict[str, int]


class Weather:
    """All fronts of one network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._fronts: list[_Front] = []
        self._known: dict[tuple[str, str], Conditions] = {}

    def come(self, front: _Front) -> None:
        """Begin."""
        self._fronts.append(front)
        self._changed()

    def go(self, front: _Front) -> None:
        """End."""
        self._fronts.remove(front)
        self._changed()

    def _changed(self) -> None:
        self._known.clear()
        self._network.conditions_between = self._between if self._fronts else None

    def _between(self, source: Host, destination: Host) -> Conditions:
        pair = source.name, destination.name
        found = self._known.get(pair)
        if found is None:
            found = self._network.conditions
            for front in self._fronts:
                if not front.targets.isdisjoint(pair):
                    found = _worse(found, front.change)
            self._known[pair] = found
        return found


def _worse(conditions: Conditions, change: dict[str, int]) -> Conditions:
    changed = {}
    for name, amount in change.items():
        now: int = getattr(conditions, name)
        if name == "mtu_bytes":
            changed[name] = min(now, amount)
        else:
            changed[name] = min(now + amount, MILLION) if name.endswith("_ppm") else now + amount
    return replace(conditions, **changed)  # type: ignore[arg-type]  # integers, all of them


async def conditions(scene: Scene, weather: Weather, injection: Injection) -> None:
    """Loss, duplication, reordering, corruption, delay, MTU: the kind's own parameters are the change."""
    change = {name: injection.parameter(name) for name in KINDS[injection.kind].parameters}
    front = _Front(frozenset(injection.targets), change)
    async with scene.counted(injection):
        weather.come(front)
        await asyncio.sleep(injection.for_ms / 1_000)
        weather.go(front)


async def clog(scene: Scene, injection: Injection) -> None:
    """Packets from and to the targets wait until it is over."""
    until_ns = scene.loop.now_ns + injection.for_ms * 1_000_000
    async with scene.counted(injection):
        for name in injection.targets:
            scene.network.clogs[name] = "clog", until_ns
        await asyncio.sleep(injection.for_ms / 1_000)
        _unclog(scene, injection.targets)


async def swizzle(scene: Scene, injection: Injection) -> None:
    """FoundationDB's: clog the targets one by one, then free them in another order."""
    rng, now_ns = scene.rng(injection), scene.loop.now_ns
    total_ns = injection.for_ms * 1_000_000
    order = list(injection.targets)
    rng.shuffle(order)
    async with scene.counted(injection):
        events = [(total_ns * place // (2 * len(order)), name) for place, name in enumerate(order)]
        rng.shuffle(order)
        ends = {name: total_ns - total_ns * place // (2 * len(order)) for place, name in enumerate(order)}
        for at_ns, name in events:
            await asyncio.sleep(max(0, now_ns + at_ns - scene.loop.now_ns) / 1e9)
            scene.network.clogs[name] = "swizzle", now_ns + ends[name]
        await asyncio.sleep(max(0, now_ns + total_ns - scene.loop.now_ns) / 1e9)
        _unclog(scene, injection.targets)


def _unclog(scene: Scene, targets: tuple[str, ...]) -> None:
    for name in targets:
        if scene.network.clogs.get(name, ("", 0))[1] <= scene.loop.now_ns:
            scene.network.clogs.pop(name, None)


async def partition(scene: Scene, injection: Injection) -> None:
    """Part the targets from the rest: both ways, in one direction, or with all who share their regions."""
    left = set(injection.targets)
    everybody = [name for names in scene.world.groups().values() for name in names]
    if injection.kind == "partition_regional":
        place = scene.world.place
        regions = {place(name) for name in left}
        left = {name for name in everybody if place(name) in regions}
    right = [name for name in everybody if name not in left]
    label = f"{injection.kind} {injection.at_ms} {','.join(injection.targets)}"
    async with scene.counted(injection):
        symmetric = injection.kind != "partition_one_way"
        scene.network.partition(label, sorted(left), right, symmetric=symmetric)
        await asyncio.sleep(injection.for_ms / 1_000)
        scene.network.heal(label)


async def nat(scene: Scene, injection: Injection) -> None:
    """Put translators before the targets. The mappings of what they have sent in the past are gone."""
    names = [name for name in injection.targets if name not in scene.network.translated]
    async with scene.counted(injection):
        for name in names:
            scene.network.translated[name] = set()
        await asyncio.sleep(injection.for_ms / 1_000)
        for name in names:
            del scene.network.translated[name]
