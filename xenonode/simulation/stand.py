"""A world made ready for a scenario: what an experiment may do with it, whichever kind of world it is.

Decides how a scenario's [nodes] and [network] become a world, and how its servers leave, return and are replaced.
Leaves when that happens to `coming_and_going` and the faults, and what is measured to `sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

from dht.endpoint import Endpoint
from dht.errors import DhtError
from dht.identity import ED25519
from summaries.errors import SummariesError
from summaries.point import Point
from xenonode import catalogue
from xenonode.client import Client
from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.model.errors import ModelError
from xenonode.search.searching import SearchAnswer
from xenonode.simulation.crowd import Crowd, CrowdHost, CrowdPeer, dimension_names
from xenonode.simulation.env import derive
from xenonode.simulation.faults import KINDS, FaultSpec, Injection
from xenonode.simulation.network import MILLION, Conditions, Host
from xenonode.simulation.overlays import Places
from xenonode.simulation.run import SimulatedNode
from xenonode.simulation.scenario import NetworkModel, Scenario
from xenonode.simulation.stage import Stage
from xenonode.simulation.world import ServerHost, World

if TYPE_CHECKING:
    from xenonode.simulation.ledger import LedgerDisk

MICROSECONDS = 1_000
EXPECTED = (XenoError, ControlError, DhtError, SummariesError, ModelError)
"""What a member may meet: refusals, time-outs, absent servers. Anything else is a mistake of ours and fails the run."""


class Stand(Protocol):
    """A world, as an experiment sees it."""

    @property
    def world(self) -> Stage:
        """The world itself."""

    async def begin(self) -> None:
        """Let everybody join, and advertise."""

    async def ask(self, client: int, text: str, strict: bool) -> SearchAnswer:
        """A search of one client's."""

    def points(self) -> list[Point]:
        """Every advert in force, as queries see it: the oracle."""

    def servers(self) -> Sequence[Server]:
        """All servers there have been, in order."""

    def is_up(self, server: Server) -> bool:
        """Whether it has joined and has not vanished."""

    def add(self) -> Server:
        """A new server, with a key, a place and an offer of its own; not started yet."""

    def forget(self, server: Server) -> None:
        """A server that is about to vanish will never return: nobody shall wait for it."""

    def endpoints(self) -> Iterator[tuple[str, Endpoint]]:
        """The endpoint of each node that is up, by its host's name."""


class Server(Protocol):
    """A server of either world."""

    node: SimulatedNode

    async def start(self) -> None:
        """Join. Raises XenoError."""

    def crash(self) -> None:
        """Vanish."""

    async def restart(self) -> None:
        """Join again, with the same key. Raises XenoError."""


class PlatformStand:
    """The whole platform."""

    def __init__(self, scenario: Scenario, seed: int, injections: Sequence[Injection] = ()) -> None:
        nodes = scenario.nodes
        self.world = World(
            seed,
            servers=nodes.servers,
            fleet=nodes.fleet,
            clients=nodes.clients,
            leaf_capacity=nodes.leaf_capacity,
            period_ms=scenario.advert_period_ms,
            conditions=conditions_of(scenario.network),
            scheme=ED25519 if scenario.network.signatures == "ed25519" else None,
            credit=f"{nodes.credit_usd} USD",
            ledger=_ledger(scenario, seed, injections),
        )
        self._shapes = Random(int.from_bytes(derive(seed, "replacements")))
        self._number = nodes.servers

    async def begin(self) -> None:
        """XenoCorp, servers, fleets, clients."""
        await self.world.begin()

    async def ask(self, client: int, text: str, strict: bool) -> SearchAnswer:
        """Through the client that people use."""

        async def work(client: Client) -> SearchAnswer:
            return await client.finding.search(text, strict=strict)

        return await self.world.clients[client].call(work)

    def points(self) -> list[Point]:
        """Of servers and of fleets' machines."""
        return [point for _, point in self.world.in_force()]

    def servers(self) -> list[ServerHost]:
        """XenoServers."""
        return self.world.servers

    def is_up(self, server: Server) -> bool:
        """Whether it serves."""
        return isinstance(server, ServerHost) and server.running is not None

    def add(self) -> ServerHost:
        """A machine of the catalogue that nobody had before."""
        (shape,) = catalogue.adverts(self._shapes, 1)
        server = ServerHost(self.world, self._number, shape)
        self._number += 1
        self.world.servers.append(server)
        return server

    def forget(self, server: Server) -> None:
        """As if it had never been, but for what others still hold of it."""
        assert isinstance(server, ServerHost) and server.running is not None
        self.world.vanished.add(server.running.home.signer.public_key)
        self.world.vanished.update(machine.signer.public_key for machine in server.fleet)
        self.world.servers = [each for each in self.world.servers if each is not server]

    def endpoints(self) -> Iterator[tuple[str, Endpoint]]:
        """XenoCorp's and the servers'."""
        corp = self.world.corp
        if corp.running is not None:
            yield "corp", corp.running.peer.endpoint
        for server in self.world.servers:
            if server.running is not None:
                yield server.node.host.name, server.running.peer.endpoint


