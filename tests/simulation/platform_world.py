"""A whole platform from a seed: adverts, searches, one paid session; prints figures as JSON. Run as a program."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from xenonode.model.advert import Advert
from xenonode.simulation.lease import Lease
from xenonode.simulation.world import ClientHost, World

GIB = 2**30


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def linux_from(advert: Advert, least: tuple[int, ...]) -> bool:
    offered = [version(each.version) for each in advert.environments if (each.kind, each.name) == ("os", "linux")]
    return any(each >= least for each in offered)


# Queries, and what they mean, written out by hand and without the query language's own code.
QUESTIONS: list[tuple[str, Callable[[Advert], bool]]] = [
    (
        "cpu.available >= 4000 ms/s and memory.available >= 16 GiB and price.cpu <= 0.03 USD/h and os.linux >= 6.1",
        lambda a: a.available.cpu_ms_per_s >= 4000
        and a.available.memory_bytes >= 16 * GIB
        and a.prices.cpu_nano_per_hour <= 30_000_000
        and linux_from(a, (6, 1)),
    ),
    (
        'memory.available >= 64 GiB and (region in ("us-east-1", "eu-west-1") or price.cpu <= 0.01 USD/h)',
        lambda a: a.available.memory_bytes >= 64 * GIB
        and (a.region in ("us-east-1", "eu-west-1") or a.prices.cpu_nano_per_hour <= 10_000_000),
    ),
    (
        'cores = 2 and os.linux >= 6.6 and country = "US"',
        lambda a: a.cores == 2 and linux_from(a, (6, 6)) and a.country == "US",
    ),
    ("memory.available >= 1 GiB", lambda a: a.available.memory_bytes >= GIB),
    ("net.available >= 100 Mbit/s and disk.available >= 2 TiB and cores <= 48", lambda a: (
        a.available.net_bit_per_s >= 100_000_000 and a.available.disk_bytes >= 2048 * GIB and a.cores <= 48
    )),
]  # fmt: skip


async def ask(world: World, client: ClientHost) -> list[dict[str, Any]]:
    """Every question, and how its answer compares with a look at every single advert."""
    told = []
    for text, wanted in QUESTIONS:
        answer = await client.call(lambda client, text=text: client.finding.search(text))
        found = [each.advert.server_key for each in answer.servers]
        expected = {each.server_key for each in world.adverts() if wanted(each.advert)}
        told.append(
            {
                "query": text,
                "expected": len(expected),
                "found": len(found),
                "equal": set(found) == expected and len(found) == len(expected),
                "complete": answer.complete,
                "missing": list(answer.missing),
                "rpcs": answer.counts.rpcs,
                "rounds": answer.counts.rounds,
                "milliseconds": round(answer.duration_ms),
            }
        )
    return told


def depth(world: World) -> dict[str, int]:
    """How many levels each dimension's trie has: the longest chain of splits from the root to a leaf."""
    deepest: dict[str, int] = {}
    for server in world.servers:
        if server.running is None:
            continue
        for name, holding in server.running.peer.holdings.items():
            for prefix in holding.holder.nodes():
                # An aggregation point every six bits: root, anchors, then the leaf itself.
                deepest[name] = max(deepest.get(name, 0), 1 + -(-prefix.length // 6))
    return deepest


async def story(world: World) -> dict[str, Any]:
    await world.begin()
    client = world.clients[0]
    told: dict[str, Any] = {"published_s": round(world.simulation.loop.time(), 3)}
    told["questions"] = await ask(world, client)
    session = Lease(world, client, world.servers[-1])
    await session.open()
    await asyncio.sleep(35.0)
    await session.stop()
    told["account"] = await session.account()
    told["adverts"] = len(world.adverts())
    told["depth"] = depth(world)
    return told


def main(seed: int, servers: int, fleet: int, capacity: int) -> None:
    with World(seed, servers=servers, fleet=fleet, leaf_capacity=capacity) as world:
        told = world.run(story(world))
        told["transfers"] = len(world.transfers)
        told["datagrams"] = world.simulation.network.statistics.sent
        told["virtual_s"] = round(world.simulation.loop.time(), 3)
        told["trace"] = world.trace.hexdigest()
    print(json.dumps(told))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
