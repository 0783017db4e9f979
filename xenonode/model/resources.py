"""Resources, prices, usage, and what usage costs: the platform's arithmetic, in integers only.

CPU is milliseconds per wall-clock second (ms/s), memory and disk are bytes, network is bit/s. Money is
integer nano-units of an ISO currency. What is due is computed from cumulative counters and rounded down
once for each resource, so that it never depends on how often it was computed (I5 of the ledger's invariants).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from xenonode.model.message import INT64_MAX, require

NANO = 10**9
GIB = 2**30
HOUR_S = 3600
CPU_HOUR_NS = HOUR_S * 10**9
CURRENCIES = ("EUR", "GBP", "USD")
"""Currencies that XenoCorp keeps accounts in; another one is refused by name."""


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each resource: a machine's total, what is free of it, or what a session is agreed."""

    cpu_ms_per_s: int
    memory_bytes: int
    disk_bytes: int
    net_bit_per_s: int

    def __post_init__(self) -> None:
        if min(self.amounts) >= 0 and max(self.amounts) <= INT64_MAX:
            return
        for field in fields(self):
            require(0 <= getattr(self, field.name) <= INT64_MAX, f"{field.name} must not be negative")

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(mine + its for mine, its in zip(self.amounts, other.amounts)))

    def minus(self, other: Resources) -> Resources:
        """What is left of this after `other`. Raises ModelError where it does not fit."""
        return Resources(*(mine - its for mine, its in zip(self.amounts, other.amounts)))

    def lacks(self, wanted: Resources) -> tuple[str, ...]:
        """Names of the resources of which `wanted` asks for more than there is here."""
        names = (field.name for field in fields(self))
        return tuple(name for name, mine, its in zip(names, self.amounts, wanted.amounts) if its > mine)

    @property
    def amounts(self) -> tuple[int, int, int, int]:
        """The four amounts, in the order of the fields."""
        return (self.cpu_ms_per_s, self.memory_bytes, self.disk_bytes, self.net_bit_per_s)


NO_RESOURCES = Resources(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Prices:
    """Price of each resource in nano-units: a CPU-hour (3.6e6 ms of CPU), a GiB-hour of memory or disk, a GiB moved."""

    currency: str
    cpu_nano_per_hour: int
    memory_nano_per_gib_hour: int
    disk_nano_per_gib_hour: int
    net_nano_per_gib: int

    def __post_init__(self) -> None:
        require(self.currency in CURRENCIES, f"currency {self.currency!r} is not one of {', '.join(CURRENCIES)}")
        for price in self.amounts:
            require(0 <= price <= INT64_MAX, "a price must not be negative")

    @property
    def amounts(self) -> tuple[int, int, int, int]:
        """The four prices, in the order of the fields."""
        return (
            self.cpu_nano_per_hour,
            self.memory_nano_per_gib_hour,
            self.disk_nano_per_gib_hour,
            self.net_nano_per_gib,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """Cumulative counters of one session, from its start. None where the hypervisor cannot measure."""

    cpu_ns: int | None
    memory_byte_s: int | None
    disk_byte_s: int | None
    net_rx_bytes: int | None
    net_tx_bytes: int | None
    disk_read_bytes: int | None
    disk_written_bytes: int | None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(value is None or 0 <= value <= INT64_MAX, f"{field.name} must not be negative")

    def fell_below(self, earlier: Usage) -> tuple[str, ...]:
        """Names of counters that are lower here than in `earlier`, or no longer measured: none may be (I5)."""
        fallen = []
        for field in fields(self):
            now, before = getattr(self, field.name), getattr(earlier, field.name)
            if before is not None and (now is None or now < before):
                fallen.append(field.name)
        return tuple(fallen)


NO_USAGE = Usage(0, 0, 0, 0, 0, 0, 0)


def due_nano(usage: Usage, prices: Prices) -> int:
    """What cumulative `usage` costs at `prices`: floor once for each resource; the unmeasured is free."""
    moved = (usage.net_rx_bytes or 0) + (usage.net_tx_bytes or 0)
    return (
        (usage.cpu_ns or 0) * prices.cpu_nano_per_hour // CPU_HOUR_NS
        + (usage.memory_byte_s or 0) * prices.memory_nano_per_gib_hour // (GIB * HOUR_S)
        + (usage.disk_byte_s or 0) * prices.disk_nano_per_gib_hour // (GIB * HOUR_S)
        + moved * prices.net_nano_per_gib // GIB
    )


def rate_nano_per_hour(resources: Resources, prices: Prices) -> int:
    """Most that these resources can cost in an hour, fully used; network at its full rate in both directions."""
    moved_bytes_per_hour = resources.net_bit_per_s * 2 * HOUR_S // 8
    return (
        -(-resources.cpu_ms_per_s * prices.cpu_nano_per_hour // 1000)
        - (-resources.memory_bytes * prices.memory_nano_per_gib_hour // GIB)
        - (-resources.disk_bytes * prices.disk_nano_per_gib_hour // GIB)
        - (-moved_bytes_per_hour * prices.net_nano_per_gib // GIB)
    )
