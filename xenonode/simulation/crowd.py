"""A light world: thousands of search peers, each with the real endpoint, overlays, holders, publisher and searcher.

Decides how such a world is furnished from a seed without XenoCorp: credentials that one issuing key signs beforehand,
a schema of all or some dimensions, routing tables from the global membership (`warm`), one machine of the catalogue a
peer, whose first adverts are published within `SPREAD_S`. Everything that runs is the code that runs live. Leaves
accounts and sessions to `world`, and what happens in it to its user.

    with Crowd(seed=7, peers=1_000) as crowd:
        crowd.run(until=120)
        answer = crowd.run(crowd.clients[0].call(lambda client: client.search("cores >= 4")))
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import TypeVar

from dht.contact import Contact
from dht.errors import RemoteError
from dht.identity import Scheme, node_id
from summaries.point import Point
from summaries.schema import ENVIRONMENT, LOCATION, ORDERED, Schema
from xenonode import catalogue
from xenonode.catalogue import REGIONS
from xenonode.model.advert import Location, VerifiedAdvert
from xenonode.model.entity import Address, Credential, Issuer, Network, Trust
from xenonode.model.schema import PublishedSchema, schema_hash
from xenonode.peer import SEEDS_MAX
from xenonode.search.publishing import Published
from xenonode.search.searching import SearchAnswer
from xenonode.simulation.acquaintances import Acquaintances
from xenonode.simulation.crowd_hosts import CrowdHost, CrowdPeer
from xenonode.simulation.env import EPOCH_MS, derive
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.established import establish
from xenonode.simulation.machines import LONGEST_PERIOD_MS
from xenonode.simulation.network import Conditions
from xenonode.simulation.node_host import CONTROL_PORT, UDP_PORT
from xenonode.simulation.run import Simulation
from xenonode.simulation.stage import Geography, Stage, check_counts, small_first_schema
from xenonode.simulation.warm import known_members

T = TypeVar("T")
CREDENTIAL_MS = 60 * 86_400_000
"""Credentials outlive every run, and end before the issuing key does."""
ISSUING_KEY_MS = 90 * 86_400_000
SPREAD_S = 60.0
"""First adverts leave evenly within a minute, as those of servers that were not started together."""
NEEDED = ("cores", "memory.available", "disk.available", "net.available", "price.cpu", ENVIRONMENT, LOCATION)
"""What every schema has (summaries.schema): keys are built from these."""


def dimension_names(count: int) -> list[str]:
    """So many, but no fewer than are needed: those that every schema has, then others in the schema's order."""
    others = [name for name in ORDERED if name not in NEEDED]
    return [*NEEDED, *others][: max(count, len(NEEDED))]


