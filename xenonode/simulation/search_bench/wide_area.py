"""How long a search takes across the world, beside one lookup: real peers, sockets and overlays under virtual time.

Decides what is compared: a conjunction with LIMIT 10 over tries that were loaded at once, and the basic act of any
DHT, an iterative find of a key that nobody asked for before, both from the same client through the same latencies
(regions of cloud providers). Peers stand for `adverts / peers` servers each, so a proof is fetched from a leaf's
holder, one round trip as to the server itself. Holders do nothing of their own while it lasts: the network is quiet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from dht.contact import Contact
from dht.identity import node_id
from summaries.asks import REPLICAS
from summaries.bulk import build
from summaries.execute import Search
from summaries.plan import constrained
from summaries.query import Query
from summaries.schema import Schema
from summaries.trie import Prefix, trie_key
from xenonode.search.searching import Run
from xenonode.simulation.crowd import Crowd, CrowdHost
from xenonode.simulation.search_bench.adverts import AdvertSet
from xenonode.simulation.search_bench.central import NumpyIndex
from xenonode.simulation.search_bench.queries import LIMIT, draw

QUIET_S = 20.0  # between two measurements: roots are forgotten after 15
LIFE_S = 86_400  # nothing expires while it is measured
FIRST_S = 60.0  # for joining the overlays, which is not what is measured


@dataclass(frozen=True, slots=True)
class Latencies:
    """In milliseconds of virtual time, one a query or lookup. `wrong` answers are those that an index of all denies."""

    lookups: tuple[float, ...]
    cold: tuple[float, ...]  # a client that remembers no root
    warm: tuple[float, ...]  # one that read its roots within 15 s
    wrong: int

    def told(self) -> str:
        """Medians, and how they compare."""
        lookup, cold, warm = (float(np.median(one)) for one in (self.lookups, self.cold, self.warm))
        tails = [float(np.percentile(one, 95)) for one in (self.lookups, self.cold, self.warm)]
        return (
            f"median (p95): a lookup {lookup:.0f} ({tails[0]:.0f}) ms; a search {cold:.0f} ({tails[1]:.0f}) ms,"
            f" {cold / lookup:.2f} times as long; with roots remembered {warm:.0f} ({tails[2]:.0f}) ms,"
            f" {warm / lookup:.2f} times; {self.wrong} wrong of {len(self.cold) + len(self.warm)} answers"
        )


def measure(seed: int, adverts: int, peers: int, queries: int, capacity: int, *, strict: bool) -> Latencies:
    """Build the world, load it, and measure."""
    with Crowd(seed, peers=peers, clients=1, advertising=False, leaf_capacity=capacity, traced=False) as crowd:
        crowd.run(until=1)
        schema = crowd.servers[0].peer.schema  # type: ignore[union-attr]
        held = AdvertSet(schema, seed, adverts, crowd.now_ms(), LIFE_S)
        _load(crowd, schema, held, capacity)
        index = NumpyIndex(schema, held)
        points = [point for point, _ in held.adverts]
        drawn = draw(Random(f"{seed} wide area"), "conjunction", points, queries, index.count)
        client = crowd.clients[0]
        return crowd.run(until=client.call(lambda host: _measure(host, schema, held, index, drawn, strict)))


async def _measure(
    client: CrowdHost, schema: Schema, held: AdvertSet, index: NumpyIndex, drawn: Sequence[Query], strict: bool
) -> Latencies:
    peer = client.peer
    assert peer is not None
    loop, rng, wrong = asyncio.get_running_loop(), client.node.env.rng("wide area"), 0
    for dimension in schema.dimensions:
        await peer.placement(dimension.name)
    await asyncio.sleep(FIRST_S)
    names = [dimension.name for dimension in schema.dimensions]
    lookups, times = list[float](), (list[float](), list[float]())
    for number, query in enumerate(drawn):
        overlay = (await peer.placement(names[number % len(names)])).overlay
        began_s = loop.time()
        await overlay.find(rng.randbytes(20))
        lookups.append((loop.time() - began_s) * 1_000)
        for warm in (False, True):
            limited = replace(query, limit=LIMIT)
            peer.searcher.roots.clear()
            turn = rng.getrandbits(32)
            if warm:
                await peer.searcher.read_roots(constrained(schema, limited), turn)
            roots = peer.searcher.roots
            search = Search(schema, limited, held.verify, strict=strict, finish="fetch", roots=roots, turn=turn)
            began_s = loop.time()
            await Run(peer.searcher, search).finished()
            times[warm].append((loop.time() - began_s) * 1_000)
            found = {match.id for match in search.result.matches}
            every = {point.id for point in index.points(query)}
            wrong += len(found) != min(LIMIT, len(every)) or not found <= every or not search.result.complete
            await asyncio.sleep(QUIET_S)
    return Latencies(tuple(lookups), tuple(times[0]), tuple(times[1]), wrong)


def _load(crowd: Crowd, schema: Schema, held: AdvertSet, capacity: int) -> None:
    network_id = crowd.trust.network.network_id
    for dimension in schema.dimensions:
        name = dimension.name
        contacts = [
            Contact(node_id(name, server.signer.public_key, server.nonce), server.udp.pair) for server in crowd.servers
        ]
        numbers = [int.from_bytes(contact.node_id, "big") for contact in contacts]

        def nearest(
            prefix: Prefix, name: str = name, contacts: list[Contact] = contacts, numbers: list[int] = numbers
        ) -> list[Contact]:
            key = int.from_bytes(trie_key(network_id, schema.epoch, name, prefix), "big")
            places = sorted(range(len(numbers)), key=lambda place: numbers[place] ^ key)
            return [contacts[place] for place in places[:REPLICAS]]

        by_address = {server.udp.pair: server for server in crowd.servers}
        built = build(schema, name, held.adverts, capacity, lambda prefix: [one.packed for one in nearest(prefix)])
        for prefix, node in built.items():
            for contact in nearest(prefix):
                server = by_address[contact.address]
                assert server.peer is not None
                server.peer.holdings[name].holder.install(node)
