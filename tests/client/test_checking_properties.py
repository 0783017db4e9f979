"""The client's check against the server's own meter: what is honest is signed, what is tampered with is not."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.environment import State
from hypervisor.environment import Usage as Sample
from xenonode.client.checking import SHARES_MAX, SLACK_MS, Accepted, Share, faults, resized
from xenonode.model.entity import CLOCK_TOLERANCE_MS
from xenonode.model.resources import NO_RESOURCES, Resources, Usage, due_nano
from xenonode.model.session import UsageRecord
from xenonode.server import metering
from xenonode.server.metering import Instant

from .test_checking import AGREEMENT, MIB, MINUTE, SHARE, START_MS, record

BIGGER = replace(SHARE, cpu_ms_per_s=500, memory_bytes=384 * MIB)
DAY_MS = 86_400_000
steps = st.lists(
    st.tuples(
        st.integers(100, 600_000),  # milliseconds to the next reading
        st.integers(0, 2_000),  # what the guest would like, in permille of its share
        st.sampled_from([None, None, None, SHARE, BIGGER]),  # a resize after it
    ),
    min_size=1,
    max_size=12,
)


def sample(at_ms: int, cpu_ns: int, net_bytes: int, memory_bytes: int) -> Sample:
    return Sample(at_ms, State.RUNNING, cpu_ns, memory_bytes, net_bytes, net_bytes, 0, 0)


def honest(walk: list[tuple[int, int, Resources | None]]) -> list[tuple[UsageRecord, tuple[Share, ...]]]:
    """Records that a server's meter gives for this walk, each with the shares that the client knows by then."""
    now_ms, shares, agreed = START_MS, (Share(AGREEMENT.made_ms, SHARE),), SHARE
    cpu_ns = net_bytes = 0
    meter = metering.begin(sample(0, 0, 0, agreed.memory_bytes), Instant(1, now_ms, now_ms))
    found, previous = [], None
    for seq, (passed_ms, wish, wanted) in enumerate(walk, 1):
        now_ms += passed_ms
        cpu_ns += agreed.cpu_ms_per_s * passed_ms * wish  # permille of a share for some milliseconds, in nanoseconds
        net_bytes += agreed.net_bit_per_s * passed_ms * wish // 8_000_000
        reading = sample(now_ms, cpu_ns, net_bytes, agreed.memory_bytes)
        meter = metering.advance(meter, reading, Instant(1, now_ms, now_ms), agreed)
        used = metering.usage(meter)
        made = UsageRecord(bytes(16), seq, used, due_nano(used, AGREEMENT.prices), now_ms, previous, b"", False)
        found.append((made, shares))
        previous = id_of(made)
        if wanted is not None:
            agreed, shares = wanted, resized(shares, wanted, now_ms)
    return found


def id_of(made: UsageRecord) -> bytes:
    return made.seq.to_bytes(16, "big")


def checked(made: UsageRecord, shares: tuple[Share, ...], last: UsageRecord | None, id: bytes = b"") -> tuple[str, ...]:
    accepted = None if last is None else Accepted(last, id_of(last))
    return faults(made, id or id_of(made), AGREEMENT, shares, START_MS, made.until_ms, accepted)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_an_honest_sequence_is_always_signed_for(walk: list[tuple[int, int, Resources | None]]) -> None:
    last = None
    for made, shares in honest(walk):
        assert checked(made, shares, last) == ()
        last = made


@settings(max_examples=150, deadline=None)
@given(steps, st.data())
def test_an_honest_sequence_with_gaps_is_signed_for_too(
    walk: list[tuple[int, int, Resources | None]], data: st.DataObject
) -> None:
    last = None
    for made, shares in honest(walk):
        if data.draw(st.booleans()):
            assert checked(made, shares, last) == ()
            last = made


