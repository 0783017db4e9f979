"""Building a whole trie at once from its adverts: what publishing them one after another leads to, without its cost.

Decides nothing of its own: leaves take the adverts in their order and split by the holders' rule (node.splits_for),
so the trie is the one that the same publications would have grown. For benchmarks and simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from summaries.node import Entry, TrieNode, splits_for
from summaries.point import Point, Rows
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix, destination, keys_of
from summaries.zone import Zone

FOREVER_MS = 1 << 52  # entries of a bulk load do not age
Advertised = tuple[Point, bytes]


def build(
    schema: Schema,
    dimension: str,
    adverts: Sequence[Advertised],
    capacity: int,
    holders: Callable[[Prefix], Sequence[bytes]],
) -> dict[Prefix, TrieNode]:
    """Every leaf and aggregation point of one dimension's trie. `holders` names who keeps a prefix."""
    shape: dict[Prefix, int] = {}  # split bits by anchor
    leaves: dict[Prefix, list[tuple[int, int]]] = {ROOT: []}
    for place, (point, _) in enumerate(adverts):
        for key in keys_of(schema, dimension, point):
            _add(shape, leaves, ROOT, [(key, place)], capacity)
    nodes: dict[Prefix, TrieNode] = {}
    for prefix in sorted(leaves):
        node = nodes[prefix] = TrieNode(prefix, schema, Rows(schema), ready=True)
        for key, place in leaves[prefix]:
            point, raw = adverts[place]
            node.rows.put(point, key, raw)
        node.zone = Zone.of_rows(node.rows)
    for prefix in sorted(leaves):
        anchor = prefix.parent
        while anchor is not None and anchor not in nodes:
            nodes[anchor] = TrieNode(anchor, schema, Rows(schema), splits=shape[anchor], ready=True)
            anchor = anchor.parent
    for prefix in sorted(nodes, key=lambda one: (-one.length, one.bits)):  # children first
        parent = nodes[prefix.parent] if prefix.parent is not None else None
        if parent is not None:
            zone = nodes[prefix].zone
            parent.entries[prefix] = {one: Entry(1, 1, zone, FOREVER_MS) for one in holders(prefix)}
            parent.zone = parent.zone.union(zone)
    for node in nodes.values():
        node.claimed, node.settled, node.version = node.zone, True, 1
    return nodes


def _add(
    shape: dict[Prefix, int],
    leaves: dict[Prefix, list[tuple[int, int]]],
    start: Prefix,
    postings: list[tuple[int, int]],
    capacity: int,
) -> None:
    """Put postings where they belong under `start`, and split what overflows."""
    filled: dict[Prefix, None] = {}
    for key, place in postings:
        where = start
        while (deeper := destination(where, shape.get(where.anchor, 0), key)) != where:
            where = deeper
        leaves.setdefault(where, []).append((key, place))
        filled[where] = None
    for prefix in filled:
        held = leaves[prefix]
        bits = splits_for(prefix, [key for key, _ in held], capacity) if len(held) > capacity else 0
        if bits:
            shape[prefix.anchor] = shape.get(prefix.anchor, 0) | bits
            del leaves[prefix]
            _add(shape, leaves, prefix, held, capacity)
