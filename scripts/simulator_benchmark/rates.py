"""RPCs a second of one core: the same lookups with and without a trace, cold, signed, and by stock `kademlia`.

Decides what is compared: contenders take turns in one process on the same virtual loop and network, each batch is timed
by the CPU time of the process, and the median of the batches counts. An RPC is a request and its reply: two datagrams,
so handshakes count, too. `kademlia` is the library's own code with its RPC, codec and lookups; only the pings that it
sends for ever where a bucket is full are left out, since they would fill any run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Protocol

from dht.identity import ED25519, Scheme
from scripts.dht_benchmark.latency import KademliaWorld
from xenonode.simulation.overlays import OverlayWorld
from xenonode.simulation.run import Simulation

# Nodes that ask, one after the other; the others answer.
ASKERS = 8
WIRE_TRACE, WIRE, COLD, COLD_SIGNED, STOCK = "wire_trace", "wire", "cold", "cold_signed", "stock_kademlia"


class Contender(Protocol):
    """Something that looks keys up in virtual time."""

    simulation: Simulation

    async def look_up(self, key: bytes) -> None:
        """One lookup by the next asker."""


class Ours:
    """Nodes of `dht`; warm askers know whom they ask, cold ones greet everybody first, as each asks once only."""

    def __init__(self, nodes: int, seed: int, *, traced: bool = True, cold: bool = False, scheme: Scheme | None = None):
        self.world = OverlayWorld(seed, nodes, traced=traced, scheme=scheme)
        self.simulation = self.world.simulation
        self._askers, self._turn = nodes if cold else ASKERS, 0
        self.world.begin()

    async def look_up(self, key: bytes) -> None:
        self._turn += 1
        await self.world.nodes[self._turn % self._askers].find("cores", key)


class Stock:
    """Servers of `kademlia`."""

    def __init__(self, nodes: int, seed: int) -> None:
        self.world = KademliaWorld(nodes, seed, mended=False)
        self.simulation = self.world.simulation
        self._turn = 0
        self.simulation.run(self.world.build([], []))

    async def look_up(self, key: bytes) -> None:
        self._turn += 1
        await self.world.get(self._turn % ASKERS, key)  # of a key that nobody stored: a whole lookup


def nodes_least(rounds: int, lookups: int) -> int:
    """Fewer would ask twice, and whoever asks again is not cold."""
    return max(ASKERS, (rounds + 1) * lookups)


def measure(nodes: int, seed: int, rounds: int, lookups: int) -> dict[str, int]:
    """The median rate of each contender, by name. `nodes` are at least `nodes_least(rounds, lookups)`."""
    makers: dict[str, Callable[[], Contender]] = {
        WIRE_TRACE: lambda: Ours(nodes, seed),
        WIRE: lambda: Ours(nodes, seed, traced=False),
        COLD: lambda: Ours(nodes, seed, cold=True),
        COLD_SIGNED: lambda: Ours(nodes, seed, cold=True, scheme=ED25519),
        STOCK: lambda: Stock(min(nodes, 200), seed),
    }
    contenders = {name: make() for name, make in makers.items()}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    rng = Random(seed)
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            rate = _batch(contender, lookups, rng)
            if turn or name.startswith(COLD):  # the others' first round is their warming up
                rates[name].append(rate)
    for contender in contenders.values():
        contender.simulation.loop.close()
    return {name: round(statistics.median(each)) for name, each in rates.items()}


def _batch(contender: Contender, lookups: int, rng: Random) -> float:
    keys = [rng.randbytes(20) for _ in range(lookups)]
    sent = contender.simulation.network.statistics

    async def work() -> None:
        for key in keys:
            await contender.look_up(key)

    before, began_s = sent.sent, time.process_time()
    contender.simulation.run(work())
    return (sent.sent - before) / 2 / (time.process_time() - began_s)
