"""A whole platform in one process: XenoCorp, XenoServers with simulated guests, clients, under virtual time.

Decides how a world is furnished from a seed: which machines of the catalogue its servers are, where they stand (their
regions' distances are the network's latencies), and which further machines their owners advertise. Everything that
runs is the code that runs live: `CorpNode`, `ServerNode`, `Client`. Leaves what happens in the world to its user.

    with World(seed=7, servers=10) as world:
        world.run(world.begin())
        answer = world.run(world.clients[0].call(lambda client: client.finding.search("cores >= 4")))
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from dht.errors import RemoteError
from dht.identity import Scheme
from hypervisor.simulated import SimulatedHypervisor, SimulatedMachine
from summaries.point import Point
from xenonode import catalogue, membership
from xenonode.catalogue import REGIONS, ServerShape
from xenonode.client import Client, Operator
from xenonode.config import ClientConfig, CorpConfig, ServerConfig
from xenonode.corp.database import MEMORY, Database, open_database
from xenonode.corp.founding import Founded, corp_keys, found
from xenonode.corp.store import Store
from xenonode.corp.transfers import Transfer
from xenonode.corp_node import CorpNode
from xenonode.model.advert import Location, VerifiedAdvert
from xenonode.model.entity import Address, Credential, Network, Trust
from xenonode.model.schema import PublishedSchema
from xenonode.search.publishing import Published, Publisher
from xenonode.search.searching import SearchAnswer
from xenonode.server_node import ServerNode, registration
from xenonode.setting_tables import AUTO
from xenonode.simulation.disk import SimulatedDisk
from xenonode.simulation.env import derive
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.home import AUTHORITY_TEXT, SimulatedHome, certify, login_key
from xenonode.simulation.machines import Machine, image
from xenonode.simulation.network import Conditions
from xenonode.simulation.node_host import CONTROL_PORT, UDP_PORT, NodeHost
from xenonode.simulation.run import SimulatedNode, Simulation
from xenonode.simulation.stage import NOT_BEGUN, Geography, Stage, check_counts, small_first_schema

if TYPE_CHECKING:
    from xenonode.simulation.ledger import LedgerDisk  # needs apsw, which is for the simulator's own proofs

T = TypeVar("T")
LEDGER_FILE = "/ledger"
NOWHERE = Path("/nonexistent")
"""Stands where a live role has a folder or a file; nothing in a simulated world opens one."""
FLEET_WINDOW = 8
"""Machines of one owner that register and publish at a time."""
CREDIT = "1000 USD"
PERIOD_MS = 60_000
"""How often servers advertise anew where nothing changes, unless they are configured otherwise."""


class CorpHost(NodeHost):
    """XenoCorp: its ledger outlives its crashes."""

    running: CorpNode | None
    store: Store

    def __init__(self, world: World) -> None:
        super().__init__(world.simulation.add_node("corp"))
        self.world = world
        env, host = self.node.env, self.node.host.address
        self.config = CorpConfig(
            folder=NOWHERE,
            udp=Address(host, UDP_PORT),
            control=Address(host, CONTROL_PORT),
            leaf_capacity=world.leaf_capacity,
        )
        root, self.keys = corp_keys(env.scheme, env.seed)
        published = PublishedSchema.of(
            small_first_schema(), world.leaf_capacity, env.now_ms(), world.root_groups, world.tries
        )
        raw = published.seal(self.keys.issuing).raw
        self.network = found(root, self.keys, self.config, raw, env.now_ms())
        self.founded = Founded(self.keys, self.network, raw, NOWHERE)
        self.ledger = world.ledger
        self.database = self._open_ledger()
        self.trust = Trust(Network.open(self.network, env.scheme)[0], env.scheme)

    async def start(self) -> None:
        """Serve."""
        env = self.node.env
        store = self.store = Store(self.database, threaded=False, on_transfer=self.world.note_transfer)
        home = SimulatedHome(env, self.disk, self.keys.node)
        self.running = await self.node.start(
            CorpNode.run(self.config, env, home, self.founded, store, certify, AUTHORITY_TEXT)
        )

    async def restart(self) -> None:
        """Come back on the same ledger."""
        self.node.restart()
        if self.ledger is not None:
            self.database = self._open_ledger()
        await self.start()

    def _open_ledger(self) -> Database:
        if self.ledger is None:
            return open_database(MEMORY, exclusive=False)
        return open_database(LEDGER_FILE, exclusive=False, driver=self.ledger.driver)

    def crash(self) -> None:
        """Stop where it stands; a ledger on a disk is what was flushed of it, and of the rest what chance kept."""
        super().crash()
        if self.ledger is not None:
            self.ledger.lose_power()

    def set_trap(self, writes: int, kept: int) -> None:
        """Let the power fail during a write of the ledger's, where it is on a disk."""
        if self.ledger is None:
            super().set_trap(writes, kept)
            return
        self.ledger.set_trap(writes, self.crash)

    def clear_trap(self) -> None:
        """Let it be."""
        super().clear_trap()
        if self.ledger is not None:
            self.ledger.trap = None

    def set_full(self, full: bool) -> None:
        """Leave no room for writes."""
        super().set_full(full)
        if self.ledger is not None:
            self.ledger.full = full

    def rot_ledger(self, rng: Random) -> bool:
        """Flip one bit of the ledger's file, while XenoCorp is down; False where there is none."""
        return self.ledger is not None and self.ledger.rot(LEDGER_FILE, rng.getrandbits(31))

    @property
    def refused(self) -> int:
        """Writes for which there was no room."""
        return super().refused + (0 if self.ledger is None else self.ledger.refused)

    async def operate(self, work: Callable[[Operator], Awaitable[T]]) -> T:
        """Do something as XenoCorp's operator."""

        async def connected() -> T:
            home = SimulatedHome(self.node.env, self.disk, self.keys.operator)
            transport = home.transport(AUTHORITY_TEXT, [AUTHORITY_TEXT])
            operator = await Operator.open(self.node.env, self.trust.network, transport)
            try:
                return await work(operator)
            finally:
                await operator.close()

        return await self.node.start(connected(), "operator")


