"""How long a get takes when peers are dead: the real code of each contender in virtual time, on one wide-area network.

Every asker knows what a node knows that has lived for a while, then a share of the others dies at once and without
a word, and the askers read. Times are virtual, so they do not depend on this machine.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kademlia.network import Server
from kademlia.protocol import KademliaProtocol

from scripts.dht_benchmark.baseline import MendedServer
from xenonode.simulation.overlays import HOUR_MS, OverlayNode, OverlayWorld, Places
from xenonode.simulation.run import Simulation

DEAD_PER_CENT = (0, 10, 30)
# Askers of one level; none of them dies before.
ASKERS = 40
GETS = 160
KEYS = 80
PORT = 4_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of virtual time, and gets that found nothing."""

    mean_ms: float
    p90_ms: float
    failed: int
    gets: int


class OurWorld:
    """`dht` with warm sessions to its contacts, as nodes have that live."""

    def __init__(self, nodes: int, seed: int) -> None:
        self.world = OverlayWorld(seed, nodes, wide_area=True)
        self.simulation = self.world.simulation
        self.nodes = self.world.nodes

    async def build(self, keys: list[bytes], askers: list[int]) -> None:
        for number, key in enumerate(keys):
            await self.nodes[-1 - number % 8].put("cores", key, b"v" * 100, HOUR_MS * 6, republish=False)
        for node in (self.nodes[asker] for asker in askers):
            await node.node.start(_meet(node), "meet")

    async def get(self, number: int, key: bytes) -> bool:
        return bool(await self.nodes[number].get("cores", key))

    def crash(self, number: int) -> None:
        self.nodes[number].crash()


class QuietProtocol(KademliaProtocol):
    """As shipped, without the endless pings and stores: they cost no virtual time, but all of this machine's."""

    async def call_ping(self, node_to_ask: Any) -> tuple[bool, None]:
        """Nothing: the pings of full buckets are the loop; nothing else calls this."""
        return (True, None)

    def welcome_if_new(self, node: Any) -> None:
        if self.router.is_new_node(node):
            self.router.add_contact(node)


class QuietServer(Server):
    """Its lookups, time-outs, `get` and `set` are the library's own."""

    protocol_class = QuietProtocol


class KademliaWorld:
    """`kademlia`, joined through its first node."""

    def __init__(self, nodes: int, seed: int, *, mended: bool) -> None:
        self.simulation = Simulation(seed, latency_us=Places(seed).latency_us)
        # The library raises in its callbacks when an answer comes after all; its users see a line in their log.
        self.simulation.loop.set_exception_handler(lambda loop, context: None)
        rng = random.Random(seed)
        server_class = MendedServer if mended else QuietServer
        self.nodes = [self.simulation.add_node(f"node-{number + 1}") for number in range(nodes)]
        self.servers = [server_class(node_id=rng.randbytes(20)) for _ in range(nodes)]

    async def build(self, keys: list[bytes], askers: list[int]) -> None:
        seed = (self.nodes[0].host.address, PORT)
        for node, server in zip(self.nodes, self.servers, strict=True):
            await node.start(server.listen(PORT, node.host.address))
            if node is not self.nodes[0]:
                await node.start(server.bootstrap([seed]))
        for number, key in enumerate(keys):
            await self.nodes[-1 - number % 8].start(self.servers[-1 - number % 8].set(key, "v" * 100))

    async def get(self, number: int, key: bytes) -> bool:
        return await self.nodes[number].start(self.servers[number].get(key)) is not None

    def crash(self, number: int) -> None:
        self.nodes[number].crash()


def measure(name: str, nodes: int, seed: int) -> dict[int, Latency]:
    """Latencies of one contender by the share of dead peers in per cent."""
    world = OurWorld(nodes, seed) if name == "ours" else KademliaWorld(nodes, seed, mended=name == "patched")
    rng = random.Random(seed)
    keys = [rng.randbytes(20) for _ in range(KEYS)]
    found: dict[int, Latency] = {}
    if isinstance(world, OurWorld):
        world.world.begin()
    askers = rng.sample(range(nodes), ASKERS * len(DEAD_PER_CENT))
    world.simulation.run(world.build(keys, askers))
    mortal = sorted(set(range(nodes)).difference(askers))
    rng.shuffle(mortal)
    dead = 0
    for level, per_cent in enumerate(DEAD_PER_CENT):
        while dead < nodes * per_cent // 100 and dead < len(mortal):
            world.crash(mortal[dead])
            dead += 1
        present = askers[level * ASKERS : (level + 1) * ASKERS]
        found[per_cent] = world.simulation.run(_gets(world.simulation, world.get, keys, present, rng))
    world.simulation.loop.close()
    return found


async def _gets(
    simulation: Simulation,
    get: Callable[[int, bytes], Awaitable[bool]],
    keys: list[bytes],
    askers: list[int],
    rng: random.Random,
) -> Latency:
    times_ms, failed = [], 0
    for number in range(GETS):
        before_ns = simulation.loop.now_ns
        failed += not await get(askers[number % ASKERS], rng.choice(keys))
        times_ms.append((simulation.loop.now_ns - before_ns) / 1e6)
    return Latency(statistics.mean(times_ms), statistics.quantiles(times_ms, n=10)[8], failed, GETS)


async def _meet(node: OverlayNode) -> None:
    addresses = [contact.address for contact in node.overlay("cores").table]
    await asyncio.gather(*(node.endpoint.ping(address) for address in addresses), return_exceptions=True)
