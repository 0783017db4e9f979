"""A world made ready for a scenario: what an experiment may do with it, whichever kind of world it is.

Decides how a scenario's [nodes] and [network] become a world, and how its servers leave, return and are replaced.
Leaves when that happens to `coming_and_going` and the faults, and what is measured to `sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from dht.endpoint import Endpoint
from summaries.point import Point
from xenonode import catalogue
from xenonode.client import Client
from xenonode.search.searching import SearchAnswer
from xenonode.simulation.env import derive
from xenonode.simulation.network import MILLION, Conditions, Host
from xenonode.simulation.overlays import Places
from xenonode.simulation.scenario import NetworkModel, Scenario
from xenonode.simulation.world import ServerHost, World

MICROSECONDS = 1_000


class Stand:
    """The whole platform, as an experiment sees it."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        nodes = scenario.nodes
        self.world = World(
            seed,
            servers=nodes.servers,
            fleet=nodes.fleet,
            clients=nodes.clients,
            leaf_capacity=nodes.leaf_capacity,
            conditions=conditions_of(scenario.network),
            credit=f"{nodes.credit_usd} USD",
        )
        latency_us = latency_of(scenario.network, seed)
        if latency_us is not None:
            self.world.simulation.network.latency_us = latency_us
        self._shapes = Random(int.from_bytes(derive(seed, "replacements")))

    async def begin(self) -> None:
        """Let everybody join."""
        await self.world.begin()

    async def ask(self, client: int, text: str, strict: bool) -> SearchAnswer:
        """A search of one client's."""

        async def work(client: Client) -> SearchAnswer:
            return await client.search(text, strict=strict)

        return await self.world.clients[client].call(work)

    def points(self) -> list[Point]:
        """Every advert in force, as queries see it: the oracle."""
        now_ms = self.world.now_ms()
        running = [server.running for server in self.world.servers if server.running is not None]
        if not running:
            return []
        adverts = running[0].peer.adverts
        return [adverts.verify(found.envelope.raw, now_ms)[1] for found in self.world.adverts()]

    # -- coming and going

    def servers(self) -> list[ServerHost]:
        """All servers there have been, in order."""
        return self.world.servers

    def add(self) -> ServerHost:
        """A new server, with a key, a place and an offer of its own; not started yet."""
        (shape,) = catalogue.adverts(self._shapes, 1)
        server = ServerHost(self.world, len(self.world.servers), shape)
        self.world.servers.append(server)
        return server

    # -- looking in

    def endpoints(self) -> Iterator[tuple[str, Endpoint]]:
        """The endpoint of each node that is up, by its host's name."""
        corp = self.world.corp
        if corp.running is not None:
            yield "corp", corp.running.peer.endpoint
        for server in self.world.servers:
            if server.running is not None:
                yield server.node.host.name, server.running.peer.endpoint

    def hosts(self) -> list[Host]:
        """All hosts there have been."""
        return [node.host for node in self.world.simulation.nodes.values()]


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
