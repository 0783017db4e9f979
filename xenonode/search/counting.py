"""Running one census: carries the questions of `summaries.census.Census` over the overlays.

Decides nothing but how long it may take; what it counted until then is told, with the rest as bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from summaries.asks import REPLICAS, Ask, Outcome
from summaries.census import Census, CensusResult
from summaries.errors import SummariesError
from summaries.query import Query
from xenonode.errors import XenoError
from xenonode.search.asking import Asker
from xenonode.search.searching import Searcher

CENSUS_TIMEOUT_S = 60.0
"""A census reads every leaf that passes, where a search with a limit reads a few: twice a search's time."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A census, and how long it took. `late`: it was cut off, so its bounds are only what was read."""

    query: Query
    result: CensusResult
    late: bool
    duration_ms: float
    bytes_in: int


async def count(searcher: Searcher, query: Query, *, group: str = "", whole: bool = False) -> Counted:
    """What all adverts that match come to, by group. Raises XenoError.

    Where summaries were of no use for a `whole` census (the network is small, or the range), it is made exact.
    """
    loop = asyncio.get_running_loop()
    began_s, bytes_in = loop.time(), searcher.asker.bytes_in
    resolved = await searcher.resolve(query)
    turn = searcher.env.rng("census").randrange(REPLICAS)
    late = False
    try:
        async with asyncio.timeout(CENSUS_TIMEOUT_S):
            census = _made(searcher, resolved, group, whole, turn)
            if whole:
                await _taken(census, searcher.asker)
                if not census.result.age_ms:
                    census = _made(searcher, resolved, group, False, turn)
            if not census.finished:
                await _taken(census, searcher.asker)
    except TimeoutError:
        late = True
    duration_ms = (loop.time() - began_s) * 1000
    return Counted(resolved, census.result, late, duration_ms, searcher.asker.bytes_in - bytes_in)


def _made(searcher: Searcher, query: Query, group: str, whole: bool, turn: int) -> Census:
    try:
        return Census(searcher.schema, query, group=group, whole=whole, turn=turn)
    except SummariesError as error:
        raise XenoError(str(error), "see 'xenonode market --help' for examples", "query") from error


async def _taken(census: Census, asker: Asker) -> None:
    run = _Run(census, asker)
    try:
        await run.finished()
    finally:
        run.stop()


class _Run:
    """One census under way."""

    def __init__(self, census: Census, asker: Asker) -> None:
        self._census, self._asker = census, asker
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def finished(self) -> None:
        self._send(self._census.start())
        await self._done

    def stop(self) -> None:
        """Ignore what still comes."""
        self._done.cancel()

    def _send(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            self._asker.carry(ask, partial(self._answered, ask), self._failed)
        if self._census.finished and not self._done.done():
            self._done.set_result(None)

    def _failed(self, error: XenoError) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _answered(self, ask: Ask, outcome: Outcome) -> None:
        if not self._done.done():
            self._send(self._census.answered(ask, outcome))
