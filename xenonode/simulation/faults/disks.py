"""Faults of disks: the power fails in the midst of a write, bits rot, no room is left."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from xenonode.simulation.disk import KEPT_STEPS
from xenonode.simulation.faults.kinds import LEDGER_ROT, Injection
from xenonode.simulation.faults.scene import Scene

LOOK_S = 0.25


async def cut_write(scene: Scene, injection: Injection) -> None:
    """A trap in each target's disk; whoever steps into it loses power, and is back when the injection is over."""

    async def wait(name: str) -> None:
        if not scene.take(name):
            return
        try:
            host, torn = scene.host(name), injection.kind == "disk_torn_write"
            kept = scene.rng(injection).randrange(1, KEPT_STEPS) if torn else 0
            ends_s = scene.loop.time() + injection.for_ms / 1_000
            host.set_trap(injection.parameter("after_writes"), kept)
            while host.running is not None and scene.loop.time() < ends_s:  # noqa: ASYNC110  # it falls by itself
                await asyncio.sleep(LOOK_S)
            if host.running is not None:  # it wrote too little
                host.clear_trap()
                return
            scene.bit(injection)
            await asyncio.sleep(max(0.0, ends_s - scene.loop.time()))
            await scene.come_back(name)
        finally:
            scene.release(name)

    await asyncio.gather(*(wait(name) for name in injection.targets))


async def bit_rot(scene: Scene, injection: Injection) -> None:
    """A bit of some file flips while the node is down. Who notices at its start gets the files back from a backup.

    Of the ledger it is one in the database's file, into which an orderly stop has put everything.
    """
    of_ledger = injection.kind == LEDGER_ROT

    async def rot(name: str) -> None:
        if not scene.take(name):
            return
        try:
            host, rng = scene.host(name), scene.rng(injection)
            files = host.ledger if of_ledger else host.disk
            if files is None:
                return  # a ledger in memory
            if of_ledger:
                host.database.close()
            host.crash()
            backup = files.copy()
            if (host.rot_ledger if of_ledger else host.rot)(rng):
                scene.bit(injection)
            await asyncio.sleep(injection.for_ms / 1_000)
            first = True

            def mend() -> None:
                nonlocal first
                if not first:
                    files.restore(backup)
                first = False

            await scene.come_back(name, mend)
        finally:
            scene.release(name)

    await asyncio.gather(*(rot(name) for name in injection.targets))


async def full(scene: Scene, injection: Injection) -> None:
    """No write finds room until it is over."""
    with ExitStack() as disks:
        for name in injection.targets:
            disks.enter_context(scene.full(injection, name))
        await asyncio.sleep(injection.for_ms / 1_000)
