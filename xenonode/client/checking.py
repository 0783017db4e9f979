"""Whether a client signs for a usage record: pure, and the client's whole defence against being overcharged.

A record is accepted when its server signed it for this agreement, its counters, its time and what is due have not
fallen, what is due is what the agreed prices give, the chain holds, and no counter says more than the agreed shares
allow for the time that they were agreed. A server's word on time counts only as far as the client's own clock bears
it out: else a session that began last year would excuse any bill.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenonode.model.entity import CLOCK_TOLERANCE_MS
from xenonode.model.resources import NO_USAGE, Resources, Usage, due_nano
from xenonode.model.session import Agreement, UsageRecord

TOLERANCE_PERMILLE = 1_100
"""Quotas hold within a few percent over a period; a tenth above what was agreed is disputed."""
SLACK_MS = 30_000
"""The record's period begins before the client saw the start, and a change takes effect a little later than asked."""
SHARES_MAX = 64
"""Changes that are told apart; of a session that is resized more often, the oldest count as the larger of two."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The last record that this client signed for."""

    record: UsageRecord
    id: bytes


@dataclass(frozen=True, slots=True)
class Share:
    """What the session may use from `since_ms` on."""

    since_ms: int
    resources: Resources


def resized(shares: tuple[Share, ...], resources: Resources, since_ms: int) -> tuple[Share, ...]:
    """The shares after one more change."""
    since_ms = max(since_ms, shares[-1].since_ms)
    shares = (*shares, Share(since_ms, resources))
    if len(shares) > SHARES_MAX:
        first, second, *rest = shares
        larger = Resources(*map(max, first.resources.amounts, second.resources.amounts))
        shares = (Share(first.since_ms, larger), *rest)
    return shares


def faults(
    record: UsageRecord,
    id: bytes,
    agreement: Agreement,
    shares: tuple[Share, ...],
    started_ms: int | None,
    now_ms: int,
    last: Accepted | None,
) -> tuple[str, ...]:
    """Every reason not to sign; empty when the record is right.

    `started_ms` is None for a session that never started; its record must say that nothing was used.
    """
    found = [] if last is None else _breaks(record, id, last)
    due = due_nano(record.usage, agreement.prices)
    if record.due_nano != due:
        found.append(f"{record.due_nano} is due by the record, {due} by the agreed prices")
    if record.until_ms > now_ms + CLOCK_TOLERANCE_MS:
        found.append(f"record {record.seq} ends {(record.until_ms - now_ms) // 1000} s in the future; check the clocks")
    if started_ms is None:
        used = NO_USAGE.fell_below(record.usage)
        found += [f"the session never started, and yet has counters above zero: {', '.join(used)}"] if used else []
    else:
        began_ms = max(started_ms, agreement.made_ms - CLOCK_TOLERANCE_MS)
        found += _too_much(record.usage, shares, began_ms, min(record.until_ms, now_ms + CLOCK_TOLERANCE_MS))
    return tuple(found)


def _breaks(record: UsageRecord, id: bytes, last: Accepted) -> list[str]:
    """What does not continue the last accepted record."""
    before, found = last.record, []
    fallen = record.usage.fell_below(before.usage)
    if fallen:
        found.append(f"counters fell: {', '.join(fallen)}")
    if record.until_ms < before.until_ms:
        found.append(f"record {record.seq} ends before record {before.seq} that was accepted")
    if record.seq < before.seq or (record.seq == before.seq and id != last.id):
        found.append(f"record {record.seq} contradicts record {before.seq} that was accepted")
    elif before.final and id != last.id:
        found.append(f"record {record.seq} comes after record {before.seq}, which was the final one")
    if record.seq == before.seq + 1 and record.previous != last.id:
        found.append(f"record {record.seq} does not follow the one that was accepted")
    return found


def _too_much(usage: Usage, shares: tuple[Share, ...], began_ms: int, until_ms: int) -> list[str]:
    cpu, memory, disk, net = _allowed(shares, began_ms, until_ms)
    # Shares times milliseconds: ms/s of CPU are microseconds a millisecond, bit/s are an eighth of a byte a second.
    allowed = (
        ("CPU", usage.cpu_ns, cpu * 1_000),
        ("memory", usage.memory_byte_s, memory // 1_000),
        ("disk", usage.disk_byte_s, disk // 1_000),
        ("network in", usage.net_rx_bytes, net // 8_000),
        ("network out", usage.net_tx_bytes, net // 8_000),
    )
    return [
        f"more {name} than was agreed: {used} in {max(0, until_ms - began_ms) // 1000} s"
        for name, used, limit in allowed
        if used is not None and used * 1_000 > limit * TOLERANCE_PERMILLE
    ]


def _allowed(shares: tuple[Share, ...], began_ms: int, until_ms: int) -> tuple[int, ...]:
    """Each amount times the milliseconds that it was agreed for, and the slack at the largest."""
    ends = [*(share.since_ms for share in shares[1:]), until_ms]
    begins = [began_ms, *(share.since_ms for share in shares[1:])]
    spans = [max(0, min(end, until_ms) - max(begin, began_ms)) for begin, end in zip(begins, ends)]
    columns = list(zip(*(share.resources.amounts for share in shares)))
    return tuple(sum(a * ms for a, ms in zip(column, spans)) + max(column) * SLACK_MS for column in columns)
