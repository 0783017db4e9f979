"""Searches of real peers across the world find what an index of all adverts has, in about the time of a few lookups."""

from __future__ import annotations

from xenonode.simulation.search_bench.wide_area import measure


def test_a_conjunction_across_the_world_is_right_and_costs_little_more_than_two_lookups() -> None:
    times = measure(7, 1_000, 40, 3, 256, strict=True)
    lookup, cold, warm = (sorted(one)[1] for one in (times.lookups, times.cold, times.warm))
    assert times.wrong == 0
    assert warm < cold < 3 * lookup
