"""What searchers, publishers and holders say to one another, as frozen types and positional lists.

Decides the form of every message of one dimension's trie and its bounds; a decoded message is
well-formed or MessageError was raised. Leaves bytes, MACs and addresses to the driver: a holder is
an opaque packed contact. `to_fields` gives [kind, ...] of integers, texts, bytes and lists, at most
MAX_MESSAGE_BYTES when packed; long answers are continued by a cursor.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

from summaries.attributes import LARGEST
from summaries.errors import MessageError
from summaries.fields import Codec, boolean, integer, many, octets, record, text
from summaries.filter import Filter
from summaries.packing import pack_rows, unpack_rows
from summaries.point import LARGEST_SEQUENCE, MAX_CONTACT_BYTES
from summaries.rank import Order
from summaries.trie import Prefix
from summaries.zone import MAX_COUNT, MAX_HEIGHT_STEPS, Zone

MAX_ADVERT_BYTES = 1_040  # with an insert's prefix, key and framing: under 1,100
MAX_HOLDERS = 8  # holders named for one child
MAX_ITEMS = 128  # children, rows or postings in one message; the size bound is met long before
MAX_TOTAL = 1 << 20  # items of one answer: eight times the rows that a holder keeps
MAX_OFFER = 36  # postings of 28 bytes in one message
MAX_RETRY_MS = 60_000
Cursor = tuple[int | bytes, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """One child that passes, in an answer: who holds it, and what best-first search needs of its zone."""

    prefix: Prefix
    bound: int  # no advert below ranks lower
    count: int
    leaves: int
    known_holders: int  # how many hold it, of whom `holders` names some
    holders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One advert that matches: enough to rank it, tell it from a newer one, and probe its server."""

    id: int
    seq: int
    rank: int
    contact: bytes


@dataclass(frozen=True, slots=True)
class Posting:
    id: int
    key: int
    seq: int


@dataclass(frozen=True, slots=True)
class EntryFact:
    """An aggregation point's entry: what one holder of a child last said of it."""

    child: Prefix
    holder: bytes
    incarnation: int
    version: int
    zone: Zone


# ----- questions


@dataclass(frozen=True, slots=True)
class Locate:
    """Where does this key belong? Here, or Moved."""

    KIND: ClassVar[int] = 1
    prefix: Prefix
    key: int


@dataclass(frozen=True, slots=True)
class Insert:
    """Hold this signed advert under this key. Accepted once every ancestor's summary includes it."""

    KIND: ClassVar[int] = 2
    prefix: Prefix
    key: int
    advert: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """This newer advert (or tombstone) of the same server supersedes the row under this key."""

    KIND: ClassVar[int] = 3
    prefix: Prefix
    key: int
    advert: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Which children may hold, and which rows do hold, what passes the filter?

    `below` and `limit`: at most `limit` rows, none that ranks above `below`. The answer's items are its children, then
    its rows; `first` says from which item on. With `digest_only` no item is wanted, only what the digest of all is.
    """

    KIND: ClassVar[int] = 4
    prefix: Prefix
    filter: Filter
    order: Order
    limit: int = 0  # 0: no limit
    below: int = LARGEST
    holders: int = 1
    first: int = 0
    digest_only: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """The newest signed advert with this id."""

    KIND: ClassVar[int] = 5
    prefix: Prefix
    id: int


@dataclass(frozen=True, slots=True)
class Pull:
    """What do you hold of this trie node? For a replica that starts or restarts."""

    KIND: ClassVar[int] = 6
    prefix: Prefix
    cursor: Cursor = ()


@dataclass(frozen=True, slots=True)
class ZoneUpdate:
    """A child's holder to its parent's holders: this is what I summarise, and which bits are split."""

    KIND: ClassVar[int] = 7
    child: Prefix
    incarnation: int
    version: int
    zone: Zone
    splits: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A replica to its peers: this trie node is split, at these bits of its anchor."""

    KIND: ClassVar[int] = 8
    prefix: Prefix
    splits: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A holder that split, to a child's holders: which of these rows do you still want?"""

    KIND: ClassVar[int] = 9
    prefix: Prefix
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """All children with their zones, from the `first` on: for a reader who will ask about them more than once."""

    KIND: ClassVar[int] = 10
    prefix: Prefix
    first: int = 0


