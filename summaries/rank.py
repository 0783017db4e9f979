"""In which order answers are wanted, as one integer a point: less is better.

Decides a point's rank exactly and a zone's lower bound of it, so that best-first search can stop:
no point of a zone ranks below the zone's bound. Latency means the furthest of the query's hosts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from summaries.attributes import ATTRIBUTES, LARGEST, MAX_COORDINATE_US, Attributes
from summaries.errors import MessageError
from summaries.filter import MAX_HOSTS, Coordinate, closest, furthest
from summaries.schema import Schema
from summaries.zone import Zone

GIB = 1 << 30
LAST = LARGEST  # the rank of what cannot be ranked: priced in another currency, or lacking the attribute


@dataclass(frozen=True, slots=True)
class Order:
    """What to sort by: "" (nothing), an attribute, "cost" of `amounts`, or "latency" to `hosts`.

    `amounts`: CPU in ms/s, memory in bytes, disk in bytes; their cost is in nano-units an hour.
    Prices rank only in `currency`, when one is given; others come last.
    """

    by: str = ""
    descending: bool = False
    currency: str = ""
    amounts: tuple[int, int, int] = (0, 0, 0)
    hosts: tuple[Coordinate, ...] = ()

    def rank(self, attributes: Attributes) -> int:
        if not self.by:
            return 0
        value = self._value(attributes)
        if value is None:
            return LAST
        return -value if self.descending else value

    def bound(self, schema: Schema, zone: Zone) -> int:
        """No point of the zone has a smaller rank."""
        if not self.by:
            return 0
        if self.by == "latency":
            return -LAST if self.descending else min(closest(self.hosts, zone), LAST)
        if self.by == "cost":
            if self.descending:
                return -LAST
            prices = [self._least(schema, zone, name) for name in ("price.cpu", "price.memory", "price.disk")]
            return self._cost(prices[0], prices[1], prices[2])
        place = schema.column.get(self.by)
        if place is None:
            return -LAST if self.descending else 0
        if self.descending:
            return -schema.ordered[place].greatest(zone.highs[place])
        return self._least(schema, zone, self.by)

    def _least(self, schema: Schema, zone: Zone, name: str) -> int:
        place = schema.column.get(name)
        if place is None:
            return 0
        least = schema.ordered[place].least(zone.lows[place])
        return max(least, zone.price) if name == "price.cpu" else least

    def _value(self, attributes: Attributes) -> int | None:
        if self.by == "latency":
            place = attributes.get("location")
            return min(furthest(self.hosts, cast(Coordinate, place)), LAST) if isinstance(place, tuple) else None
        priced = self.by == "cost" or self.by.startswith("price.")
        if priced and self.currency and attributes.get("currency") != self.currency:
            return None
        if self.by == "cost":
            prices = [attributes.get(name) for name in ("price.cpu", "price.memory", "price.disk")]
            if not all(isinstance(price, int) for price in prices):
                return None
            return self._cost(*cast("list[int]", prices))
        value = attributes.get(self.by)
        return value if isinstance(value, int) else None

    def _cost(self, cpu: int, memory: int, disk: int) -> int:
        cpu_ms, memory_bytes, disk_bytes = self.amounts
        # 1 ms/s for an hour is 1/1000 CPU-hour. One division at the end keeps cost monotone in each price.
        scaled = cpu * cpu_ms * GIB + 1000 * (memory * memory_bytes + disk * disk_bytes)
        return min(scaled // (1000 * GIB), LAST)

    def to_fields(self) -> list[Any]:
        places = [part for host in self.hosts for part in host]
        return [self.by, self.descending, self.currency, list(self.amounts), places]

    @classmethod
    def from_fields(cls, fields: object) -> Order:
        """Read what to_fields wrote; anything else raises MessageError."""
        if not isinstance(fields, list) or len(fields) != 5:
            raise MessageError("an order has five fields")
        by, descending, currency, amounts, places = fields
        if not isinstance(by, str) or type(descending) is not bool or not isinstance(currency, str):
            raise MessageError("an order is by, descending, currency, amounts, hosts")
        if by not in ("", "cost", "latency") and (by not in ATTRIBUTES or not orderable(by)):
            raise MessageError("cannot order by this")
        if not isinstance(amounts, list) or not isinstance(places, list) or len(currency) > 16:
            raise MessageError("an order's amounts and hosts are lists")
        if len(amounts) != 3 or len(places) % 4 or len(places) > 4 * MAX_HOSTS:
            raise MessageError("an order has three amounts and at most sixteen hosts")
        if any(type(one) is not int or not 0 <= one <= LARGEST for one in amounts):
            raise MessageError("an amount is out of range")
        if any(type(one) is not int or abs(one) > MAX_COORDINATE_US for one in places):
            raise MessageError("a coordinate is out of range")
        hosts = tuple(cast(Coordinate, tuple(places[at : at + 4])) for at in range(0, len(places), 4))
        return cls(by, descending, currency, cast("tuple[int, int, int]", tuple(amounts)), hosts)


def orderable(attribute: str) -> bool:
    return ATTRIBUTES[attribute].kind in ("number", "price")
