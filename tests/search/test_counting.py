"""A census of a network that has just begun, whose replicas differ until adverts are published anew."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from summaries.parse import parse
from xenonode.model.entity import Address
from xenonode.search.counting import count
from xenonode.simulation.run import Simulation

from .network import Issuing, advertise

SERVERS, TRIES = 12, 20


@pytest.mark.parametrize("seed", [0, 27])
def test_where_replicas_differ_a_census_lists_and_is_exact_all_the_same(seed: int) -> None:
    with Simulation(seed=seed) as simulation:
        nodes = [simulation.add_node(f"node-{number}") for number in range(SERVERS + 1)]
        issuing = Issuing(simulation.scheme, nodes[0].env.now_ms(), Address(nodes[0].host.address, 7000))
        made = [node.call(issuing.peer, node.env, number) for number, node in enumerate(nodes[:SERVERS])]
        client, _, _ = issuing.peer(nodes[SERVERS].env, SERVERS, client=True)
        peers = [*(peer for peer, _, _ in made), client]
        listed = list[bool]()

        async def asked() -> None:
            adverts = [server.advert for server in await advertise(made, Random(7))]
            cheap_or_there = [
                one for one in adverts if one.prices.cpu_nano_per_hour <= 40_000_000 or one.country == "US"
            ]
            assert 0 < len(cheap_or_there) < SERVERS
            for text, right in (
                ("cores >= 1", adverts),
                ('price.cpu <= 0.04 USD/h or country = "US"', cheap_or_there),
                ("", adverts),
            ):
                for _ in range(TRIES):
                    found = (await count(client.searcher, parse(text, currency="USD"), group="country")).result
                    if found.exact:
                        break
                    await asyncio.sleep(1)
                assert found.exact
                listed.append(found.listed)
                assert {name: one.count for name, one in found.groups.items()} == Counter(one.country for one in right)
                assert found.total.free[1] == sum(one.available.memory_bytes for one in right)
                assert found.least == found.most == len(right)

        async def run() -> None:
            starts = [node.start(peer.start((node.host.address, 7000))) for node, peer in zip(nodes, peers)]
            await starts[0]
            await asyncio.gather(*starts[1:])
            await nodes[SERVERS].start(asked())
            assert asyncio.get_running_loop().time() < 20
            await client.close()
            await asyncio.gather(*(peer.close() for peer in peers[:-1]))

        simulation.run(run())
        assert any(listed)
