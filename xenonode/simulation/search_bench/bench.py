"""One run of the search benchmark: every class by every method at one size, each answer compared with the oracle.

Decides what is counted and reported (`Row`), the same for all methods. The oracle is SQLite, whose conditions are
written independently. Every method ends with the advert of each answer, verified: one question each, which `rpcs`
leaves out (it is the same for all) and `proofs_mean` counts; an advert fetched that is no answer is `wasted` and
counts. Rounds leave out that last one, too. What an answer's rows take beyond one datagram is counted in `pages`.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from random import Random
from types import MappingProxyType

import numpy as np

from summaries.asks import REPLICAS
from summaries.bulk import build
from summaries.candidates import MAX_PROBES
from summaries.execute import Search
from summaries.holder import DEFAULT_CAPACITY
from summaries.node import TrieNode
from summaries.plan import constrained
from summaries.point import Point
from summaries.query import Query
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix
from xenonode.first_schema import first_schema
from xenonode.simulation.search_bench.adverts import AdvertSet
from xenonode.simulation.search_bench.bloom import BloomSearch, best_bits
from xenonode.simulation.search_bench.central import NumpyIndex, SqliteIndex, best
from xenonode.simulation.search_bench.even import drawn_share, even_share
from xenonode.simulation.search_bench.least import LeastLeaves
from xenonode.simulation.search_bench.network import Cost, IndexNetwork
from xenonode.simulation.search_bench.placing import METHODS as PLACING
from xenonode.simulation.search_bench.placing import PLACEMENT, draw_groups, place_group
from xenonode.simulation.search_bench.queries import CLASSES, draw
from xenonode.simulation.search_bench.scan import scan

METHODS = ("xenosearch", "xenosearch-strict", "bloom-2003", "driver-scan", "central-sqlite", "central-numpy")
SLOW = ("bloom-2003", "driver-scan")
COLD = ("xenosearch-cold", "xenosearch-strict-cold")  # without remembered roots; only when asked for
BEST_PLAN = "xenosearch-best-plan"  # by whichever one trie costs the fewest questions, found by trying; when asked for
ADVERTS_A_NODE = 100  # 10,000 nodes hold a million
NODES_MIN = 20
ROOT_GROUPS = 8  # as a network of so many servers would be founded
TUNING_QUERIES = 20
PAGE_ROWS = 36  # of a central index's answer: as many rows of 30 bytes as a datagram holds
QUESTION_BYTES = 120
ADVERT_BYTES = 800
ROUND_TRIP_MS = 75.0  # between the regions of cloud providers, in the mean
SETTLED_S = 120  # after the last publication: zones are tight again after three rebuilds of 15 s, old entries gone
DOWNLOAD_BYTE_PER_MS = 1_250  # 10 Mbit/s


@dataclass(frozen=True, slots=True)
class Row:
    """One class by one method at one size."""

    adverts: int
    kind: str
    method: str
    queries: int
    matches_median: float
    rpcs_mean: float
    rpcs_p95: float
    rounds_mean: float
    rounds_p95: float
    control_kb_mean: float
    answer_kb_mean: float
    pages_mean: float
    proofs_mean: float
    client_cpu_ms: float
    recall: float
    wrong: int
    wasted: float
    busiest_share: float
    even_share: float  # what the mean node is asked: nobody can be asked less than that if all are asked alike
    drawn_share: float  # the busiest if so many nodes had been drawn by lot for each search: see even.py
    time_ms_mean: float
    leaves_least_mean: float  # no plan over these tries reads fewer: see least.py

    def to_fields(self) -> dict[str, object]:
        """As a JSON object."""
        return {"class" if name == "kind" else name: value for name, value in asdict(self).items()}


@dataclass(slots=True)
class Bench:
    """The tries of one set of adverts, and everything that is compared on them."""

    schema: Schema
    adverts: AdvertSet
    network: IndexNetwork
    tries: dict[str, dict[Prefix, TrieNode]]
    sqlite: SqliteIndex
    numpy: NumpyIndex
    least: LeastLeaves
    cpu_ns: Callable[[], int]
    bloom_bits: int = 0

    def run(
        self, kinds: Sequence[str], methods: Sequence[str], seed: int, queries: int, slow: int | None = None
    ) -> Iterator[Row]:
        """One row a class and method. The methods that read very much get the first `slow` queries only."""
        points = [point for point, _ in self.adverts.adverts]
        for kind in kinds:
            if kind == PLACEMENT:
                yield from self._placements([one for one in methods if one in PLACING], seed, queries)
                continue
            drawn = draw(Random(f"{seed} {kind}"), kind, points, queries, self.numpy.count)
            wanted = [best(query, self.adverts, self.sqlite.ids(query)) for query in drawn]
            if "bloom-2003" in methods and not self.bloom_bits:
                self.bloom_bits = best_bits(self.network, self.tries, drawn[: min(TUNING_QUERIES, slow or queries)])
            for method in methods:
                some = slow if method in SLOW else None
                yield self._row(kind, method, drawn[:some], wanted[:some])

    def shape(self) -> str:
        """Nodes, leaves and aggregation points, for display."""
        points = sum(bool(node.entries) for trie in self.tries.values() for node in trie.values())
        leaves = sum(not node.entries for trie in self.tries.values() for node in trie.values())
        roots = self.network.root_cost
        clients = len(self.network.clients)
        questions, bytes_ = roots.questions // clients, roots.control_bytes // clients
        read = f"all roots remembered by {questions} questions, {bytes_ // 1000} kB a client, for 15 s"
        return f"{len(self.tries)} tries, {points} aggregation points, {leaves} leaves; {read}"

    def parameters(self, methods: Sequence[str]) -> dict[str, str]:
        """What each method was run with, for display."""
        own = f"leaves of {self.network.capacity} rows, {REPLICAS} replicas on {self.network.size} nodes"
        own += f", {self.network.root_groups} groups of holders a root"
        own += "".join(f", {count} tries of {name}" for name, count in sorted(self.network.tries.items()))
        known = {
            "xenosearch": f"{own}, one read, roots remembered",
            "xenosearch-strict": f"{own}, two read, roots remembered and confirmed",
            "xenosearch-cold": f"{own}, one read",
            "xenosearch-strict-cold": f"{own}, two read",
            BEST_PLAN: f"{own}, one read, roots remembered; each query by the one trie that takes the fewest questions",
            "bloom-2003": f"filters of {self.bloom_bits} bits, which asks fewest of these tries; no zones",
            "driver-scan": "the dimension of the narrowest range by the schema; the same tries",
            "central-sqlite": f"an index a column, {PAGE_ROWS} rows a page",
            "central-numpy": f"all columns in memory, {PAGE_ROWS} rows a page",
        }
        return {method: known[method] for method in methods}

    def _row(self, kind: str, method: str, queries: Sequence[Query], wanted: Sequence[list[int]]) -> Row:
        costs, right, missing, wrong = [], 0, 0, 0
        touched: Counter[bytes] = Counter()
        for query, ids in zip(queries, wanted):
            cost = Cost()
            found = self._search(method, query, cost)
            costs.append(cost)
            right += len(set(ids) & set(found))
            missing += len(set(ids) - set(found))
            wrong += len(set(found) - set(ids)) + (bool(query.order.by) and found != ids and set(found) == set(ids))
            touched.update(cost.asked.keys())
        return self._figures(kind, method, costs, wanted, right, missing, wrong, touched)

    def _placements(self, methods: Sequence[str], seed: int, count: int) -> Iterator[Row]:
        """A group counts as found where its total is that of the best choice among all adverts."""
        groups = draw_groups(Random(f"{seed} {PLACEMENT}"), count)
        ask_all = partial(self._answered, "central-sqlite")
        exact = [place_group(group, ask_all, Cost(), (None,)) for group in groups]
        wanted = [[one.id for one in result.placed] for result in exact]
        for method in methods:
            costs, right, wrong = [], 0, 0
            touched: Counter[bytes] = Counter()
            for group, result in zip(groups, exact):
                cost = Cost()
                found = place_group(group, partial(self._answered, method), cost)
                costs.append(cost)
                right += found.proved and (found.total, bool(found.placed)) == (result.total, bool(result.placed))
                touched.update(cost.asked.keys())
            wrong = len(groups) - right
            yield self._figures(PLACEMENT, method, costs, wanted, right, wrong, wrong, touched)

    def _xenosearch(self, method: str, query: Query, cost: Cost, dimension: str | None = None) -> list[int]:
        # A warm client remembers the roots; what that cost it is told apart.
        client = self.network.next_client()
        roots = {} if method.endswith("-cold") else client.roots
        budget = 4 * len(self.adverts.by_id)  # of questions: enough for a query that matches everything
        search = Search(
            self.schema, query, partial(self._verified, cost), strict="strict" in method, roots=roots,
            dimension=dimension, turn=self.network.turn(), max_rpcs=budget, group=self.network.group(),
            salts=client.salts,
        )  # fmt: skip
        self.network.search(search, cost)
        return [match.id for match in search.result.matches]

    def _answered(self, method: str, query: Query, cost: Cost) -> list[Point]:
        return [self.adverts.by_id[id] for id in self._search(method, query, cost)]

    def _verified(self, cost: Cost, raw: bytes, now_ms: int) -> Point | None:
        """What a search asks of an advert; neither signature checks nor this clock count as the client's."""
        began = self.cpu_ns()
        point = self.adverts.verify(raw, now_ms)
        cost.client_cpu_ns -= self.cpu_ns() - began + self.network.clock_ns
        return point

    def _figures(
        self,
        kind: str,
        method: str,
        costs: Sequence[Cost],
        wanted: Sequence[list[int]],
        right: int,
        missing: int,
        wrong: int,
        touched: Counter[bytes],
    ) -> Row:
        rpcs = np.array([cost.questions + cost.wasted for cost in costs])
        rounds = np.array([cost.rounds for cost in costs])
        asked, nodes = [len(cost.asked) for cost in costs], 1 if method.startswith("central") else self.network.size
        cpu_ms = [cost.client_cpu_ns / 1e6 for cost in costs]
        times = [_time_ms(cost) for cost in costs]
        return Row(
            len(self.adverts.adverts), kind, method, len(costs),
            float(np.median([len(ids) for ids in wanted])),
            round(float(rpcs.mean()), 2), round(float(np.percentile(rpcs, 95)), 1),
            round(float(rounds.mean()), 2), float(np.percentile(rounds, 95, method="higher")),
            round(float(np.mean([cost.control_bytes for cost in costs])) / 1000, 2),
            round(float(np.mean([cost.answer_bytes for cost in costs])) / 1000, 2),
            round(float(np.mean([cost.pages for cost in costs])), 2),
            round(float(np.mean([cost.proofs for cost in costs])), 2),
            round(float(np.mean(cpu_ms)), 2),
            1.0 if not right + missing else round(right / (right + missing), 6),
            wrong,
            round(float(np.mean([cost.wasted for cost in costs])), 2),
            round(max(touched.values(), default=len(costs)) / len(costs), 4),
            round(even_share(asked, nodes), 4), round(drawn_share(asked, nodes), 4),
            round(float(np.mean(times)), 1),
            round(float(np.mean([self.least.of(ids) for ids in wanted])), 2),
        )  # fmt: skip

    def _search(self, method: str, query: Query, cost: Cost) -> list[int]:
        if method == BEST_PLAN:
            costs = {name: Cost() for name in constrained(self.schema, query)}
            for name, each in costs.items():
                self._xenosearch(method, query, each, name)
            return self._xenosearch(method, query, cost, min(costs, key=lambda name: costs[name].questions))
        if method.startswith("xenosearch"):
            return self._xenosearch(method, query, cost)
        began = self.cpu_ns()
        if method == "central-sqlite":
            found = best(query, self.adverts, self.sqlite.ids(query))
        elif method == "central-numpy":
            found = [point.id for point in self.numpy.points(query)]
        elif method == "driver-scan":
            found = best(query, self.adverts, sorted(scan(self.network, query, cost)))
        else:
            ids = BloomSearch(self.network, self.tries, self.bloom_bits).search(query, cost)
            found = best(query, self.adverts, sorted(ids))
            cost.wasted += (len(ids) - len(found)) if query.order.by else 0  # all must be fetched to be sorted
        cost.client_cpu_ns += self.cpu_ns() - began
        cost.proofs = len(found)
        if method.startswith("central"):
            cost.questions, cost.pages = 1, max(0, -(-len(found) // PAGE_ROWS) - 1)
            cost.rounds, cost.waits = 1, bool(cost.pages)
            cost.control_bytes, cost.answer_bytes = QUESTION_BYTES, 30 * len(found)
            cost.asked[b"central"] = 1
        return found


def _time_ms(cost: Cost) -> float:
    """How long until the answers are known; asking each of them for its advert comes after, and is the same for all.

    Adverts that were fetched to be thrown away are this method's own affair, as many at once as searches ask for.
    """
    rounds = cost.rounds + cost.waits + -(-cost.wasted // MAX_PROBES)
    bytes_ = cost.control_bytes + cost.answer_bytes + cost.wasted * ADVERT_BYTES
    return rounds * ROUND_TRIP_MS + bytes_ / DOWNLOAD_BYTE_PER_MS + cost.client_cpu_ns / 1e6


def prepare(
    seed: int, count: int, cpu_ns: Callable[[], int], capacity: int = DEFAULT_CAPACITY, root_groups: int = 1,
    tries: Mapping[str, int] = MappingProxyType({}), nodes: int = 0,
) -> Bench:  # fmt: skip
    """Draw the adverts, build every trie, and load the central indexes."""
    gc.unfreeze()  # of what a run before left
    schema = first_schema()
    adverts = AdvertSet(schema, seed, count)
    nodes = nodes or max(NODES_MIN, count // ADVERTS_A_NODE)
    network = IndexNetwork(adverts, seed, nodes, cpu_ns, capacity, root_groups, tries)
    first: dict[str, dict[Prefix, TrieNode]] = {}
    for dimension in schema.dimensions:
        name = dimension.name
        first[name] = _build(network, name)
        network.install(name, first[name])
        for salt in range(1, tries.get(name, 1)):
            network.install(name, _build(network, name, salt), salt)
    sqlite, columns = SqliteIndex(adverts), NumpyIndex(schema, adverts)
    network.read_roots()
    bench = Bench(schema, adverts, network, first, sqlite, columns, LeastLeaves(first), cpu_ns)
    gc.collect()
    gc.freeze()  # no client has all holders' state to go through when its garbage is collected
    return bench


def differences(
    seed: int, count: int, dimensions: Sequence[str], cpu_ns: Callable[[], int], capacity: int = DEFAULT_CAPACITY,
    root_groups: int = 1,
) -> list[str]:  # fmt: skip
    """Publish `count` adverts one by one through the real code, and say where a bulk load differs: nowhere."""
    schema = first_schema()
    adverts = AdvertSet(schema, seed, count)
    found = []
    for name in dimensions:
        network = IndexNetwork(adverts, seed, NODES_MIN, cpu_ns, capacity, root_groups)
        for place in range(count):
            if not network.publish(name, place).durable:
                found.append(f"{name}: advert {place} is not durable")
            network.settle()
        for _ in range(SETTLED_S):
            network.tick()
        found += _compare(network, name, _build(network, name))
    return found


def _build(network: IndexNetwork, name: str, salt: int = 0) -> dict[Prefix, TrieNode]:
    adverts = network.adverts.adverts
    return build(network.schema, name, adverts, network.capacity, lambda prefix: network.nearest(name, prefix, salt))


def _compare(network: IndexNetwork, name: str, built: dict[Prefix, TrieNode]) -> list[str]:
    found = []
    for prefix, node in built.items():
        for contact in network.nearest(name, prefix):
            held = network.holder(contact, name).nodes().get(prefix)
            if held is None:
                found.append(f"{name} {prefix}: not published")
                continue
            if held.rows.postings() != node.rows.postings():
                found.append(f"{name} {prefix}: {len(held.rows)} rows published, {len(node.rows)} loaded")
            children = [[child for child, _, _ in one.children()] for one in (held, node)]
            if children[0] != children[1] or held.splits != node.splits:
                found.append(f"{name} {prefix}: other children")
            if held.zone != node.zone:
                found.append(f"{name} {prefix}: other zone {held.zone} {node.zone}")
    for group in range(1, network.root_groups):
        for contact in network.nearest(name, ROOT, group):
            copied, root = network.holder(contact, name).copying.node, built[ROOT]
            if copied is None or not copied.ready or copied.children() != root.children():
                found.append(f"{name} root: another copy in group {group}")
    full = {prefix for holder in network.holders.values() for prefix, node in holder.nodes().items() if len(node.rows)}
    return found + [f"{name} {prefix}: published only" for prefix in sorted(full - set(built))]


__all__ = ["CLASSES", "METHODS", "PLACEMENT", "Bench", "Row", "differences", "prepare"]