# ----- answers


@dataclass(frozen=True, slots=True)
class Accepted:
    """Done, and visible to every strict search. `splits` are the answerer's bits of that level."""

    KIND: ClassVar[int] = 16
    splits: int = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """Not here any more: that prefix is split, try this one below it."""

    KIND: ClassVar[int] = 17
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class Here:
    KIND: ClassVar[int] = 18


@dataclass(frozen=True, slots=True)
class Stale:
    """A newer advert of the same id and key is held already."""

    KIND: ClassVar[int] = 19
    seq: int


@dataclass(frozen=True, slots=True)
class Answer:
    """To Read: some of what passes. `matched` rows match here in all; `pruned` children were ruled out.

    `total` items answer the question. `digest` is of all of them: pages of equal digest fit together, and a replica
    with the same digest has nothing to add.
    """

    KIND: ClassVar[int] = 20
    prefix: Prefix
    children: tuple[Child, ...]
    rows: tuple[Row, ...]
    matched: int
    pruned: int
    total: int
    digest: int


@dataclass(frozen=True, slots=True)
class AdvertIs:
    """To Fetch; empty when there is none."""

    KIND: ClassVar[int] = 21
    advert: bytes


@dataclass(frozen=True, slots=True)
class Digest:
    """To Pull."""

    KIND: ClassVar[int] = 22
    prefix: Prefix
    known: bool
    splits: int
    postings: tuple[Posting, ...]
    entries: tuple[EntryFact, ...]
    next: Cursor = ()


@dataclass(frozen=True, slots=True)
class NotReady:
    """I should hold this trie node and have not got it yet: ask another, or me later."""

    KIND: ClassVar[int] = 23
    retry_ms: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """To Offer: the places in its list of those that are not held, and visible to searches, yet."""

    KIND: ClassVar[int] = 25
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outlined:
    """One child in an outline."""

    prefix: Prefix
    zone: Zone
    mark: int  # of all its holders
    known_holders: int
    holders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """To Overview: some of `total` children; of a leaf, itself."""

    KIND: ClassVar[int] = 26
    prefix: Prefix
    children: tuple[Outlined, ...]
    total: int
    has_rows: bool  # whether there are rows here, too: a leaf, or one that splits


@dataclass(frozen=True, slots=True)
class Refused:
    KIND: ClassVar[int] = 24
    reason: str


Question = Locate | Insert | Delete | Read | Fetch | Pull | ZoneUpdate | Marked | Offer | Overview
Result = Accepted | Moved | Here | Stale | Answer | AdvertIs | Digest | NotReady | Refused | Wanted | Outline
Message = Question | Result


def to_fields(message: Message) -> list[Any]:
    """The positional list that the driver packs."""
    kind = type(message)
    codecs = _FORMS[kind]
    return [kind.KIND, *(codec[0](getattr(message, name)) for name, codec in codecs)]


def from_fields(data: object) -> Message:
    """Read what to_fields wrote; anything else raises MessageError."""
    try:
        if not isinstance(data, list) or not data or type(data[0]) is not int:
            raise MessageError("a message is a list that starts with its kind")
        kind = _KINDS.get(data[0])
        if kind is None:
            raise MessageError(f"unknown message {data[0]}")
        codecs = _FORMS[kind]
        if len(data) != len(codecs) + 1:
            raise MessageError(f"{kind.__name__} has {len(codecs)} fields")
        return cast(Message, kind(**{name: codec[1](value) for (name, codec), value in zip(codecs, data[1:])}))
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"malformed message: {error}") from None


# ----- field codecs: (write, read) pairs

def _read_cursor(value: object) -> Cursor:
    if not isinstance(value, list) or len(value) > 4:
        raise MessageError("a cursor has at most four parts")
    for part in value:
        if isinstance(part, bytes):
            if len(part) > MAX_CONTACT_BYTES:
                raise MessageError("a cursor's bytes are at most 64")
        elif type(part) is not int or not -LARGEST <= part < 1 << 64:
            raise MessageError("a cursor holds integers and bytes")
    return tuple(value)


