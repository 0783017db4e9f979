"""What a holder says of one trie node: the page of children and rows that pass a reader's filter.

An answer's items are children by prefix, then rows by rank and id. A page is filled to just under a datagram and
starts at any item, so pages can be asked for at once; all carry the digest of the whole, which tells whether they
are pages of the same answer, and whether another replica has the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

import xxhash

from summaries.asks import REPLICAS
from summaries.filter import CompiledFilter, compiled
from summaries.forms import MAX_HOLDERS, child_fields, entry_fields, outlined_fields, posting_fields
from summaries.messages import (
    Answer,
    Child,
    Cursor,
    Digest,
    EntryFact,
    Outline,
    Outlined,
    Overview,
    Posting,
    Pull,
    Read,
    Row,
)
from summaries.node import TrieNode
from summaries.packing import HEADER_BYTES, Packable, row_width
from summaries.point import Rows
from summaries.rank import LAST
from summaries.size import MAX_MESSAGE_BYTES, packed_size
from summaries.trie import Prefix
from summaries.zone import MAX_COUNT

_FRAME_BYTES = 120  # kind, prefix, counts, and a cursor with a contact in it
_PAGE_ITEMS = 100
OUTLINED = 2  # holders named in an outline, as many as a strict search reads: a relaxed one takes either
_CHILD_MARK, _ROW_MARK = Struct(">QBqL"), Struct(">Qq")


def answer(node: TrieNode, read: Read, reader: bytes, wall_ms: int, now_ms: int = 0) -> Answer:
    """One page: children whose zone passes, then rows that match exactly, best first."""
    condition = compiled(node.schema, read.filter)
    every = _children(node, read, condition, reader)
    passing = [child for child, kept, _ in every if kept]
    marks = [mark for _, kept, mark in every if kept]
    pruned = len(every) - len(passing)
    matched, rows = _rows(node, read, condition, wall_ms, now_ms)
    total, mark = len(passing) + len(rows), digest_of(passing, marks, rows)
    if read.digest_only:
        return Answer(node.prefix, (), (), matched, pruned, total, mark)
    children: list[Child] = []
    room = MAX_MESSAGE_BYTES - _FRAME_BYTES
    for child in passing[read.first :]:
        room -= packed_size(child_fields(child))
        if room < 0 or len(children) >= _PAGE_ITEMS:
            return Answer(node.prefix, tuple(children), (), matched, pruned, total, mark)
        children.append(child)
    first = max(read.first - len(passing), 0)
    # As wide as the widest of all: every full page has equally many, so that pages can be asked for together.
    width = row_width(rows)
    count = min(max(room - HEADER_BYTES, 0) // width, _PAGE_ITEMS) if rows else 0
    page = tuple(Row(*row) for row in rows[first : first + count])
    return Answer(node.prefix, tuple(children), page, matched, pruned, total, mark)


def outline(node: TrieNode, overview: Overview, reader: bytes) -> Outline:
    """One page of all children, their zones with them."""
    children = []
    for prefix, zone, holders in node.children():
        children.append(Outlined(prefix, zone, _mark(holders), len(holders), named(holders, prefix, reader, OUTLINED)))
    if not children and len(node.rows):
        children.append(Outlined(node.prefix, node.zone, 0, 0, ()))  # a leaf: itself
    room = MAX_MESSAGE_BYTES - _FRAME_BYTES
    page: list[Outlined] = []
    for child in children[overview.first :]:
        room -= packed_size(outlined_fields(child))
        if room < 0 or len(page) >= _PAGE_ITEMS:
            break
        page.append(child)
    return Outline(node.prefix, tuple(page), len(children), bool(len(node.rows) or node.frontier()))


def _mark(holders: list[bytes]) -> int:
    """Which holders a child has, in 32 bits: a replica that knows another one has something to add."""
    return xxhash.xxh3_64_intdigest(b"".join(holders)) & 0xFFFFFFFF


def named(holders: list[bytes], prefix: Prefix, reader: bytes, most: int) -> tuple[bytes, ...]:
    """Different readers start at different replicas, so that one holder does not serve them all.

    A strict reader needs all but one of those that are known, and finds the R nearest by itself: where former holders
    are known besides, all are named.
    """
    turn = xxhash.xxh3_64_intdigest(reader + prefix.bits.to_bytes(8, "big")) % len(holders)
    wanted = most if len(holders) <= REPLICAS + 1 else len(holders)
    return tuple((holders[turn:] + holders[:turn])[: min(wanted, MAX_HOLDERS)])


def digest_of(children: Iterable[Child], marks: Iterable[int], rows: Iterable[Packable] = ()) -> int:
    """What two answers have in common when neither can add to the other: items, order, holders, bounds and ranks."""
    hashed = xxhash.xxh3_64()
    for child, mark in zip(children, marks):
        hashed.update(_CHILD_MARK.pack(child.prefix.bits, child.prefix.length, child.bound, mark))
    hashed.update(b"rows")
    for id, _, rank, _ in rows:
        hashed.update(_ROW_MARK.pack(id, rank))
    return hashed.intdigest()


def _rows(
    node: TrieNode, read: Read, condition: CompiledFilter, wall_ms: int, now_ms: int
) -> tuple[int, list[Packable]]:
    """How many rows match, and those that are wanted, best first. A reader's pages come one after the other: kept."""
    now_s = wall_ms // 1000
    held = node.shown(now_ms)
    changes = tuple(rows.changes for rows in held)
    asked = (changes, now_s, read.below, read.limit, read.order, read.filter)
    if node.matching is None or node.matching[0] != asked:
        node.matching = asked, _matching(held, read, condition, now_s)
    return node.matching[1]


