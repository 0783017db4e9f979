"""Where to look: which trie answers each term of a query with the fewest leaves.

Breakpoints are equi-depth, so the schema alone says what share of all adverts a range holds: that
picks the candidates without asking anybody. For a conjunction the candidates' roots then say how
many leaves pass **all** predicates (search.md: root zones cost 1.28 of the best plan, one-dimensional
counts 2.65). A disjunction's terms go each to its best trie and share one where they can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from summaries.cost import CostTest
from summaries.dimension import BINS
from summaries.filter import Filter, Term, Within, compiled
from summaries.query import Query, filter_of
from summaries.rank import Order
from summaries.roots import RootView
from summaries.schema import ENVIRONMENT, LOCATION, Schema

MAX_CANDIDATES = 3  # roots that are read to compare: each costs a strict read, two RPCs
ORDER_FACTOR = 4.0  # best-first search stops early: worth its trie even where four times the leaves pass
_NEAR_SHARE = 0.15  # of all adverts within a typical limit; only ever compared with other shares


@dataclass(frozen=True, slots=True)
class Part:
    """One trie to search, and what to look for in it."""

    dimension: str
    filter: Filter


@dataclass(frozen=True, slots=True)
class Plan:
    """`parts` are searched and united; `candidates` are compared first when there is one part."""

    parts: tuple[Part, ...]
    candidates: tuple[str, ...]


def make_plan(
    schema: Schema, filter_: Filter, order: Order, limited: bool, views: Mapping[str, RootView] = MappingProxyType({})
) -> Plan:
    """The plan: from the schema alone, and from the roots that are known already."""
    preferred = _order_dimension(schema, order) if limited else None
    if len(filter_.terms) == 1:
        by_share = ranked(schema, filter_.terms[0])
        names = [preferred] if preferred else []
        names += [name for _, name in by_share if name != preferred]
        condition = compiled(schema, filter_)
        known = {name: views[name].leaves(condition) for name in names if name in views}
        if known:
            return Plan((Part(choose(known, schema, order, limited), filter_),), ())
        candidates = tuple(names[:MAX_CANDIDATES]) or ("price.cpu",)
        return Plan((Part(candidates[0], filter_),), candidates)
    groups: dict[str, list[Term]] = {}
    for term in filter_.terms:
        shares = {name: share for share, name in ranked(schema, term)}
        condition = compiled(schema, Filter((term,)))
        leaves = {name: float(views[name].leaves(condition)) for name in shares if name in views}
        cost = leaves or shares
        best = min(cost.values(), default=1.0)
        # A trie that another term already pays for is as good as one with half the cost.
        shared = [name for name in groups if cost.get(name, math.inf) <= 2 * best]
        name = preferred or (shared[0] if shared else min(cost, key=lambda one: (cost[one], one), default="cores"))
        groups.setdefault(name, []).append(term)
    parts = tuple(Part(name, Filter(tuple(terms))) for name, terms in sorted(groups.items()))
    return Plan(parts, ())


def doubled(schema: Schema, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Each part twice, in two tries: who holds a prefix of the one holds nothing of the other, but by chance."""
    found = list(parts)
    for part in parts:
        shares: dict[str, float] = {}
        for term in part.filter.terms:
            for name, share in {name: share for share, name in ranked(schema, term)}.items():
                shares[name] = shares.get(name, 0.0) + share - 1.0  # a term that leaves it free needs all of it
        whole = [name for name in ("price.cpu", "cores") if name not in shares]  # tries that have every advert
        names = [*sorted(shares, key=lambda name: (shares[name], name)), *whole]
        usable = [name for name in names if name != ENVIRONMENT or len(part.filter.terms) == 1]
        found.append(Part(next(name for name in usable if name != part.dimension), part.filter))
    return tuple(found)


def constrained(schema: Schema, query: Query) -> tuple[str, ...]:
    """The dimensions whose roots help to plan a query, and to say why it finds nothing."""
    names = [name for term in filter_of(query)[0].terms for _, name in ranked(schema, term)]
    preferred = _order_dimension(schema, query.order)
    return tuple(dict.fromkeys([*names, *([preferred] if preferred else [])])) or ("price.cpu",)


def choose(leaves: Mapping[str, int], schema: Schema, order: Order, limited: bool) -> str:
    """The candidate whose root lets the fewest leaves through."""
    preferred = _order_dimension(schema, order) if limited else None
    cost = {name: count / (ORDER_FACTOR if name == preferred else 1.0) for name, count in leaves.items()}
    return min(sorted(cost), key=lambda name: cost[name])


def _order_dimension(schema: Schema, order: Order) -> str | None:
    by = max(order.weights, key=lambda one: one[1])[0] if order.weights else order.by
    name = {"cost": "price.cpu", "latency": LOCATION}.get(by, by)
    backwards = order.descending and (order.by in ("cost", "latency") or bool(order.weights))
    return name if name in schema.by_name and not backwards else None


def ranked(schema: Schema, term: Term) -> list[tuple[float, str]]:
    """(share of all adverts, dimension) for every dimension that the term constrains, least first."""
    bounds: dict[str, tuple[int, int]] = {}
    shares: dict[str, float] = {}
    for test in term:
        if isinstance(test, CostTest):
            for name, most in test.price_bounds().items():
                if name in schema.column:
                    least, old = bounds.get(name, (0, BINS - 1))
                    bounds[name] = (least, min(old, schema.dimension(name).bin(most)))
            continue
        if isinstance(test, Within):
            if not test.negated:
                shares[LOCATION] = min(shares.get(LOCATION, 1.0), _NEAR_SHARE)
            continue
        if test.attribute in ("country", "region") and test.word_bits():  # servers of a country lie together
            shares[LOCATION] = min(shares.get(LOCATION, 1.0), _NEAR_SHARE)
        bit, limits = test.environment_bit(schema), test.bounds()
        if bit is not None:
            share = 2.0 / (len(schema.dimension(ENVIRONMENT).categories) + 1)
            shares[ENVIRONMENT] = min(shares.get(ENVIRONMENT, 1.0), share)
        elif limits is not None and test.attribute in schema.column:
            axis = schema.dimension(test.attribute)
            low, high = bounds.get(test.attribute, (0, axis.bin(axis.greatest(BINS - 1))))
            least = low if limits[0] is None else max(low, axis.bin(max(limits[0], 0)))
            most = high if limits[1] is None else min(high, axis.bin(max(limits[1], 0)))
            bounds[test.attribute] = (least, most)
    for name, (low, high) in bounds.items():
        shares[name] = max(high - low + 1, 0) / BINS
    return sorted((share, name) for name, share in shares.items())
