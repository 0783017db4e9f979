"""What staying advertised costs: bytes a second, for each server and indexed dimension, in a period of heartbeats.

Decides what happens in the period (every server renews its advert once, some changed by a lease, while holders tick,
tighten and tell their parents) and what counts: every question and answer of the dimension, with the datagram's header
and MAC, whoever sends it. Leaves out IP and UDP headers, handshakes, and the overlay's own liveness checks.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from dht.datagram import MIN_DATAGRAM_BYTES
from summaries.publish import Before, Posting
from xenonode.first_schema import first_schema
from xenonode.simulation.search_bench.adverts import AdvertSet
from xenonode.simulation.search_bench.network import IndexNetwork

PERIOD_S = 150  # search.md: a heartbeat
CHANGED = 0.2  # of the servers: a session began or ended there


def traffic(
    seed: int, count: int, dimension: str, cpu_ns: Callable[[], int], capacity: int, nodes: int, root_groups: int = 1
) -> tuple[float, float]:
    """(bytes, messages) a second and server in one dimension."""
    adverts = AdvertSet(first_schema(), seed, count)
    network = IndexNetwork(adverts, seed, nodes, cpu_ns, capacity, root_groups)
    postings: list[tuple[Posting, ...]] = []
    for place in range(count):
        postings.append(network.publish(dimension, place).postings)
        network.settle()
    rng = Random(seed)
    bytes_ = messages = 0
    for second in range(2 * PERIOD_S):
        if second == PERIOD_S:  # in the period before, everybody learned where its leaf is since the last split
            bytes_, messages = network.message_bytes, network.messages
        at = second % PERIOD_S
        for place in range(at * count // PERIOD_S, (at + 1) * count // PERIOD_S):
            point, raw = adverts.adverts[place]
            adverts.renew(place, network.now_ms, churned=rng.random() < CHANGED)
            postings[place] = network.publish(dimension, place, postings[place], Before(point.seq, raw)).postings
        network.tick()
    messages = network.messages - messages
    whole = network.message_bytes - bytes_ + messages * MIN_DATAGRAM_BYTES
    return whole / PERIOD_S / count, messages / PERIOD_S / count
