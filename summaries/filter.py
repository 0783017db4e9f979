"""A query's condition in the form that travels: an OR of ANDs of simple tests.

Decides three things from the same tests: whether a zone may hold a match (never wrongly no),
which rows may match (numpy, never wrongly no), and whether an advert's integers do match (exact).
A holder needs nothing else of a query, so the text's grammar never reaches the network.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from summaries.attributes import (
    ATTRIBUTES,
    ENVIRONMENT_KINDS,
    LARGEST,
    MAX_COORDINATE_US,
    Attributes,
    Environment,
    text_number,
    version_tuple,
)
from summaries.cost import CostTest
from summaries.errors import MessageError
from summaries.point import Rows, widened
from summaries.schema import ENVIRONMENT, Schema
from summaries.zone import LOCATION_STEP_US, WORD_ATTRIBUTES, Zone, word_bit

OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
MAX_TERMS = 64  # a disjunction of more is weakened before it is sent
MAX_TESTS = 64  # tests in one conjunction
MAX_HOSTS = 16
MAX_TEXT = 128
Coordinate = tuple[int, int, int, int]
Value = int | str | tuple[int, ...]
Step = tuple[str, Callable[[Any, Any], bool], Any]
"""An attribute, and what must hold of its value and another one. Whoever lacks the attribute fails."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison, perhaps negated.

    `attribute` is a number, a price (`currency` says whose), a text, a set (= means membership),
    an environment kind (= its name), or kind.name (compared with a version, a tuple).
    """

    attribute: str
    operator: str
    value: Value
    currency: str = ""
    negated: bool = False

    def holds(self, attributes: Attributes) -> bool:
        """Exact, on the advert's own integers. A comparison with what is missing is false."""
        return self._compare(attributes) is not self.negated

    def steps(self) -> tuple[Step, ...]:
        """The same as looks at single attributes that must all hold; none where that does not say it."""
        name, value = self.attribute, self.value
        if self.negated:
            return ()
        if isinstance(value, tuple):
            kind, _, name = name.partition(".")
            return (("environments", _offers_version, (kind, name, _HOLDS[self.operator], value)),)
        if name in ENVIRONMENT_KINDS:
            return (("environments", _offers, (name, value)),) if self.operator == "=" else ()
        known = ATTRIBUTES.get(name)
        if known is None or (known.kind in ("number", "price")) is isinstance(value, str):
            return ()
        if known.kind == "set":
            if self.currency:
                return ()  # no text says it
            return ((name, operator.contains, value),) if self.operator == "=" else ()
        step = (name, _HOLDS[self.operator], value)
        return (("currency", operator.eq, self.currency), step) if self.currency else (step,)

    def _compare(self, attributes: Attributes) -> bool:
        actual = attributes.get(self.attribute)
        if type(actual) is int and type(self.value) is int:
            same = not self.currency or attributes.get("currency") == self.currency
            return same and _ordered(actual, self.operator, self.value)
        if isinstance(self.value, tuple):
            kind, _, name = self.attribute.partition(".")
            return any(
                one[0] == kind and one[1] == name and _ordered(version_tuple(one[2]), self.operator, self.value)
                for one in cast("tuple[tuple[str, str, str], ...]", attributes.get("environments", ()))
            )
        if self.attribute in ENVIRONMENT_KINDS:
            offered = cast("tuple[tuple[str, str, str], ...]", attributes.get("environments", ()))
            found = any(one[0] == self.attribute and one[1] == self.value for one in offered)
            return found is (self.operator == "=")
        if actual is None or (self.currency and attributes.get("currency") != self.currency):
            return False
        if isinstance(actual, tuple):
            return (self.value in actual) is (self.operator == "=")
        if isinstance(actual, str) is not isinstance(self.value, str):
            return False
        return _ordered(actual, self.operator, self.value)

    @property
    def is_text(self) -> bool:
        known = ATTRIBUTES.get(self.attribute)
        return known is not None and known.kind == "text"

    def bounds(self) -> tuple[int | None, int | None] | None:
        """The inclusive range of integers that can pass, or None when it is no range."""
        if isinstance(self.value, str) and self.operator == "=" and not self.negated and self.is_text:
            return (text_number(self.value),) * 2  # in a schema that has a dimension of this text
        if not isinstance(self.value, int):
            return None
        operator = self.operator
        if self.negated:
            # An advert in another currency passes a negated price whatever its number is.
            if self.currency:
                return None
            operator = _OPPOSITE[operator]
        return {
            "=": (self.value, self.value),
            "!=": None,
            "<": (None, self.value - 1),
            "<=": (None, self.value),
            ">": (self.value + 1, None),
            ">=": (self.value, None),
        }[operator]

    def environment_bit(self, schema: Schema) -> int | None:
        """The mask's bit that a match must have, or None when the mask says nothing."""
        if self.negated:
            return None
        if isinstance(self.value, tuple):
            kind, _, name = self.attribute.partition(".")
            return 1 << schema.dimension(ENVIRONMENT).slot(kind, name)
        if self.attribute in ENVIRONMENT_KINDS and self.operator == "=":
            return 1 << schema.dimension(ENVIRONMENT).slot(self.attribute, str(self.value))
        return None

    def word_bits(self) -> int:
        """The bits of a zone's words that a match must have."""
        if self.attribute in WORD_ATTRIBUTES and self.operator == "=" and not self.negated:
            return word_bit(self.attribute, str(self.value))
        return 0

    def to_fields(self) -> list[Any]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return [self.attribute, OPERATORS.index(self.operator), value, self.currency, self.negated]