@settings(max_examples=150, deadline=None)
@given(steps, st.data())
def test_whatever_is_tampered_with_is_refused(
    walk: list[tuple[int, int, Resources | None]], data: st.DataObject
) -> None:
    records = honest(walk)
    index = data.draw(st.integers(0, len(records) - 1))
    made, shares = records[index]
    last = records[index - 1][0] if index else None
    usage, less = made.usage, data.draw(st.integers(1, 10**9))
    kinds = ["due", "cpu", "memory", "net", "future"]
    kinds += ["previous", "seq", "fell", "earlier", "other id"] if last is not None else []
    kind = data.draw(st.sampled_from(kinds))
    id = b""
    if kind == "due":
        bad = replace(made, due_nano=max(0, made.due_nano + data.draw(st.sampled_from([-less, less]))))
        if bad == made:
            return
    elif kind in ("cpu", "memory", "net"):
        name = {"cpu": "cpu_ns", "memory": "memory_byte_s", "net": "net_rx_bytes"}[kind]
        elapsed_ms = made.until_ms - START_MS + SLACK_MS
        most = max(BIGGER.cpu_ms_per_s * 1_000, BIGGER.memory_bytes // 1_000, BIGGER.net_bit_per_s // 8_000)
        bad = priced(made, replace(usage, **{name: 2 * most * elapsed_ms}))
    elif kind == "future":
        bad = replace(made, until_ms=made.until_ms + CLOCK_TOLERANCE_MS + less)
        found = faults(bad, id_of(bad), AGREEMENT, shares, START_MS, made.until_ms, None)
        assert any("in the future" in each for each in found)
        return
    elif kind == "previous":
        bad = replace(made, previous=b"?" * 16)
    elif kind == "seq":
        bad = replace(made, seq=last.seq, previous=None if last.seq == 1 else b"?" * 16)
        id = b"!" * 16
    elif kind == "fell":
        if not last.usage.cpu_ns:
            return
        bad = priced(made, replace(usage, cpu_ns=max(0, last.usage.cpu_ns - less)))
    elif kind == "earlier":
        bad = replace(made, until_ms=last.until_ms - less)
    else:
        bad, id = replace(last, due_nano=last.due_nano), b"!" * 16
    assert checked(bad, shares, last, id)


def priced(made: UsageRecord, usage: Usage) -> UsageRecord:
    """As a server that overcharges would write it: the sum fits the counters."""
    return replace(made, usage=usage, due_nano=due_nano(usage, AGREEMENT.prices))


def test_a_resize_raises_the_allowance_from_then_on_and_not_before() -> None:
    shares = resized((Share(AGREEMENT.made_ms, SHARE),), BIGGER, START_MS + DAY_MS)
    day = priced(record(MINUTE), replace(MINUTE, cpu_ns=SHARE.cpu_ms_per_s * 1_000 * DAY_MS))
    before = replace(day, until_ms=START_MS + DAY_MS)
    assert checked(before, shares, None) == ()
    hour_ms = DAY_MS // 24
    more = priced(day, replace(MINUTE, cpu_ns=day.usage.cpu_ns + BIGGER.cpu_ms_per_s * 1_000 * hour_ms))
    assert checked(replace(more, until_ms=START_MS + DAY_MS + hour_ms), shares, None) == ()
    as_if_always = priced(day, replace(MINUTE, cpu_ns=BIGGER.cpu_ms_per_s * 1_000 * DAY_MS))
    assert "more CPU" in checked(replace(as_if_always, until_ms=START_MS + DAY_MS), shares, None)[0]


def test_a_resize_to_less_lowers_the_allowance() -> None:
    shares = resized((Share(AGREEMENT.made_ms, BIGGER),), SHARE, START_MS)
    made = priced(record(MINUTE), replace(MINUTE, cpu_ns=BIGGER.cpu_ms_per_s * 1_000 * DAY_MS))
    assert "more CPU" in checked(replace(made, until_ms=START_MS + DAY_MS), shares, None)[0]


def test_a_start_that_claims_to_be_long_ago_excuses_nothing() -> None:
    made = priced(record(MINUTE), replace(MINUTE, cpu_ns=SHARE.cpu_ms_per_s * 1_000 * DAY_MS))
    found = faults(made, b"", AGREEMENT, (Share(0, SHARE),), START_MS - 10 * DAY_MS, made.until_ms, None)
    assert "more CPU" in found[0]


def test_after_the_final_record_no_other_one_is_signed_for() -> None:
    last = record(MINUTE, final=True)
    made = record(MINUTE, after_s=120, seq=2, previous=id_of(last))
    assert "the final one" in checked(made, (Share(0, SHARE),), last)[0]


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 4_000)), max_size=3 * SHARES_MAX))
def test_shares_are_bounded_and_folding_them_never_allows_less(changes: list[tuple[int, int]]) -> None:
    shares: tuple[Share, ...] = (Share(0, NO_RESOURCES),)
    for since_ms, cpu in changes:
        shares = resized(shares, replace(NO_RESOURCES, cpu_ms_per_s=cpu), since_ms)
    assert len(shares) <= SHARES_MAX
    assert [each.since_ms for each in shares] == sorted(each.since_ms for each in shares)
    if changes:
        assert shares[-1].resources.cpu_ms_per_s == changes[-1][1]
        assert max(each.resources.cpu_ms_per_s for each in shares) == max(cpu for _, cpu in changes)
