"""Groups of servers to be placed, judged by plain columns: who could be each member, and what is the least total.

Decides what is due: one choice a group, where there is one, as cheap as the best among all adverts. Who matches is told
by columns that share nothing with the search; the choice among them is the client's own (summaries.branching), which
other tests hold against brute force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np

from summaries.group import Group, GroupResult, Member
from summaries.point import Point
from summaries.query import Near, Query
from xenonode.simulation.recall_bench.questions import Columns, Mask
from xenonode.simulation.search_bench.network import Cost
from xenonode.simulation.search_bench.placing import PLACEMENT, draw_groups, place_group

ALL = (None,)
AMOUNTS = ("cpu.available", "memory.available", "disk.available")


class Groups:
    """The truth about groups over one set of adverts."""

    def __init__(self, columns: Columns, points: Mapping[int, Point]) -> None:
        self._columns, self._points = columns, points
        self._linux = columns.offers("os", "linux")

    def draw(self, rng: Random) -> Group:
        """One group of the benchmark's mix."""
        return draw_groups(rng, 1)[0]

    def verdict(self, group: Group, answered: Callable[[Query, Cost], list[Point]]) -> tuple[int, int, int, int]:
        """Due, found and false, and how many questions it took; with whoever answers the members' queries."""
        cost, masks = Cost(), {member.name: self._mask(member) for member in group.members}
        best = self._best(group, masks)
        mine = place_group(group, answered, cost)
        place = {id: at for at, id in enumerate(self._columns.ids)}
        wrong = sum(not masks[one.member][place[one.id]] for one in mine.placed)
        wrong += bool(mine.placed) and (not best.placed or mine.total < best.total)
        due = int(bool(best.placed))
        return due, int(due and mine.proved and mine.total == best.total), wrong, cost.questions

    def fewest(self, group: Group) -> int:
        """How many servers match the member that has the fewest."""
        return min(int(self._mask(member).sum()) for member in group.members)

    def _best(self, group: Group, masks: Mapping[str, Mask]) -> GroupResult:
        members = {member.amounts: member.name for member in group.members}  # no two of the mix need the same

        def told(query: Query, cost: Cost) -> list[Point]:
            mask = masks[members[query.order.amounts]]
            return [self._points[self._columns.ids[at]] for at in np.flatnonzero(mask)]

        return place_group(group, told, Cost(), ALL)

    def _mask(self, member: Member) -> Mask:
        mask = self._columns.dollars.copy()
        for name, amount in zip(AMOUNTS, member.amounts):
            mask &= self._columns.number[name] >= amount
        if _asks_linux(member.where):
            mask &= self._linux
        if isinstance(member.near, Near):
            (host,) = (one for one in member.near.hosts if not isinstance(one, str))
            mask &= self._columns.distance(host) <= member.near.limit_us
        return mask


def _asks_linux(where: Any) -> bool:
    return getattr(where, "value", None) == "linux"


__all__ = ["PLACEMENT", "Groups"]
