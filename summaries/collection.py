"""Adverts of one process, summarised as a network's are: ranges and sets of XenoSearch without a network.

Decides nothing of its own: the tries, their zones and the plan are those of a network, so that a query reads what zones
cannot exclude, of the tries that the plan names. What comes out are sets, to be combined as one likes:

    servers = Collection(schema, points)
    large, cheap = servers.ids("memory.available >= 64 GiB"), servers.ids("price.cpu <= 0.02 USD/h")
    both, either, rest = large & cheap, large | cheap, large - cheap

`tests/summaries/test_collection.py` is an example from nothing to an answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from summaries.bulk import build
from summaries.filter import CompiledFilter
from summaries.idset import IdSet
from summaries.node import TrieNode
from summaries.parse import parse
from summaries.plan import Part, make_plan
from summaries.point import Point
from summaries.query import Query, filter_of, matcher
from summaries.rank import Order
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix

LEAF_CAPACITY = 64
_HERE = (b"here",)


class Collection:
    """A fixed set of points; of two with one id the later counts. A dimension's trie is built when first used."""

    def __init__(self, schema: Schema, points: Iterable[Point], capacity: int = LEAF_CAPACITY) -> None:
        self.schema, self._capacity = schema, capacity
        self._points = {point.id: point for point in points}
        self._tries: dict[str, dict[Prefix, TrieNode]] = {}

    def __len__(self) -> int:
        return len(self._points)

    def everything(self) -> IdSet:
        """All ids."""
        return IdSet(self._points)

    def ids(self, query: Query | str, currency: str = "USD") -> IdSet:
        """Whose points match; orders and limits are of no account. Raises QueryError, LocalError for hosts by name."""
        asked = parse(query, currency=currency) if isinstance(query, str) else query
        holds, found = matcher(asked.where), set[int]()
        filter_, _ = filter_of(asked)
        if filter_.terms:
            for part in make_plan(self.schema, filter_, Order(), False).parts:
                found.update(self._walk(part))
        return IdSet(id for id in found if holds(self._points[id].attributes))

    def point(self, id: int) -> Point:
        """The point with this id. Raises KeyError."""
        return self._points[id]

    def _walk(self, part: Part) -> Iterable[int]:
        condition, trie = CompiledFilter(self.schema, part.filter), self._trie(part.dimension)
        work = [trie[ROOT]]
        while work:
            node = work.pop()
            for place in condition.select(node.rows):
                yield node.rows.points[place].id
            work += [trie[child] for child, zone, _ in node.children() if condition.passes(zone)]

    def _trie(self, dimension: str) -> dict[Prefix, TrieNode]:
        trie = self._tries.get(dimension)
        if trie is None:
            adverts = [(point, b"") for point in self._points.values()]
            trie = self._tries[dimension] = build(self.schema, dimension, adverts, self._capacity, lambda prefix: _HERE)
        return trie