@dataclass(frozen=True, slots=True)
class Within:
    """Within `limit_us` of every one of these coordinates: distance plus both heights."""

    hosts: tuple[Coordinate, ...]
    limit_us: int
    negated: bool = False

    def holds(self, attributes: Attributes) -> bool:
        place = attributes.get("location")
        if not isinstance(place, tuple):
            return self.negated
        return (furthest(self.hosts, cast(Coordinate, place)) <= self.limit_us) is not self.negated

    def to_fields(self) -> list[Any]:
        return ["near", 6, [self.limit_us, *(part for host in self.hosts for part in host)], "", self.negated]


Test = Comparison | Within | CostTest
Term = tuple[Test, ...]


def prepared(tests: Sequence[Test]) -> Callable[[Attributes], bool]:
    """Whether all of these tests hold, as a function: for who asks it of many adverts, of checked attributes."""
    steps = list[Step]()
    others = list[Callable[[Attributes], bool]]()
    for test in tests:
        found = test.steps() if isinstance(test, Comparison) else ()
        steps += found
        others += () if found else (test.holds,)

    def holds(attributes: Attributes) -> bool:
        for other in others:
            if not other(attributes):
                return False
        try:
            for name, compare, value in steps:
                if not compare(attributes[name], value):
                    return False
        except KeyError:
            return False
        return True

    return holds


@dataclass(frozen=True, slots=True)
class Filter:
    """An OR of terms, each an AND of tests. One empty term passes everything, no term nothing."""

    terms: tuple[Term, ...] = ((),)

    def matches(self, attributes: Attributes) -> bool:
        return any(all(test.holds(attributes) for test in term) for term in self.terms)

    def to_fields(self) -> list[Any]:
        return [[test.to_fields() for test in term] for term in self.terms]

    @classmethod
    def from_fields(cls, fields: object) -> Filter:
        """Read what to_fields wrote; anything else raises MessageError."""
        if not isinstance(fields, list) or len(fields) > MAX_TERMS:
            raise MessageError("a filter is a list of at most 64 terms")
        return cls(tuple(_term(term) for term in fields))


