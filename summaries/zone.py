"""What a summary says of everything below a trie node: bounds, counts, masks.

A zone holds the least and greatest bin of **every** ordered dimension (not only its own trie's),
the environments offered, a bounding box, the least height and price, and how many adverts there
are. It is rounded outward: it may be wide, it is never narrower than what it summarises, so a
search that skips a zone skips no answer. Union is associative, commutative and idempotent in all
but the counts, which add.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from operator import ge, le

import numpy as np
import xxhash

from summaries.attributes import LARGEST
from summaries.point import Point, Rows, environment_mask
from summaries.schema import Schema

LOCATION_STEP_US = 64  # 2 s in 16 bits; a hundredth of the error that coordinates have anyway
_BOX_NONE = (32767, 32767, 32767, -32768, -32768, -32768)
MAX_HEIGHT_STEPS = 65535
ROOM_BINS = 32  # an eighth of a dimension
ROOM_STEPS = 512  # 33 ms, about a tenth of the way around the Earth
ROOM_HEIGHT_STEPS = 64  # 4 ms
MAX_COUNT = (1 << 32) - 1
WORD_ATTRIBUTES = ("country", "region", "feature")
WORD_BITS = 256
"""With 64, two thirds of the catalogue's 68 words shared theirs, some with a feature that nearly all servers have."""


