"""The watch over one run: checks while it runs, and once more when all is quiet; the first broken invariant ends it.

Decides how often each check is worth its cost. What they check is in `running` and `quiet`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from xenonode.search.searching import SearchAnswer
from xenonode.simulation.invariants import quiet
from xenonode.simulation.invariants.broken import BrokenInvariant, Ring
from xenonode.simulation.invariants.money import MoneyChecks
from xenonode.simulation.invariants.running import Checks
from xenonode.simulation.world import World

if TYPE_CHECKING:
    from xenonode.simulation.node_host import NodeHost
    from xenonode.simulation.stage import Stage

EVERY_S = 5.0
SELDOM = 3
"""Every third time: what looks at every row, and at the whole ledger."""
LOOK_S = 5.0
EVERYTHING_MAX = 300
"""Adverts that a query for all of them may return; in a larger world only the experiment's own queries are held against
the truth, which match a few."""


class Watch:
    """See the module. `start` it before the faults, await `after_quiet` when they are long over."""

    def __init__(self, world: Stage) -> None:
        self.world, self.checks, self.checked = world, Checks(world), 0
        self.ring = Ring(world.simulation.trace)
        self._often: list[tuple[str, Callable[[], str]]] = [
            ("buckets hold at most k", self.checks.buckets),
            ("in-flight tables drain", self.checks.drains),
            ("questions are bounded", self.checks.questions),
        ]
        self._seldom: list[tuple[str, Callable[[], str]]] = [("what is held is proved", self.checks.stored)]
        if isinstance(world, World):
            money = MoneyChecks(world)
            self._often.append(("transfers are made once, of what there is", money.transfers))
            self._often.append(("capacity is never oversold", money.capacity))
            self._seldom.append(("money is conserved", money.books))

    def start(self, every_s: float = EVERY_S) -> asyncio.Task[None]:
        """Check regularly, in a task whose failure is the run's."""
        return asyncio.get_running_loop().create_task(self._watch(every_s), name="invariants")

    def check(self) -> None:
        """Check everything and everybody now. Raises BrokenInvariant."""
        self.checks.begin()
        while not self._look(all_=True):
            pass

    def _look(self, *, all_: bool) -> bool:
        """Check those whose turn it is; True where that was the last part of the world."""
        for name, check in [*self._often, *(self._seldom if all_ else [])]:
            self.require(name, check())
        over = self.checks.turn()
        self.checked += over
        return over

    def answer(self, answer: SearchAnswer) -> SearchAnswer:
        """Pass on a search's answer, once it was judged. Raises BrokenInvariant."""
        self.require("searches return what is signed and in force", self.checks.answered(answer, self.world.now_ms()))
        return answer

    def require(self, name: str, detail: str) -> None:
        """Raise BrokenInvariant where there is something to tell."""
        if detail:
            simulation = self.world.simulation
            raise BrokenInvariant(
                name,
                detail,
                seed=simulation.seed,
                at_s=simulation.loop.time(),
                events=self.ring.told(simulation.network.names()),
            )

    async def after_quiet(self) -> None:
        """What must hold again; the network has had its time to mend itself. Raises BrokenInvariant."""
        self.check()
        self.require("everybody is up", quiet.everybody_is_up(self.world))
        await self._soon("adverts are durable", lambda: quiet.adverts_are_in_force(self.world))
        truth = partial(quiet.Truth, self.world)
        await self._soon("partitions heal", lambda: quiet.one_network(truth()))
        await self._soon("replicas are back", lambda: quiet.rows_are_held(truth()))
        await self._soon("summaries include what is below them", lambda: quiet.zones_cover_rows(truth()))
        if len(self.world.adverts()) > EVERYTHING_MAX:
            return
        for query in quiet.EVERYTHING:
            await self._found("a client", query, self.world.ask)
        for host in self._two():
            await self._found(host.node.host.name, quiet.EVERYTHING[0], partial(self._by_server, host))

    def _two(self) -> list[NodeHost]:
        """The first server and the last."""
        hosts = self.world.holders()[isinstance(self.world, World) :]
        return [hosts[0], hosts[-1]]

    async def _soon(self, name: str, check: Callable[[], str]) -> None:
        ends_s = self.world.simulation.loop.time() + self.world.patience_s
        while (wrong := check()) and self.world.simulation.loop.time() < ends_s:  # noqa: ASYNC110  # it mends itself
            await asyncio.sleep(LOOK_S)
        self.require(name, wrong)

    async def _found(self, who: str, query: str, ask: Callable[[str], Coroutine[Any, Any, SearchAnswer]]) -> None:
        """An advert may be replaced in the midst of a search: a second one has to be right."""
        for last in (False, True):
            before = quiet.Truth(self.world)
            wrong = quiet.answer_is_whole(before, who, query, self.answer(await ask(query)))
            if not wrong or last:
                self.require("whoever is there is found", wrong)
                return
            await asyncio.sleep(LOOK_S)

    async def _by_server(self, host: NodeHost, query: str) -> SearchAnswer:
        found: SearchAnswer = await host.node.start(host.running.peer.searcher.search(quiet.parse(query)), "search")
        return found

    async def _watch(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self._look(all_=not self.checked % SELDOM)
