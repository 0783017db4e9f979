"""Building a whole trie at once from its adverts: what publishing them one after another leads to, without its cost.

Decides nothing of its own: a prefix is split where the holders' rule would have split it (node.splits_for),
so the trie is the one that the same publications would have grown. For benchmarks and simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from summaries.node import Entry, TrieNode
from summaries.point import Point, Rows
from summaries.schema import Schema
from summaries.trie import KEY_BITS, ROOT, Prefix, keys_of, split_bit
from summaries.zone import Zone

FOREVER_MS = 1 << 52  # entries of a bulk load do not age
Advertised = tuple[Point, bytes]


def build(
    schema: Schema,
    dimension: str,
    adverts: Sequence[Advertised],
    capacity: int,
    holders: Callable[[Prefix], Sequence[bytes]],
    heard_ms: int = FOREVER_MS,
) -> dict[Prefix, TrieNode]:
    """Every leaf and aggregation point of one dimension's trie. `holders` names who keeps a prefix.

    `heard_ms` is when the children were heard last.
    """
    own = [keys_of(schema, dimension, point) for point, _ in adverts]
    keys: NDArray[np.uint64] = np.array([key for some in own for key in some], dtype=np.uint64)
    places = np.repeat(np.arange(len(adverts)), [len(some) for some in own])
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    shape: dict[Prefix, int] = {}  # split bits by anchor
    nodes: dict[Prefix, TrieNode] = {}
    leaves = _leaves(keys, capacity, shape)
    for prefix, first, end in leaves:
        node = nodes[prefix] = TrieNode(prefix, schema, Rows(schema), ready=True)
        for key, place in zip(keys[first:end].tolist(), places[first:end].tolist()):
            point, raw = adverts[place]
            node.rows.put(point, key, raw)
        node.zone = Zone.of_rows(node.rows)
    for prefix, _, _ in leaves:
        anchor = prefix.parent
        while anchor is not None and anchor not in nodes:
            nodes[anchor] = TrieNode(anchor, schema, Rows(schema), splits=shape[anchor], ready=True)
            anchor = anchor.parent
    for prefix in sorted(nodes, key=lambda one: (-one.length, one.bits)):  # children first
        parent = nodes[prefix.parent] if prefix.parent is not None else None
        if parent is not None:
            zone = nodes[prefix].zone
            parent.entries[prefix] = {one: Entry(1, 1, zone, heard_ms) for one in holders(prefix)}
            parent.zone = parent.zone.union(zone)
    for node in nodes.values():
        node.claimed, node.settled, node.version = node.zone, True, 1
    return nodes


def _leaves(keys: NDArray[np.uint64], capacity: int, shape: dict[Prefix, int]) -> list[tuple[Prefix, int, int]]:
    """The leaves that hold something, with their part of the sorted keys; splits are noted in `shape`.

    Rows are only added, so whichever came first: a prefix is split when more than a leaf's capacity are below it.
    """
    found, work = [], [(ROOT, 0, len(keys))]
    while work:
        prefix, first, end = work.pop()
        if end - first <= capacity or prefix.length == KEY_BITS:
            if end > first or prefix == ROOT:
                found.append((prefix, first, end))
            continue
        shape[prefix.anchor] = shape.get(prefix.anchor, 0) | split_bit(prefix)
        middle = first + int(np.searchsorted(keys[first:end], np.uint64(prefix.child(1).first)))
        work += [(prefix.child(1), middle, end), (prefix.child(0), first, middle)]
    return found
