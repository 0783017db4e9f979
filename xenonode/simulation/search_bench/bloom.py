"""The 2003 way: a Bloom filter of one fixed size per aggregation point, OR over a range, AND across dimensions.

A query reads, in every dimension that it constrains, the filters of the trie nodes that make up its range; a leaf
that the range cuts makes one for its part. The filters are united by OR within the range, intersected by AND across
dimensions, and the intersection is shown to the leaves of the most selective dimension, which name the adverts that
may be in it; each is asked for its advert. Tuned in its favour: ranges are cut exactly, the structure comes with the
filters, everything of one stage is asked at once, and the size is the best of several for these queries.
Source: XenoSearch, HPDC-12 (2003), sections on summaries and queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from summaries.asks import REPLICAS
from summaries.filter import CompiledFilter, Filter
from summaries.node import TrieNode
from summaries.plan import ranked
from summaries.query import Query, filter_of
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix
from xenonode.simulation.search_bench.network import Cost, IndexNetwork

HASHES = 4
BITS_AN_ADVERT = (1, 2, 4, 8, 16)
DATAGRAM_BYTES = 1_000  # of a filter in one datagram
QUESTION_BYTES = 60
ID_BYTES = 8
ROW_BYTES = 24  # of a candidate: id, sequence number, contact

Ids = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Range:
    """What one test of a term reads in its dimension."""

    ids: Ids
    reads: int  # questions to aggregation points and leaves
    filters: int  # of these, how many filters come back
    depth: int
    leaves: tuple[tuple[Prefix, Ids], ...]
    asked: tuple[tuple[str, Prefix], ...]


class BloomSearch:
    """The tries' own partition, summarised by Bloom filters of `bits` bits."""

    def __init__(self, network: IndexNetwork, tries: dict[str, dict[Prefix, TrieNode]], bits: int) -> None:
        self._network, self._tries, self.bits = network, tries, bits

    def search(self, query: Query, cost: Cost) -> set[int]:
        """Every advert that matches, each asked for its advert; those that do not match count as wasted."""
        whole, _ = filter_of(query)
        candidates: set[int] = set()
        for term in whole.terms:
            candidates |= self._term(Filter((term,)), cost)
        by_id = self._network.adverts.by_id
        found = {id for id in candidates if whole.matches(by_id[id].attributes)}
        cost.wasted += len(candidates) - len(found)
        return found

    def _term(self, whole: Filter, cost: Cost) -> set[int]:
        schema, term = self._network.schema, whole.terms[0]
        ranges = []
        for test in term:
            names = [name for _, name in ranked(schema, (test,))]
            if names:
                ranges.append(_range(schema, names[0], self._tries[names[0]], Filter(((test,),))))
        if not ranges:
            ranges = [_range(schema, "cores", self._tries["cores"], Filter())]
        pages = -(-self.bits // 8 // DATAGRAM_BYTES)
        for one in ranges:
            cost.questions += one.reads + one.filters * (pages - 1)
            cost.control_bytes += one.reads * QUESTION_BYTES + one.filters * self.bits // 8
            for dimension, prefix in one.asked:
                cost.asked[self._network.nearest(dimension, prefix)[hash(prefix) % REPLICAS]] += pages
        driver = min(ranges, key=lambda one: len(one.ids))
        cost.questions += len(driver.leaves) * pages
        cost.control_bytes += len(driver.leaves) * (self.bits // 8 + QUESTION_BYTES)
        rounds = max(one.depth for one in ranges) + (pages > 1) + 1
        cost.rounds = max(cost.rounds, rounds)
        united = [self._bloom(one.ids) for one in ranges]
        both = np.logical_and.reduce(united)
        found: set[int] = set()
        for _, ids in driver.leaves:
            hits = ids[both[self._places(ids)].all(axis=1)]
            cost.answer_bytes += len(hits) * ROW_BYTES
            found |= set(hits.tolist())
        return found

    def _bloom(self, ids: Ids) -> NDArray[np.bool_]:
        bloom = np.zeros(self.bits, dtype=np.bool_)
        bloom[self._places(ids).ravel()] = True
        return bloom

    def _places(self, ids: Ids) -> NDArray[np.int64]:
        mixed = ids * np.uint64(0x9E3779B97F4A7C15)
        step = (ids ^ (ids >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) | np.uint64(1)
        rounds = np.arange(HASHES, dtype=np.uint64)
        hashed = (mixed[:, None] + step[:, None] * rounds) >> np.uint64(16)
        return (hashed % np.uint64(self.bits)).astype(np.int64)


def best_bits(
    network: IndexNetwork, tries: dict[str, dict[Prefix, TrieNode]], queries: Sequence[Query]
) -> int:
    """The size with which these queries take the fewest questions."""
    count = len(network.adverts.adverts)
    costs = {}
    for each in BITS_AN_ADVERT:
        bits = max(8_192, count * each)
        total = 0
        for query in queries:
            cost = Cost()
            BloomSearch(network, tries, bits).search(query, cost)
            total += cost.questions + cost.wasted
        costs[bits] = total
    return min(costs, key=lambda bits: (costs[bits], bits))


def _range(schema: Schema, dimension: str, trie: dict[Prefix, TrieNode], test: Filter) -> _Range:
    compiled = CompiledFilter(schema, test)
    reads = filters = deepest = 0
    leaves: list[tuple[Prefix, Ids]] = []
    asked: list[tuple[str, Prefix]] = []
    inside: dict[Prefix, tuple[int, int]] = {}  # rows that pass, rows

    def count(prefix: Prefix) -> tuple[int, int]:
        node = trie[prefix]
        if node.entries:
            parts = [count(child) for child in sorted(node.entries)]
            inside[prefix] = (sum(one for one, _ in parts), sum(all_ for _, all_ in parts))
        else:
            places = compiled.select(node.rows)
            inside[prefix] = (len(places), len(node.rows))
            if places:
                leaves.append((prefix, node.rows.array["id"][places].astype(np.uint64)))
        return inside[prefix]

    count(ROOT)
    work = [(ROOT, 1)]
    while work:
        prefix, depth = work.pop()
        passing, all_ = inside[prefix]
        if not passing and prefix != ROOT:
            continue
        reads += 1
        deepest = max(deepest, depth)
        asked.append((dimension, prefix))
        if passing == all_ or not trie[prefix].entries:
            filters += 1
        else:
            work += [(child, depth + 1) for child in sorted(trie[prefix].entries, reverse=True)]
    ids = np.unique(np.concatenate([one for _, one in leaves])) if leaves else np.zeros(0, dtype=np.uint64)
    return _Range(ids, reads, filters, deepest, tuple(leaves), tuple(asked))
