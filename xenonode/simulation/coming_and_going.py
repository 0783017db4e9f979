"""Churn: servers that vanish without a goodbye, and return, or are replaced by new ones.

Decides each server's times from the seed and its own name, so that another server more changes nobody else's. Leaves
crashing and restarting to the world. A fault that has crashed a server already is let be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import gamma
from random import Random
from typing import Any

from xenonode.simulation.env import derive
from xenonode.simulation.scenario import Churn
from xenonode.simulation.stand import EXPECTED, Server, Stand

TRY_AGAIN_S = 10.0
"""A server that could not join (XenoCorp away, partitioned) is started again by its owner so much later."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Churning:
    """See the module. `start` once all have joined; `stop` brings those back that may return."""

    def __init__(self, stand: Stand, churn: Churn, seed: int, note: Callable[[str], None], spawn: Spawn) -> None:
        self._stand, self._churn, self._seed, self._note, self._spawn = stand, churn, seed, note, spawn
        self._tasks: list[asyncio.Task[None]] = []
        self._returning: dict[str, asyncio.Task[None]] = {}
        self._away: dict[str, Server] = {}  # to be brought back by this module; others are the faults' to care for
        self._stopped = False
        self.left = self.returned = self.failed = 0

    def start(self) -> None:
        """Let servers come and go from now on."""
        churn = self._churn
        if churn.trace:
            for outage in churn.trace:
                server = self._stand.servers()[outage.server]
                stay_s = outage.up_s - outage.down_s if outage.up_s else None
                self._tasks.append(self._spawn(self._outage(server, outage.down_s, stay_s)))
        elif churn.lifetime:
            for server in list(self._stand.servers()):
                self._begin(server)

    async def stop(self) -> None:
        """No more of it; whoever is away and may return does so now."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(self._return(server) for server in list(self._away.values())))

    def _return(self, server: Server) -> asyncio.Task[None]:
        """Its return, which goes on when whoever waits for it is stopped: half a start would be no churn."""
        name = server.node.host.name
        if name not in self._returning or self._returning[name].done():
            self._returning[name] = self._spawn(self._bring_back(server))
        return self._returning[name]

    async def _bring_back(self, server: Server) -> None:
        """Start it again until it has joined."""
        while not self._stand.is_up(server):
            if server.node.host.up:
                server.crash()  # a start that failed half-way
            try:
                await server.restart()
            except EXPECTED as error:
                self.failed += 1
                self._note(f"{server.node.host.name} cannot return: {error}")
                await asyncio.sleep(TRY_AGAIN_S)
            else:
                self.returned += 1
                self._note(f"{server.node.host.name} is back")
        self._away.pop(server.node.host.name, None)

    def _begin(self, server: Server) -> None:
        rng = Random(int.from_bytes(derive(self._seed, "churn", server.node.host.name)))
        if rng.random() < self._churn.share:
            self._tasks.append(self._spawn(self._lives(server, rng)))

    async def _outage(self, server: Server, after_s: float, stay_s: float | None) -> None:
        await asyncio.sleep(after_s)
        if self._leave(server, returns=stay_s is not None) and stay_s is not None:
            await asyncio.sleep(stay_s)
            await asyncio.shield(self._return(server))

    async def _lives(self, server: Server, rng: Random) -> None:
        churn = self._churn
        while not self._stopped:
            await asyncio.sleep(_drawn(rng, churn.lifetime, churn.lifetime_mean_s, churn.lifetime_shape))
            if not self._leave(server, returns=not churn.replace):
                continue
            await asyncio.sleep(_drawn(rng, churn.downtime, churn.downtime_mean_s, churn.downtime_shape))
            if churn.replace:
                await self._replace()
                return
            await asyncio.shield(self._return(server))

    async def _replace(self) -> None:
        server = self._stand.add()
        self._away[server.node.host.name] = server
        await asyncio.shield(self._return(server))
        self._begin(server)

    def _leave(self, server: Server, *, returns: bool) -> bool:
        if not self._stand.is_up(server):
            return False
        if returns:
            self._away[server.node.host.name] = server
        else:
            self._stand.forget(server)
        server.crash()
        self.left += 1
        self._note(f"{server.node.host.name} vanished")
        return True


def _drawn(rng: Random, distribution: str, mean_s: float, shape: float) -> float:
    if distribution == "weibull":
        return rng.weibullvariate(mean_s / gamma(1 + 1 / shape), shape)
    return rng.expovariate(1 / mean_s)
