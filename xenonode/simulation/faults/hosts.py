"""Faults of nodes: power, processor, clock, address; and of XenoCorp as a whole."""

from __future__ import annotations

import asyncio

from xenonode.simulation.faults.kinds import Injection
from xenonode.simulation.faults.scene import Scene

CALM_S = 1.0
"""A node that is back stays up so long before it is told to go again."""


async def crash(scene: Scene, injection: Injection) -> None:
    """Power fails at all targets at once; they come back with their disks."""
    await asyncio.gather(*(_away(scene, injection, name, injection.for_ms / 1_000) for name in injection.targets))


async def cold_restart(scene: Scene, injection: Injection) -> None:
    """The same, and the disks are new."""
    work = [_away(scene, injection, name, injection.for_ms / 1_000, cold=True) for name in injection.targets]
    await asyncio.gather(*work)


async def _away(
    scene: Scene, injection: Injection, name: str, for_s: float, *, cold: bool = False, orderly: bool = False
) -> None:
    if not scene.take(name):
        return
    try:
        host = scene.host(name)
        if orderly:
            await host.stop()
        else:
            host.crash()
        scene.bit(injection)
        if cold:
            host.disk.erase()
        await asyncio.sleep(for_s)
        await scene.come_back(name)
    finally:
        scene.release(name)


async def crash_loop(scene: Scene, injection: Injection) -> None:
    """Crash, be up for a moment, crash again."""

    async def loop(name: str) -> None:
        times = injection.parameter("times")
        down_s = max(0.1, injection.for_ms / 1_000 / times - injection.parameter("up_ms") / 1_000)
        for _ in range(times):
            await _away(scene, injection, name, down_s)
            await asyncio.sleep(injection.parameter("up_ms") / 1_000)

    await asyncio.gather(*(loop(name) for name in injection.targets))


async def churn(scene: Scene, injection: Injection) -> None:
    """The targets go and come, one after the other; every second one says goodbye."""
    rng = scene.rng(injection)
    ends_s = scene.loop.time() + injection.for_ms / 1_000
    away_s = injection.parameter("away_ms") / 1_000
    number = 0
    while scene.loop.time() < ends_s:
        name = injection.targets[number % len(injection.targets)]
        await _away(scene, injection, name, away_s * rng.uniform(0.5, 1.5), orderly=bool(number % 2))
        await asyncio.sleep(CALM_S)
        number += 1


async def address_change(scene: Scene, injection: Injection) -> None:
    """The targets come back under other addresses, which only their own configurations know.

    Live, a server that follows its address goes on at another one, which nobody told it.
    """

    async def move(name: str) -> None:
        if not scene.take(name):
            return
        try:
            host = scene.host(name)
            if injection.parameter("live") and host.follows:
                host.move()
                scene.bit(injection)
                return
            host.crash()
            host.move()
            scene.bit(injection)
            await asyncio.sleep(injection.for_ms / 1_000)
            await scene.come_back(name)
        finally:
            scene.release(name)

    await asyncio.gather(*(move(name) for name in injection.targets))


async def pace(scene: Scene, injection: Injection) -> None:
    """Stop the targets' processors, or slow them down."""
    step_ns = None if injection.kind == "pause" else injection.parameter("step_us") * 1_000
    lives = []
    for name in injection.targets:
        life = scene.host(name).node.host.incarnation
        if life is not None and life.alive and life.runs:
            lives.append(life)
            scene.loop.pace(life, step_ns)
            scene.bit(injection)
    await asyncio.sleep(injection.for_ms / 1_000)
    for life in lives:
        if life.alive:
            scene.loop.pace(life, 0)


async def clock(scene: Scene, injection: Injection) -> None:
    """Wrong clocks, for a while."""
    by_ms = injection.parameter("skew_ms" if injection.kind == "clock_skew" else "jump_ms")
    if scene.rng(injection).random() < 0.5:
        by_ms = -by_ms
    for name in injection.targets:
        scene.host(name).node.skew(by_ms)
        scene.bit(injection)
    await asyncio.sleep(injection.for_ms / 1_000)
    for name in injection.targets:
        scene.host(name).node.skew(-by_ms)
