"""Where a point lies on a dimension: 64-bit keys, prefixes, and the trie's shape.

Decides the key (own code, then a Morton interleave of stable attributes, then a hash of the id),
which prefix is whose parent, and a trie node's address in the DHT. A trie splits at single key
bits, so replicas with different rows still split alike. Every sixth bit is an **anchor**: a
prefix whose length is a multiple of six. Only anchors are aggregation points; all prefixes up to
six bits longer are their children, so fan-out is at most 64 and three levels address 262,144
leaves. Which of those prefixes are split is 63 bits (Splits), and bits are only ever added:
replicas that disagree unite by OR. After: prefix hash trees (Ramabhadran et al., 2004).
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, Self

from summaries.dimension import BIN_SHIFT, CODE_BITS, Dimension
from summaries.errors import MessageError
from summaries.point import Point
from summaries.schema import ENVIRONMENT, LOCATION, Schema

KEY_BITS = 64
LEVEL_BITS = 6
MAX_TRIES = 16  # of one dimension: each costs what publishing to one does
KEYS_REMEMBERED_MAX = 8_192  # trie nodes of which a process remembers the DHT's key: some 2 MB
_MASK = (1 << 64) - 1


class _Bits(NamedTuple):
    bits: int
    length: int


class Prefix(_Bits):
    """The first `length` bits of a key, right-aligned in `bits`.

    A tuple and no dataclass: holders and publishers look things up by prefixes all the time, and a tuple hashes and
    compares without a step of Python.
    """

    __slots__ = ()

    def __new__(cls, bits: int, length: int) -> Self:
        if not 0 <= length <= KEY_BITS or not 0 <= bits < 1 << length:
            raise MessageError("a prefix has at most 64 bits, and no more than its length says")
        return tuple.__new__(cls, (bits, length))

    def contains(self, key: int) -> bool:
        return key >> (KEY_BITS - self.length) == self.bits

    def covers(self, other: Prefix) -> bool:
        """Whether the other is this prefix or lies under it."""
        return other.length >= self.length and other.bits >> (other.length - self.length) == self.bits

    def child(self, bit: int) -> Prefix:
        return Prefix(self.bits << 1 | bit, self.length + 1)

    def towards(self, key: int) -> Prefix:
        """The child on the way to a key."""
        return Prefix(key >> (KEY_BITS - self.length - 1), self.length + 1)

    @property
    def is_anchor(self) -> bool:
        return self.length % LEVEL_BITS == 0

    @property
    def parent(self) -> Prefix | None:
        """The aggregation point that summarises this prefix: the next shorter anchor; None for the root."""
        if self.length == 0:
            return None
        length = (self.length - 1) // LEVEL_BITS * LEVEL_BITS
        return Prefix(self.bits >> (self.length - length), length)

    @property
    def anchor(self) -> Prefix:
        """Whose split bits tell whether this prefix is split: its own when it is an anchor."""
        parent = self.parent
        return self if self.is_anchor or parent is None else parent

    @property
    def first(self) -> int:
        return self.bits << (KEY_BITS - self.length)

    @property
    def last(self) -> int:
        return self.first | ((1 << (KEY_BITS - self.length)) - 1)

    def __str__(self) -> str:
        return f"{self.bits:0{self.length}b}" if self.length else "root"


ROOT = Prefix(0, 0)


def split_bit(prefix: Prefix) -> int:
    """The bit of its anchor's Splits that says this prefix is split."""
    depth = prefix.length - prefix.anchor.length
    return 1 << ((1 << depth) - 1 + (prefix.bits & ((1 << depth) - 1)))


def path_bits(child: Prefix) -> int:
    """The bits that must be set for `child` to exist: every prefix between its parent and itself."""
    parent, bits = child.parent, 0
    if parent is None:
        return 0
    for length in range(parent.length, child.length):
        bits |= split_bit(Prefix(child.bits >> (child.length - length), length))
    return bits


def region(prefix: Prefix) -> int:
    """The split bits of the prefixes at or below this one, within its anchor's level."""
    depth, mask = prefix.length - prefix.anchor.length, 0
    within = prefix.bits & ((1 << depth) - 1)
    for below in range(LEVEL_BITS - depth):
        first = (1 << (depth + below)) - 1 + (within << below)
        mask |= ((1 << (1 << below)) - 1) << first
    return mask


def destination(prefix: Prefix, splits: int, key: int) -> Prefix:
    """Where a key belongs, going down from `prefix` through its anchor's split bits."""
    anchor = prefix.anchor.length
    depth, most = prefix.length - anchor, min(LEVEL_BITS, KEY_BITS - anchor)
    path = (key << LEVEL_BITS >> (KEY_BITS - anchor)) & ((1 << LEVEL_BITS) - 1)
    while depth < most and splits >> ((1 << depth) - 1 + (path >> (LEVEL_BITS - depth))) & 1:
        depth += 1
    return Prefix(key >> (KEY_BITS - anchor - depth), anchor + depth)


