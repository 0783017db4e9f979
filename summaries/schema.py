"""The signed list of dimensions: what every node must agree on to find the same trie nodes.

Decides which attributes are indexed and in what order zones and rows list them. XenoCorp signs
`to_fields()` (integers, texts, lists only) under a monotone epoch; fetching and checking that
signature is the driver's business. A new epoch has other trie keys: both are published for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from summaries.attributes import ATTRIBUTES, Attributes
from summaries.dimension import CODES, UNKNOWN_SLOT, Dimension, equi_depth, equi_depth_axes
from summaries.errors import LocalError, MessageError

ORDERED = (
    "cpu.available",
    "cores",
    "memory.available",
    "disk.available",
    "net.available",
    "price.cpu",
    "price.memory",
    "price.disk",
    "price.net",
)
ENVIRONMENT = "environment"
LOCATION = "location"
MAX_DIMENSIONS = 32  # a zone spends two bytes a dimension, and a datagram holds few zones


@dataclass(frozen=True)  # no slots: the lookups below are cached on first use
class Schema:
    """The dimensions of one epoch."""

    epoch: int
    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        names = [dimension.name for dimension in self.dimensions]
        if len(names) > MAX_DIMENSIONS or len(set(names)) != len(names):
            raise MessageError("at most 32 dimensions, each named once")
        if type(self.epoch) is not int or not 0 <= self.epoch < 1 << 32:
            raise MessageError("an epoch is a number below 2^32")
        kinds = {dimension.name: dimension.kind for dimension in self.dimensions}
        if kinds.get(ENVIRONMENT) != "categorical" or kinds.get(LOCATION) != "location":
            raise MessageError("a schema has an environment and a location dimension")
        for needed in ("cores", "memory.available", "disk.available", "net.available", "price.cpu"):
            if needed not in kinds:
                raise MessageError(f"keys are built from {needed}, so a schema must have it")
        for name, kind in kinds.items():
            if kind == "ordered" and (name not in ATTRIBUTES or ATTRIBUTES[name].kind == "set"):
                raise MessageError(f"{name} is no attribute with an order")

    @cached_property
    def by_name(self) -> dict[str, Dimension]:
        return {dimension.name: dimension for dimension in self.dimensions}

    @cached_property
    def ordered(self) -> tuple[Dimension, ...]:
        """The ordered dimensions, in the order of a zone's bytes and a row's columns."""
        return tuple(dimension for dimension in self.dimensions if dimension.kind == "ordered")

    @cached_property
    def column(self) -> dict[str, int]:
        """The place of each ordered dimension in zones and rows."""
        return {dimension.name: place for place, dimension in enumerate(self.ordered)}

    def dimension(self, name: str) -> Dimension:
        try:
            return self.by_name[name]
        except KeyError:
            raise LocalError(f"the schema has no dimension {name!r}") from None

    def to_fields(self) -> list[object]:
        return [self.epoch, [dimension.to_fields() for dimension in self.dimensions]]

    @classmethod
    def from_fields(cls, fields: object) -> Schema:
        """Read what to_fields wrote; anything else raises MessageError."""
        if not isinstance(fields, list) or len(fields) != 2 or not isinstance(fields[1], list):
            raise MessageError("a schema is an epoch and its dimensions")
        if len(fields[1]) > MAX_DIMENSIONS or type(fields[0]) is not int:
            raise MessageError("a schema is an epoch and at most 32 dimensions")
        return cls(fields[0], tuple(Dimension.from_fields(one) for one in fields[1]))

    @classmethod
    def from_sample(cls, sample: Sequence[Attributes], *, epoch: int = 1, most: int = CODES) -> Schema:
        """The schema of the eleven dimensions whose codes are equally used by these adverts.

        `most` bounds the breakpoints of a dimension: 4096 is the most that a code can tell apart,
        fewer make a smaller signed document.
        """
        dimensions = []
        for name in ORDERED:
            values = [value for one in sample if isinstance(value := one.get(name), int)]
            dimensions.append(Dimension(name, ATTRIBUTES[name].unit, "ordered", equi_depth(values, most)))
        seen: dict[str, int] = {}
        places = []
        for one in sample:
            for environment in one.get("environments", ()):  # type: ignore[union-attr]
                label = f"{environment[0]}.{environment[1]}"  # type: ignore[index]
                seen[label] = seen.get(label, 0) + 1
            place = one.get("location")
            if isinstance(place, tuple):
                places.append([part for part in place if isinstance(part, int)])
        commonest = sorted(sorted(seen), key=lambda label: -seen[label])[:UNKNOWN_SLOT]
        dimensions.append(Dimension(ENVIRONMENT, "", "categorical", (), tuple(sorted(commonest))))
        dimensions.append(Dimension(LOCATION, "us", "location", equi_depth_axes(places)))
        return cls(epoch, tuple(dimensions))
