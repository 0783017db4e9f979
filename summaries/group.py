"""Placing a group: several servers at once, each for a purpose, apart from or near one another, for the least money.

Decides how many candidates of each member are looked at, and when that is enough. The cheapest 64 of each are found in
parallel, the best choice among them is exact (branching.py), and it is the best of all where no server that was not
listed could lower the total; else, and before saying that there is none, 512 are looked at, then all. No member looks
where its servers could be in no choice: too far from the hosts of those that it must be near, or, once there is a
choice, dearer than any that could lower its total.

    Group -> wanted() -> queries;  take(member, ...) for each;  until finished -> result
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from summaries.branching import Candidate, Choice, Relation, in_order, optimum
from summaries.cost import CostTest
from summaries.errors import LocalError
from summaries.filter import Comparison, Coordinate, furthest
from summaries.query import Condition, Near, Query, conjunction
from summaries.rank import LAST, Order

WIDTHS = (64, 512, None)  # candidates a member; all is all that match
MAX_MEMBERS = 16  # servers in one group, copies counted


@dataclass(frozen=True, slots=True)
class Member:
    """One purpose: `count` servers of which each has `amounts` (CPU ms/s, memory bytes, disk bytes) free."""

    name: str
    where: Condition
    amounts: tuple[int, int, int]
    near: Near | None = None
    count: int = 1

    def query(self, currency: str, limit: int | None, *further: Condition) -> Query:
        """Servers that could have it, cheapest first."""
        names = ("cpu.available", "memory.available", "disk.available")
        needs = [Comparison(name, ">=", amount) for name, amount in zip(names, self.amounts) if amount]
        parts: list[Condition] = [self.where, *needs, Comparison("currency", "=", currency), *further]
        if self.near is not None:
            parts.append(self.near)
        return Query(conjunction(*parts), Order("cost", currency=currency, amounts=self.amounts), limit)


@dataclass(frozen=True, slots=True)
class Between:
    """Every server of one member and every other one of another (or the same) are so far apart."""

    first: str
    second: str
    least_us: int = 0
    most_us: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """See the module."""

    members: tuple[Member, ...]
    between: tuple[Between, ...] = ()
    currency: str = "USD"

    def __post_init__(self) -> None:
        names = [one.name for one in self.members]
        if not names or len(set(names)) != len(names):
            raise LocalError("a group has members, each with a name of its own")
        if sum(one.count for one in self.members) > MAX_MEMBERS or any(one.count < 1 for one in self.members):
            raise LocalError(f"a group has one to {MAX_MEMBERS} servers")
        for one in self.between:
            for name in (one.first, one.second):
                if name not in names:
                    raise LocalError(f"no member of the group is called {name!r}")
            if one.most_us is not None and one.most_us < one.least_us:
                raise LocalError(f"{one.first} and {one.second} cannot be nearer than they are apart")


@dataclass(frozen=True, slots=True)
class Placed:
    """One server of the answer: which copy of which member, by id, and its cost in nano-units an hour."""

    member: str
    copy: int
    id: int
    cost: int


@dataclass(frozen=True, slots=True)
class GroupResult:
    """`placed` is empty when there is none. `proved`: no other servers would cost less, or none would do.

    `scarce` names members for whom no server matches at all; `looked_at` says how many candidates each had.
    """

    placed: tuple[Placed, ...]
    total: int
    proved: bool
    scarce: tuple[str, ...]
    looked_at: tuple[int, ...]
    steps: int
    distances_us: tuple[tuple[int, ...], ...]


class GroupSearch:
    """One group's search. What a driver must do: run the queries that are wanted, and hand back what they found."""

    def __init__(self, group: Group, widths: Sequence[int | None] = WIDTHS) -> None:
        self._group, self._widths = group, widths
        self._level = [0] * len(group.members)
        self._found: list[list[Candidate] | None] = [None] * len(group.members)
        self._exhausted = [False] * len(group.members)
        self._implied = [_implied(group, member) for member in group.members]
        self._ceilings: dict[int, int] = {}  # what a server of a member may cost, since there is a choice
        self._owner = [at for at, one in enumerate(group.members) for _ in range(one.count)]
        self._steps = 0
        self._choice: Choice | None = None
        self._proved = self.finished = False

    def wanted(self) -> list[tuple[int, Query]]:
        """The queries to run now, each with its member's place."""
        members, currency = self._group.members, self._group.currency
        return [
            (at, member.query(currency, self._widths[self._level[at]], *self._implied[at], *self._affordable(at)))
            for at, member in enumerate(members)
            if self._found[at] is None and not self.finished
        ]

    def take(self, at: int, candidates: Sequence[Candidate], *, complete: bool = True) -> None:
        """What one query found; `complete`: nothing better was out of reach."""
        width = self._widths[self._level[at]]
        self._found[at] = in_order([one for one in candidates if one.cost < LAST])
        self._exhausted[at] = complete and (width is None or len(candidates) < width)
        if None not in self._found:
            self._decide()

    @property
    def result(self) -> GroupResult:
        lists = [each or [] for each in self._found]
        copies: dict[int, int] = {}
        placed, places = [], list[Coordinate]()
        for owner, at in zip(self._owner, self._choice.places if self._choice else ()):
            copies[owner] = copies.get(owner, 0) + 1
            one = lists[owner][at]
            placed.append(Placed(self._group.members[owner].name, copies[owner], one.id, one.cost))
            places.append(one.place)
        distances = tuple(tuple(0 if a is b else furthest((a,), b) for b in places) for a in places)
        scarce = tuple(one.name for one, found in zip(self._group.members, lists) if len(found) < one.count)
        total = self._choice.total if self._choice else 0
        looked_at = tuple(len(each) for each in lists)
        return GroupResult(tuple(placed), total, self._proved, scarce, looked_at, self._steps, distances)

    def _decide(self) -> None:
        lists = [each or [] for each in self._found]
        relations = [
            Relation(i, j, one.least_us, one.most_us)
            for one in self._group.between
            for i, first in enumerate(self._owner)
            for j, second in enumerate(self._owner)
            if (self._group.members[first].name, self._group.members[second].name) == (one.first, one.second)
            and (i < j if one.first == one.second else i != j)
        ]
        found = optimum([lists[owner] for owner in self._owner], relations, self._owner)
        self._steps += found.steps
        self._choice = found.choice
        helpful = self._could_help(lists, relations)
        self._proved = found.proved and not helpful
        more = [at for at in helpful if self._level[at] + 1 < len(self._widths)]
        if self._proved or not more:
            self.finished = True
            return
        for at in more:
            self._level[at] += 1
            self._found[at] = None
            if self._choice is not None:
                self._ceilings[at] = self._choice.total - _others_least(lists, self._owner, at)

    def _could_help(self, lists: list[list[Candidate]], relations: Sequence[Relation]) -> list[int]:
        """Members of whom a server that was not listed could make a choice possible, or cheaper."""
        if self._choice is None:
            for at in self._ceilings:  # there was a choice, and its servers changed meanwhile: dearer ones count again
                self._exhausted[at] = False
            self._ceilings.clear()
            return [] if self._hopeless(lists, relations) else self._open()
        total = self._choice.total
        return [at for at in self._open() if _others_least(lists, self._owner, at) + lists[at][-1].cost < total]

    def _open(self) -> list[int]:
        return [at for at, done in enumerate(self._exhausted) if not done]

    def _hopeless(self, lists: list[list[Candidate]], relations: Sequence[Relation]) -> bool:
        """Whether the members whose servers are all listed cannot be placed, whatever the others have to offer."""
        known = [place for place, owner in enumerate(self._owner) if self._exhausted[owner]]
        at = {place: number for number, place in enumerate(known)}
        among = [
            Relation(at[one.first], at[one.second], one.least_us, one.most_us)
            for one in relations
            if one.first in at and one.second in at
        ]
        owners = [self._owner[place] for place in known]
        found = optimum([lists[owner] for owner in owners], among, owners)
        self._steps += found.steps
        return found.proved and found.choice is None

    def _affordable(self, at: int) -> list[Condition]:
        amounts = self._group.members[at].amounts
        if at not in self._ceilings or not any(amounts):
            return []
        return [CostTest(amounts, "<=", self._ceilings[at], self._group.currency)]


def _others_least(lists: list[list[Candidate]], owners: Sequence[int], at: int) -> int:
    """What a choice costs at least, but for one server of a member."""
    return sum(lists[owner][0].cost for owner in owners) - lists[at][0].cost


def _implied(group: Group, member: Member) -> list[Condition]:
    """How far a member may be from the hosts of those that it must be near: the triangle inequality, in integers."""
    reach = {one.name: one.near for one in group.members if one.near is not None and one.name != member.name}
    found = {
        Near(near.hosts, near.limit_us + between.most_us + 1): None  # each distance is rounded down
        for between in group.between
        for name, near in reach.items()
        if between.most_us is not None and {between.first, between.second} == {member.name, name}
    }
    return list(found)
