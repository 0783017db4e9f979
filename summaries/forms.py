"""How messages are written: the positional list of each kind, and the bounds of every field.

Decides what is well-formed: `from_fields` gives a message of which every part is within its bounds, or raises
MessageError. Leaves bytes and MACs to the driver. `to_fields` gives [kind, ...] of integers, texts, bytes and lists, at
most MAX_MESSAGE_BYTES when packed.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any, cast

from summaries.attributes import LARGEST
from summaries.errors import MessageError
from summaries.fields import Codec, boolean, integer, many, octets, record, text
from summaries.filter import Filter
from summaries.messages import (
    MAX_OFFER,
    Accepted,
    AdvertIs,
    Answer,
    AtCopy,
    Child,
    Cursor,
    Delete,
    Digest,
    EntryFact,
    Fetch,
    Here,
    Insert,
    Locate,
    Marked,
    Message,
    Moved,
    NotReady,
    Offer,
    Outline,
    Outlined,
    Overview,
    Posting,
    Pull,
    Read,
    Refused,
    Renew,
    Row,
    Salted,
    Stale,
    SumUpdate,
    Tallied,
    Tally,
    TallyChild,
    TallyPart,
    Wanted,
    ZoneUpdate,
)
from summaries.packing import pack_rows, unpack_rows
from summaries.point import LARGEST_SEQUENCE, MAX_ADVERT_BYTES, MAX_CONTACT_BYTES
from summaries.rank import Order
from summaries.renewal import MAX_CHANGES, Change
from summaries.sums import AGGREGATE
from summaries.trie import MAX_TRIES, Prefix
from summaries.zone import MAX_COUNT, MAX_HEIGHT_STEPS, WORD_BITS, Zone

MAX_HOLDERS = 8  # holders named for one child
MAX_ITEMS = 128  # children, rows or postings in one message; the size bound is met long before
MAX_TOTAL = 1 << 20  # items of one answer: eight times the rows that a holder keeps
MAX_RETRY_MS = 60_000
MAX_AGE_MS = 1 << 40
ANY_WORD = (1 << WORD_BITS) - 1


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
        message: Message = kind(*[codec[1](value) for (_, codec), value in zip(codecs, data[1:])])
        return message
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
    lows, highs = _BINS[1](value[0]), _BINS[1](value[1])
    if len(lows) != len(highs):
        raise MessageError("a zone has as many least as greatest bins")
    box = _BOX[1](value[3])
    if len(box) != 6:
        raise MessageError("a box has six bounds")
    environments, height = _U64[1](value[2]), _HEIGHT[1](value[4])
    price, count, leaves = _PRICE[1](value[5]), _COUNT[1](value[6]), _COUNT[1](value[7])
    return Zone(lows, highs, environments, box, height, price, count, leaves, _read_words(value[8]))


def _read_words(value: object) -> int:
    """A former version writes 64 other bits as an integer: whatever word may be there, if there is any."""
    if type(value) is int:
        return ANY_WORD if _U64[1](value) else 0
    return int.from_bytes(_WORDS[1](value), "big")


def _write_zone(zone: Zone) -> list[Any]:
    z = zone
    words = z.words.to_bytes((z.words.bit_length() + 7) // 8, "big")
    return [z.lows, z.highs, z.environments, list(z.box), z.height, z.price, z.count, z.leaves, words]


def _write_change(change: Change) -> list[Any]:
    """Two fields where the length stays, as former versions have it; they refuse three, and are sent the whole."""
    return [change.first, change.data] if change.removed < 0 else [change.first, change.data, change.removed]


def _read_change(value: object) -> Change:
    if not isinstance(value, list) or not 2 <= len(value) <= 3:
        raise MessageError("a change has two fields, or three")
    return Change(_PLACE[1](value[0]), _ADVERT[1](value[1]), *map(_PLACE[1], value[2:]))


def _read_copied(value: object) -> Read | Overview | ZoneUpdate:
    if not isinstance(value, list) or not value or value[0] not in (Read.KIND, Overview.KIND, ZoneUpdate.KIND):
        raise MessageError("a copy is read, or told of a zone")  # before it is read: none is nested in itself
    return cast(Read | Overview | ZoneUpdate, from_fields(value))


def _read_salted(value: object) -> Any:
    if not isinstance(value, list) or not value or value[0] not in _SALTED:
        raise MessageError("no question to a trie")  # before it is read: none is nested in itself
    return from_fields(value)


_U64 = integer(0, (1 << 64) - 1)
_SEQ = integer(0, LARGEST_SEQUENCE)
_COUNT = integer(0, MAX_COUNT)
_RANK = integer(-LARGEST, LARGEST)
_CONTACT = octets(MAX_CONTACT_BYTES)
_ADVERT = octets(MAX_ADVERT_BYTES)
_PLACE = integer(0, MAX_ADVERT_BYTES)
_CHANGE: Codec = (_write_change, _read_change)
_WORDS = octets(WORD_BITS // 8)
_BINS, _BOX = octets(32), many(integer(-32768, 32767), 6)
_HEIGHT, _PRICE = integer(0, MAX_HEIGHT_STEPS), integer(0, LARGEST)
_CURSOR: Codec = (list, _read_cursor)
_PREFIX = record(Prefix, _U64, integer(0, 64))
_ZONE: Codec = (_write_zone, _read_zone)
_FILTER: Codec = (Filter.to_fields, Filter.from_fields)
_ORDER: Codec = (Order.to_fields, Order.from_fields)
_CHILD = record(Child, _PREFIX, _RANK, _COUNT, _COUNT, integer(0, 255), many(_CONTACT, MAX_HOLDERS))
_ROW = partial(tuple.__new__, Row)  # as Row._make, in half its time: a search reads hundreds
_ROWS: Codec = (
    pack_rows,
    lambda data: tuple(map(_ROW, unpack_rows(data, MAX_ITEMS))),
)
_CHILDREN = many(_CHILD, MAX_ITEMS)
_TOTAL = integer(0, MAX_TOTAL)
_POSTING = record(Posting, _U64, _U64, _SEQ)
_ENTRY = record(EntryFact, _PREFIX, _CONTACT, _U64, _U64, _ZONE)

_OUTLINED = record(Outlined, _PREFIX, _ZONE, integer(0, (1 << 32) - 1), integer(0, 255), many(_CONTACT, MAX_HOLDERS))

_PART = record(TallyPart, text(128), integer(0, MAX_AGE_MS), _COUNT, AGGREGATE)
_TALLY_CHILD = record(TallyChild, _PREFIX, _COUNT, integer(0, 255), many(_CONTACT, MAX_HOLDERS))

_SHAPES: dict[Any, tuple[Codec, ...]] = {
    Locate: (_PREFIX, _U64),
    Insert: (_PREFIX, _U64, _ADVERT),
    Delete: (_PREFIX, _U64, _ADVERT),
    Renew: (_PREFIX, _U64, _U64, _SEQ, boolean(), many(_CHANGE, MAX_CHANGES)),
    Read: (_PREFIX, _FILTER, _ORDER, integer(0, 1 << 20), _RANK, integer(1, MAX_HOLDERS), _TOTAL, boolean()),
    Fetch: (_PREFIX, _U64),
    Pull: (_PREFIX, _CURSOR),
    ZoneUpdate: (_PREFIX, _U64, _U64, _ZONE, _U64),
    Marked: (_PREFIX, _U64),
    Offer: (_PREFIX, many(_POSTING, MAX_OFFER)),
    Overview: (_PREFIX, _TOTAL),
    Tally: (_PREFIX, _FILTER, text(16), boolean(), _TOTAL, boolean()),
    SumUpdate: (_PREFIX, _U64, _U64, AGGREGATE),
    AtCopy: ((to_fields, _read_copied),),
    Salted: (integer(1, MAX_TRIES - 1), (to_fields, _read_salted)),
    Tallied: (_PREFIX, many(_PART, MAX_ITEMS), many(_TALLY_CHILD, MAX_ITEMS), _TOTAL, _U64, boolean()),
    Outline: (_PREFIX, many(_OUTLINED, MAX_ITEMS), _TOTAL, boolean()),
    Accepted: (_U64,),
    Moved: (_PREFIX, many(_CONTACT, MAX_HOLDERS)),
    Here: (),
    Stale: (_SEQ,),
    Answer: (_PREFIX, _CHILDREN, _ROWS, _COUNT, _COUNT, _TOTAL, _U64),
    AdvertIs: (_ADVERT,),
    Digest: (_PREFIX, boolean(), _U64, many(_POSTING, MAX_ITEMS), many(_ENTRY, MAX_ITEMS), _CURSOR),
    NotReady: (integer(0, MAX_RETRY_MS),),
    Refused: (text(200),),
    Wanted: (many(integer(0, MAX_OFFER - 1), MAX_OFFER),),
}
_SALTED = frozenset(kind.KIND for kind in _SHAPES if kind.KIND < AtCopy.KIND)
_FORMS = {kind: tuple(zip([field.name for field in fields(kind)], codecs)) for kind, codecs in _SHAPES.items()}
_KINDS: dict[int, Any] = {kind.KIND: kind for kind in _SHAPES}
child_fields, posting_fields, entry_fields, outlined_fields = _CHILD[0], _POSTING[0], _ENTRY[0], _OUTLINED[0]
part_fields, tally_child_fields = _PART[0], _TALLY_CHILD[0]
