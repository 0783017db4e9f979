"""The pure rules: leases, exposure, sums of a settlement, audits."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from xenonode.corp import accounts
from xenonode.corp.accounts import Balance
from xenonode.corp.audit import audit
from xenonode.corp.leases import Outage, deadline_ms
from xenonode.corp.settling import fee_delta_nano
from xenonode.corp.transfers import captured, credited, ring_fenced

AMOUNTS = st.integers(0, 2**62)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=5))
def test_outages_only_ever_postpone_a_deadline_and_by_no_more_than_their_length(spans: list[tuple[int, int]]) -> None:
    outages = [Outage(min(span), max(span)) for span in spans]
    deadline = deadline_ms(100, 300, 200, outages)
    assert 500 <= deadline <= 500 + sum(each.ended_ms - each.began_ms for each in outages)


def test_outages_before_and_after_do_not_count() -> None:
    assert deadline_ms(100, 300, 200, [Outage(0, 100), Outage(500, 900)]) == 500
    assert deadline_ms(100, 300, 200, [Outage(0, 150), Outage(540, 600)]) == 500 + 50 + 60


@given(st.lists(AMOUNTS, min_size=1, max_size=8), st.integers(0, 10_000))
def test_the_fee_does_not_depend_on_the_steps(sums: list[int], fee: int) -> None:
    steps = sorted(sums)
    total = sum(fee_delta_nano(before, after, fee) for before, after in zip([0, *steps], steps))
    assert total == steps[-1] * fee // 10_000


@given(AMOUNTS.filter(bool), st.integers(0, 10_000), st.binary(min_size=16, max_size=16))
def test_a_capture_is_split_without_a_remainder(amount: int, fee: int, name: bytes) -> None:
    made = captured(accounts.reservation(name, "client-1", "USD"), "server-1", "e", amount, amount * fee // 10_000, 1)
    assert sum(transfer.amount_nano for transfer in made) == amount


def test_an_audit_finds_a_drifted_balance_a_hole_and_an_overdraft() -> None:
    moved = credited("client-1", "USD", 100, "one", 1)
    outside, mine = accounts.external("USD"), accounts.client("client-1", "USD")
    good = [Balance(outside, 100, 0), Balance(mine, 0, 100)]
    assert audit(good, [moved], []).balanced
    assert not audit([good[0], dataclasses.replace(good[1], credits_nano=99)], [moved], []).balanced
    assert not audit(good, [], []).balanced
    assert not audit(good[:1], [moved], []).balanced
    spent = ring_fenced(accounts.order(bytes(16), "client-1", "USD"), 101, 2)
    books = [good[0], Balance(mine, 101, 100), Balance(spent.credit, 0, 101)]
    faults = audit(books, [moved, spent], []).faults
    assert any("below zero" in fault for fault in faults)
