"""A simulated world of bare DHT nodes: many endpoints with their overlays, warm-started, under churn.

Decides how such a world is put together: keys and credentials from the seed, routing tables filled from the global
membership (what joins would have led to, without their cost), places on a plane for the latencies of a wide-area
network. Leaves what is done in it, and what counts as right, to tests and benchmarks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from dht.contact import Contact
from dht.endpoint import Endpoint, Member
from dht.identity import Scheme, node_id
from dht.overlay import Overlay
from dht.record import seal_record
from dht.routing import K
from dht.wire import decode, encode
from xenonode.simulation.env import EPOCH_MS, derive
from xenonode.simulation.nearest import Nearest
from xenonode.simulation.network import Conditions, Host
from xenonode.simulation.run import SimulatedNode, Simulation
from xenonode.simulation.warm import known_members

PORT = 4_000
NETWORK_ID = b"simulated overlays"
HOUR_MS = 3_600_000
# Credentials outlive every run.
CREDENTIAL_MS = 1_000 * HOUR_MS
# A wide-area network: hosts on a plane of 60 x 40 ms one way, each behind an access link of 2 to 8 ms. Round trips
# are then 10 to 160 ms, about 75 in the mean, as between the regions of cloud providers.
PLANE_US = (60_000, 40_000)
ACCESS_US = (2_000, 8_000)


class Places:
    """Latencies by place; each host's place depends on the seed and its own name only."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._places: dict[str, tuple[int, int, int]] = {}

    def latency_us(self, source: Host, destination: Host) -> int:
        """One way between two hosts."""
        here, there = self._place(source.name), self._place(destination.name)
        return int(((here[0] - there[0]) ** 2 + (here[1] - there[1]) ** 2) ** 0.5) + (here[2] + there[2]) // 2

    def _place(self, name: str) -> tuple[int, int, int]:
        place = self._places.get(name)
        if place is None:
            rng = Random(int.from_bytes(derive(self._seed, "place", name)))
            place = (rng.randrange(PLANE_US[0]), rng.randrange(PLANE_US[1]), rng.randint(*ACCESS_US))
            self._places[name] = place
        return place


class OverlayNode:
    """One host with an endpoint in all of the world's dimensions."""

    def __init__(self, world: OverlayWorld, node: SimulatedNode) -> None:
        self.node = node
        env = node.env
        signer = env.scheme.generate(env.seed("key"))
        self.nonce = env.seed("nonce")[:16]
        credential = encode([signer.public_key, self.nonce, node.host.name, EPOCH_MS + CREDENTIAL_MS])
        self.endpoint = Endpoint(
            signer,
            credential,
            world.check,
            env.scheme,
            network_id=NETWORK_ID,
            now_ms=env.now_ms,
            rng=env.rng("dht"),
            exchange=env.exchange,
        )
        self.address = (node.host.address, PORT)

    @property
    def alive(self) -> bool:
        """Whether it has not crashed."""
        return self.node.host.up

    async def open(self, dimensions: Sequence[str]) -> None:
        """Bind the port and make the overlays, with empty tables."""
        await self.endpoint.open(*self.address)
        for dimension in dimensions:
            self.endpoint.overlay(dimension)

    def overlay(self, dimension: str) -> Overlay:
        """The overlay of one dimension."""
        return self.endpoint.overlay(dimension)

    def contact(self, dimension: str) -> Contact:
        """Itself, as others know it."""
        own_id = node_id(dimension, self.endpoint.signer.public_key, self.nonce)
        return Contact.unpack(Contact(own_id, self.address).packed)

    async def find(self, dimension: str, key: bytes) -> list[Contact]:
        """A lookup, on the node's own host."""
        return await self.node.start(self.overlay(dimension).find(key), "find")

    async def get(self, dimension: str, key: bytes) -> list[bytes]:
        """A read, on the node's own host."""
        return await self.node.start(self.overlay(dimension).records.get(key), "get")

    async def put(self, dimension: str, key: bytes, payload: bytes, life_ms: int, *, republish: bool = True) -> int:
        """Store a plain value of its own for so long; how many nodes hold it."""
        expires_ms = self.node.env.now_ms() + life_ms
        raw = seal_record(self.endpoint.signer, dimension, key, 1, expires_ms, payload)
        work = self.overlay(dimension).records.put(key, raw, expires_ms, republish=republish)
        return await self.node.start(work, "put")

    def crash(self) -> None:
        """Vanish without a goodbye."""
        self.node.crash()


