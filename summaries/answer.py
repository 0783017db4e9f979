"""What a holder says of one trie node: the page of children and rows that pass a reader's filter.

Pages are in an order that later changes do not disturb (children by prefix, rows by rank and id), so
a cursor neither repeats nor skips what stood still. A page is filled to just under a datagram.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import xxhash

from summaries.errors import MessageError
from summaries.filter import CompiledFilter, Filter
from summaries.messages import (
    MAX_HOLDERS,
    Answer,
    Child,
    Cursor,
    Digest,
    EntryFact,
    Posting,
    Pull,
    Read,
    Row,
    child_fields,
    entry_fields,
    posting_fields,
    row_fields,
)
from summaries.node import TrieNode
from summaries.rank import LAST
from summaries.schema import Schema
from summaries.size import MAX_MESSAGE_BYTES, packed_size
from summaries.zone import MAX_COUNT

_FRAME_BYTES = 120  # kind, prefix, counts, and a cursor with a contact in it
_PAGE_ITEMS = 100


def answer(node: TrieNode, read: Read, reader: bytes, now_ms: int) -> Answer:
    """One page: children whose zone passes, then rows that match exactly, best first."""
    condition = _compiled(node.schema, read.filter)
    room = MAX_MESSAGE_BYTES - _FRAME_BYTES
    if read.cursor and (len(read.cursor) not in (3, 4) or not all(isinstance(part, int) for part in read.cursor)):
        raise MessageError("not a cursor of ours")
    section, after = (read.cursor[0], read.cursor[1:]) if read.cursor else (0, ())
    children: list[Child] = []
    pruned = 0
    if section == 0:
        for child, kept in _children(node, read, condition, reader):
            if after and (child.prefix.bits, child.prefix.length) <= after:
                continue
            pruned += not kept
            if not kept:
                continue
            room -= packed_size(child_fields(child))
            if room < 0 or len(children) >= _PAGE_ITEMS:
                last = children[-1].prefix
                return Answer(node.prefix, tuple(children), (), 0, pruned, (0, last.bits, last.length))
            children.append(child)
        after = ()
    now_s = now_ms // 1000
    rows = node.rows
    found = []
    for place in condition.select(rows):
        point = rows.points[place]
        if point.expires_s > now_s:
            rank = read.order.rank(point.attributes)
            found.append(Row(point.id, point.seq, point.expires_s, rank, point.contact))
    found.sort(key=lambda row: (row.rank, row.id, row.seq))
    matched = min(len(found), MAX_COUNT)
    wanted = [row for row in found if row.rank <= read.below]
    if read.limit:
        wanted = wanted[: read.limit]
    page: list[Row] = []
    for row in wanted:
        if after and (row.rank, row.id, row.seq) <= after:
            continue
        room -= packed_size(row_fields(row))
        if room < 0 or len(page) >= _PAGE_ITEMS:
            if not page:  # the children filled this page: rows start on the next
                return Answer(node.prefix, tuple(children), (), matched, pruned, (1, -LAST, 0, 0))
            last_row = page[-1]
            cursor = (1, last_row.rank, last_row.id, last_row.seq)
            return Answer(node.prefix, tuple(children), tuple(page), matched, pruned, cursor)
        page.append(row)
    return Answer(node.prefix, tuple(children), tuple(page), matched, pruned)


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


def _children(node: TrieNode, read: Read, condition: CompiledFilter, reader: bytes) -> list[tuple[Child, bool]]:
    """Every child and whether it passes, in the order of prefixes."""
    found = []
    for prefix, zone, holders in node.children():
        passes = condition.passes(zone)
        bound = read.order.bound(node.schema, zone) if passes else 0
        passes = passes and bound <= read.below
        # Different readers start at different replicas, so that one holder does not serve them all.
        turn = xxhash.xxh3_64_intdigest(reader + prefix.bits.to_bytes(8, "big")) % len(holders)
        named = (holders[turn:] + holders[:turn])[: min(read.holders, MAX_HOLDERS)]
        found.append((Child(prefix, bound, zone.count, zone.leaves, len(holders), tuple(named)), passes))
    # A split node that is no anchor is reached only between two reads of its parent: its reader must
    # look below, and finds the holders by itself.
    found += [(Child(prefix, -LAST, 0, 0, 0, ()), True) for prefix in node.frontier()]
    found.sort(key=lambda one: (one[0].prefix.bits, one[0].prefix.length))
    return found


@lru_cache(maxsize=256)  # a reader asks many nodes with one filter, and pages repeat it
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


def _compiled(schema: Schema, filter_: Filter) -> CompiledFilter:
    return _compiled_by(filter_, _Hashed(schema))


def _after(here: Cursor, cursor: Cursor) -> bool:
    try:
        return here > cursor
    except TypeError:  # a cursor that we never gave out
        return False
