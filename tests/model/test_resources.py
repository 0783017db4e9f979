"""The arithmetic of resources, usage and what it costs."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenonode.model.errors import ModelError
from xenonode.model.resources import (
    GIB,
    NANO,
    NO_RESOURCES,
    NO_USAGE,
    Prices,
    Resources,
    Usage,
    due_nano,
    rate_nano_per_hour,
)

AMOUNT = st.integers(0, 2**50)
RESOURCES = st.builds(Resources, st.integers(0, 2**31), AMOUNT, AMOUNT, AMOUNT)
PRICE = st.integers(0, 10**13)
PRICES = st.builds(Prices, st.just("USD"), PRICE, PRICE, PRICE, PRICE)
COUNTER = st.none() | st.integers(0, 2**60)
USAGE = st.builds(Usage, *(7 * [COUNTER]))
FIELDS = Usage.__slots__


def exact_due(usage: Usage, prices: Prices) -> Fraction:
    """The same in exact fractions, without rounding."""
    moved = (usage.net_rx_bytes or 0) + (usage.net_tx_bytes or 0)
    return (
        Fraction((usage.cpu_ns or 0) * prices.cpu_nano_per_hour, 3600 * 10**9)
        + Fraction((usage.memory_byte_s or 0) * prices.memory_nano_per_gib_hour, GIB * 3600)
        + Fraction((usage.disk_byte_s or 0) * prices.disk_nano_per_gib_hour, GIB * 3600)
        + Fraction(moved * prices.net_nano_per_gib, GIB)
    )


@given(USAGE, PRICES)
def test_due_is_exact_but_for_one_rounding_down_of_each_resource(usage: Usage, prices: Prices) -> None:
    assert 0 <= exact_due(usage, prices) - due_nano(usage, prices) < 4


@given(USAGE, st.lists(st.integers(0, 2**40), min_size=7, max_size=7), PRICES)
def test_due_never_falls_while_counters_rise(usage: Usage, more: list[int], prices: Prices) -> None:
    later = Usage(*(None if (now := getattr(usage, name)) is None else now + add for name, add in zip(FIELDS, more)))
    assert due_nano(later, prices) >= due_nano(usage, prices)
    assert later.fell_below(usage) == ()


@given(USAGE, st.sampled_from(FIELDS))
def test_a_counter_that_falls_or_vanishes_is_named(usage: Usage, name: str) -> None:
    values = {field: getattr(usage, field) for field in FIELDS}
    before = Usage(**{**values, name: 5})
    assert Usage(**{**values, name: 4}).fell_below(before) == (name,)
    assert Usage(**{**values, name: None}).fell_below(before) == (name,)


def test_examples_of_due() -> None:
    prices = Prices("USD", NANO, NANO, NANO, NANO)
    assert due_nano(NO_USAGE, prices) == 0
    assert due_nano(Usage(3600 * 10**9, None, None, None, None, None, None), prices) == NANO
    assert due_nano(Usage(0, GIB * 3600, 0, GIB // 2, GIB // 2, 9, 9), prices) == 2 * NANO
    assert due_nano(Usage(3599, 0, 0, 0, 0, 0, 0), Prices("USD", 10**9, 0, 0, 0)) == 0


@given(RESOURCES, PRICES)
def test_an_hour_of_full_use_never_costs_more_than_the_rate(resources: Resources, prices: Prices) -> None:
    moved = resources.net_bit_per_s * 3600 // 8
    hour = Usage(
        resources.cpu_ms_per_s * 3600 * 10**6,
        resources.memory_bytes * 3600,
        resources.disk_bytes * 3600,
        moved,
        moved,
        0,
        0,
    )
    assert due_nano(hour, prices) <= rate_nano_per_hour(resources, prices)


@given(RESOURCES, RESOURCES)
def test_what_is_added_can_be_taken_away_again(one: Resources, other: Resources) -> None:
    assert (one + other).minus(other) == one
    assert one + NO_RESOURCES == one


@given(RESOURCES, RESOURCES)
def test_resources_lack_exactly_what_they_have_less_of(one: Resources, other: Resources) -> None:
    if one.lacks(other):
        with pytest.raises(ModelError):
            one.minus(other)
    else:
        assert one.minus(other) + other == one


@pytest.mark.parametrize("bad", [-1, 2**63])
def test_amounts_beyond_64_bits_or_below_zero_are_refused(bad: int) -> None:
    with pytest.raises(ModelError):
        Resources(bad, 0, 0, 0)
    with pytest.raises(ModelError):
        Prices("USD", bad, 0, 0, 0)
    with pytest.raises(ModelError):
        Usage(bad, 0, 0, 0, 0, 0, 0)
