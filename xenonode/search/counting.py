"""Running one census: carries the questions of `summaries.census.Census` over the overlays.

Decides how long it may take (what it counted until then is told, with the rest as bounds), and what becomes of replicas
that differ. Those of a leaf that one of them split alone, or that has had other holders since, differ until its adverts
are published anew, and sums cannot be told apart: where few enough match, a search lists them, which unites replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from summaries.asks import REPLICAS, Ask, Outcome
from summaries.census import Census, CensusResult
from summaries.errors import SummariesError
from summaries.point import Point, Rows
from summaries.query import Query
from summaries.schema import Schema
from summaries.sums import Aggregate
from summaries.trie import keys_of
from xenonode.errors import XenoError
from xenonode.search.asking import Asker
from xenonode.search.searching import Searcher

LISTED_MAX = 500  # adverts listed where replicas differ: each is a question to its server
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
            result = census.result
            if result.disputed and not result.unreachable and result.most <= LISTED_MAX:
                result = await _listed(searcher, resolved, group, result)
    except TimeoutError:
        late, result = True, census.result
    duration_ms = (loop.time() - began_s) * 1000
    return Counted(resolved, result, late, duration_ms, searcher.asker.bytes_in - bytes_in)


async def _listed(searcher: Searcher, query: Query, group: str, counted: CensusResult) -> CensusResult:
    """The same by a search, if there is one and it is complete: it takes each server once, whoever shows it."""
    try:
        answer = await searcher.search(Query(query.where))
    except XenoError:
        return counted
    if not answer.complete:
        return counted
    now_ms = searcher.env.now_ms()
    raws = [one.advert.envelope.raw for one in answer.servers]
    groups = _grouped(searcher.schema, [(raw, searcher.verify(raw, now_ms)) for raw in raws], group)
    total = sum(one.count for one in groups.values())
    rpcs, rounds = counted.rpcs + answer.counts.rpcs, counted.rounds + answer.counts.rounds
    return replace(
        counted, groups=groups, least=total, most=total, age_ms=0, summarised_leaves=0, rpcs=rpcs, rounds=rounds,
        disputed=(), confirmed=True, listed=True,
    )  # fmt: skip


def _grouped(schema: Schema, adverts: Sequence[tuple[bytes, Point | None]], group: str) -> dict[str, Aggregate]:
    rows, places = Rows(schema), dict[str, list[int]]()
    for raw, point in adverts:
        if point is not None:  # one may have expired since
            places.setdefault(str(point.attributes.get(group, "")) if group else "", []).append(len(rows))
            rows.put(point, keys_of(schema, schema.ordered[0].name, point)[0], raw)
    return {name: Aggregate.of_rows(rows, places[name]) for name in sorted(places)}


def _made(searcher: Searcher, query: Query, group: str, whole: bool, turn: int) -> Census:
    try:
        return Census(searcher.schema, query, group=group, whole=whole, turn=turn, salts=searcher.salts())
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
            self._asker.carry(ask, partial(self._answered, ask), self._failed, partial(self._slow, ask))
        if self._census.finished and not self._done.done():
            self._done.set_result(None)

    def _failed(self, error: XenoError) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _slow(self, ask: Ask) -> None:
        if not self._done.done():
            self._send(self._census.slow(ask))

    def _answered(self, ask: Ask, outcome: Outcome) -> None:
        if not self._done.done():
            self._send(self._census.answered(ask, outcome))
