"""Turns an adapter's usage samples into totals that only ever grow, for bills.

Memory is held, not spent, so it is integrated over time between samples (byte-milliseconds). What the
adapter cannot measure stays None for good: a bill must say "not measured" and never "zero".
"""

from __future__ import annotations

from dataclasses import dataclass

from hypervisor.environment import State, Usage


@dataclass(frozen=True, slots=True)
class Totals:
    """Cumulative consumption up to `at_ms`; None where the machine cannot measure."""

    at_ms: int
    cpu_ns: int | None = None
    memory_byte_ms: int | None = None
    net_rx_bytes: int | None = None
    net_tx_bytes: int | None = None
    disk_read_bytes: int | None = None
    disk_written_bytes: int | None = None


def first(usage: Usage) -> Totals:
    """Totals at a guest's first sample: nothing has been held yet."""
    held = None if usage.memory_bytes is None else 0
    return Totals(usage.at_ms, usage.cpu_ns, held, *usage.traffic)


def advance(totals: Totals, earlier: Usage, later: Usage) -> Totals:
    """Totals after one more sample; `earlier` is the sample that `totals` was made with.

    Between two samples the smaller of both memory sizes is charged: the client never pays for a guess.
    A sample from before the last one (the clock was set back) adds no memory time, and counters that fell
    (which an adapter must not do) do not lower a total.
    """
    memory = totals.memory_byte_ms
    if memory is not None and earlier.memory_bytes is not None and later.memory_bytes is not None:
        holds = later.state in (State.RUNNING, State.PAUSED) and earlier.state in (State.RUNNING, State.PAUSED)
        if holds:
            memory += min(earlier.memory_bytes, later.memory_bytes) * max(0, later.at_ms - earlier.at_ms)
    return Totals(
        max(totals.at_ms, later.at_ms),
        _grow(totals.cpu_ns, later.cpu_ns),
        memory,
        _grow(totals.net_rx_bytes, later.net_rx_bytes),
        _grow(totals.net_tx_bytes, later.net_tx_bytes),
        _grow(totals.disk_read_bytes, later.disk_read_bytes),
        _grow(totals.disk_written_bytes, later.disk_written_bytes),
    )


def _grow(total: int | None, sample: int | None) -> int | None:
    if total is None or sample is None:
        return total
    return max(total, sample)
