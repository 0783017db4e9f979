"""What a client signs for: the right sum and shares, and nothing of a session that never started."""

from __future__ import annotations

from dataclasses import replace

from xenonode.client.checking import Accepted, Share, faults
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.resources import NO_USAGE, Prices, Resources, Usage, due_nano
from xenonode.model.session import Agreement, UsageRecord

MIB = 2**20
START_MS = 1_700_000_000_000
SHARE = Resources(250, 192 * MIB, 0, 1_000_000)
AGREEMENT = Agreement(
    client=bytes(32),
    server=bytes(32),
    reservation=bytes(16),
    quote=bytes(16),
    advert=bytes(16),
    advert_seq=1,
    resources=SHARE,
    environment=OfferedEnvironment("os", "linux", "6.1.0"),
    image_sha256=bytes(32),
    prices=Prices("USD", 20_000_000, 4_000_000, 0, 10_000_000),
    receipt_period_ms=60_000,
    exposure_nano=1_000_000,
    audit_policy="standard",
    authorized_keys=("ssh-ed25519 AAAA",),
    hostname="xenonode",
    made_ms=START_MS,
)
SHARES = (Share(START_MS, SHARE),)
MINUTE = Usage(15_000_000_000, 60 * 192 * MIB, 0, 1000, 1000, 0, 0)
"""What the agreed shares give in a minute."""


def record(usage: Usage, *, after_s: int = 60, **changes: object) -> UsageRecord:
    due = due_nano(usage, AGREEMENT.prices)
    made = UsageRecord(bytes(16), 1, usage, due, START_MS + after_s * 1000, None, b"", False)
    return replace(made, **changes)  # type: ignore[arg-type]  # names of its own fields


def reasons(it: UsageRecord, started_ms: int | None = START_MS, last: Accepted | None = None) -> tuple[str, ...]:
    return faults(it, b"id of it", AGREEMENT, SHARES, started_ms, it.until_ms, last)


def test_a_record_of_the_agreed_shares_is_signed() -> None:
    assert reasons(record(MINUTE)) == ()


def test_another_sum_than_the_prices_give_is_refused() -> None:
    assert "is due by the record" in reasons(record(MINUTE, due_nano=due_nano(MINUTE, AGREEMENT.prices) + 1))[0]


def test_more_than_the_agreed_share_is_refused() -> None:
    assert "more CPU than was agreed" in reasons(record(replace(MINUTE, cpu_ns=60_000_000_000)))[0]


def test_counters_that_fall_are_refused() -> None:
    last = Accepted(record(MINUTE), b"first")
    following = record(replace(MINUTE, cpu_ns=1), after_s=120, seq=2, previous=b"first")
    assert "counters fell: cpu_ns" in reasons(following, last=last)


def test_a_record_that_does_not_follow_the_accepted_one_is_refused() -> None:
    last = Accepted(record(MINUTE), b"first")
    found = reasons(record(MINUTE, after_s=120, seq=2, previous=b"another"), last=last)
    assert found == ("record 2 does not follow the one that was accepted",)


def test_a_session_that_never_started_is_signed_for_when_nothing_was_used() -> None:
    assert reasons(record(NO_USAGE, final=True), started_ms=None) == ()


def test_a_session_that_never_started_is_not_paid_for() -> None:
    found = reasons(record(MINUTE, final=True), started_ms=None)
    assert len(found) == 1
    assert "never started" in found[0]
