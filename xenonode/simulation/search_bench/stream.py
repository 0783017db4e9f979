"""Which nodes a stream of searches falls on: the share of the searches that ask each node anything.

Decides the stream: classes in turn, clients in turn, each client remembering the roots that it reads for 15 seconds in
which it searches `SEARCHES_A_CLIENT` times; what reading roots asks is part of the search that it was read for. So a
root's holders carry what they carry for people who search now and then, and nobody is spared.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from random import Random

from summaries.execute import Search
from summaries.plan import constrained
from xenonode.simulation.search_bench.bench import Bench
from xenonode.simulation.search_bench.network import Cost
from xenonode.simulation.search_bench.queries import CLASSES, draw

SEARCHES_A_CLIENT = 3


@dataclass(frozen=True, slots=True)
class Load:
    """Shares of the searches that ask the busiest node, the tenth busiest, and one in the middle."""

    adverts: int
    nodes: int
    method: str
    searches: int
    busiest_share: float
    tenth_share: float
    median_share: float
    busiest_holds: str
    questions_mean: float  # what is asked in all, reading roots included

    def to_fields(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self)


def load(bench: Bench, seed: int, searches: int, *, strict: bool) -> Load:
    """Run the stream."""
    network, points = bench.network, [point for point, _ in bench.adverts.adverts]
    drawn = [draw(Random(f"{seed} stream {kind}"), kind, points, -(-searches // len(CLASSES)), bench.numpy.count)
             for kind in CLASSES]  # fmt: skip
    queries = [query for some in zip(*drawn) for query in some][:searches]
    touched: Counter[bytes] = Counter()
    asked = 0
    client = network.new_client()
    for number, query in enumerate(queries):
        if number % SEARCHES_A_CLIENT == 0:
            client = network.new_client()
        cost = Cost()
        if number % SEARCHES_A_CLIENT:  # as a live searcher: the first search of all reads what it needs
            network.read_roots_of(client, constrained(bench.schema, query), cost)
        search = Search(
            bench.schema, query, bench.adverts.verify, strict=strict, roots=client.roots, turn=network.turn(),
            finish="none", group=network.group(), salts=client.salts,
        )  # fmt: skip
        network.search(search, cost)
        touched.update(cost.asked.keys())
        asked += sum(cost.asked.values())
    shares = sorted((count / len(queries) for count in touched.values()), reverse=True)
    shares += [0.0] * (network.size - len(shares))
    busiest = max(sorted(touched), key=lambda one: touched[one])
    return Load(
        len(points), network.size, "xenosearch-strict" if strict else "xenosearch", len(queries),
        round(shares[0], 4), round(shares[min(9, len(shares) - 1)], 4), round(shares[len(shares) // 2], 4),
        network.holds(busiest), round(asked / len(queries), 2),
    )  # fmt: skip
