"""What a node held of a dimension that it leaves, put into the hands of those who hold it from now on.

Decides nothing about where rows belong: each is published once more, as its owner would, under the key that it has.
Whoever has it says so in a few bytes, and whoever has become a holder takes it whole; a quorum acknowledges each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from summaries.holder import Holder
from summaries.point import Point
from summaries.publish import Before, Posting, Publication
from summaries.schema import Schema
from xenonode.search.asking import Asker
from xenonode.search.holding import TrieHolding
from xenonode.search.publishing import Run

AT_ONCE = 32
"""Rows that are handed on at the same time: three holders each, and a datagram or two."""


@dataclass(frozen=True, slots=True)
class HandedOn:
    """What became of it: records of members' values, rows of adverts, and how many of these nobody acknowledged."""

    records: int
    records_lost: int
    rows: int
    rows_pending: int


@dataclass(frozen=True, slots=True)
class HeldRow:
    """One advert as a trie's leaves here held it."""

    salt: int
    point: Point
    raw: bytes
    postings: tuple[Posting, ...]


def held_rows(holding: TrieHolding) -> list[HeldRow]:
    """Every advert in the leaves of a dimension's tries, where each stands."""
    tries = (holding, *holding.salted)
    return [row for salt, one in enumerate(tries) for row in _rows_of(one.holder, salt)]


def _rows_of(holder: Holder, salt: int) -> Iterator[HeldRow]:
    newest: dict[int, tuple[Point, bytes]] = {}
    postings: dict[int, dict[int, Posting]] = {}
    for prefix, node in sorted(holder.nodes().items()):
        for id, key, _ in node.rows.postings():
            point, raw = node.rows.find(id, key), node.rows.raw_of(id, key)
            if point is None or raw is None:
                continue
            if id not in newest or newest[id][0].seq < point.seq:
                newest[id] = point, raw
            postings.setdefault(id, {})[key] = Posting(key, prefix)
    for id, (point, raw) in sorted(newest.items()):
        yield HeldRow(salt, point, raw, tuple(postings[id].values()))


async def hand_on(schema: Schema, dimension: str, rows: list[HeldRow], asker: Asker) -> int:
    """Have a quorum of those who hold it now acknowledge each row; how many it did not."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(row: HeldRow) -> bool:
        before = Before(row.point.seq, row.raw)
        publication = Publication(
            schema, dimension, row.point, row.raw, row.postings, before=before, salt=row.salt
        )  # fmt: skip
        async with turns:
            await Run(publication, asker).finished()
        return publication.durable

    return sum(not durable for durable in await asyncio.gather(*map(one, rows)))
