"""A group's placement against brute force over all choices."""

from __future__ import annotations

from itertools import product
from math import isqrt
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from summaries.branching import Candidate, Choice, Relation, in_order, optimum
from summaries.cost import CostTest
from summaries.filter import Comparison, Coordinate, furthest
from summaries.group import Between, Group, GroupSearch, Member
from summaries.query import AllOf, Near

places = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(0, 4))
candidates = st.lists(
    st.builds(Candidate, st.integers(0, 9), st.integers(0, 20), places), max_size=6, unique_by=lambda one: one.id
)
relations = st.builds(
    Relation, st.integers(0, 3), st.integers(0, 3), st.integers(0, 30), st.none() | st.integers(10, 60)
)


def distance(a: Candidate, b: Candidate) -> int:
    return isqrt(sum((a.place[axis] - b.place[axis]) ** 2 for axis in range(3))) + a.place[3] + b.place[3]


def brute(lists: list[list[Candidate]], among: list[Relation]) -> int | None:
    best = None
    for chosen in product(*lists):
        if len({one.id for one in chosen}) < len(chosen):
            continue
        far = [(one, distance(chosen[one.first], chosen[one.second])) for one in among]
        if all(one.least_us <= d and (one.most_us is None or d <= one.most_us) for one, d in far):
            total = sum(one.cost for one in chosen)
            best = total if best is None else min(best, total)
    return best


@settings(max_examples=300, deadline=None)
@given(st.lists(candidates, min_size=1, max_size=4), st.lists(relations, max_size=5))
def test_the_choice_is_the_cheapest_of_all(lists: list[list[Candidate]], drawn: list[Relation]) -> None:
    among = [one for one in drawn if one.first != one.second and max(one.first, one.second) < len(lists)]
    found = optimum(lists, among)
    wanted = brute(lists, among)
    assert found.proved and (found.choice.total if found.choice else None) == wanted
    if found.choice:
        assert check(lists, among, found.choice)


def check(lists: list[list[Candidate]], among: list[Relation], choice: Choice) -> bool:
    chosen = [[in_order(each)[at]] for each, at in zip(lists, choice.places)]
    return brute(chosen, among) == choice.total


@settings(max_examples=100, deadline=None)
@given(candidates, st.integers(1, 4), st.integers(0, 30))
def test_copies_that_are_alike_are_not_tried_in_every_order(each: list[Candidate], count: int, least: int) -> None:
    lists = [each] * count
    among = [Relation(i, j, least) for i in range(count) for j in range(i + 1, count)]
    found = optimum(lists, among, [0] * count)
    assert (found.choice.total if found.choice else None) == brute(lists, among)


def test_a_choice_that_takes_too_long_is_told_as_not_proved() -> None:
    each = [Candidate(id, id % 7, (id * 37 % 1000, id * 91 % 1000, 0, 0)) for id in range(200)]
    among = [Relation(i, j, 700) for i in range(6) for j in range(i + 1, 6)]
    assert not optimum([each] * 6, among, max_steps=50).proved


def world(group: Group, servers: dict[str, list[Candidate]], widths: tuple[int | None, ...]) -> tuple[GroupSearch, int]:
    search, asked = GroupSearch(group, widths), 0
    while not search.finished:
        for at, query in search.wanted():
            asked += 1
            search.take(at, in_order(servers[group.members[at].name])[: query.limit])
    return search, asked


@settings(max_examples=100, deadline=None)
@given(candidates, candidates, st.integers(0, 40), st.integers(1, 2))
def test_widening_ends_with_the_optimum_over_all_servers(
    web: list[Candidate], db: list[Candidate], least: int, count: int
) -> None:
    group = Group(
        (
            Member("web", Comparison("cores", ">=", 1), (100, 0, 0), count=count),
            Member("db", Comparison("cores", ">=", 2), (200, 1 << 30, 0)),
        ),
        (Between("web", "db", least), Between("web", "web", 5)),
    )
    search, _ = world(group, {"web": web, "db": db}, (1, 3, None))
    lists = [web] * count + [db]
    among = [Relation(at, count, least) for at in range(count)]
    among += [Relation(0, 1, 5)] if count == 2 else []
    result = search.result
    assert result.proved
    assert (result.total if result.placed else None) == brute(lists, among)
    assert len(result.placed) in (0, count + 1)


def test_what_is_enough_is_not_widened() -> None:
    servers = [Candidate(id, id, (id, 0, 0, 0)) for id in range(100)]
    group = Group((Member("one", Comparison("cores", ">=", 1), (1, 0, 0)),))
    search, asked = world(group, {"one": servers}, (64, 512, None))
    assert asked == 1 and search.result.proved and search.result.total == 0
    assert search.result.looked_at == (64,)


hosts = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5), st.integers(0, 4))


def nearby(group: Group, servers: dict[str, list[Candidate]], widths: tuple[int | None, ...]) -> GroupSearch:
    """As `world`, but the queries' places and costs are held against every server."""
    search = GroupSearch(group, widths)
    while not search.finished:
        for at, query in search.wanted():
            parts = query.where.parts if isinstance(query.where, AllOf) else (query.where,)
            found = in_order(servers[group.members[at].name])
            for one in parts:
                if isinstance(one, Near):
                    points = [cast(Coordinate, host) for host in one.hosts]
                    found = [each for each in found if furthest(points, each.place) <= one.limit_us]
                elif isinstance(one, CostTest):
                    found = [each for each in found if each.cost <= one.limit]
            search.take(at, found[: query.limit])
    return search


@settings(max_examples=300, deadline=None)
@given(candidates, candidates, hosts, st.integers(0, 60), st.integers(0, 40), st.integers(1, 2), st.integers(0, 9))
def test_what_no_choice_can_have_is_not_looked_at_and_the_optimum_stays(
    front: list[Candidate], store: list[Candidate], host: Coordinate, limit: int, most: int, count: int, least: int
) -> None:
    group = Group(
        (
            Member("front", Comparison("cores", ">=", 1), (100, 0, 0), Near((host,), limit), count=count),
            Member("store", Comparison("cores", ">=", 2), (200, 1 << 30, 0)),
        ),
        (Between("front", "store", 0, most), Between("front", "front", least)),
    )
    result = nearby(group, {"front": front, "store": store}, (1, 3, None)).result
    close = [one for one in front if furthest((host,), one.place) <= limit]
    among = [Relation(at, count, 0, most) for at in range(count)] + ([Relation(0, 1, least)] if count == 2 else [])
    assert result.proved
    assert (result.total if result.placed else None) == brute([close] * count + [store], among)


def test_a_group_of_which_one_part_cannot_be_placed_is_given_up_at_once() -> None:
    near = Member("near", Comparison("cores", ">=", 1), (1, 0, 0), count=2)
    group = Group((near, Member("any", Comparison("cores", ">=", 1), (1, 0, 0))), (Between("near", "near", 1_000),))
    far = [Candidate(id, id, (id, 0, 0, 0)) for id in range(1_000)]
    search, asked = world(group, {"near": far[:5], "any": far}, (64, 512, None))
    assert search.result.proved and not search.result.placed and asked == 2
