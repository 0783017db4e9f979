"""One world of one size in a process of its own: what it costs to begin, to publish and to ask, and what it weighs.

Run as `python -m scripts.simulator_benchmark.sizes KIND NODES OVERLAYS SEED QUERIES CAPACITY STRANGERS`, the last one 0
or 1; prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from dht.contact import Contact
from xenonode.simulation.crowd import Crowd, dimension_names
from xenonode.simulation.overlays import OverlayWorld

SETTLE_S = 30.0
"""Between the last first advert and the first query: split leaves hand their rows down meanwhile."""
QUERIES = (
    "cores >= 16 and price.cpu <= 0.03 USD/h limit 10",
    "memory.available >= 64 GiB and os.linux >= 6.1 limit 10",
    'cores = 2 and country = "US" limit 10',
    "net.available >= 1 Gbit/s and disk.available >= 100 GiB order by price.cpu limit 10",
)


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Meter:
    """What has passed since the begin."""

    def __init__(self) -> None:
        self.cpu_s, self.wall_s = time.process_time(), time.monotonic()
        self.bytes = resident_bytes()

    def cost(self) -> dict[str, float]:
        """CPU and wall seconds, and all that the process holds."""
        return {
            "cpu_s": round(time.process_time() - self.cpu_s, 2),
            "wall_s": round(time.monotonic() - self.wall_s, 2),
            "rss_mb": round(resident_bytes() / 1e6, 1),
        }

    def kb_a_node(self, nodes: int) -> float:
        """Growth of the process by node."""
        gc.collect()
        return round((resident_bytes() - self.bytes) / 1e3 / nodes, 1)


def publish(
    nodes: int, overlays: int, seed: int, queries: int, capacity: int, strangers: int, *, established: bool = False
) -> dict[str, Any]:
    """A crowd: tables filled, an advert of each node published, then searches.

    With `established` each node has an advert already, in tries that are there as tables are, and publishes a new one.
    """
    Crowd(seed, peers=2).simulation.loop.close()  # what is loaded once is not a node's
    meter = Meter()
    names, met = dimension_names(overlays), not strangers
    with Crowd(seed, peers=nodes, dimensions=names, leaf_capacity=capacity, acquainted=met) as crowd:
        crowd.run(crowd.open())
        bare_kb = meter.kb_a_node(nodes)
        if established:
            crowd.run(crowd.establish())
        warm = meter.cost()
        crowd.run(until=crowd.now_s + SETTLE_S)
        crowd.run(crowd.publish_all())
        loaded_kb = meter.kb_a_node(nodes)
        pending = sum(bool(each.pending) for each in crowd.durable.values())
        crowd.run(until=crowd.now_s + SETTLE_S)
        client, partial = crowd.clients[0], 0
        for number in range(queries):
            text = QUERIES[number % len(QUERIES)]
            answer = crowd.run(client.call(lambda own, text=text: own.search(text)))  # type: ignore[misc]
            partial += not answer.complete
        told = {"queries": queries, "partial": partial, "adverts": len(crowd.adverts()), "not_durable": pending}
        memory = {"kb_a_node": bare_kb, "kb_a_node_with_adverts": loaded_kb, "warm_cpu_s": warm["cpu_s"]}
        counted = {"rpcs": crowd.questions(), "virtual_s": round(crowd.now_s, 1), "trace": crowd.trace.hexdigest()}
        return {**meter.cost(), **counted, **memory, **told}


def renew(nodes: int, overlays: int, seed: int, queries: int, capacity: int, strangers: int) -> dict[str, Any]:
    """The same in a network that has lived for a while."""
    return publish(nodes, overlays, seed, queries, capacity, strangers, established=True)


def lookups(nodes: int, overlays: int, seed: int, queries: int, capacity: int, strangers: int) -> dict[str, Any]:
    """Bare overlays with full tables, and lookups in them by nodes of chance."""
    meter = Meter()
    names = dimension_names(overlays)[:overlays]
    with OverlayWorld(seed, nodes, names, wide_area=True) as world:
        world.begin()
        warm, bare_kb = meter.cost(), meter.kb_a_node(nodes)
        found: list[tuple[str, bytes, list[Contact]]] = []

        async def work() -> None:
            for number in range(queries):
                name, key = names[number % len(names)], world.random_key()
                found.append((name, key, await world.rng.choice(world.nodes).find(name, key)))

        world.simulation.run(work())
        counted = {"rpcs": world.questions(), "trace": world.simulation.trace.hexdigest()}
        cost = meter.cost()  # what judges the answers costs the simulator nothing
        oracles = {name: world.oracle(name) for name in names}
        hits = sum(answer[:1] == oracles[name](key, 1) for name, key, answer in found)
        return {
            **cost, **counted, "kb_a_node": bare_kb, "warm_cpu_s": warm["cpu_s"], "lookups": queries,
            "nearest_found": hits,
        }  # fmt: skip


def main() -> None:
    """See the module."""
    kind, *numbers = sys.argv[1:]
    nodes, overlays, *rest = map(int, numbers)
    work = {"publish": publish, "renew": renew, "lookups": lookups}[kind]
    print(json.dumps({"kind": kind, "nodes": nodes, "overlays": overlays, **work(nodes, overlays, *rest)}))


if __name__ == "__main__":
    main()
