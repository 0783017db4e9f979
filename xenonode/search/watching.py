"""A search that goes on: what appeared, what is gone, what changed and who fell silent since the last look.

Decides what counts as a change: a price, free capacity, or what the order goes by; a server is gone only where a
complete answer lacks it, and silent where it answered two looks in a row no more and is shown by an advert that others
keep. `summaries.memory` keeps it cheap, and this module wakes up every so often.
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


SILENT_LOOKS = 2  # one question may be lost, or a holder's copy of the advert be quicker than a busy server
ENDED = "expired"


@dataclass(frozen=True, slots=True)
class Change:
    """One server: `event` is appeared, changed, gone, silent or answering (again); `place` counts from 1, 0 for gone.

    `changed` names what did; of a server that is gone "expired", where its last advert ended and it had not answered
    the last look that found it.
    """

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


@dataclass(frozen=True, slots=True)
class Seen:
    """A server as the last look that found it did, and how many looks in a row it has not answered."""

    server: FoundServer
    unheard: int = 0


def changes(
    before: dict[bytes, Seen], answer: SearchAnswer, now_ms: int
) -> tuple[tuple[Change, ...], dict[bytes, Seen]]:
    """From what was seen, by server key, to this answer (by places, the gone last); and what is seen now."""
    found, now = list[Change](), dict[bytes, Seen]()
    for place, each in enumerate(answer.servers, 1):
        key = each.advert.server_key
        old = before.get(key)
        unheard = 0 if each.rtt_ms is not None else 1 if old is None else old.unheard + 1
        now[key] = Seen(each, unheard)
        if old is None:
            found.append(Change("appeared", each, place))
            continue
        was, is_ = old.server.advert.attributes, each.advert.attributes
        changed = [name for name in WATCHED if was.get(name) != is_.get(name)]
        changed += ["rank"] if old.server.rank != each.rank else []
        if changed:
            found.append(Change("changed", each, place, tuple(changed)))
        if unheard == SILENT_LOOKS:
            found.append(Change("silent", each, place))
        elif not unheard and old.unheard >= SILENT_LOOKS:
            found.append(Change("answering", each, place))
    if not answer.complete:
        return tuple(found), {**before, **now}  # what an incomplete answer lacks is not gone
    for key, old in before.items():
        if key not in now:
            ended = (ENDED,) if old.unheard and old.server.advert.advert.expires_ms <= now_ms else ()
            found.append(Change("gone", old.server, 0, ended))
    return tuple(found), now


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
    seen: dict[bytes, Seen] = {}
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
            changed, seen = changes(seen, answer, searcher.env.now_ms())
            yield Look(answer, changed, memory.spared - spared, searcher.asker.bytes_in - bytes_in)
        await asyncio.sleep(max(every_s - (loop.time() - began_s), 0.0))