def needed_splits(prefix: Prefix, keys: list[int], capacity: int) -> int:
    """The split bits that leave no more than `capacity` of the keys in a child, within one level."""
    if len(keys) <= capacity or prefix.length >= KEY_BITS:
        return 0
    bits, end, work = 0, prefix.anchor.length + LEVEL_BITS, [(prefix, keys)]
    while work:
        here, mine = work.pop()
        if len(mine) <= capacity or here.length >= min(end, KEY_BITS):
            continue
        bits |= split_bit(here)
        middle = here.child(1).first if here.length < KEY_BITS else 0
        work.append((here.child(0), [key for key in mine if key < middle]))
        work.append((here.child(1), [key for key in mine if key >= middle]))
    return bits


def cover(first: int, last: int) -> list[Prefix]:
    """The fewest prefixes that together hold exactly the keys from first to last."""
    found: list[Prefix] = []
    work = [ROOT]
    while work:
        here = work.pop()
        if here.first > last or here.last < first:
            continue
        if first <= here.first and here.last <= last:
            found.append(here)
        else:
            work += [here.child(1), here.child(0)]
    return found


@lru_cache(maxsize=KEYS_REMEMBERED_MAX)
def trie_key(network_id: bytes, schema_epoch: int, dimension: str, prefix: Prefix, group: int = 0) -> bytes:
    """The DHT key of a trie node, or of a copy of it, or of the one in another of its dimension's tries.

    Every field is length-prefixed, so no two share a hash.
    """
    aligned = prefix.first & _MASK if prefix.length else 0
    fields = (
        b"xeno-ap1",
        network_id,
        schema_epoch.to_bytes(8, "big"),
        dimension.encode(),
        bytes([prefix.length]),
        aligned.to_bytes(8, "big"),
        *([bytes([group])] if group else []),
    )
    return sha256(b"".join([len(field).to_bytes(2, "big") + field for field in fields])).digest()[:20]


def splitmix64(value: int) -> int:
    """Steele, Lea and Flood's mixer: spreads ids evenly over the key's last bits."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def keys_of(schema: Schema, name: str, point: Point) -> list[int]:
    """The keys of a point on a dimension: one, or one a distinct environment code."""
    dimension = schema.dimension(name)
    if name == LOCATION:
        return [_finish(_interleave(_LOCATION_ORDER, _location_codes(schema, point)), len(_LOCATION_ORDER), point)]
    tie, tie_bits = _tie_break(schema, point)
    if name == ENVIRONMENT:
        codes = sorted({dimension.environment_code(one) for one in point.environments})
        return [_finish(code << tie_bits | tie, CODE_BITS + tie_bits, point) for code in codes]
    code = dimension.code(point.number(name)) >> (CODE_BITS - dimension.width)
    return [_finish(code << tie_bits | tie, dimension.width + tie_bits, point)]


def is_near(dimension: Dimension, held: int, own: int) -> bool:
    """Whether a row may stay under the key it has: its own code moved by no more than one bin."""
    if dimension.kind == "location":
        before, after = _separate(held), _separate(own)
        return all(abs(before[axis] - after[axis]) <= 1 for axis in before)
    shift = KEY_BITS - dimension.width
    if dimension.kind == "categorical":
        return held >> shift == own >> shift
    return abs((held >> shift) - (own >> shift)) << (CODE_BITS - dimension.width) <= 1 << BIN_SHIFT


# ----- the key's parts

_TIE_ORDER = "xyMxyzDxyCN" * 2  # stable attributes only, so that a key seldom moves
_LOCATION_ORDER = "xypxyzp" * 4  # "cheapest within R": place first, price beside it
_AXES = "xyz"


def _tie_break(schema: Schema, point: Point) -> tuple[int, int]:
    found: int | None = point.derived.get(("tie", schema.epoch))
    if found is None:  # the same on every dimension
        found = point.derived["tie", schema.epoch] = _interleave(_TIE_ORDER, _tie_codes(schema, point))
    return found, len(_TIE_ORDER)


def _tie_codes(schema: Schema, point: Point) -> dict[str, int]:
    codes = _location_codes(schema, point)
    for letter, attribute, axis in (
        ("M", "memory.total", "memory.available"),
        ("D", "disk.total", "disk.available"),
        ("C", "cores", "cores"),
        ("N", "net.total", "net.available"),
    ):
        codes[letter] = schema.dimension(axis).bin(point.number(attribute))
    return codes


def _location_codes(schema: Schema, point: Point) -> dict[str, int]:
    axes = schema.dimension(LOCATION)
    codes = {letter: axes.axis_code(axis, point.location[axis]) for axis, letter in enumerate(_AXES)}
    codes["p"] = schema.dimension("price.cpu").bin(point.number("price.cpu"))
    return codes


def _interleave(order: str, codes: dict[str, int]) -> int:
    taken = dict.fromkeys(codes, 0)
    key = 0
    for letter in order:
        key = key << 1 | (codes[letter] >> (7 - taken[letter])) & 1
        taken[letter] += 1
    return key


def _separate(key: int) -> dict[str, int]:
    codes = dict.fromkeys("xyzp", 0)
    for place, letter in enumerate(_LOCATION_ORDER):
        codes[letter] = codes[letter] << 1 | (key >> (KEY_BITS - 1 - place)) & 1
    return codes


def _finish(high: int, bits: int, point: Point) -> int:
    return high << (KEY_BITS - bits) | splitmix64(point.id) >> bits
