"""Delta debugging: what is left still fails, and nothing of it can go."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from xenonode.simulation.shrink import shrink

ITEMS = st.lists(st.integers(0, 99), min_size=1, max_size=24, unique=True)


@given(ITEMS, st.data())
def test_what_is_left_is_what_it_took(items: list[int], data: st.DataObject) -> None:
    needed = set(data.draw(st.lists(st.sampled_from(items), unique=True)))
    assert shrink(items, lambda some: needed <= set(some)) == tuple(item for item in items if item in needed)


@given(ITEMS, st.data())
def test_the_result_fails_and_is_minimal_whatever_makes_it_fail(items: list[int], data: st.DataObject) -> None:
    alternatives = data.draw(st.lists(st.sets(st.sampled_from(items), min_size=1), min_size=1, max_size=4))

    def fails(some: Sequence[int]) -> bool:
        return any(each <= set(some) for each in alternatives)

    left = shrink(items, fails)
    assert fails(left)
    for place in range(len(left)):
        assert not fails(left[:place] + left[place + 1 :])


@given(ITEMS)
def test_nothing_is_tried_twice_and_order_is_kept(items: list[int]) -> None:
    tried: list[tuple[int, ...]] = []

    def fails(some: Sequence[int]) -> bool:
        tried.append(tuple(some))
        return {items[0], items[-1]} <= set(some)

    left = shrink(items, fails)
    assert len(tried) == len(set(tried))
    assert list(left) == [item for item in items if item in left]