class PeersStand:
    """Search peers alone."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        nodes = scenario.nodes
        self.world = Crowd(
            seed,
            peers=nodes.servers,
            clients=nodes.clients,
            dimensions=dimension_names(nodes.dimensions),
            established=nodes.established,
            leaf_capacity=nodes.leaf_capacity,
            period_ms=scenario.advert_period_ms,
            conditions=conditions_of(scenario.network),
            scheme=ED25519 if scenario.network.signatures == "ed25519" else None,
        )

    async def begin(self) -> None:
        """Warm tables, then everybody's first advert."""
        await self.world.begin()

    async def ask(self, client: int, text: str, strict: bool) -> SearchAnswer:
        """Through a light peer's searcher."""

        async def work(host: CrowdHost) -> SearchAnswer:
            return await host.search(text, strict=strict)

        return await self.world.clients[client].call(work)

    def points(self) -> list[Point]:
        """One a peer."""
        return [point for _, point in self.world.in_force()]

    def servers(self) -> list[CrowdPeer]:
        """Peers with a machine each."""
        return self.world.servers

    def is_up(self, server: Server) -> bool:
        """Whether it has joined."""
        return isinstance(server, CrowdPeer) and server.running is not None

    def add(self) -> CrowdPeer:
        """A machine of the catalogue that nobody had before."""
        return self.world.newcomer()

    def forget(self, server: Server) -> None:
        """As if it had never been, but for what others still hold of it."""
        assert isinstance(server, CrowdPeer)
        self.world.vanished.add(server.signer.public_key)
        self.world.servers = [each for each in self.world.servers if each is not server]

    def endpoints(self) -> Iterator[tuple[str, Endpoint]]:
        """The peers', and the clients'."""
        for host in (*self.world.servers, *self.world.clients):
            if host.peer is not None:
                yield host.node.host.name, host.peer.endpoint


def stand_for(scenario: Scenario, seed: int, injections: Sequence[Injection] = ()) -> PlatformStand | PeersStand:
    """The scenario's world, furnished for its own faults and for `injections`, but not begun."""
    platform = scenario.kind == "platform"
    stand = PlatformStand(scenario, seed, injections) if platform else PeersStand(scenario, seed)
    latency_us = latency_of(scenario.network, seed)
    if latency_us is not None:
        stand.world.simulation.network.latency_us = latency_us
    return stand


def needs_ledger_disk(scenario: Scenario, injections: Sequence[Injection] = ()) -> bool:
    """Whether XenoCorp's database has to be on a disk, since a fault may strike that. Raises XenoError without apsw.

    The scenario's own count beside `injections`, so that a part of its faults meets the world that all of them meet.
    """
    planned = any(KINDS[fault.kind].family == "disk" and _may_strike_corp(fault) for fault in scenario.faults)
    if not planned and not any(KINDS[each.kind].family == "disk" and "corp" in each.targets for each in injections):
        return False
    try:
        import xenonode.simulation.ledger  # noqa: F401  # whether it is there
    except ImportError as error:
        step = "pip install 'xenonode[ledger-faults]'"
        raise XenoError("faults of XenoCorp's disk need the package apsw", step, "missing_package") from error
    return True


def _ledger(scenario: Scenario, seed: int, injections: Sequence[Injection]) -> LedgerDisk | None:
    if not needs_ledger_disk(scenario, injections):
        return None
    from xenonode.simulation.ledger import make_ledger

    return make_ledger(seed)


def _may_strike_corp(fault: FaultSpec) -> bool:
    return fault.group in ("corp", "any") if isinstance(fault.targets, str) else "corp" in fault.targets


def conditions_of(network: NetworkModel) -> Conditions:
    """A scenario's [network] in the network's own units."""
    return Conditions(
        jitter_us=round(network.jitter_ms * MICROSECONDS),
        loss_ppm=round(network.loss * MILLION),
        duplicate_ppm=round(network.duplication * MILLION),
        reorder_ppm=round(network.reorder * MILLION),
        reorder_us=round(network.reorder_ms * MICROSECONDS),
        corrupt_ppm=round(network.corruption * MILLION),
        mtu_bytes=network.mtu_bytes,
        bandwidth_bit_per_s=network.bandwidth_bit_per_s or None,
    )


def latency_of(network: NetworkModel, seed: int) -> Callable[[Host, Host], int] | None:
    """One way between two hosts in us; None where the world's own regions decide."""
    if network.latency == "plane":
        return Places(seed).latency_us
    matrix = network.matrix
    if matrix is None:
        return None
    places: dict[str, tuple[int, int]] = {}

    def latency_us(source: Host, destination: Host) -> int:
        (here, from_us), (there, to_us) = (
            places.get(host.name) or places.setdefault(host.name, matrix.place(seed, host.name))
            for host in (source, destination)
        )
        return (matrix.rows_us[here][there] if here != there else 0) + from_us + to_us

    return latency_us
