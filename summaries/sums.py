"""What many adverts come to: how many, their free capacity, and what their prices are spread over.

Decides the form of an aggregate and how two are merged: counts and sums add, and a price's quantile sketch is a count
for each of 32 fixed ranges of the schema's own bins, with the least and greatest price. Fixed ranges merge without
loss, in any order, and equi-depth breakpoints put about equally many adverts into each, so a quantile is off by one
thirty-second of all adverts at most, and is told with the range that it is certainly in.
Prices in different currencies are never mixed: a sketch a currency, of which the two commonest are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from summaries.attributes import LARGEST
from summaries.dimension import BINS
from summaries.errors import MessageError
from summaries.fields import Codec, integer, text
from summaries.point import Point, Rows
from summaries.schema import Schema
from summaries.size import packed_size

FREE = ("cpu.available", "memory.available", "disk.available", "net.available")
PRICES = ("price.cpu", "price.memory", "price.disk", "price.net")
RANGES = 32
BINS_A_RANGE = BINS // RANGES
MAX_CURRENCIES = 2  # with their sketches of at most 450 bytes each, an aggregate fits a datagram
MAX_PART_BYTES = 880  # what a datagram has room for, beside the answer's frame and a group's name of 128 bytes
_MAX_SKETCH_BYTES = RANGES * 6
_MAX_COUNT = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Sketch:
    """One price of many adverts: how many in each range of the schema's bins, the least and the greatest."""

    counts: tuple[int, ...]
    least: int
    most: int

    def merged(self, other: Sketch) -> Sketch:
        counts = tuple(a + b for a, b in zip(self.counts, other.counts))
        return Sketch(counts, min(self.least, other.least), max(self.most, other.most))


@dataclass(frozen=True, slots=True)
class Quantile:
    """A price that about `share` of the adverts do not exceed; certainly from `least` to `most`."""

    share: float
    value: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Priced:
    """The adverts in one currency: a sketch for each of PRICES."""

    currency: str
    count: int
    prices: tuple[Sketch, ...]

    def quantile(self, schema: Schema, price: str, share: float) -> Quantile | None:
        """One quantile of one price; None where the schema does not index it."""
        place = schema.column.get(price)
        if place is None or not self.count:
            return None
        sketch, axis = self.prices[PRICES.index(price)], schema.ordered[place]
        rank, below = share * self.count, 0
        for at, count in enumerate(sketch.counts):
            if count and below + count >= rank:
                low = max(axis.least(at * BINS_A_RANGE), sketch.least)
                high = min(axis.greatest((at + 1) * BINS_A_RANGE - 1), sketch.most)
                part = min(max((rank - below) / count, 0.0), 1.0)
                return Quantile(share, low + int((high - low) * part), low, high)
            below += count
        return Quantile(share, sketch.most, sketch.most, sketch.most)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """See the module. `free` is in the order of FREE; `priced` by currency, the two commonest."""

    count: int = 0
    free: tuple[int, int, int, int] = (0, 0, 0, 0)
    priced: tuple[Priced, ...] = ()

    def __add__(self, other: Aggregate) -> Aggregate:
        if not other.count:
            return self
        if not self.count:
            return other
        a, b = self.free, other.free
        free = (min(a[0] + b[0], LARGEST), min(a[1] + b[1], LARGEST), min(a[2] + b[2], LARGEST),
                min(a[3] + b[3], LARGEST))  # fmt: skip
        held = {one.currency: one for one in self.priced}
        for one in other.priced:
            old = held.get(one.currency)
            held[one.currency] = one if old is None else _merged(old, one)
        return Aggregate(min(self.count + other.count, _MAX_COUNT), free, _commonest(held.values()))

    def in_currency(self, currency: str) -> Priced | None:
        return next((one for one in self.priced if one.currency == currency), None)

    def fitting(self) -> Aggregate:
        """Small enough to send: without the sketch of the less common currency, where both do not fit."""
        if packed_size(aggregate_fields(self)) <= MAX_PART_BYTES:
            return self
        return replace(self, priced=tuple(sorted(self.priced, key=lambda one: (-one.count, one.currency))[:1]))

    @classmethod
    def of_rows(cls, rows: Rows, places: Sequence[int]) -> Aggregate:
        """The aggregate of some rows of a leaf, exact but for the sketches' ranges."""
        if not places:
            return cls()
        points = [rows.points[place] for place in places]
        free = [min(sum(_number(point, name) for point in points), LARGEST) for name in FREE]
        by_currency: dict[str, list[int]] = {}
        for place, point in zip(places, points):
            by_currency.setdefault(str(point.attributes.get("currency", "")), []).append(place)
        priced = [_priced(rows, currency, some) for currency, some in by_currency.items()]
        return cls(len(points), (free[0], free[1], free[2], free[3]), _commonest(priced))