@dataclass(frozen=True, slots=True)
class Zone:
    """Bounds over a set of points. `lows` and `highs` have one bin an ordered dimension."""

    lows: bytes
    highs: bytes
    environments: int = 0
    box: tuple[int, int, int, int, int, int] = _BOX_NONE  # least x, y, z, greatest x, y, z; steps of 64 us
    height: int = MAX_HEIGHT_STEPS  # least, in the same steps, rounded down
    price: int = LARGEST  # least price.cpu, exact
    count: int = 0
    leaves: int = 0
    words: int = 0  # which countries, regions and features there may be: one of WORD_BITS bits a word

    @classmethod
    def empty(cls, schema: Schema) -> Zone:
        return _empty(len(schema.ordered))

    @classmethod
    def of_point(cls, schema: Schema, point: Point) -> Zone:
        bins = bytes(dimension.bin(point.number(dimension.name)) for dimension in schema.ordered)
        x, y, z, height = point.location
        return cls(
            bins,
            bins,
            environment_mask(schema, point),
            (_down(x), _down(y), _down(z), _up(x), _up(y), _up(z)),
            min(height // LOCATION_STEP_US, MAX_HEIGHT_STEPS),
            point.number("price.cpu"),
            1,
            1,
            words_of(point),
        )

    @classmethod
    def of_rows(cls, rows: Rows) -> Zone:
        """The tightest zone of a leaf's rows."""
        if not len(rows):
            return cls.empty(rows.schema)
        array = rows.array
        bins = array["bins"]
        places = array["location"].astype("f8")
        # f4 keeps 24 bits and a coordinate has 22, so these are the exact integers.
        low, high = places.min(axis=0), places.max(axis=0)
        return cls(
            bins.min(axis=0).tobytes(),
            bins.max(axis=0).tobytes(),
            int(np.bitwise_or.reduce(array["environments"])),
            (_down(low[0]), _down(low[1]), _down(low[2]), _up(high[0]), _up(high[1]), _up(high[2])),
            min(int(array["height"].min()) // LOCATION_STEP_US, MAX_HEIGHT_STEPS),
            _least_price(rows),
            len(rows),
            1,
            _all_words(rows),
        )

    def covers(self, other: Zone) -> bool:
        """Whether every point in the other zone is inside this one's bounds (counts aside)."""
        if other.count == 0:
            return True
        return (
            all(map(le, self.lows, other.lows))
            and all(map(ge, self.highs, other.highs))
            and not other.environments & ~self.environments
            and not other.words & ~self.words
            and all(map(le, self.box[:3], other.box[:3]))
            and all(map(ge, self.box[3:], other.box[3:]))
            and self.height <= other.height
            and self.price <= other.price
        )

    def union(self, other: Zone) -> Zone:
        """The zone of both sets; an empty one changes nothing."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        a, b = self.box, other.box
        return Zone(
            bytes(map(min, self.lows, other.lows)),
            bytes(map(max, self.highs, other.highs)),
            self.environments | other.environments,
            (min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3]), max(a[4], b[4]), max(a[5], b[5])),
            min(self.height, other.height),
            min(self.price, other.price),
            min(self.count + other.count, MAX_COUNT),
            min(self.leaves + other.leaves, MAX_COUNT),
            self.words | other.words,
        )

    def widened(self, other: Zone, count: int, leaves: int) -> Zone:
        """The bounds of both; the counts grow by so much."""
        if other.count == 0:
            return self
        # Never fewer than the other has: a zone that counts nothing is taken for an empty one.
        counted = min(max(self.count + count, other.count), MAX_COUNT)
        leaves = min(max(self.leaves + leaves, other.leaves), MAX_COUNT)
        if counted == self.count and leaves == self.leaves and self.covers(other):
            return self  # what is told again is seldom news
        return self.union(other).counting(counted, leaves)

    def roomy(self) -> Zone:
        """A wider zone, with room for what probably comes next: else each of many new points would widen it again."""
        if not self.count:
            return self
        a = self.box
        low = tuple(max(edge // ROOM_STEPS * ROOM_STEPS, -32768) for edge in a[:3])
        high = tuple(min(-(-edge // ROOM_STEPS) * ROOM_STEPS, 32767) for edge in a[3:])
        fine = max(self.price.bit_length() - 2, 0)
        return replace(
            self,
            lows=bytes(edge // ROOM_BINS * ROOM_BINS for edge in self.lows),
            highs=bytes(edge // ROOM_BINS * ROOM_BINS + ROOM_BINS - 1 for edge in self.highs),
            box=(low[0], low[1], low[2], high[0], high[1], high[2]),
            height=self.height // ROOM_HEIGHT_STEPS * ROOM_HEIGHT_STEPS,
            price=self.price >> fine << fine,
        )

    def same_set(self, other: Zone) -> Zone:
        """The zone of one set as two replicas saw it: bounds unite, counts do not add."""
        if self.count >= other.count and self.leaves >= other.leaves and self.covers(other):
            return self
        return self.union(other).counting(max(self.count, other.count), max(self.leaves, other.leaves))

    def counting(self, count: int, leaves: int) -> Zone:
        """The same bounds with other counts."""
        return Zone(
            self.lows, self.highs, self.environments, self.box, self.height, self.price, count, leaves, self.words
        )


def zone_of(schema: Schema, point: Point) -> Zone:
    """The zone of one point, worked out once: holders of all dimensions ask for it."""
    found: Zone | None = point.derived.get(("zone", schema.epoch))
    if found is None:
        found = point.derived["zone", schema.epoch] = Zone.of_point(schema, point)
    return found


@lru_cache(maxsize=64)
def _empty(width: int) -> Zone:
    """One for all: trie nodes begin with it, and every union does."""
    return Zone(b"\xff" * width, bytes(width))


def word_bit(attribute: str, word: str) -> int:
    """The bit of a word in a zone's `words`."""
    return 1 << (xxhash.xxh3_64_intdigest(f"{attribute}={word}".encode()) % WORD_BITS)


def words_of(point: Point) -> int:
    """The bits of all words of a point that zones know."""
    found = point.derived.get("words")
    if found is None:
        found = 0
        for attribute in WORD_ATTRIBUTES:
            value = point.attributes.get(attribute, ())
            for word in (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ():
                found |= word_bit(attribute, str(word))
        point.derived["words"] = found
    return int(found)


def _least_price(rows: Rows) -> int:
    """Exact, although rows are rounded: rounding keeps their order, so the least is among those least when rounded."""
    column = rows.array["attributes"][:, rows.schema.column["price.cpu"]]
    least: list[int] = np.flatnonzero(column == column.min()).tolist()
    return min(rows.points[place].number("price.cpu") for place in least)


def _all_words(rows: Rows) -> int:
    found = 0
    for point in rows.points:
        found |= words_of(point)
    return found


def _down(value: float) -> int:
    return int(value // LOCATION_STEP_US)


def _up(value: float) -> int:
    return int(-(-value // LOCATION_STEP_US))
