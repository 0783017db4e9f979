"""Routing tables from the global membership: what joins would have led to, computed at once with numpy.

Decides whom a node that has lived for a while knows: every member of each subtree that it is not in, or K of them,
one from each of K equal parts of the subtree. Leaves out what only churn studies need: joins, and tables with gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dht.routing import ID_BITS, K

_LEADING_BITS = 64  # of ids, which are random: that two of 10^6 members share so many has a chance of 3 in 10^8


def known_members(numbers: Sequence[int], seed: int) -> Iterator[tuple[int, list[int]]]:
    """For each of the members' ids: its place in `numbers`, and the places of those whom it knows, farthest first."""
    whole = np.array([number >> ID_BITS - _LEADING_BITS for number in numbers], dtype=np.uint64)
    order = np.argsort(whole, kind="stable")
    leading = whole[order]
    levels = [_subtree(leading, bits, seed) for bits in range(_deepest(leading) + 1)]
    everything: NDArray[np.int64] = np.hstack(levels)
    for place, row in enumerate(everything):
        yield int(order[place]), order[row[row >= 0]].tolist()


def _deepest(leading: NDArray[np.uint64]) -> int:
    """The most leading bits that any two members share."""
    if len(leading) < 2:
        return 0
    return _LEADING_BITS - int((leading[1:] ^ leading[:-1]).min()).bit_length()


def _subtree(leading: NDArray[np.uint64], bits: int, seed: int) -> NDArray[np.int64]:
    """Whom each member knows of those who share exactly `bits` leading bits with it; -1 where there are no more."""
    shift = np.uint64(_LEADING_BITS - 1 - bits)
    other = (leading >> shift) ^ np.uint64(1)
    first = np.searchsorted(leading, other << shift, "left").astype(np.int64)
    end = np.searchsorted(leading, (other << shift) | ((np.uint64(1) << shift) - np.uint64(1)), "right")
    size = (end.astype(np.int64) - first)[:, None]
    parts = np.arange(K + 1, dtype=np.int64)[None, :]
    edges = size * parts // K
    chances = _chances(seed + bits, len(leading) * K).reshape(len(leading), K)
    drawn = edges[:, :-1] + (chances * (edges[:, 1:] - edges[:, :-1])).astype(np.int64)
    few = np.where(parts[:, :-1] < size, parts[:, :-1], -1)
    chosen = np.where(size > K, drawn, few)
    return np.where(chosen >= 0, chosen + first[:, None], -1)


def _chances(seed: int, count: int) -> NDArray[np.float64]:
    """Numbers of 0 to 1, without 1: SplitMix64 (Steele and others 2014), the same with every version of numpy."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed & (1 << 64) - 1)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(11)) / np.float64(1 << 53)
