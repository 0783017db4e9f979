"""What a bundle of resources costs at a server's prices: an attribute that no advert has and any query may use.

Decides the sum exactly (nano-units an hour, rounded down once), its least over a zone, and the test `cost(...) <= X`,
which holds only for prices in its own currency. Rank and filter share these, so that an order and a limit agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from summaries.attributes import LARGEST, Attributes
from summaries.errors import MessageError
from summaries.schema import Schema
from summaries.zone import Zone

GIB = 1 << 30
PRICED = ("price.cpu", "price.memory", "price.disk")
Bundle = tuple[int, int, int]
"""CPU in ms/s, memory in bytes, disk in bytes."""
_HOLDS = {
    "=": lambda cost, limit: cost == limit,
    "!=": lambda cost, limit: cost != limit,
    "<": lambda cost, limit: cost < limit,
    "<=": lambda cost, limit: cost <= limit,
    ">": lambda cost, limit: cost > limit,
    ">=": lambda cost, limit: cost >= limit,
}
OPERATORS = tuple(_HOLDS)


def cost_of(bundle: Bundle, prices: tuple[int, int, int]) -> int:
    """Nano-units an hour. One division at the end keeps it monotone in each price."""
    cpu_ms, memory_bytes, disk_bytes = bundle
    # 1 ms/s for an hour is 1/1000 CPU-hour.
    scaled = prices[0] * cpu_ms * GIB + 1000 * (prices[1] * memory_bytes + prices[2] * disk_bytes)
    return min(scaled // (1000 * GIB), LARGEST)


def cost_at(bundle: Bundle, attributes: Attributes) -> int | None:
    """A bundle's cost at an advert's prices; None where it lacks one."""
    prices = [attributes.get(name) for name in PRICED]
    if not all(isinstance(price, int) for price in prices):
        return None
    return cost_of(bundle, cast("tuple[int, int, int]", tuple(prices)))


def least_value(schema: Schema, zone: Zone, name: str) -> int:
    """No advert of the zone has a lower value; 0 where the zone does not say."""
    place = schema.column.get(name)
    if place is None or place >= len(zone.lows):
        return 0
    least = schema.ordered[place].least(zone.lows[place])
    return max(least, zone.price) if name == "price.cpu" else least


def least_cost(schema: Schema, zone: Zone, bundle: Bundle) -> int:
    """No advert of the zone asks less for a bundle."""
    cpu, memory, disk = (least_value(schema, zone, name) for name in PRICED)
    return cost_of(bundle, (cpu, memory, disk))


@dataclass(frozen=True, slots=True)
class CostTest:
    """A bundle's cost compared with a limit in nano-units of a currency an hour, perhaps negated."""

    bundle: Bundle
    operator: str
    limit: int
    currency: str
    negated: bool = False

    def holds(self, attributes: Attributes) -> bool:
        """Exact. The cost in another currency compares as false."""
        cost = cost_at(self.bundle, attributes) if attributes.get("currency") == self.currency else None
        return (cost is not None and _HOLDS[self.operator](cost, self.limit)) is not self.negated

    def may_hold(self, schema: Schema, zone: Zone) -> bool:
        """Whether a zone may hold an advert that passes; never wrongly no."""
        if self.negated or self.operator not in ("<", "<=", "="):
            return True
        least = least_cost(schema, zone, self.bundle)
        return least < self.limit if self.operator == "<" else least <= self.limit

    def price_bounds(self) -> Mapping[str, int]:
        """The most that each price alone may be, where the test says so: what tells which trie to read."""
        if self.negated or self.operator not in ("<", "<=", "="):
            return {}
        units = (self.bundle[0] * GIB, self.bundle[1] * 1000, self.bundle[2] * 1000)
        room = (self.limit + 1) * 1000 * GIB - 1  # the sum is rounded down
        return {name: room // unit for name, unit in zip(PRICED, units) if unit}

    def to_fields(self) -> list[Any]:
        return ["cost", OPERATORS.index(self.operator), [*self.bundle, self.limit], self.currency, self.negated]

    @classmethod
    def from_parts(cls, operator: int, value: object, currency: str, negated: bool) -> CostTest:
        """Read what to_fields wrote; anything else raises MessageError."""
        if not isinstance(value, tuple) or len(value) != 4 or any(not 0 <= one <= LARGEST for one in value):
            raise MessageError("a cost is of three amounts, compared with a sum")
        if not any(value[:3]) or not currency:
            raise MessageError("a cost is of more than nothing, in a currency")
        return cls((value[0], value[1], value[2]), OPERATORS[operator], value[3], currency, negated)