def _read_zone(value: object) -> Zone:
    if not isinstance(value, list) or len(value) != 9:
        raise MessageError("a zone has nine fields")
    lows, highs = octets(32)[1](value[0]), octets(32)[1](value[1])
    if len(lows) != len(highs):
        raise MessageError("a zone has as many least as greatest bins")
    box = many(integer(-32768, 32767), 6)[1](value[3])
    if len(box) != 6:
        raise MessageError("a box has six bounds")
    environments, height = _U64[1](value[2]), integer(0, MAX_HEIGHT_STEPS)[1](value[4])
    price, count, leaves = integer(0, LARGEST)[1](value[5]), _COUNT[1](value[6]), _COUNT[1](value[7])
    return Zone(lows, highs, environments, box, height, price, count, leaves, _U64[1](value[8]))


def _write_zone(zone: Zone) -> list[Any]:
    z = zone
    return [z.lows, z.highs, z.environments, list(z.box), z.height, z.price, z.count, z.leaves, z.words]


_U64 = integer(0, (1 << 64) - 1)
_SEQ = integer(0, LARGEST_SEQUENCE)
_COUNT = integer(0, MAX_COUNT)
_RANK = integer(-LARGEST, LARGEST)
_CONTACT = octets(MAX_CONTACT_BYTES)
_ADVERT = octets(MAX_ADVERT_BYTES)
_CURSOR: Codec = (list, _read_cursor)
_PREFIX = record(Prefix, _U64, integer(0, 64))
_ZONE: Codec = (_write_zone, _read_zone)
_FILTER: Codec = (Filter.to_fields, Filter.from_fields)
_ORDER: Codec = (Order.to_fields, Order.from_fields)
_CHILD = record(Child, _PREFIX, _RANK, _COUNT, _COUNT, integer(0, 255), many(_CONTACT, MAX_HOLDERS))
_ROWS: Codec = (
    lambda rows: pack_rows([(row.id, row.seq, row.rank, row.contact) for row in rows]),
    lambda data: tuple(Row(*row) for row in unpack_rows(data, MAX_ITEMS)),
)
_CHILDREN = many(_CHILD, MAX_ITEMS)
_TOTAL = integer(0, MAX_TOTAL)
_POSTING = record(Posting, _U64, _U64, _SEQ)
_ENTRY = record(EntryFact, _PREFIX, _CONTACT, _U64, _U64, _ZONE)

_OUTLINED = record(Outlined, _PREFIX, _ZONE, integer(0, (1 << 32) - 1), integer(0, 255), many(_CONTACT, MAX_HOLDERS))

_SHAPES: dict[Any, tuple[Codec, ...]] = {
    Locate: (_PREFIX, _U64),
    Insert: (_PREFIX, _U64, _ADVERT),
    Delete: (_PREFIX, _U64, _ADVERT),
    Read: (_PREFIX, _FILTER, _ORDER, integer(0, 1 << 20), _RANK, integer(1, MAX_HOLDERS), _TOTAL, boolean()),
    Fetch: (_PREFIX, _U64),
    Pull: (_PREFIX, _CURSOR),
    ZoneUpdate: (_PREFIX, _U64, _U64, _ZONE, _U64),
    Marked: (_PREFIX, _U64),
    Offer: (_PREFIX, many(_POSTING, MAX_OFFER)),
    Overview: (_PREFIX, _TOTAL),
    Outline: (_PREFIX, many(_OUTLINED, MAX_ITEMS), _TOTAL, boolean()),
    Accepted: (_U64,),
    Moved: (_PREFIX,),
    Here: (),
    Stale: (_SEQ,),
    Answer: (_PREFIX, _CHILDREN, _ROWS, _COUNT, _COUNT, _TOTAL, _U64),
    AdvertIs: (_ADVERT,),
    Digest: (_PREFIX, boolean(), _U64, many(_POSTING, MAX_ITEMS), many(_ENTRY, MAX_ITEMS), _CURSOR),
    NotReady: (integer(0, MAX_RETRY_MS),),
    Refused: (text(200),),
    Wanted: (many(integer(0, MAX_OFFER - 1), MAX_OFFER),),
}
_FORMS = {kind: tuple(zip([field.name for field in fields(kind)], codecs)) for kind, codecs in _SHAPES.items()}
_KINDS = {kind.KIND: kind for kind in _SHAPES}
child_fields, posting_fields, entry_fields, outlined_fields = _CHILD[0], _POSTING[0], _ENTRY[0], _OUTLINED[0]
