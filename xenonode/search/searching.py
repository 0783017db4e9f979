"""Running one search: carries the questions of `summaries.execute.Search` over the overlays, and its probes to servers.

Decides nothing about the search: the state machine does. Decides who a host in `near(...)` is: an address of a
member, which is pinged for its coordinate. What comes back was signed by its server and matched exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from dht.contact import unpack_address
from dht.endpoint import Endpoint
from dht.errors import DhtError, RemoteError
from dht.peers import Call
from summaries.asks import Ask, Outcome, Probe
from summaries.execute import Counts, Search
from summaries.explain import Explanation, why_empty
from summaries.idset import IdSet
from summaries.memory import Memory, Shown
from summaries.messages import Answer
from summaries.plan import constrained
from summaries.point import Point
from summaries.query import Query
from summaries.roots import ROOT_LIFE_MS, RootReading, RootView
from summaries.salting import draws, salts_of
from summaries.schema import Schema
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.model.advert import VerifiedAdvert
from xenonode.model.entity import Address
from xenonode.search.adverts import Adverts
from xenonode.search.asking import Asker
from xenonode.search.kinds import ADVERT
from xenonode.search.landmarks import Landmarks, Meet
from xenonode.search.measuring import in_microseconds

SEARCH_TIMEOUT_S = 30.0
"""A search of a million adverts takes some ten rounds of at most two seconds; beyond this, what was found is told."""
GROUP_KEPT_MS = 300_000
"""As long as holders that were looked up are remembered at most: each group's are looked up anew."""
MICROSECONDS = 1_000
ROOTS_TIMEOUT_S = 5.0
"""Two time-outs of a question: the roots only save time."""