def sum_of(aggregates: Iterable[Aggregate]) -> Aggregate:
    total = Aggregate()
    for one in aggregates:
        total += one
    return total


def _number(point: Point, name: str) -> int:
    value = point.attributes.get(name)
    return value if isinstance(value, int) else 0


def _priced(rows: Rows, currency: str, places: list[int]) -> Priced:
    column, sketches = rows.schema.column, []
    bins = rows.array["bins"][places]
    for name in PRICES:
        values = [_number(rows.points[place], name) for place in places]
        at = column.get(name)
        spread = np.zeros(len(places), dtype=np.int64) if at is None else bins[:, at] // BINS_A_RANGE
        counts = tuple(int(one) for one in np.bincount(spread, minlength=RANGES))
        sketches.append(Sketch(counts, min(values), max(values)))
    return Priced(currency, len(places), tuple(sketches))


def _merged(one: Priced, other: Priced) -> Priced:
    prices = tuple(a.merged(b) for a, b in zip(one.prices, other.prices))
    return Priced(one.currency, min(one.count + other.count, _MAX_COUNT), prices)


def _commonest(priced: Iterable[Priced]) -> tuple[Priced, ...]:
    kept = sorted(priced, key=lambda one: (-one.count, one.currency))[:MAX_CURRENCIES]
    return tuple(sorted(kept, key=lambda one: one.currency))


# ----- the wire


def _write_counts(counts: tuple[int, ...]) -> bytes:
    """Seven bits a byte; a zero is followed by how many more zeros there are."""
    out, at = bytearray(), 0
    while at < len(counts):
        value = counts[at]
        at += 1
        if not value:
            run = 0
            while at < len(counts) and not counts[at]:
                run, at = run + 1, at + 1
            out += bytes((0, run))
            continue
        while value >= 128:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)


def _read_counts(value: object) -> tuple[int, ...]:
    if not isinstance(value, bytes) or len(value) > _MAX_SKETCH_BYTES:
        raise MessageError("a sketch's counts are at most 192 bytes")
    counts: list[int] = []
    at = 0
    while at < len(value) and len(counts) <= RANGES:
        if not value[at]:
            run = value[at + 1] if at + 1 < len(value) else RANGES
            counts += [0] * (run + 1)
            at += 2
            continue
        number = shift = 0
        while at < len(value) and value[at] & 128:
            number |= (value[at] & 127) << shift
            shift, at = shift + 7, at + 1
        number |= (value[at] if at < len(value) else 0) << shift
        at += 1
        counts.append(number)
    if len(counts) != RANGES or max(counts) > _MAX_COUNT or _write_counts(tuple(counts)) != value:
        raise MessageError("a sketch counts 32 ranges, in the shortest form")
    return tuple(counts)


_AMOUNT, _COUNT, _CURRENCY = integer(0, LARGEST)[1], integer(0, _MAX_COUNT)[1], text(16)[1]
_HEAD = 1 + len(FREE)
_EACH = 2 + 3 * len(PRICES)


def aggregate_fields(aggregate: Aggregate) -> list[Any]:
    """One flat list, since the wire bounds nesting: count, free; then currency, count and its sketches."""
    flat: list[Any] = [aggregate.count, *aggregate.free]
    for priced in aggregate.priced:
        flat += [priced.currency, priced.count]
        for sketch in priced.prices:
            flat += [_write_counts(sketch.counts), sketch.least, sketch.most]
    return flat


def _read_aggregate(value: object) -> Aggregate:
    if not isinstance(value, list) or len(value) not in (_HEAD + _EACH * some for some in range(MAX_CURRENCIES + 1)):
        raise MessageError("an aggregate is a count, what is free, and at most two currencies")
    free = [_AMOUNT(one) for one in value[1:_HEAD]]
    priced = []
    for at in range(_HEAD, len(value), _EACH):
        sketches = tuple(
            Sketch(_read_counts(value[first]), _AMOUNT(value[first + 1]), _AMOUNT(value[first + 2]))
            for first in range(at + 2, at + _EACH, 3)
        )
        priced.append(Priced(_CURRENCY(value[at]), _COUNT(value[at + 1]), sketches))
    return Aggregate(_COUNT(value[0]), (free[0], free[1], free[2], free[3]), tuple(priced))


AGGREGATE: Codec = (aggregate_fields, _read_aggregate)