def _matching(
    held: Sequence[Rows], read: Read, condition: CompiledFilter, now_s: int
) -> tuple[int, list[Packable]]:
    found: list[Packable] = []
    for rows in held:
        for place in condition.select(rows):
            point = rows.points[place]
            if point.expires_s > now_s:
                found.append((point.id, point.seq, read.order.rank(point.attributes), point.contact))
    found.sort(key=lambda row: (row[2], row[0], row[1]))
    wanted = [row for row in found if row[2] <= read.below]
    return min(len(found), MAX_COUNT), wanted[: read.limit] if read.limit else wanted


def digest(node: TrieNode | None, pull: Pull) -> Digest:
    """One page of what a replica holds: postings, then entries."""
    if node is None:
        return Digest(pull.prefix, False, 0, (), ())
    items: list[tuple[Cursor, Posting | EntryFact]] = [
        ((0, id, key), Posting(id, key, seq)) for id, key, seq in node.rows.postings()
    ]
    items += [((1, fact.child.bits, fact.child.length, fact.holder), fact) for fact in node.facts()]
    room = MAX_MESSAGE_BYTES - _FRAME_BYTES
    page: list[Posting | EntryFact] = []
    last: Cursor = ()
    more = False
    for here, item in items:
        if pull.cursor and not _after(here, pull.cursor):
            continue
        room -= packed_size(posting_fields(item) if isinstance(item, Posting) else entry_fields(item))
        if room < 0 or len(page) >= _PAGE_ITEMS:
            more = True
            break
        page.append(item)
        last = here
    return Digest(
        node.prefix,
        True,
        node.splits,
        tuple(item for item in page if isinstance(item, Posting)),
        tuple(item for item in page if isinstance(item, EntryFact)),
        last if more else (),
    )


def _children(node: TrieNode, read: Read, condition: CompiledFilter, reader: bytes) -> list[tuple[Child, bool, int]]:
    """Every child, whether it passes, and its holders' mark, in the order of prefixes."""
    found = []
    for prefix, zone, holders in node.children():
        passes = condition.passes(zone)
        bound = read.order.bound(node.schema, zone) if passes else 0
        passes = passes and bound <= read.below
        some = named(holders, prefix, reader, read.holders)
        found.append((Child(prefix, bound, zone.count, zone.leaves, len(holders), some), passes, _mark(holders)))
    # A split node that is no anchor is reached only between two reads of its parent: its reader must
    # look below, and finds the holders by itself.
    found += [(Child(prefix, -LAST, 0, 0, 0, ()), True, 0) for prefix in node.frontier()]
    found.sort(key=lambda one: (one[0].prefix.bits, one[0].prefix.length))
    return found


def _after(here: Cursor, cursor: Cursor) -> bool:
    try:
        return here > cursor
    except TypeError:  # a cursor that we never gave out
        return False
