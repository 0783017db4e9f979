"""Fewer faults that still fail: delta debugging over a list of injections. Pure.

Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002): ddmin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")


def shrink(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """A subsequence that fails, of which no single item can be left out; `items` themselves must fail.

    Nothing is tried twice, and the empty list is tried first: what fails without any fault needs none.
    """
    known: dict[tuple[int, ...], bool] = {}

    def still_fails(places: tuple[int, ...]) -> bool:
        if places not in known:
            known[places] = fails([items[place] for place in places])
        return known[places]

    if still_fails(()):
        return ()
    places, parts = tuple(range(len(items))), 2
    while len(places) >= 2:
        parts = min(parts, len(places))
        bounds = [len(places) * part // parts for part in range(parts + 1)]
        chunks = [places[low:high] for low, high in pairwise(bounds)]
        rests = [tuple(place for place in places if place not in set(chunk)) for chunk in chunks]
        reduced = next((chunk for chunk in chunks if still_fails(chunk)), None)
        if reduced is not None:
            places, parts = reduced, 2
            continue
        rest = next((rest for rest in rests if still_fails(rest)), None) if parts > 2 else None
        if rest is not None:
            places, parts = rest, parts - 1
        elif parts >= len(places):
            break
        else:
            parts *= 2
    return tuple(items[place] for place in places)
