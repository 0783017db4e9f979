"""Metering: linear in time, never double, never negative, never above what was agreed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypervisor.environment import State, Usage
from xenonode.model.resources import Prices, Resources, due_nano, rate_nano_per_hour
from xenonode.server import metering
from xenonode.server.metering import STEP_MAX_MS, Instant

AGREED = Resources(1000, 2**30, 2**33, 8_000_000)
PRICES = Prices("USD", 10**9, 10**8, 10**7, 10**8)
EPOCH_MS = 1_800_000_000_000


def sample(cpu_ns: int | None = 0, memory_bytes: int | None = 2**30, moved: int | None = 0) -> Usage:
    return Usage(0, State.RUNNING, cpu_ns, memory_bytes, moved, moved, moved, moved)


def at(ms: int, run: int = 1, skew_ms: int = 0) -> Instant:
    return Instant(run, ms, EPOCH_MS + ms + skew_ms)


def test_the_boot_is_not_billed() -> None:
    meter = metering.begin(sample(cpu_ns=3 * 10**9, moved=500), at(10_000))
    assert due_nano(metering.usage(meter), PRICES) == 0
    meter = metering.advance(meter, sample(cpu_ns=4 * 10**9, moved=700), at(12_000), AGREED)
    used = metering.usage(meter)
    assert (used.cpu_ns, used.net_rx_bytes) == (10**9, 200)
    assert used.memory_byte_s == 2 * 2**30 and used.disk_byte_s == 2 * 2**33


@given(st.lists(st.integers(1, 100_000), max_size=20), st.lists(st.booleans(), min_size=20, max_size=20))
def test_any_split_of_the_samples_gives_the_same_usage(steps: list[int], restarts: list[bool]) -> None:
    end = 100_000
    times = sorted({*(each for each in steps if each < end), end})
    straight = metering.advance(metering.begin(sample(), at(0)), sample(end * 700_000, moved=end), at(end), AGREED)
    meter, run = metering.begin(sample(), at(0)), 1
    for time, restart in zip(times, restarts):
        run += restart
        meter = metering.advance(meter, sample(time * 700_000, moved=time), at(time, run), AGREED)
    if meter.at.steady_ms == end:
        assert metering.usage(meter) == metering.usage(straight)


readings = st.tuples(
    st.integers(0, 20_000),  # passed
    st.integers(-7_200_000, 400_000_000),  # the wall clock's jump
    st.booleans(),  # restarted
    st.one_of(st.none(), st.integers(0, 10**12)),
    st.one_of(st.none(), st.integers(0, 2**32)),
    st.one_of(st.none(), st.integers(0, 2**40)),
    st.booleans(),  # held
)


@given(st.lists(readings, max_size=30))
def test_whatever_a_hypervisor_shows_counters_never_fall_and_the_agreed_rate_bounds_the_bill(
    steps: list[tuple[int, int, bool, int | None, int | None, int | None, bool]],
) -> None:
    now, run, elapsed = 0, 1, 0
    meter = metering.begin(sample(), at(0))
    before = metering.usage(meter)
    for passed, jump, restart, cpu, memory, moved, held in steps:
        now, run = now + passed, run + restart
        instant = at(now, run, jump)
        if held:
            elapsed += instant.since(meter.at)
        meter = metering.advance(meter, sample(cpu, memory, moved), instant, AGREED, held=held)
        used = metering.usage(meter)
        assert not used.fell_below(before)
        before = used
    assert due_nano(before, PRICES) <= rate_nano_per_hour(AGREED, PRICES) * elapsed // 3_600_000 + 1


def test_counters_that_fell_begin_anew_without_counting_twice() -> None:
    meter = metering.begin(sample(cpu_ns=100), at(0))
    for ms, shown in ((1000, 600), (2000, 50), (3000, 80)):
        meter = metering.advance(meter, sample(cpu_ns=shown), at(ms), AGREED)
    assert metering.usage(meter).cpu_ns == 500 + 50 + 30


def test_a_reading_from_before_the_last_one_changes_nothing() -> None:
    meter = metering.advance(metering.begin(sample(), at(0)), sample(cpu_ns=900), at(5000), AGREED)
    assert metering.advance(meter, sample(cpu_ns=500), at(4000), AGREED) is meter


def test_what_cannot_be_measured_is_none_and_never_zero() -> None:
    meter = metering.begin(sample(None, None, None), at(0))
    meter = metering.advance(meter, sample(None, None, None), at(1000), AGREED)
    used = metering.usage(meter)
    assert (used.cpu_ns, used.memory_byte_s, used.net_rx_bytes) == (None, None, None)
    meter = metering.advance(meter, sample(5 * 10**9), at(2000), AGREED)
    assert metering.usage(meter).cpu_ns == 0, "the first measurement is the baseline"


def test_a_restart_counts_the_time_between_by_the_wall_clock_but_not_more_than_the_bound() -> None:
    meter = metering.begin(sample(), at(0))
    soon = metering.advance(meter, sample(), Instant(2, 0, EPOCH_MS + 60_000), AGREED)
    late = metering.advance(meter, sample(), Instant(2, 0, EPOCH_MS + 10 * STEP_MAX_MS), AGREED)
    back = metering.advance(meter, sample(), Instant(2, 0, EPOCH_MS - 60_000), AGREED)
    assert [metering.usage(each).disk_byte_s for each in (soon, late, back)] == [
        60 * 2**33,
        STEP_MAX_MS // 1000 * 2**33,
        0,
    ]
