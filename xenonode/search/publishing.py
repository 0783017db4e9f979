"""Keeping one server's advert in the trie of every dimension: carries `summaries.publish.Publication`.

Decides nothing about where an advert belongs. Remembers, from one publication to the next, where it stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from summaries.asks import Ask, Outcome
from summaries.publish import Before, Posting, Publication
from summaries.schema import Schema
from xenonode.env import Env
from xenonode.search.adverts import Adverts
from xenonode.search.asking import Asker
from xenonode.search.looking import Standing


@dataclass(frozen=True, slots=True)
class Published:
    """How a publication went: dimensions in which every strict search finds it, and those in which not yet."""

    seq: int
    durable: tuple[str, ...]
    pending: tuple[str, ...]


class Publisher:
    """Publishes the adverts of one server, one at a time."""

    def __init__(
        self, schema: Schema, adverts: Adverts, asker: Asker, env: Env,
        tries: Mapping[str, int] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.schema = schema  # its owner sets a newer one when there is one
        self._adverts, self._asker, self._env = adverts, asker, env
        self._tries = tries  # dimensions that have several (salting.py)
        self._postings: dict[str, tuple[tuple[Posting, ...], ...]] = {}  # by dimension: those in each of its tries
        self._before: Before | None = None
        self._turn = asyncio.Lock()
        self.standing: dict[str, Standing] = {}
        """By dimension, what was acknowledged last: what every search must find."""
        self.last: Published | None = None
        """How the latest publication went."""

    @property
    def is_under_way(self) -> bool:
        """Whether an advert is on its way to its holders."""
        return self._turn.locked()

    def pending(self, seq: int) -> tuple[str, ...]:
        """Dimensions in which a search may still miss the advert of this number; empty once all acknowledged it."""
        if self.last is None or self.last.seq != seq:
            return tuple(dimension.name for dimension in self.schema.dimensions)
        return self.last.pending

    def go_on_from(self, raw: bytes, postings: Mapping[str, tuple[tuple[Posting, ...], ...]]) -> Published:
        """An advert stands already where `postings` say, by dimension in each of its tries. Raises RemoteError."""
        verified, point = self._adverts.verify(raw, self._env.now_ms())
        self._postings = dict(postings)
        self._before = Before(point.seq, raw)
        self.standing = {name: Standing(point, tries) for name, tries in postings.items()}
        self.last = Published(verified.advert.seq, tuple(postings), ())
        return self.last

    async def publish(self, raw: bytes) -> Published:
        """Put a new signed advert (or a tombstone) in the place of the last one. Raises RemoteError if it is none."""
        async with self._turn:
            verified, point = self._adverts.verify(raw, self._env.now_ms())
            names = [dimension.name for dimension in self.schema.dimensions]
            runs: dict[str, list[Run]] = {name: [] for name in names}
            for name in names:
                tries = self._tries.get(name, 1)
                for salt, before in enumerate(self._postings.get(name, ((),) * tries)):
                    publication = Publication(self.schema, name, point, raw, before, before=self._before, salt=salt)
                    runs[name].append(Run(publication, self._asker))
            await asyncio.gather(*(run.finished() for name in names for run in runs[name]))
            durable: list[str] = []
            pending: list[str] = []
            for name in names:
                made = [run.publication for run in runs[name]]
                postings = tuple(one.postings for one in made)
                self._postings[name] = postings
                acknowledged = all(one.durable for one in made)
                (durable if acknowledged else pending).append(name)
                if point.gone or not acknowledged:
                    self.standing.pop(name, None)
                else:
                    self.standing[name] = Standing(point, postings)
            self._before = Before(point.seq, raw)
            self.last = Published(verified.advert.seq, tuple(durable), tuple(pending))
            return self.last


class Run:
    """One dimension's publication under way."""

    def __init__(self, publication: Publication, asker: Asker) -> None:
        self.publication, self._asker = publication, asker
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def finished(self) -> None:
        self._send(self.publication.start())
        await self._done

    def _send(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            self._asker.carry(ask, partial(self._answered, ask))
        if self.publication.finished and not self._done.done():
            self._done.set_result(None)

    def _answered(self, ask: Ask, outcome: Outcome) -> None:
        self._send(self.publication.answered(ask, outcome))
