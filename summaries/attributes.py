"""The attributes of an advert: their names, their types and the units people write.

Decides what a name means and how text such as `4 GiB` becomes the integer that an advert signs.
Which attributes are indexed is the schema's business. Source: poster panel "Search" (environment
and QoS attributes); units after the platform's words (CPU ms/s, memory bytes, network bit/s).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import xxhash

from summaries.errors import MessageError

Environment = tuple[str, str, str]
"""(kind, name, version): ("os", "linux", "6.1") or ("platform", "jvm", "17")."""

AttributeValue = int | str | tuple[str, ...] | tuple[int, ...] | tuple[Environment, ...]
Attributes = Mapping[str, AttributeValue]

LARGEST = (1 << 63) - 1  # the largest number an attribute, a price or a rank may have
ENVIRONMENT_KINDS = ("os", "platform")
MAX_COORDINATE_US = 2_000_000  # 2 s: longer than any path on Earth; keeps a bounding box in 16 bits

_TIME = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_CPU = {"ms/s": 1}
_BYTES = {"B": 1, "bytes": 1}
_BYTES |= {f"{p}iB": 1 << (10 * i) for i, p in enumerate("KMGTP", 1)}
_BYTES |= {f"{p}B": 10 ** (3 * i) for i, p in enumerate(("k", "M", "G", "T", "P"), 1)}
_RATE = {"bit/s": 1, "bps": 1}
_RATE |= {f"{p}bps": 10 ** (3 * i) for i, p in enumerate(("k", "M", "G", "T"), 1)}
_RATE |= {f"{p}bit/s": 10 ** (3 * i) for i, p in enumerate(("k", "M", "G", "T"), 1)}

DURATION_UNITS_US: Mapping[str, int] = MappingProxyType({"us": 1, "ms": 1000, "s": 1_000_000})


@dataclass(frozen=True, slots=True)
class Attribute:
    """One name: `kind` is number, price, text or set; `units` maps a suffix to base units."""

    name: str
    kind: str
    unit: str = ""
    units: Mapping[str, int] = field(default_factory=dict)


def _table() -> dict[str, Attribute]:
    rows = [Attribute("cores", "number"), Attribute("uptime", "number", "s", _TIME)]
    for stem, unit, units in (("cpu", "ms/s", _CPU), ("memory", "B", _BYTES), ("disk", "B", _BYTES)):
        rows += [Attribute(f"{stem}.{part}", "number", unit, units) for part in ("total", "available")]
    rows += [Attribute(f"net.{part}", "number", "bit/s", _RATE) for part in ("total", "available")]
    # A price's unit is what follows the currency: nano-units of it per CPU-hour, GiB-hour or GiB.
    rows += [Attribute("price.cpu", "price", "h"), Attribute("price.memory", "price", "GiB/h")]
    rows += [Attribute("price.disk", "price", "GiB/h"), Attribute("price.net", "price", "GiB")]
    rows += [Attribute(name, "text") for name in ("currency", "country", "region", "owner")]
    rows.append(Attribute("feature", "set"))
    return {row.name: row for row in rows}


ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType(_table())
NANO = 1_000_000_000

BARE_LEAST: Mapping[str, tuple[int, int, str]] = MappingProxyType(
    {"ms/s": (10, 1000, "ms/s"), "B": (1 << 20, 1, "GiB"), "bit/s": (1_000, 1, "Mbps"), "s": (60, 1, "d")}
)
"""By unit: the least number that may stand without one, and what less is taken to mean: so many of another unit.

Nobody offers four bytes of memory, and whoever writes 4 thinks of something larger; four CPUs are 4000 ms/s.
"""

_DIGITS = re.compile(r"\d+")
_MAX_VERSION_PARTS = 4
_MAX_VERSION_PART = (1 << 31) - 1


@lru_cache(maxsize=1024)  # adverts of many servers name the same few
def version_tuple(text: str) -> tuple[int, ...]:
    """`6.1` -> (6, 1): the numbers of a version, without trailing zeros, so that 6.1 equals 6.1.0."""
    parts = [min(int(run[:12]), _MAX_VERSION_PART) for run in _DIGITS.findall(text[:64])[:_MAX_VERSION_PARTS]]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def check_attributes(attributes: Attributes) -> None:
    """Raise MessageError unless every value has the type that its name promises and is in bounds."""
    for name, value in attributes.items():
        if name == "location":
            _check_location(value)
        elif name == "environments":
            _check_environments(value)
        else:
            _check_plain(name, value)


def _check_plain(name: str, value: AttributeValue) -> None:
    known = ATTRIBUTES.get(name)
    if known is None:
        raise MessageError(f"unknown attribute {name!r}")
    if known.kind in ("number", "price"):
        if type(value) is not int or not 0 <= value <= LARGEST:
            raise MessageError(f"{name} must be a whole number from 0 to 2^63-1")
    elif known.kind == "text":
        if not isinstance(value, str) or len(value) > 128:
            raise MessageError(f"{name} must be text of at most 128 characters")
    elif not isinstance(value, tuple) or len(value) > 64 or not all(isinstance(one, str) for one in value):
        raise MessageError(f"{name} must be at most 64 texts")


def _check_location(value: AttributeValue) -> None:
    if not isinstance(value, tuple) or len(value) != 4:
        raise MessageError("location must be (x, y, z, height)")
    for part in value:
        if type(part) is not int or abs(part) > MAX_COORDINATE_US:
            raise MessageError("a coordinate must be within 2,000,000 us")
    height = value[3]
    if not isinstance(height, int) or height < 0:
        raise MessageError("a height cannot be below zero")


def _check_environments(value: AttributeValue) -> None:
    if not isinstance(value, tuple) or len(value) > 32:
        raise MessageError("environments must be at most 32")
    for one in value:
        if not isinstance(one, tuple) or len(one) != 3 or not all(isinstance(part, str) for part in one):
            raise MessageError("an environment is (kind, name, version)")
        if one[0] not in ENVIRONMENT_KINDS or len(one[1]) > 32 or len(one[2]) > 32:
            raise MessageError("an environment's kind is os or platform, its name and version short")


def text_number(text: str) -> int:
    """A text as a number from 0 to 2^62-1 that is spread evenly: where it stands in a dimension of texts."""
    return xxhash.xxh3_64_intdigest(text.encode()) >> 2