class CompiledFilter:
    """A filter against one schema: bins and f4 bounds computed once, then used on many zones and rows."""

    def __init__(self, schema: Schema, filter_: Filter) -> None:
        self.terms = [CompiledTerm(schema, term) for term in filter_.terms]

    def passes(self, zone: Zone) -> bool:
        """Whether the zone may hold a match."""
        if zone.count > 0:
            for term in self.terms:
                if term.passes(zone):
                    return True
        return False

    def select(self, rows: Rows) -> list[int]:
        """The places of the rows that match exactly."""
        if not len(rows):
            return []
        points, found = rows.points, set[int]()
        for term in self.terms:
            places = np.flatnonzero(term.select(rows.array)).tolist()
            found.update([place for place in places if term.holds(points[place].attributes)])
        return sorted(found)


class CompiledTerm:
    """One AND of tests, compiled."""

    def __init__(self, schema: Schema, term: Term) -> None:
        self.mask = self.words = 0
        self.bounds: dict[int, tuple[int, int]] = {}  # column -> inclusive integers
        self.within = [test for test in term if isinstance(test, Within) and not test.negated]
        self.costs = [test for test in term if isinstance(test, CostTest)]
        self.schema, self.holds = schema, prepared(term)
        for cost in self.costs:
            for name, most in cost.price_bounds().items():
                self._narrow(schema, name, None, min(most, LARGEST))
        for test in term:
            if not isinstance(test, Comparison):
                continue
            self.words |= test.word_bits()
            bit, bounds = test.environment_bit(schema), test.bounds()
            if bit is not None:
                self.mask |= bit
            elif bounds is not None:
                self._narrow(schema, test.attribute, *bounds)
        self.bins = [
            (place, schema.ordered[place].bin(max(low, 0)), schema.ordered[place].bin(max(high, 0)))
            for place, (low, high) in self.bounds.items()
        ]
        self.impossible = any(low > high for low, high in self.bounds.values())

    def _narrow(self, schema: Schema, attribute: str, least: int | None, most: int | None) -> None:
        place = schema.column.get(attribute)
        if place is not None:
            low, high = self.bounds.get(place, (0, LARGEST))
            self.bounds[place] = (low if least is None else max(low, least), high if most is None else min(high, most))

    def passes(self, zone: Zone) -> bool:
        if self.impossible or self.mask & ~zone.environments or self.words & ~zone.words:
            return False
        lows, highs = zone.lows, zone.highs
        for place, low, high in self.bins:
            # A trie of before a dimension was added has zones that say nothing of it.
            if place < len(lows) and (highs[place] < low or lows[place] > high):
                return False
        for cost in self.costs:
            if not cost.may_hold(self.schema, zone):
                return False
        return not self.within or all(closest(test.hosts, zone) <= test.limit_us for test in self.within)

    def select(self, array: NDArray[Any]) -> NDArray[np.bool_]:
        if self.impossible:
            return np.zeros(len(array), dtype=np.bool_)
        mask = np.ones(len(array), dtype=np.bool_)
        if self.mask:
            wanted = np.uint64(self.mask)
            mask &= (array["environments"] & wanted) == wanted
        columns = array["attributes"]
        for place, (low, high) in self.bounds.items():
            least, most = widened(low, high)
            mask &= (columns[:, place] >= least) & (columns[:, place] <= most)
        for test in self.within:
            places, heights = array["location"].astype("f8"), array["height"].astype("f8")
            for x, y, z, height in test.hosts:
                distance = np.sqrt(((places - (x, y, z)) ** 2).sum(axis=1)) + heights + height
                mask &= distance <= test.limit_us + 2  # the exact test floors its square root
        return mask


def compiled(schema: Schema, filter_: Filter) -> CompiledFilter:
    """A filter made ready for one schema; the last few are remembered."""
    return _compiled_by(filter_, _Hashed(schema))


def furthest(hosts: Sequence[Coordinate], place: Coordinate) -> int:
    """Microseconds to the host that is furthest away: Euclid's distance plus both heights."""
    return max((_distance(host, place) for host in hosts), default=0)


