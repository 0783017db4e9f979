"""An advert as a point in the space of dimensions, and the rows that a leaf keeps of them.

Decides the form of a point (exact integers, taken from a verified advert) and of a row (f4 columns
that filter quickly). A row filter may pass too much and never too little: bounds are widened by
one f4 ulp, and the point's integers decide. Leaves signatures to the driver's verify callback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from summaries.attributes import Attributes, AttributeValue, Environment, check_attributes, text_number
from summaries.errors import MessageError
from summaries.schema import ENVIRONMENT, Schema

MAX_ADVERT_BYTES = 1_040  # with an insert's prefix, key and framing: under 1,100
MAX_CONTACT_BYTES = 64  # a packed contact is 26 or 38 bytes
LARGEST_SEQUENCE = (1 << 64) - 2  # 2^64-1 is refused: nothing could ever supersede it
RAW = "raw"  # under which `Point.derived` has the bytes that a point was read from
ROWS_MIN = 8  # for which a leaf has room from the begin
_REQUIRED = ("memory.total", "disk.total", "net.total")


@dataclass(frozen=True, slots=True)
class Point:
    """A verified advert's searchable content. `contact` is where its server answers a probe."""

    id: int
    seq: int
    expires_s: int
    attributes: Attributes
    contact: bytes = b""
    gone: bool = False  # a tombstone: the server withdrew its offer
    # What schemas make of this point, by what it is: worked out once, since holders of all dimensions ask for it.
    derived: dict[object, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if type(self.id) is not int or not 0 <= self.id < 1 << 64:
            raise MessageError("an id has 64 bits")
        if type(self.seq) is not int or not 0 <= self.seq <= LARGEST_SEQUENCE:
            raise MessageError("a sequence number is below 2^64-1")
        if type(self.expires_s) is not int or not 0 <= self.expires_s < 1 << 32:
            raise MessageError("expiry is in whole seconds below 2^32")
        if len(self.contact) > MAX_CONTACT_BYTES:
            raise MessageError("a contact has at most 64 bytes")

    @classmethod
    def from_attributes(
        cls,
        schema: Schema,
        *,
        id: int,
        seq: int,
        expires_s: int,
        attributes: Mapping[str, AttributeValue],
        contact: bytes = b"",
        gone: bool = False,
    ) -> Point:
        """Check the attributes against the schema; MessageError when one is missing or out of bounds.

        A tombstone needs no attributes.
        """
        if not gone:
            check_attributes(attributes)
            wanted = [dimension.name for dimension in schema.ordered] + [*_REQUIRED, "location"]
            missing = [name for name in wanted if name not in attributes]
            if missing:
                raise MessageError(f"the advert lacks {', '.join(missing)}")
            for stem in ("cpu", "memory", "disk", "net"):
                free, total = attributes.get(f"{stem}.available"), attributes.get(f"{stem}.total")
                if isinstance(free, int) and isinstance(total, int) and free > total:
                    raise MessageError(f"{stem}.available is more than {stem}.total")
        return cls(id, seq, expires_s, MappingProxyType(dict(attributes)), contact, gone)

    def number(self, name: str) -> int:
        """A numeric attribute; a text's is where its hash puts it."""
        value: Any = self.attributes[name]
        number: int = text_number(value) if isinstance(value, str) else value
        return number

    @property
    def location(self) -> tuple[int, int, int, int]:
        found: Any = self.attributes["location"]
        place: tuple[int, int, int, int] = found
        return place

    @property
    def environments(self) -> tuple[Environment, ...]:
        found: Any = self.attributes.get("environments", ())
        offered: tuple[Environment, ...] = found
        return offered


def environment_mask(schema: Schema, point: Point) -> int:
    """One bit an environment that the point offers, in the order of the schema's categories."""
    axis, mask = schema.dimension(ENVIRONMENT), 0
    for kind, name, _ in point.environments:
        mask |= 1 << axis.slot(kind, name)
    return mask


def columns(schema: Schema, point: Point) -> tuple[list[int], list[int], int]:
    """The point's ordered values, the bins that they are in, and its environments' mask."""
    found: tuple[list[int], list[int], int] | None = point.derived.get(("columns", schema.epoch))
    if found is None:
        values = [point.number(dimension.name) for dimension in schema.ordered]
        bins = [dimension.bin(value) for dimension, value in zip(schema.ordered, values)]
        found = point.derived["columns", schema.epoch] = (values, bins, environment_mask(schema, point))
    return found


def row_type(schema: Schema) -> np.dtype[Any]:
    """A row's layout, packed and little-endian: about 90 bytes with nine ordered dimensions."""
    return np.dtype(
        [
            ("id", "<u8"),
            ("seq", "<u8"),
            ("key", "<u8"),
            ("expires_s", "<u4"),
            ("attributes", "<f4", (len(schema.ordered),)),
            ("bins", "u1", (len(schema.ordered),)),
            ("environments", "<u8"),
            ("location", "<f4", (3,)),
            ("height", "<f4"),
        ]
    )


class Rows:
    """A leaf's rows: one numpy array that grows and shrinks by halves, row i beside `points[i]`."""

    __slots__ = ("_array", "_places", "_type", "changes", "points", "raw", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._type = row_type(schema)
        self._array: NDArray[Any] = np.zeros(ROWS_MIN, dtype=self._type)
        self._places: dict[tuple[int, int], int] = {}
        self.points: list[Point] = []
        self.raw: list[bytes] = []
        self.changes = 0  # so far: whoever keeps what follows from the rows compares it

    def __len__(self) -> int:
        return len(self.points)

    @property
    def array(self) -> NDArray[Any]:
        """The rows as a structured array (a view: do not keep it over a change)."""
        return self._array[: len(self.points)]

    def keys(self) -> list[int]:
        keys: list[int] = self.array["key"].tolist()
        return keys

    def find(self, id: int, key: int) -> Point | None:
        """The point posted under a key; an advert of several environments is posted several times."""
        place = self._places.get((id, key))
        return None if place is None else self.points[place]

    def raw_of(self, id: int, key: int | None = None) -> bytes | None:
        """The newest signed advert with this id (under this key, when one is given)."""
        if key is not None:
            place = self._places.get((id, key))
            return None if place is None else self.raw[place]
        best, found = -1, None
        for (one, _), place in self._places.items():
            if one == id and self.points[place].seq > best:
                best, found = self.points[place].seq, self.raw[place]
        return found

    def postings(self) -> list[tuple[int, int, int]]:
        """(id, key, seq) of every row, sorted."""
        return sorted((id, key, self.points[place].seq) for (id, key), place in self._places.items())

    def put(self, point: Point, key: int, raw: bytes) -> None:
        """Add a row, or replace the one of the same id and key."""
        self.changes += 1
        # One advert comes once for each dimension and replica: rows that share a point share its bytes, too.
        first = point.derived.setdefault(RAW, raw)
        raw = first if first == raw else raw
        place = self._places.get((point.id, key))
        if place is None:
            place = len(self.points)
            if place == len(self._array):
                self._array = np.concatenate([self._array, np.zeros(place, dtype=self._type)])
            self.points.append(point)
            self.raw.append(raw)
            self._places[point.id, key] = place
        else:
            self.points[place], self.raw[place] = point, raw
        values, bins, mask = columns(self.schema, point)
        x, y, z, height = point.location
        self._array[place] = (point.id, point.seq, key, point.expires_s, values, bins, mask, (x, y, z), height)

    def drop(self, id: int, key: int) -> None:
        """Remove a row; the last one takes its place."""
        place = self._places.pop((id, key), None)
        if place is None:
            return
        self.changes += 1
        last = len(self.points) - 1
        if place != last:
            self.points[place], self.raw[place] = self.points[last], self.raw[last]
            self._array[place] = self._array[last]
            self._places[self.points[place].id, int(self._array[place]["key"])] = place
        self.points.pop()
        self.raw.pop()
        if len(self._array) > max(ROWS_MIN, 4 * len(self.points)):
            # Or a leaf that handed its rows down would keep the room that it had for them.
            self._array = self._array[: len(self._array) // 2].copy()
            self._places = dict(self._places)

    def drop_expired(self, now_s: int) -> int:
        """Remove rows whose advert has expired; how many there were."""
        expired = [(int(row["id"]), int(row["key"])) for row in self.array[self.array["expires_s"] <= now_s]]
        for id, key in expired:
            self.drop(id, key)
        return len(expired)

    def to_bytes(self) -> bytes:
        return self.array.tobytes()


def unpack_rows(schema: Schema, data: bytes) -> NDArray[Any]:
    """The structured array that Rows.to_bytes packed."""
    layout = row_type(schema)
    if len(data) % layout.itemsize:
        raise MessageError("rows have a fixed width")
    return np.frombuffer(data, dtype=layout)


def widened(low: int | None, high: int | None) -> tuple[np.float32, np.float32]:
    """f4 bounds one ulp outside the given integers, so that rounding never loses a row."""
    infinity = np.float32(np.inf)
    least = -infinity if low is None else np.nextafter(np.float32(low), -infinity)
    most = infinity if high is None else np.nextafter(np.float32(high), infinity)
    return np.float32(least), np.float32(most)
