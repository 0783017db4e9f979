"""Running one group's search: the members' queries of `summaries.group.GroupSearch`, in parallel over the overlays.

Decides nothing about the choice. Candidates are servers that were asked for their current signed advert, so costs and
coordinates are theirs; distances between them are estimates from those coordinates.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from summaries.branching import Candidate
from summaries.group import Group, GroupResult, GroupSearch
from summaries.query import Query
from xenonode.search.searching import FoundServer, SearchAnswer, Searcher


@dataclass(frozen=True, slots=True)
class PlacedGroup:
    """The outcome, the servers it names by id, what could not be reached, and what it cost to find."""

    result: GroupResult
    servers: dict[int, FoundServer]
    missing: tuple[str, ...]
    rpcs: int
    searches: int
    duration_ms: float


async def place(searcher: Searcher, group: Group, *, strict: bool = True) -> PlacedGroup:
    """The cheapest servers for a group. Raises XenoError where a host does not answer or the network is away."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    search = GroupSearch(group)
    servers: dict[int, FoundServer] = {}
    missing: dict[str, None] = {}
    rpcs = searches = 0

    async def run(query: Query) -> SearchAnswer:
        return await searcher.search(query, strict=strict)

    while not search.finished:
        wanted = search.wanted()
        answers = await asyncio.gather(*(run(query) for _, query in wanted))
        for (at, _), answer in zip(wanted, answers):
            rpcs, searches = rpcs + answer.counts.rpcs, searches + 1
            missing.update(dict.fromkeys(answer.missing))
            candidates = []
            for found in answer.servers:
                servers[found.advert.row_id] = found
                place = found.advert.advert.location
                at_us = (place.x_us, place.y_us, place.z_us, place.height_us)
                candidates.append(Candidate(found.advert.row_id, found.rank, at_us))
            search.take(at, candidates, complete=answer.complete)
    result = search.result
    chosen = {one.id: servers[one.id] for one in result.placed}
    return PlacedGroup(result, chosen, tuple(missing), rpcs, searches, (loop.time() - began_s) * 1000)
