"""What a client asks of XenoSearch: servers, changes, the market, a group's places; and the sets that it keeps.

Decides how a text becomes a query and what an error of a query says; the answers are the search's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from summaries.errors import SummariesError
from summaries.group import Group
from summaries.idset import IdSet
from summaries.parse import parse
from summaries.query import Query
from summaries.schema import Schema
from xenonode.client.records import Records
from xenonode.client.saved import Saved, SavedSearch
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.peer import Peer
from xenonode.search.counting import Counted, count
from xenonode.search.placing import PlacedGroup, place
from xenonode.search.searching import SearchAnswer
from xenonode.search.watching import Look, watch


def understood(text: str, currency: str) -> Query:
    """The query that a text means. Raises XenoError, with the position of what is wrong."""
    try:
        return parse(text, currency=currency)
    except SummariesError as error:
        raise XenoError(str(error), "see 'xenonode search --help' for examples", "query") from error


class Finding:
    """See the module. `joined` opens the client's peer when a question first needs it."""

    def __init__(self, records: Records, saved: Saved, env: Env, joined: Callable[[], Awaitable[Peer]]) -> None:
        self._records, self._saved, self._env, self._joined = records, saved, env, joined

    async def search(
        self,
        text: str,
        *,
        strict: bool = True,
        doubting: bool = False,
        currency: str = "USD",
        explain: bool = False,
        exclude: Sequence[str] = (),
        within: Sequence[str] = (),
    ) -> SearchAnswer:
        """Servers that match, best first; every one's own signed advert was checked. `explain`: and why it is so.

        `exclude` and `within` name saved sets: servers of none of the first, and of all of the second.
        """
        query = understood(text, currency)
        without, only = self._saved.union(exclude), self._saved.intersection(within)
        peer = await self._joined()
        answer = await peer.searcher.search(
            query, strict=strict, doubting=doubting, explain=explain, exclude=without, within=only
        )
        self._records.keep_found([each.advert for each in answer.servers])
        return answer

    def save(self, name: str, text: str, answer: SearchAnswer) -> SavedSearch:
        """Keep a query and which servers it found."""
        servers = IdSet(each.advert.row_id for each in answer.servers)
        return self._saved.keep(name, text, servers, answer.complete, self._env.now_ms())

    def combine(self, name: str, operation: str, first: str, second: str) -> SavedSearch:
        """Keep the union, intersection or difference of two saved sets."""
        servers, complete = self._saved.combine(operation, first, second)
        return self._saved.keep(name, "", servers, complete, self._env.now_ms())

    async def market(self, text: str, *, by: str = "", exact: bool = False, currency: str = "USD") -> Counted:
        """What all servers that match come to: counts, free capacity, prices; from summaries unless `exact`.

        Raises XenoError for a text with an order or a limit, too.
        """
        query = understood(text, currency)
        if query.order.by or query.limit is not None:
            raise XenoError(
                "a market counts all that match: it has no order and no limit",
                "leave out 'order by' and 'limit', or list servers with 'xenonode search'",
                "query",
            )
        peer = await self._joined()
        return await count(peer.searcher, query, group=by, whole=not exact)

    async def watch(
        self,
        text: str,
        *,
        every_s: float,
        strict: bool = True,
        currency: str = "USD",
        exclude: Sequence[str] = (),
        within: Sequence[str] = (),
    ) -> AsyncIterator[Look]:
        """One look after another: what appeared, changed or is gone since the last one; saved sets as for a search."""
        query = understood(text, currency)
        without, only = self._saved.union(exclude), self._saved.intersection(within)
        peer = await self._joined()
        async for look in watch(peer.searcher, query, every_s, strict=strict, exclude=without, within=only):
            self._records.keep_found([each.advert for each in look.answer.servers])
            yield look

    async def place(self, group: Group, *, strict: bool = True) -> PlacedGroup:
        """The cheapest servers for a group of purposes, apart and together as it says."""
        peer = await self._joined()
        found = await place(peer.searcher, group, strict=strict)
        self._records.keep_found([each.advert for each in found.servers.values()])
        return found

    async def schema(self) -> Schema:
        """The dimensions by which this network is searched."""
        return (await self._joined()).schema