def closest(hosts: Sequence[Coordinate], zone: Zone) -> int:
    """No point of the zone has a smaller `furthest` than this."""
    worst = 0
    for x, y, z, height in hosts:
        square = 0
        for axis, value in enumerate((x, y, z)):
            low, high = zone.box[axis] * LOCATION_STEP_US, zone.box[axis + 3] * LOCATION_STEP_US
            gap = max(low - value, value - high, 0)
            square += gap * gap
        worst = max(worst, isqrt(square) + height + zone.height * LOCATION_STEP_US)
    return worst


_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def _offers(offered: Sequence[Environment], wanted: tuple[str, str]) -> bool:
    found = False
    for one in offered:
        found = found or (one[1] == wanted[1] and one[0] == wanted[0])
    return found


def _offers_version(offered: Sequence[Environment], wanted: tuple[str, str, Callable[..., bool], Value]) -> bool:
    kind, name, compare, value = wanted
    found = False
    for one in offered:
        found = found or (one[1] == name and one[0] == kind and compare(version_tuple(one[2]), value))
    return found


def _ordered(actual: Any, operator: str, value: Any) -> bool:
    return _HOLDS[operator](actual, value)


def _distance(a: Coordinate, b: Coordinate) -> int:
    square = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2
    return isqrt(square) + a[3] + b[3]


@lru_cache(maxsize=256)  # a searcher plans with it, then asks many nodes with it, and pages repeat it
def _compiled_by(filter_: Filter, schema: _Hashed) -> CompiledFilter:
    return CompiledFilter(schema.schema, filter_)


class _Hashed:
    """A schema as a cache key, by identity: hashing 40,000 breakpoints would cost more than compiling."""

    __slots__ = ("schema",)

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Hashed) and self.schema is other.schema


def _term(fields: object) -> Term:
    if not isinstance(fields, list) or len(fields) > MAX_TESTS:
        raise MessageError("a term is a list of at most 64 tests")
    return tuple(_test(one) for one in fields)


def _test(fields: object) -> Test:
    if not isinstance(fields, list) or len(fields) != 5:
        raise MessageError("a test has five fields")
    name, operator, value, currency, negated = fields
    if not isinstance(name, str) or type(operator) is not int or type(negated) is not bool:
        raise MessageError("a test is name, operator, value, currency, negated")
    if isinstance(value, list):
        if any(type(part) is not int or abs(part) > LARGEST for part in value):
            raise MessageError("a list value holds integers")
        value = tuple(value)
    if name == "near":
        return _within(value, negated)
    if not 0 <= operator < len(OPERATORS) or not isinstance(currency, str) or len(currency) > 16:
        raise MessageError("unknown operator or currency")
    if name == "cost":
        return CostTest.from_parts(operator, value, currency, negated)
    _check_value(name, value)
    return Comparison(name, OPERATORS[operator], value, currency, negated)


def _within(value: object, negated: bool) -> Within:
    if not isinstance(value, tuple) or len(value) % 4 != 1 or not 5 <= len(value) <= 1 + 4 * MAX_HOSTS:
        raise MessageError("near is a limit and one to sixteen coordinates")
    if any(abs(part) > MAX_COORDINATE_US for part in value[1:]) or value[0] < 0:
        raise MessageError("a coordinate is out of range")
    return Within(tuple(cast(Coordinate, value[at : at + 4]) for at in range(1, len(value), 4)), value[0], negated)


def _check_value(name: str, value: object) -> None:
    if isinstance(value, tuple):
        kind, dot, rest = name.partition(".")
        if kind not in ENVIRONMENT_KINDS or not dot or not 0 < len(rest) <= 32 or len(value) > 4:
            raise MessageError("only an environment has a version")
    elif name in ENVIRONMENT_KINDS:
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise MessageError("an environment is compared with a name")
    else:
        known = ATTRIBUTES.get(name)
        numeric = known is not None and known.kind in ("number", "price")
        if known is None or (type(value) is not int if numeric else not isinstance(value, str)):
            raise MessageError(f"{name[:40]!r} cannot be compared with this")
        if (isinstance(value, int) and abs(value) > LARGEST) or (isinstance(value, str) and len(value) > MAX_TEXT):
            raise MessageError("a compared value is out of range")
