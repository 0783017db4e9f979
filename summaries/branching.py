"""One choice for each of several members, with the least total cost: branch and bound over candidate lists.

Decides the optimum exactly: every member gets another server, relations hold on the candidates' coordinates (Euclid's
distance plus both heights, in integers), and no cheaper choice exists among the candidates. Candidates are sorted by
cost, so that a set of them is one integer whose lowest bit is its cheapest; a choice for one member leaves the others
those that go with it, and a branch ends where the cheapest that are left cannot beat what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from summaries.filter import Coordinate

MAX_STEPS = 200_000  # choices tried: a second or two; a group of five among 64 candidates each takes some hundred


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server that one member could have, and what that costs (less is better)."""

    id: int
    cost: int
    place: Coordinate


@dataclass(frozen=True, slots=True)
class Relation:
    """Members `first` and `second` are from `least_us` to `most_us` (None: any distance) apart."""

    first: int
    second: int
    least_us: int = 0
    most_us: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """For each member the place in its sorted candidates; `total` is the sum of costs."""

    places: tuple[int, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Optimum:
    """`choice` is the best that was found, None when there is none; `proved`: the whole tree was covered."""

    choice: Choice | None
    proved: bool
    steps: int


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """By cost, equal ones by id: the order that places count in."""
    return sorted(candidates, key=lambda one: (one.cost, one.id))


def optimum(
    candidates: Sequence[Sequence[Candidate]],
    relations: Sequence[Relation],
    twins: Sequence[int] = (),
    max_steps: int = MAX_STEPS,
) -> Optimum:
    """The cheapest choice. `twins[i]` names members that are interchangeable (and have the same candidates) alike."""
    tree = _Tree([in_order(each) for each in candidates], relations, twins or range(len(candidates)), max_steps)
    left = [(1 << len(each)) - 1 for each in tree.lists]
    if all(left) or not left:
        tree.descend(left, {}, 0)
    return Optimum(tree.best, tree.steps <= max_steps, tree.steps)


class _Tree:
    def __init__(
        self, lists: list[list[Candidate]], relations: Sequence[Relation], twins: Sequence[int], max_steps: int
    ) -> None:
        self.lists, self.steps = lists, 0
        self.best: Choice | None = None
        self._twins, self._max_steps = twins, max_steps
        self._costs = [[one.cost for one in each] for each in lists]
        self._ids = [np.array([one.id for one in each], dtype=np.uint64) for each in lists]
        self._places = [np.array([one.place for one in each], dtype=np.int64).reshape(-1, 4) for each in lists]
        self._between: dict[tuple[int, int], list[Relation]] = {}
        for one in relations:
            self._between.setdefault((one.first, one.second), []).append(one)
            self._between.setdefault((one.second, one.first), []).append(one)
        self._known: dict[tuple[int, int, int], int] = {}

    def descend(self, left: list[int], chosen: dict[int, int], cost: int) -> None:
        """Choose for the member with the fewest candidates left, cheapest first."""
        open_ = [member for member in range(len(self.lists)) if member not in chosen]
        if not open_:
            self.best = Choice(tuple(chosen[member] for member in range(len(self.lists))), cost)
            return
        floors = {member: self._costs[member][_lowest(left[member])] for member in open_}
        member = min(open_, key=lambda one: (left[one].bit_count(), one))
        others, rest = [one for one in open_ if one != member], cost + sum(floors.values()) - floors[member]
        mask = left[member]
        while mask:
            place = _lowest(mask)
            mask &= mask - 1
            here = self._costs[member][place]
            if self.best is not None and rest + here >= self.best.total:
                return  # the ones after it cost no less
            self.steps += 1
            if self.steps > self._max_steps:
                return
            narrowed = list(left)
            for other in others:
                narrowed[other] &= self._compatible(member, place, other)
            if not all(narrowed[other] for other in others):
                continue
            bound = cost + here + sum(self._costs[other][_lowest(narrowed[other])] for other in others)
            if self.best is None or bound < self.best.total:
                self.descend(narrowed, {**chosen, member: place}, cost + here)

    def _compatible(self, member: int, place: int, other: int) -> int:
        """Which candidates of another member go with this choice."""
        key = (member, place, other)
        if key not in self._known:
            good = self._ids[other] != self._ids[member][place]
            mine, theirs = self._places[member][place], self._places[other]
            for one in self._between.get((member, other), ()):
                square = ((theirs[:, :3] - mine[:3]) ** 2).sum(axis=1)
                heights = theirs[:, 3] + mine[3]
                # isqrt(square) + heights against a bound, without roots: exact in 64 bits.
                need = np.maximum(one.least_us - heights, 0)
                good &= square >= need * need
                if one.most_us is not None:
                    room = one.most_us - heights
                    good &= (room >= 0) & (square < (room + 1) ** 2)
            found = int.from_bytes(np.packbits(good, bitorder="little").tobytes(), "little")
            if self._twins[member] == self._twins[other]:  # of two alike, the first has the cheaper
                low = (1 << place) - 1
                found &= low if other < member else ~(low | 1 << place)
            self._known[key] = found
        return self._known[key]


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