class OverlayWorld:
    """`nodes` endpoints in `dimensions`; a context manager over its `simulation`."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        dimensions: Sequence[str] = ("cores",),
        *,
        conditions: Conditions | None = None,
        wide_area: bool = False,
        scheme: Scheme | None = None,
        traced: bool = True,
    ) -> None:
        self.dimensions = tuple(dimensions)
        self.rng = Random(int.from_bytes(derive(seed, "overlays")))
        places = Places(seed)
        self.simulation = Simulation(
            seed,
            conditions=conditions,
            latency_us=places.latency_us if wide_area else None,
            scheme=scheme,
            traced=traced,
        )
        self._members: dict[bytes, Member] = {}
        self._number = 0
        self.nodes = [self.add() for _ in range(nodes)]

    def check(self, credential: bytes, now_ms: int) -> Member:
        """The member of a credential: this world's issuer trusts everybody, and nobody in it forges."""
        member = self._members.get(credential)
        if member is None:
            key, nonce, entity, expires_ms = decode(credential)  # type: ignore[misc, str-unpack]
            member = self._members[credential] = Member(key, nonce, entity, expires_ms, True)  # type: ignore[arg-type]
        return member

    def add(self) -> OverlayNode:
        """A further node, not open yet."""
        self._number += 1
        return OverlayNode(self, self.simulation.add_node(f"node-{self._number}"))

    def begin(self) -> None:
        """Open every node and fill its tables."""
        self.simulation.run(self._open_all())
        for dimension in self.dimensions:
            self._warm(dimension)

    async def join(self, node: OverlayNode, seeds: Sequence[OverlayNode]) -> None:
        """Let a new node in as live ones come: through seeds."""
        await node.node.start(node.open(self.dimensions), "open")
        addresses = [seed.address for seed in seeds]
        await node.node.start(_join_all(node, self.dimensions, addresses), "join")
        self.nodes.append(node)

    def living(self) -> list[OverlayNode]:
        """The nodes that have not crashed."""
        return [node for node in self.nodes if node.alive]

    def nearest(self, dimension: str, key: bytes, k: int = K) -> list[Contact]:
        """The oracle: the k living nodes nearest to a key."""
        return self.oracle(dimension)(key, k)

    def oracle(self, dimension: str) -> Callable[[bytes, int], list[Contact]]:
        """The same of those who live now, for who asks often."""
        contacts = [node.contact(dimension) for node in self.living()]
        nearest = Nearest([contact.number for contact in contacts])
        return lambda key, k: [contacts[place] for place in nearest(int.from_bytes(key, "big"), k)]

    def questions(self) -> int:
        """Questions that all nodes have asked so far."""
        return sum(node.endpoint.calls.begun for node in self.nodes)

    def random_key(self) -> bytes:
        """A key of chance, the same ones in each run of a seed."""
        return self.rng.randbytes(20)

    async def _open_all(self) -> None:
        for node in self.nodes:
            await node.node.start(node.open(self.dimensions), "open")

    def _warm(self, dimension: str) -> None:
        contacts = [node.contact(dimension) for node in self.nodes]
        seed = int.from_bytes(derive(self.simulation.seed, "warm", dimension))
        for place, known in known_members([contact.number for contact in contacts], seed):
            node = self.nodes[place]
            node.node.call(node.overlay(dimension).warm_start, [contacts[each] for each in known])

    def __enter__(self) -> OverlayWorld:
        self.simulation.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self.simulation.__exit__(kind, error, traceback)


async def _join_all(node: OverlayNode, dimensions: Sequence[str], seeds: list[tuple[str, int]]) -> None:
    await asyncio.gather(*(node.overlay(dimension).join(seeds) for dimension in dimensions))
