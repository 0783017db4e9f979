"""A search that goes on: what appeared, what is gone and what changed since the last look.

Decides what counts as a change: a price, free capacity, or what the order goes by; a server is gone only where a
complete answer lacks it. `summaries.memory` keeps it cheap, and this module wakes up every so often.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from summaries.idset import IdSet
from summaries.memory import Memory
from summaries.query import Query
from xenonode.errors import XenoError
from xenonode.search.searching import FoundServer, SearchAnswer, Searcher

WATCHED = (
    "cpu.available", "memory.available", "disk.available", "net.available", "price.cpu", "price.memory", "price.disk",
    "price.net", "currency", "environments", "feature", "region",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One server: `event` is appeared, changed or gone; `place` counts from 1, 0 for gone; `changed` names what did."""

    event: str
    server: FoundServer
    place: int
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """One look: what it found and what that changes. `spared` questions were not asked, since nothing had changed."""

    answer: SearchAnswer
    changes: tuple[Change, ...]
    spared: int
    bytes_in: int


def changes(before: dict[bytes, tuple[int, FoundServer]], answer: SearchAnswer) -> tuple[Change, ...]:
    """From the last answer, by server key with places, to this one: in the order of places, the gone last."""
    found = []
    now = {each.advert.server_key: (place, each) for place, each in enumerate(answer.servers, 1)}
    for key, (place, each) in now.items():
        if key not in before:
            found.append(Change("appeared", each, place))
            continue
        _, old = before[key]
        was, is_ = old.advert.attributes, each.advert.attributes
        changed = [name for name in WATCHED if was.get(name) != is_.get(name)]
        changed += ["rank"] if old.rank != each.rank else []
        if changed:
            found.append(Change("changed", each, place, tuple(changed)))
    if answer.complete:
        found += [Change("gone", old, 0) for key, (_, old) in before.items() if key not in now]
    return tuple(found)


async def watch(
    searcher: Searcher,
    query: Query,
    every_s: float,
    *,
    strict: bool = True,
    exclude: IdSet | None = None,
    within: IdSet | None = None,
) -> AsyncIterator[Look]:
    """One look after another, for ever. Raises XenoError only where the first one fails; later ones are tried again."""
    loop = asyncio.get_running_loop()
    query = await searcher.resolve(query)  # once, since our own coordinate moves a little all the time
    memory = Memory(searcher.verify)
    before: dict[bytes, tuple[int, FoundServer]] = {}
    first = True
    while True:
        began_s, bytes_in, spared = loop.time(), searcher.asker.bytes_in, memory.spared
        try:
            answer = await searcher.search(query, strict=strict, exclude=exclude, within=within, memory=memory)
        except XenoError:
            if first:
                raise
        else:
            first = False
            changed = changes(before, answer)
            seen = {each.advert.server_key: (place, each) for place, each in enumerate(answer.servers, 1)}
            # What an incomplete answer lacks is not gone.
            before = seen if answer.complete else {**before, **seen}
            yield Look(answer, changed, memory.spared - spared, searcher.asker.bytes_in - bytes_in)
        await asyncio.sleep(max(every_s - (loop.time() - began_s), 0.0))