class Crowd(Stage):
    """See the module. A context manager."""

    def __init__(
        self,
        seed: int,
        *,
        peers: int = 1_000,
        clients: int = 1,
        dimensions: Sequence[str] | None = None,
        advertising: bool = True,
        period_ms: int = LONGEST_PERIOD_MS,
        leaf_capacity: int = 64,
        root_groups: int = 1,
        tries: Mapping[str, int] = MappingProxyType({}),
        conditions: Conditions | None = None,
        scheme: Scheme | None = None,
        traced: bool = True,
        acquainted: bool = True,
        established: bool = False,
    ) -> None:
        """With `acquainted`, who is in whose table has a session, as after a while of life; else all are strangers.

        With `established`, everybody's first advert stands when the world has begun; else each is published.
        """
        super().__init__()
        check_counts(peers=peers, clients=clients)
        self.advertising, self.period_ms, self.leaf_capacity = advertising, period_ms, leaf_capacity
        self.patience_s += period_ms / 1_000  # what a fault kept from holders comes with the next advert
        self._acquainted, self._established = acquainted, established
        self.geography = Geography()
        self.places = self.geography.places
        self.simulation = Simulation(
            seed,
            conditions=conditions or Conditions(jitter_us=500),
            latency_us=self.geography.latency_us,
            scheme=scheme,
            traced=traced,
        )
        self.trace = self.simulation.trace
        self.durable: dict[str, Published] = {}
        """How each peer's last publication went, by its host's name."""
        self.acquaintances: Acquaintances | None = None
        """Who has sessions from before the run, once it is open; None where all are strangers."""
        self._hosts: dict[str, CrowdHost] = {}
        self._rng = Random(int.from_bytes(derive(seed, "crowd")))
        self._newcomers = Random(int.from_bytes(derive(seed, "replacements")))
        self._peers = peers
        self._serial = 0
        self._found(seed, peers, clients, (leaf_capacity, root_groups, tries), dimensions)
        shapes = catalogue.adverts(self._rng, peers)
        self.servers = [CrowdPeer(self, f"peer-{number}", shape, self._rng) for number, shape in enumerate(shapes)]
        self.clients = [CrowdHost(self, f"client-{number}", "client") for number in range(clients)]
        for client in self.clients:
            self.places[client.node.host.name] = REGIONS["eu-central-1"].location

    def _found(
        self, seed: int, peers: int, clients: int, holding: tuple[int, int, Mapping[str, int]],
        dimensions: Sequence[str] | None,
    ) -> None:  # fmt: skip
        """Make hosts, keys, schema and network file."""
        for name in [f"peer-{number}" for number in range(peers)] + [f"client-{number}" for number in range(clients)]:
            self.simulation.add_node(name)
        scheme = self.simulation.scheme
        root, corp = (scheme.generate(derive(seed, "crowd", name)) for name in ("root", "corp"))
        self._issuing = scheme.generate(derive(seed, "crowd", "issuing"))
        schema = small_first_schema()
        if dimensions is not None:
            missing = [name for name in NEEDED if name not in dimensions]
            unknown = [name for name in dimensions if name not in schema.by_name]
            if missing or unknown:
                raise SimulationError(f"dimensions: every schema needs {missing}, and there is no {unknown}")
            chosen = tuple(each for each in schema.dimensions if each.name in dimensions)
            schema = Schema(schema.epoch, chosen)
        self.published = PublishedSchema.of(schema, holding[0], EPOCH_MS, *holding[1:])
        raw = self.published.seal(self._issuing).raw
        issuer = Issuer(self._issuing.public_key, EPOCH_MS, EPOCH_MS + ISSUING_KEY_MS).seal(root)
        hosts = [self.simulation.nodes[f"peer-{number}"].host for number in range(min(peers, SEEDS_MAX))]
        network = Network(
            network_id=derive(seed, "crowd", "network")[:16],
            profile="local",
            root_key=root.public_key,
            corp_key=corp.public_key,
            corp_control=Address(hosts[0].address, CONTROL_PORT),
            seeds=tuple(Address(host.address, UDP_PORT) for host in hosts),
            issuers=(issuer.raw,),
            schema_hash=schema_hash(raw),
            issued_ms=EPOCH_MS,
        )
        self._trust = Trust(network, scheme)

    def admit(self, name: str, role: str, key: bytes, nonce: bytes) -> bytes:
        """A credential, as XenoCorp would issue it."""
        self._serial += 1
        credential = Credential(self._serial, name, key, role, nonce, EPOCH_MS, EPOCH_MS + CREDENTIAL_MS, 0)
        return credential.seal(self._issuing).raw

    async def add(self) -> CrowdPeer:
        """A further peer: it joins as a live node does, and advertises."""
        peer = self.newcomer()
        await peer.start()
        return peer

    def newcomer(self) -> CrowdPeer:
        """The same, not started yet: a machine of the catalogue, with a name that nobody had before."""
        name = f"peer-{self._peers}"
        self._peers += 1
        self.simulation.add_node(name)
        (shape,) = catalogue.adverts(self._newcomers, 1)
        peer = CrowdPeer(self, name, shape, self._newcomers)
        self.servers.append(peer)
        return peer

    @property
    def trust(self) -> Trust:
        """What credentials are judged by."""
        return self._trust

    def holders(self) -> list[CrowdPeer]:
        """All peers but the clients."""
        return self.servers

    async def _ask(self, text: str) -> SearchAnswer:
        return await self.clients[0].call(lambda own: own.search(text))

    def host(self, name: str) -> CrowdHost:
        """The member on the host of this name, for faults. Raises SimulationError."""
        if name not in self._hosts:
            raise self.unknown(name)
        return self._hosts[name]

    def groups(self) -> dict[str, list[str]]:
        """The names of all hosts, by what they are."""
        return {
            "servers": [server.node.host.name for server in self.servers],
            "clients": [client.node.host.name for client in self.clients],
        }

    def place(self, name: str) -> Location | None:
        """Where a host stands."""
        return self.places.get(name)

    async def begin(self) -> None:
        """Open everybody with full tables; then, within a minute or at once, everybody's first advert."""
        await self.open()
        if self.advertising and self._established:
            await self.establish()
        elif self.advertising:
            await self.publish_all()

    async def open(self) -> None:
        """Open everybody, with full tables; nobody advertises yet."""
        self.begun = True
        for host in [*self.servers, *self.clients]:
            host.running = await host.node.start(host.open(), "open")
        known = [bytearray(len(self.servers) // 8 + 1) for _ in self.servers]
        for dimension in self.published.schema.dimensions:
            self._warm(dimension.name, known)
        if self._acquainted:
            self.acquaintances = Acquaintances(self.simulation)
            for server, bits in zip(self.servers, known):
                assert server.peer is not None
                self.acquaintances.add(server.node, server.peer.endpoint, bits)
        self.freeze()

    async def publish_all(self) -> None:
        """Everybody's first advert, at a moment of chance within a minute; returns when the last one stands."""
        with self.growing():
            await asyncio.gather(*(peer.node.start(self._appear(peer), "publish") for peer in self.servers))

    async def establish(self) -> None:
        """Once all are open: everybody's first advert stands, without a message (established.py)."""
        with self.growing():
            establish(self)

    async def _appear(self, peer: CrowdPeer) -> None:
        drawn = int.from_bytes(derive(self.simulation.seed, "first advert", peer.node.host.name)[:4])
        await asyncio.sleep(SPREAD_S * drawn / (1 << 32))
        await peer.publish()

    def _warm(self, dimension: str, met: Sequence[bytearray]) -> None:
        """Fill everybody's table of a dimension; in `met` each gets a bit for each whom it has met."""
        contacts = self.contacts(dimension)
        numbers = [contact.number for contact in contacts]
        seed = int.from_bytes(derive(self.simulation.seed, "warm", dimension))
        for place, known in known_members(numbers, seed):
            server = self.servers[place]
            assert server.peer is not None
            server.node.call(server.peer.warm_start, dimension, [contacts[each] for each in known])
            bits = met[place]
            for each in known:
                bits[each >> 3] |= 1 << (each & 7)

    def contacts(self, dimension: str) -> list[Contact]:
        """The servers' in one dimension, in the servers' order."""
        return [
            Contact.unpack(Contact(node_id(dimension, each.signer.public_key, each.nonce), each.udp.pair).packed)
            for each in self.servers
        ]

    def adverts(self) -> list[VerifiedAdvert]:
        """Every advert in force of peers that are up, straight from those who signed it: the oracle of searches."""
        return [verified for verified, _ in self.in_force()]

    def in_force(self) -> Iterator[tuple[VerifiedAdvert, Point]]:
        """The same, and what a search sees in each. What was signed by a clock that is too wrong is not in force."""
        now_ms = self.now_ms()
        for server in self.servers:
            if server.peer is not None and server.machine.advertiser.current is not None:
                with contextlib.suppress(RemoteError):
                    yield server.peer.adverts.verify(server.machine.advertiser.current.raw, now_ms)

    def questions(self) -> int:
        """Questions that all members asked so far; each is an RPC when its answer has come."""
        return sum(host.peer.endpoint.calls.begun for host in [*self.servers, *self.clients] if host.peer is not None)


__all__ = ["Crowd", "CrowdHost", "CrowdPeer"]