@dataclass(frozen=True, slots=True)
class FoundServer:
    """One server that matches: its own current advert, how long ago it signed that, and how the query ranks it."""

    advert: VerifiedAdvert
    rank: int
    rtt_ms: float | None
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What a search found, what it could not reach, and what it cost; `query` has coordinates in the place of hosts."""

    query: Query
    servers: tuple[FoundServer, ...]
    complete: bool
    missing: tuple[str, ...]
    least_total: int
    most_total: int
    counts: Counts
    duration_ms: float
    explanation: Explanation | None = None


class Searcher:
    """Runs searches on behalf of one node."""

    def __init__(
        self,
        endpoint: Endpoint,
        searchable: Callable[[int], Schema],
        adverts: Adverts,
        asker: Asker,
        env: Env,
        meet: Meet,
        root_groups: int = 1,
        tries: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.landmarks = Landmarks(endpoint, env, meet)
        self._endpoint, self._searchable, self._adverts = endpoint, searchable, adverts
        self.asker, self.env, self._root_groups = asker, env, root_groups
        self._tries = tries  # dimensions that have several (salting.py)
        self._drawn = (0, -GROUP_KEPT_MS)  # which group of roots' holders, and which tries; and when it was drawn
        self.roots: dict[str, RootView] = {}
        self._searched_ms = -ROOT_LIFE_MS

    async def search(
        self,
        query: Query,
        *,
        strict: bool = True,
        doubting: bool = False,
        explain: bool = False,
        exclude: IdSet | None = None,
        within: IdSet | None = None,
        memory: Memory | None = None,
    ) -> SearchAnswer:
        """Resolve the query's hosts, run it, and return what matches, best first. Raises XenoError.

        Who searches again within seconds remembers the roots of the tries (`counts.root_age_ms` says how old they
        were). `explain` adds the plan and what was read, and for an empty answer what it failed on. Of servers only
        those `within` one set and not in the set to `exclude` count. `memory` is of the same query, run before.
        """
        loop = asyncio.get_running_loop()
        resolved = await self.resolve(query)
        began_s, bytes_out, bytes_in = loop.time(), self.asker.bytes_out, self.asker.bytes_in
        turn = self.env.rng("searches").getrandbits(32)  # so that every search spreads anew over the replicas
        if memory is None and self.env.now_ms() - self._searched_ms < ROOT_LIFE_MS:
            await self.read_roots(constrained(self.schema, resolved), turn)
        self._searched_ms = self.env.now_ms()
        search = Search(
            self.schema, resolved, self.verify, strict=strict, exclude=exclude, within=within, doubting=doubting,
            roots=self.roots if memory is None else None, turn=turn, group=self._group(), salts=self.salts(),
        )  # fmt: skip
        run = Run(self, search, memory)
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT_S):
                await run.finished()
            late = False
        except TimeoutError:
            late = True
        finally:
            run.stop()
        answer = self._answer(resolved, search, late, (loop.time() - began_s) * 1000)
        if not explain:
            return answer
        explained = replace(
            search.explanation, bytes_out=self.asker.bytes_out - bytes_out, bytes_in=self.asker.bytes_in - bytes_in
        )
        if not answer.servers and search.filter.terms:
            await self.read_roots(constrained(self.schema, resolved), turn)
            counts, relaxations = why_empty(self.schema, search.filter.terms, self.roots)
            explained = replace(explained, constraints=counts, relaxations=relaxations)
        return replace(answer, explanation=explained)

    @property
    def schema(self) -> Schema:
        """The dimensions that may be searched now."""
        return self._searchable(self.env.now_ms())

    def verify(self, raw: bytes, now_ms: int) -> Point | None:
        """The point of a good advert, None for anything else."""
        return self._adverts.point(raw, now_ms)

    async def resolve(self, query: Query) -> Query:
        """The query with coordinates in the place of hosts. Raises XenoError."""
        places = {host: await self._locate(host) for host in query.hosts()}
        return query.resolve(places, origin=in_microseconds(self._endpoint.coordinate))

    async def read_roots(self, names: Sequence[str], turn: int) -> None:
        """Remember the roots of these dimensions' tries; those that cannot be read in time are done without."""
        now_ms = self.env.now_ms()
        self.roots = {name: view for name, view in self.roots.items() if view.is_fresh(now_ms)}
        salts = self.salts()
        readings = [
            RootReading(name, turn, 0 if name in salts else self._group(), salts.get(name, 0))
            for name in names if name not in self.roots
        ]  # fmt: skip
        try:
            async with asyncio.timeout(ROOTS_TIMEOUT_S):
                await asyncio.gather(*(self._read_root(reading) for reading in readings))
        except TimeoutError:
            pass  # the search reads them itself
        self.roots.update({one.dimension: one.view for one in readings if one.view is not None})

    def _group(self) -> int:
        """Which group of a root's holders to read: another for everybody, and for a while the same."""
        return self._draw() % self._root_groups

    def salts(self) -> dict[str, int]:
        """Which trie to read of each dimension that has several: as the group."""
        return salts_of(self._tries, self._draw())

    def _draw(self) -> int:
        now_ms, numbers = self.env.now_ms(), draws(self._tries, self._root_groups)
        if numbers > 1 and not 0 <= now_ms - self._drawn[1] < GROUP_KEPT_MS:
            self._drawn = self.env.rng("searches").randrange(numbers), now_ms
        return self._drawn[0]

    async def _read_root(self, reading: RootReading) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        under_way = set[int]()

        def send(asks: Sequence[Ask]) -> None:
            for ask in asks:
                under_way.add(ask.number)
                self.asker.carry(ask, partial(heard, ask), slow=partial(heard, ask, None))
            if reading.finished and not done.done():
                done.set_result(None)

        def heard(ask: Ask, outcome: Outcome) -> None:
            """Roots only save time: a slow holder is as good as none."""
            if ask.number in under_way:
                under_way.discard(ask.number)
                send(reading.answered(ask, outcome))

        send(reading.start(self.env.now_ms()))
        await done

    def _answer(self, query: Query, search: Search, late: bool, duration_ms: float) -> SearchAnswer:
        result = search.result
        now_ms = self.env.now_ms()
        servers, missing = [], []
        for match in result.matches:
            try:
                verified, _ = self._adverts.verify(match.advert, now_ms)
            except RemoteError:  # it ended while others were waited for
                if query.limit == len(result.matches):
                    missing.append(f"whoever is next in the place of server {match.id:016x}, whose advert ended")
                continue
            rtt_ms = None if match.round_trip_us is None else match.round_trip_us / MICROSECONDS
            age_ms = max(now_ms - verified.advert.issued_ms, 0)
            servers.append(FoundServer(verified, match.rank, rtt_ms, age_ms))
        missing += [f"{dimension} {prefix}" for dimension, prefix in result.unreachable]
        missing += [f"advert of server {number:016x}" for number in result.unverified]
        if late:
            missing.append(f"whatever would have come after {SEARCH_TIMEOUT_S:.0f} s")
        return SearchAnswer(
            query,
            tuple(servers),
            not missing,
            tuple(missing),
            result.least_total,
            result.most_total,
            result.counts,
            duration_ms,
        )

    async def _locate(self, host: str) -> tuple[int, int, int, int]:
        place = Address.parse(host)
        if place is None:
            raise XenoError(
                f"near: {host!r} is no address",
                "write near(HOST:PORT, 30 ms) with a member's UDP address (see 'xenonode peers'), or that of any host"
                " which answers TCP there, as a literal address; or coord(x, y, z, h)",
                "unknown_host",
            )
        try:
            pong = await self._endpoint.ping(place.pair)
        except DhtError:
            return await self.landmarks.place(host, place.pair)  # no member, or one that is away
        return in_microseconds(pong.coordinate)

    def probe(
        self, contact: bytes, done: Callable[[bytes | None, int | None], None], slow: Callable[[], None] | None = None
    ) -> None:
        """Ask a server for its current signed advert; `done` gets it and the round trip in us, or (None, None).

        `slow` is called before that, if the server takes longer than it should.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        def heard(call: Call, error: DhtError | None, advert: bytes) -> None:
            if error is None:
                done(advert, int((loop.time() - began_s) * 1_000_000))
            else:
                done(None, None)

        try:
            endpoint = self._endpoint
            endpoint.call(unpack_address(contact), endpoint.network_tag, ADVERT, b"", heard, slow=slow)
        except DhtError:  # an address that this network does not admit
            loop.call_soon(done, None, None)



class Run:
    """One search under way."""

    def __init__(self, searcher: Searcher, search: Search, memory: Memory | None = None) -> None:
        self._searcher, self._search, self._memory = searcher, search, memory
        if memory is not None:
            memory.begin()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopped = False

    async def finished(self) -> None:
        """Begin, and wait for the end."""
        self._send(self._search.start(self._now_ms()))
        await self._done

    def stop(self) -> None:
        """Ignore what still comes."""
        self._stopped = True

    def _send(self, asks: Sequence[Ask | Probe]) -> None:
        for ask in asks:
            if self._memory is not None and self._recalled(ask, self._memory):
                continue
            if isinstance(ask, Ask):
                sent = ask if self._memory is None else self._memory.instead(ask)
                answered = partial(self._answered, ask, sent)
                self._searcher.asker.carry(sent, answered, self._failed, partial(self._slow, ask))
            else:
                self._searcher.probe(ask.contact, partial(self._probed, ask), partial(self._slow, ask))
        if self._search.finished and not self._done.done():
            self._done.set_result(None)

    def _failed(self, error: XenoError) -> None:
        if not self._stopped and not self._done.done():
            self._done.set_exception(error)

    def _recalled(self, ask: Ask | Probe, memory: Memory) -> bool:
        """Whether the answer is known: then it comes as soon as one that was asked for could."""
        known = memory.recall(ask, self._now_ms())
        loop = asyncio.get_running_loop()
        if isinstance(known, Shown) and isinstance(ask, Probe):
            loop.call_soon(self._shown, ask, known.raw, known.round_trip_us)
        elif isinstance(known, Answer) and isinstance(ask, Ask):
            loop.call_soon(self._take, ask, known)
        return known is not None

    def _answered(self, ask: Ask, sent: Ask, outcome: Outcome) -> None:
        if self._memory is not None:
            restored = self._memory.restore(ask, sent, outcome, self._now_ms())
            if restored is None and outcome is not None:  # the digest is another one: read it whole
                again = partial(self._answered, ask, ask)
                self._searcher.asker.carry(ask, again, self._failed, partial(self._slow, ask))
                return
            outcome = restored
        self._take(ask, outcome)

    def _take(self, ask: Ask, outcome: Outcome) -> None:
        if not self._stopped:
            self._send(self._search.answered(ask, outcome, self._now_ms()))

    def _slow(self, ask: Ask | Probe) -> None:
        if not self._stopped:
            self._send(self._search.slow(ask, self._now_ms()))

    def _probed(self, probe: Probe, advert: bytes | None, round_trip_us: int | None) -> None:
        if self._memory is not None:
            self._memory.shown(probe, advert, round_trip_us, self._now_ms())
        self._shown(probe, advert, round_trip_us)

    def _shown(self, probe: Probe, advert: bytes | None, round_trip_us: int | None) -> None:
        if not self._stopped:
            self._send(self._search.probed(probe, advert, self._now_ms(), round_trip_us))

    def _now_ms(self) -> int:
        return self._searcher.env.now_ms()
