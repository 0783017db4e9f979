"""Metering: turns what a hypervisor shows of a guest into cumulative counters that a bill can stand on.

Decides what counts. Source: money.md's rule that counters are cumulative and never fall, and these of ours:

- Counting starts with the first reading, made when the environment is ready: its boot is not billed.
- A counter that fell means that the guest began anew; what it shows since then is added, nothing is counted twice.
- Memory and disk are held over time. Between two readings the smaller amount of memory counts.
- Time is the monotonic clock's within one run of the server. Across a restart only the wall clock is left, so
  that step is bounded: what nobody watched for longer than STEP_MAX_MS is the server's loss, not the client's.
- Nobody pays for more than was agreed: CPU and traffic are capped by what the agreed rate allows for the time
  counted, memory by the agreed amount. So what is due never outgrows the agreement's rate.
- What the hypervisor cannot measure stays None, and is free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypervisor.environment import Usage as Sample
from xenonode.model.message import INT64_MAX
from xenonode.model.resources import Resources, Usage

STEP_MAX_MS = 10 * 60_000


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment on both clocks; `run` tells one run of the server from the next."""

    run: int
    steady_ms: int
    wall_ms: int

    def since(self, earlier: Instant) -> int:
        """Milliseconds that may be counted between the two, never negative."""
        if self.run == earlier.run:
            return max(0, self.steady_ms - earlier.steady_ms)
        return min(max(0, self.wall_ms - earlier.wall_ms), STEP_MAX_MS)


@dataclass(frozen=True, slots=True)
class Counters:
    """What the hypervisor's counters last showed, each where it was last readable."""

    cpu_ns: int | None
    net_rx_bytes: int | None
    net_tx_bytes: int | None
    disk_read_bytes: int | None
    disk_written_bytes: int | None

    @property
    def all(self) -> tuple[int | None, ...]:
        """In the order of the fields."""
        return (self.cpu_ns, self.net_rx_bytes, self.net_tx_bytes, self.disk_read_bytes, self.disk_written_bytes)


@dataclass(frozen=True, slots=True)
class Meter:
    """All that metering must remember. The `_carry` fields hold what is too small for their counter's unit."""

    at: Instant
    shown: Counters
    memory_bytes: int | None
    used: Counters
    memory_byte_s: int | None
    memory_carry: int
    disk_byte_s: int
    disk_carry: int
    cpu_allowed_ns: int
    net_allowed_bytes: int
    net_allowed_carry: int


def begin(sample: Sample, at: Instant) -> Meter:
    """A meter at zero, whose baseline is what the guest shows now."""
    shown = _shown(sample)
    zero = Counters(*(None if each is None else 0 for each in shown.all))
    return Meter(at, shown, sample.memory_bytes, zero, None if sample.memory_bytes is None else 0, 0, 0, 0, 0, 0, 0)


def advance(meter: Meter, sample: Sample, at: Instant, agreed: Resources, *, held: bool = True) -> Meter:
    """The meter after one more reading; `agreed` is what the session had since the one before.

    With `held` false no time counts: the server took the environment away (an exposure pause), so that
    memory and disk are not the client's to pay. A reading older than the last one changes nothing.
    """
    if at.run == meter.at.run and at.steady_ms < meter.at.steady_ms:
        return meter
    passed_ms = at.since(meter.at) if held else 0
    shown = _shown(sample)
    used = Counters(*(_grow(*each) for each in zip(meter.used.all, meter.shown.all, shown.all)))
    if at.run != meter.at.run:
        used = _clipped(meter.used, used, agreed, passed_ms)
    memory_byte_s, memory_carry = meter.memory_byte_s, meter.memory_carry
    if sample.memory_bytes is not None:
        least = min(sample.memory_bytes, meter.memory_bytes or 0, agreed.memory_bytes)
        memory_byte_s, memory_carry = _add(memory_byte_s or 0, memory_carry, least * passed_ms, 1000)
    disk_byte_s, disk_carry = _add(meter.disk_byte_s, meter.disk_carry, agreed.disk_bytes * passed_ms, 1000)
    moved = agreed.net_bit_per_s * passed_ms
    net_allowed_bytes, net_allowed_carry = _add(meter.net_allowed_bytes, meter.net_allowed_carry, moved, 8000)
    return Meter(
        at=at,
        shown=_latest(meter.shown, shown),
        memory_bytes=sample.memory_bytes,
        used=used,
        memory_byte_s=memory_byte_s,
        memory_carry=memory_carry,
        disk_byte_s=disk_byte_s,
        disk_carry=disk_carry,
        # ms of CPU a second is the same number as microseconds a millisecond.
        cpu_allowed_ns=min(INT64_MAX, meter.cpu_allowed_ns + agreed.cpu_ms_per_s * passed_ms * 1000),
        net_allowed_bytes=net_allowed_bytes,
        net_allowed_carry=net_allowed_carry,
    )


def skip(meter: Meter, sample: Sample, at: Instant) -> Meter:
    """The meter moved on to this reading, with nothing counted for what was between."""
    return replace(meter, at=at, shown=_latest(meter.shown, _shown(sample)), memory_bytes=sample.memory_bytes)


def usage(meter: Meter) -> Usage:
    """The counters as a usage record states them."""
    used = meter.used
    return Usage(
        cpu_ns=_capped(used.cpu_ns, meter.cpu_allowed_ns),
        memory_byte_s=meter.memory_byte_s,
        disk_byte_s=meter.disk_byte_s,
        net_rx_bytes=_capped(used.net_rx_bytes, meter.net_allowed_bytes),
        net_tx_bytes=_capped(used.net_tx_bytes, meter.net_allowed_bytes),
        disk_read_bytes=used.disk_read_bytes,
        disk_written_bytes=used.disk_written_bytes,
    )


def _shown(sample: Sample) -> Counters:
    return Counters(sample.cpu_ns, *sample.traffic)


def _latest(before: Counters, now: Counters) -> Counters:
    return Counters(*(old if new is None else new for old, new in zip(before.all, now.all)))


def _grow(used: int | None, before: int | None, now: int | None) -> int | None:
    if now is None:
        return used
    if used is None or before is None:
        return used or 0  # measured for the first time: this is the baseline
    return min(INT64_MAX, used + (now - before if now >= before else now))


def _clipped(before: Counters, used: Counters, agreed: Resources, passed_ms: int) -> Counters:
    """What a stretch that nobody watched may add: no more than the agreed rate gives in the time that is counted."""
    cpu_ns, net_bytes = agreed.cpu_ms_per_s * passed_ms * 1000, agreed.net_bit_per_s * passed_ms // 8000
    limits = (cpu_ns, net_bytes, net_bytes, INT64_MAX, INT64_MAX)
    grown = zip(before.all, used.all, limits)
    return Counters(*(None if now is None else min(now, (was or 0) + most) for was, now, most in grown))


def _add(whole: int, carry: int, amount: int, unit: int) -> tuple[int, int]:
    more, carry = divmod(carry + amount, unit)
    return min(INT64_MAX, whole + more), carry


def _capped(used: int | None, allowed: int) -> int | None:
    return None if used is None else min(used, allowed)
