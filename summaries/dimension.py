"""One axis of the search space: an attribute's values, as ordered codes.

Decides how a value becomes a 12-bit code and a bin (1/256 of the dimension), by equi-depth
breakpoints. A code is monotone in the value, so comparing codes or bins never contradicts
comparing values: old breakpoints harm balance, never correctness. Leaves the key's layout to
trie.py. Source: XenoSearch (HPDC-12), "a dimension's range is split among its servers".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from summaries.attributes import LARGEST, Environment, version_tuple
from summaries.errors import MessageError

CODE_BITS = 12
CODES = 1 << CODE_BITS
BIN_SHIFT = 4  # a bin is 16 codes: 256 bins a dimension, so that a zone spends one byte a bound
BINS = CODES >> BIN_SHIFT
AXIS_STEPS = 255  # breakpoints of one location axis: 8 bits each
SLOTS = 64  # environments share 6 bits of code and a 64-bit mask
UNKNOWN_SLOT = SLOTS - 1  # every environment that the schema does not name
KINDS = ("ordered", "categorical", "location")


@dataclass(frozen=True, slots=True)
class Dimension:
    """An attribute's axis. `breakpoints` are increasing integers; `categories` are environment names."""

    name: str
    unit: str
    kind: str
    breakpoints: tuple[int, ...] = ()
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MessageError(f"unknown kind of dimension {self.kind!r}")
        if len(self.breakpoints) >= CODES or any(type(point) is not int for point in self.breakpoints):
            raise MessageError("at most 4095 whole breakpoints a dimension")
        if any(abs(point) > LARGEST for point in self.breakpoints):
            raise MessageError("a breakpoint is out of range")
        if self.kind == "ordered" and any(a >= b for a, b in pairwise(self.breakpoints)):
            raise MessageError("breakpoints must increase")
        if self.kind == "location":
            if len(self.breakpoints) % 3 or len(self.breakpoints) > 3 * AXIS_STEPS:
                raise MessageError("location has three axes of equally many breakpoints")
            if any(a > b for axis in range(3) for a, b in pairwise(self._axis(axis))):
                raise MessageError("breakpoints must not fall")
        if len(self.categories) > UNKNOWN_SLOT or len(set(self.categories)) != len(self.categories):
            raise MessageError("at most 63 categories, each once")

    @property
    def width(self) -> int:
        """How many bits a code of this dimension uses: 12, or fewer when there are few distinct values."""
        return CODE_BITS if self.kind != "ordered" else max(1, len(self.breakpoints).bit_length())

    def code(self, value: int) -> int:
        """The 12-bit code of an ordered value; monotone."""
        return bisect_right(self.breakpoints, value) << (CODE_BITS - self.width)

    def bin(self, value: int) -> int:
        """Which 1/256 of the dimension a value is in."""
        return self.code(value) >> BIN_SHIFT

    def least(self, bin_: int) -> int:
        """The smallest value that a bin (or one above it) can hold; 0 for the first."""
        step = 1 << (CODE_BITS - self.width)
        rank = -(-(bin_ << BIN_SHIFT) // step)
        if rank <= 0:
            return 0
        return self.breakpoints[min(rank, len(self.breakpoints)) - 1] if self.breakpoints else 0

    def greatest(self, bin_: int) -> int:
        """The largest value that a bin (or one below it) can hold; LARGEST for the last."""
        step = 1 << (CODE_BITS - self.width)
        rank = -(-((bin_ + 1) << BIN_SHIFT) // step)
        return LARGEST if rank > len(self.breakpoints) else self.breakpoints[rank - 1] - 1

    def axis_code(self, axis: int, value: int) -> int:
        """The 8-bit code of a coordinate on one location axis."""
        points = self._axis(axis)
        return bisect_right(points, value) * 256 // (len(points) + 1)

    def slot(self, kind: str, name: str) -> int:
        """The place of an environment among the schema's, 0 to 63: its bit in a zone's mask."""
        try:
            return self.categories.index(f"{kind}.{name}")
        except ValueError:
            return UNKNOWN_SLOT

    def environment_code(self, environment: Environment) -> int:
        """Slot, then major version: postings of one environment lie together, ordered by version."""
        kind, name, version = environment
        numbers = version_tuple(version)
        return self.slot(kind, name) << 6 | min(numbers[0] if numbers else 0, 63)

    def to_fields(self) -> list[object]:
        return [self.name, self.unit, self.kind, list(self.breakpoints), list(self.categories)]

    @classmethod
    def from_fields(cls, fields: object) -> Dimension:
        """Read what to_fields wrote; anything else raises MessageError."""
        if not isinstance(fields, list) or len(fields) != 5:
            raise MessageError("a dimension has five fields")
        name, unit, kind, points, categories = fields
        if not (isinstance(name, str) and isinstance(unit, str) and isinstance(kind, str)):
            raise MessageError("a dimension's name, unit and kind are texts")
        if not isinstance(points, list) or not isinstance(categories, list):
            raise MessageError("breakpoints and categories are lists")
        if not all(isinstance(one, str) for one in categories):
            raise MessageError("a category is a text")
        return cls(name, unit, kind, tuple(points), tuple(categories))

    def _axis(self, axis: int) -> tuple[int, ...]:
        steps = len(self.breakpoints) // 3
        return self.breakpoints[axis * steps : (axis + 1) * steps]


def equi_depth(values: Iterable[int], most: int = CODES) -> tuple[int, ...]:
    """Breakpoints that put equally many of the values into each code; one code a value when few."""
    ordered = sorted(values)
    distinct = sorted(set(ordered))
    if len(distinct) <= most:
        return tuple(distinct[1:])
    quantiles = {ordered[step * len(ordered) // most] for step in range(1, most)}
    return tuple(sorted(quantiles - {ordered[0]}))


def equi_depth_axes(coordinates: Sequence[Sequence[int]], steps: int = AXIS_STEPS) -> tuple[int, ...]:
    """Breakpoints of the three location axes, one after the other, `steps` each (repeats allowed)."""
    points: list[int] = []
    for axis in range(3):
        ordered = sorted(one[axis] for one in coordinates)
        if ordered:
            points += [ordered[step * len(ordered) // (steps + 1)] for step in range(1, steps + 1)]
    return tuple(points)
