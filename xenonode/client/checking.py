"""Whether a client signs for a usage record: pure, and the client's whole defence against being overcharged.

A record is accepted when its server signed it for this agreement, its counters and what is due have not fallen, what
is due is what the agreed prices give, the chain holds, and no counter says more than the agreed shares allow.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenonode.model.resources import NO_USAGE, Resources, Usage, due_nano
from xenonode.model.session import Agreement, UsageRecord

TOLERANCE_PERMILLE = 1_100
"""Quotas hold within a few percent over a period; a tenth above what was agreed is disputed."""
SLACK_S = 30
"""The record's period begins before the client saw the start, and clocks differ a little."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The last record that this client signed for."""

    record: UsageRecord
    id: bytes


def faults(
    record: UsageRecord, id: bytes, agreement: Agreement, most: Resources, started_ms: int | None, last: Accepted | None
) -> tuple[str, ...]:
    """Every reason not to sign; empty when the record is right. `most`: the largest shares this session has had.

    `started_ms` is None for a session that never started; its record must say that nothing was used.
    """
    found = []
    fallen = () if last is None else record.usage.fell_below(last.record.usage)
    if fallen:
        found.append(f"counters fell: {', '.join(fallen)}")
    due = due_nano(record.usage, agreement.prices)
    if record.due_nano != due:
        found.append(f"{record.due_nano} is due by the record, {due} by the agreed prices")
    if last is not None:
        if record.seq < last.record.seq or (record.seq == last.record.seq and id != last.id):
            found.append(f"record {record.seq} contradicts record {last.record.seq} that was accepted")
        if record.seq == last.record.seq + 1 and record.previous != last.id:
            found.append(f"record {record.seq} does not follow the one that was accepted")
    if started_ms is None:
        used = NO_USAGE.fell_below(record.usage)
        found += [f"the session never started, and yet has counters above zero: {', '.join(used)}"] if used else []
    else:
        found += _too_much(record.usage, most, max(0, record.until_ms - started_ms) // 1000 + SLACK_S)
    return tuple(found)


def _too_much(usage: Usage, most: Resources, elapsed_s: int) -> list[str]:
    allowed = (
        ("CPU", usage.cpu_ns, most.cpu_ms_per_s * 1_000_000 * elapsed_s),
        ("memory", usage.memory_byte_s, most.memory_bytes * elapsed_s),
        ("disk", usage.disk_byte_s, most.disk_bytes * elapsed_s),
    )
    return [
        f"more {name} than was agreed: {used} in {elapsed_s} s"
        for name, used, limit in allowed
        if used is not None and used * 1_000 > limit * TOLERANCE_PERMILLE
    ]