class ServerHost(NodeHost):
    """One XenoServer, the machine that its guests are on, and its owner's further machines."""

    running: ServerNode | None

    def __init__(self, world: World, number: int, shape: ServerShape) -> None:
        name = f"server-{number}"
        super().__init__(world.simulation.add_node(name))
        self.world, self.shape = world, shape
        world.places[name] = REGIONS[shape.region].location
        self.machine = SimulatedMachine(
            now_ms=world.now_ms,
            rng=Random(int.from_bytes(derive(world.simulation.seed, "guests", name))),
            cpus=shape.cores,
            memory_bytes=shape.share.memory_bytes,
            images=(image(0),),
        )
        self.config = server_config(name, self.node.host.address, shape, world.period_ms)
        self.fleet: list[FleetMachine] = []

    async def start(self) -> None:
        """Register, join, publish, serve."""
        env = self.node.env
        home = SimulatedHome(env, self.disk)
        run = ServerNode.run(self.config, env, home, self.world.corp.network, SimulatedHypervisor(self.machine))
        self.running = await self.node.start(run)

    async def stop(self) -> None:
        """Stop in order: withdraw the advert, say goodbye."""
        running, self.running = self.running, None
        if running is not None:
            await self.node.start(running.close(), "stop")
        self.node.crash()

    @property
    def follows(self) -> bool:
        """As its owner has chosen."""
        return self.config.follows

    def move(self) -> None:
        """Take another address; a server that runs and follows goes on there."""
        address = self.world.simulation.network.move(self.node.host)
        udp, control = Address(address, UDP_PORT), Address(address, CONTROL_PORT)
        self.config = replace(self.config, udp=udp, control=control)

    async def restart(self) -> None:
        """Come back with the same disk."""
        self.node.restart()
        await self.start()
        if self.fleet:
            self.node.start(self.publish_fleet(), "fleet")

    async def publish_fleet(self) -> None:
        """Register and advertise the owner's further machines, a few at a time, and keep them advertised."""
        for first in range(0, len(self.fleet), FLEET_WINDOW):
            await asyncio.gather(*(machine.enter() for machine in self.fleet[first : first + FLEET_WINDOW]))
        if self.fleet:
            self.node.env.spawn(self._keep_advertised(), "fleet")

    async def _keep_advertised(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for machine in self.fleet:
                if machine.is_due(self.node.env.now_ms()):
                    await machine.publish()


class FleetMachine(Machine):
    """A machine behind a server: key, credential and advert of its own, published through the server."""

    __slots__ = ("credential", "host", "publisher")

    def __init__(self, host: ServerHost, name: str, shape: ServerShape, rng: Random) -> None:
        super().__init__(host.node.env, name, shape, rng)
        self.host = host
        self.publisher: Publisher
        self.credential = b""

    async def register(self) -> None:
        """Become a member, over the owner's server's line."""
        host = self.host
        assert host.running is not None
        config = server_config(self.name, host.node.host.address, self.shape)
        trust = host.world.corp.trust
        home = SimulatedHome(host.node.env, self.disk, self.signer)
        held = await membership.register(home, host.node.env, trust, partial(registration, config))
        self.credential = held.papers.credential
        peer = host.running.peer
        self.publisher = Publisher(peer.schema, peer.adverts, peer.asker, host.node.env, peer.tries)
        self.appear(config.udp, config.control, held.published.epoch)

    async def enter(self) -> None:
        """Register, then advertise."""
        await self.register()
        await self.publish()

    async def publish(self) -> Published:
        """Advertise it as it is now."""
        published = await self.publisher.publish(self.advert(self.host.node.env.now_ms(), self.credential).raw)
        if not published.pending:
            self.advertiser.acknowledged()
        return published


class ClientHost:
    """One client with an account at XenoCorp."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.running = world, number, True
        self.node, self.disk = world.simulation.add_node(f"client-{number}"), SimulatedDisk()
        world.places[self.node.host.name] = REGIONS["eu-central-1"].location
        self.entity = ""
        self.client: Client

    async def start(self) -> Credential:
        """Register."""
        name = self.node.host.name
        config = ClientConfig(
            folder=NOWHERE, network=NOWHERE, legal_name=name, country="DE", email=f"{name}@example.org",
            proof_reference=f"proof of {name}",
        )  # fmt: skip
        env = self.node.env
        self.client = Client(config, env, SimulatedHome(env, self.disk), self.world.corp.network, login_key)
        credential = await self.node.start(self.client.member.register())
        self.entity = credential.entity
        return credential

    async def call(self, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """Do something as this client, on its own host. Raises SimulationError before it has registered."""
        if not self.entity:
            raise SimulationError(f"{self.node.host.name} is no member yet: {NOT_BEGUN}")
        return await self.node.start(work(self.client), "call")


class World(Stage):
    """See the module. A context manager."""

    def __init__(
        self,
        seed: int,
        *,
        servers: int = 10,
        fleet: int = 0,
        clients: int = 1,
        leaf_capacity: int = 64,
        period_ms: int = PERIOD_MS,
        root_groups: int = 1,
        tries: Mapping[str, int] = MappingProxyType({}),
        conditions: Conditions | None = None,
        shapes: Sequence[ServerShape] | None = None,
        credit: str = CREDIT,
        ledger: LedgerDisk | None = None,
        scheme: Scheme | None = None,
    ) -> None:
        """`ledger` is a disk for XenoCorp's database; without one it is in memory, and loses nothing.

        `scheme` is what all sign with: `dht.identity.ED25519` as live, or without one a quick one of the simulator's.
        """
        super().__init__()
        check_counts(servers=servers, fleet=fleet, clients=clients)
        if fleet and not servers:
            raise SimulationError("fleet: its machines belong to servers, of which there is none")
        self.leaf_capacity, self.root_groups, self.period_ms = leaf_capacity, root_groups, period_ms
        self.tries = tries
        self.credit, self.ledger = credit, ledger
        geography = Geography()
        self.places = geography.places
        self.places["corp"] = REGIONS["eu-central-1"].location
        self.simulation = Simulation(
            seed, conditions=conditions or Conditions(jitter_us=500), latency_us=geography.latency_us, scheme=scheme
        )
        self.trace = self.simulation.trace
        self.transfers: list[Transfer] = []
        rng = Random(int.from_bytes(derive(seed, "world")))
        chosen = list(shapes) if shapes is not None else catalogue.adverts(rng, servers + fleet)
        self.corp = CorpHost(self)
        self.servers = [ServerHost(self, number, shape) for number, shape in enumerate(chosen[:servers])]
        for number, shape in enumerate(chosen[servers:]):
            host = self.servers[number % servers]
            host.fleet.append(FleetMachine(host, f"machine-{number}", shape, rng))
        self.clients = [ClientHost(self, number) for number in range(clients)]

    def host(self, name: str) -> CorpHost | ServerHost | ClientHost:
        """The host of this name. Raises SimulationError."""
        hosts: list[CorpHost | ServerHost | ClientHost] = [self.corp, *self.servers, *self.clients]
        for host in hosts:
            if host.node.host.name == name:
                return host
        raise self.unknown(name)

    def groups(self) -> dict[str, list[str]]:
        """The names of all hosts, by what they are."""
        return {
            "corp": [self.corp.node.host.name],
            "servers": [server.node.host.name for server in self.servers],
            "clients": [client.node.host.name for client in self.clients],
        }

    @property
    def trust(self) -> Trust:
        """What credentials are judged by."""
        return self.corp.trust

    def holders(self) -> list[NodeHost]:
        """XenoCorp and the servers."""
        return [self.corp, *self.servers]

    def shunned(self) -> set[bytes]:
        """Those whom XenoCorp has everybody shun have no place in the overlays, whatever they do."""
        running = self.corp.running
        return {key for key, _ in running.peer.endpoint.shunned} if running is not None else set()

    async def _ask(self, text: str) -> SearchAnswer:
        return await self.clients[0].call(lambda client: client.finding.search(text))

    def place(self, name: str) -> Location | None:
        """Where a host stands."""
        return self.places.get(name)

    async def begin(self) -> None:
        """XenoCorp, then all servers, then their fleets, then the clients with money in their accounts."""
        self.begun = True
        await self.corp.start()
        await asyncio.gather(*(server.start() for server in self.servers))
        await asyncio.gather(*(server.node.start(server.publish_fleet(), "fleet") for server in self.servers))
        for client in self.clients:
            await client.start()
            await self.corp.operate(partial(Operator.credit, entity=client.entity, amount=self.credit))

    def adverts(self) -> list[VerifiedAdvert]:
        """Every advert in force, straight from those who signed it: the oracle that searches are held against."""
        return [verified for verified, _ in self.in_force()]

    def in_force(self) -> Iterator[tuple[VerifiedAdvert, Point]]:
        """The same, and what a search sees in each. What was signed by a clock that is too wrong is not in force."""
        for server in self.servers:
            if server.running is None:
                continue
            for advertiser in (server.running.advertiser, *(machine.advertiser for machine in server.fleet)):
                assert advertiser.current is not None
                with contextlib.suppress(RemoteError):
                    yield server.running.peer.adverts.verify(advertiser.current.raw, self.now_ms())

    def note_transfer(self, transfer: Transfer) -> None:
        """A transfer is durable: it is part of what must repeat."""
        self.transfers.append(transfer)
        self.trace.note("transfer", repr(transfer).encode())

    def close(self) -> None:
        """Stop everything; raises what any task failed with."""
        super().close()
        self.corp.database.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        super().__exit__(kind, error, traceback)
        self.corp.database.close()


def server_config(name: str, address: str, shape: ServerShape, period_ms: int = PERIOD_MS) -> ServerConfig:
    """A server of this shape, whose owner is nobody else's."""
    return ServerConfig(
        folder=NOWHERE,
        network=NOWHERE,
        advertise=AUTO,
        udp=Address(address, UDP_PORT),
        control=Address(address, CONTROL_PORT),
        legal_name=f"owner of {name}",
        country=shape.country,
        email=f"{name}@example.org",
        proof_reference=f"proof of {name}",
        region=shape.region[:24],
        advert_period_ms=period_ms,
        share=shape.share,
        cores=min(shape.cores, 4096),
        prices=shape.prices,
        features=shape.features,
    )


__all__ = ["ClientHost", "CorpHost", "FleetMachine", "ServerHost", "SimulatedNode", "World"]
