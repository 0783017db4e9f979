"""In which order answers are wanted, as one integer a point: less is better.

Decides a point's rank exactly and a zone's lower bound of it, so that best-first search can stop:
no point of a zone ranks below the zone's bound. Latency means the furthest of the query's hosts. A
weighted order adds up costs and latency: costs and prices in thousandths of their currency,
latency in milliseconds, so that 0.7*cost + 0.3*latency weighs 50 thousandths an hour like 50 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from summaries.attributes import ATTRIBUTES, LARGEST, MAX_COORDINATE_US, Attributes
from summaries.cost import Bundle, cost_at, least_cost, least_value
from summaries.errors import MessageError
from summaries.filter import MAX_HOSTS, Coordinate, closest, furthest
from summaries.schema import Schema
from summaries.zone import Zone

LAST = LARGEST  # the rank of what cannot be ranked: priced in another currency, or lacking the attribute
WEIGHTED = "weighted"
MAX_WEIGHTS = 8
MAX_WEIGHT = 1_000_000  # in thousandths
_US_A_UNIT = 1_000  # a thousandth of a currency is 10^6 nano-units, a millisecond 10^3 us
Weights = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Order:
    """What to sort by: "" (nothing), an attribute, "cost" of `amounts`, "latency" to `hosts`, or "weighted".

    `amounts`: CPU in ms/s, memory in bytes, disk in bytes; their cost is in nano-units an hour.
    Prices rank only in `currency`, when one is given; others come last. `weights` are (cost, latency or a price,
    thousandths); a weighted rank is in millionths of its sum's unit.
    """

    by: str = ""
    descending: bool = False
    currency: str = ""
    amounts: Bundle = (0, 0, 0)
    hosts: tuple[Coordinate, ...] = ()
    weights: Weights = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """What is ranked by, one or several."""
        return tuple(name for name, _ in self.weights) if self.by == WEIGHTED else (self.by,)

    @property
    def is_priced(self) -> bool:
        return any(key == "cost" or key.startswith("price.") for key in self.keys)

    def rank(self, attributes: Attributes) -> int:
        if not self.by:
            return 0
        if self.by == WEIGHTED:
            values = [self._value(name, attributes) for name, _ in self.weights]
            known = [one for one in values if one is not None]
            value = self._sum(known) if len(known) == len(values) else None
        else:
            value = self._value(self.by, attributes)
        if value is None:
            return LAST
        return -value if self.descending else value

    def bound(self, schema: Schema, zone: Zone) -> int:
        """No point of the zone has a smaller rank."""
        if not self.by:
            return 0
        if self.descending:
            place = schema.column.get(self.by)
            known = place is not None and place < len(zone.highs)
            return -schema.ordered[place].greatest(zone.highs[place]) if known and place is not None else -LAST
        if self.by == WEIGHTED:
            return self._sum([self._least(schema, zone, name) for name, _ in self.weights])
        return self._least(schema, zone, self.by)

    def _sum(self, values: list[int]) -> int:
        units = [_US_A_UNIT if name == "latency" else 1 for name, _ in self.weights]
        scaled = [weight * unit * value for (_, weight), unit, value in zip(self.weights, units, values)]
        return min(sum(scaled) // 1000, LAST)

    def _least(self, schema: Schema, zone: Zone, name: str) -> int:
        if name == "latency":
            return min(closest(self.hosts, zone), LAST)
        return least_cost(schema, zone, self.amounts) if name == "cost" else least_value(schema, zone, name)

    def _value(self, name: str, attributes: Attributes) -> int | None:
        if name == "latency":
            place = attributes.get("location")
            return min(furthest(self.hosts, cast(Coordinate, place)), LAST) if isinstance(place, tuple) else None
        priced = name == "cost" or name.startswith("price.")
        if priced and self.currency and attributes.get("currency") != self.currency:
            return None
        value = cost_at(self.amounts, attributes) if name == "cost" else attributes.get(name)
        return value if isinstance(value, int) else None

    def to_fields(self) -> list[Any]:
        places = [part for host in self.hosts for part in host]
        plain = [self.by, self.descending, self.currency, list(self.amounts), places]
        # Peers of before weights refuse a sixth field, and only orders that need it have one.
        return [*plain, [part for weight in self.weights for part in weight]] if self.by == WEIGHTED else plain

    @classmethod
    def from_fields(cls, fields: object) -> Order:
        """Read what to_fields wrote; anything else raises MessageError."""
        if not isinstance(fields, list) or not fields or len(fields) != (6 if fields[0] == WEIGHTED else 5):
            raise MessageError("an order has five fields, a weighted one six")
        by, descending, currency, amounts, places = fields[:5]
        if not isinstance(by, str) or type(descending) is not bool or not isinstance(currency, str):
            raise MessageError("an order is by, descending, currency, amounts, hosts")
        if by not in ("", "cost", "latency", WEIGHTED) and (by not in ATTRIBUTES or not orderable(by)):
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
        weights = _weights(fields[5]) if by == WEIGHTED else ()
        return cls(by, descending, currency, cast("tuple[int, int, int]", tuple(amounts)), hosts, weights)


def _weights(flat: object) -> Weights:
    if not isinstance(flat, list) or not 2 <= len(flat) <= 2 * MAX_WEIGHTS or len(flat) % 2:
        raise MessageError("a weighted order has one to eight weights")
    pairs = tuple(zip(flat[::2], flat[1::2]))
    for name, weight in pairs:
        if not weighable(name) or type(weight) is not int or not 0 <= weight <= MAX_WEIGHT:
            raise MessageError("a weight is of a cost, a price or latency, and from 0 to 1000")
    return pairs


def weighable(name: object) -> bool:
    """Whether a weighted order may add this up."""
    return name in ("cost", "latency") or (isinstance(name, str) and name.startswith("price.") and name in ATTRIBUTES)


def orderable(attribute: str) -> bool:
    return ATTRIBUTES[attribute].kind in ("number", "price")
