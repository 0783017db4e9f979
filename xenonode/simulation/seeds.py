"""One seed's run of a small platform with faults of every kind, and what must hold: the simulator's own proof.

Decides the world (thirty servers, a paid session, ten virtual minutes), which faults a seed draws and when, and what
is looked at. A failing seed is run again by `scripts/simulate_seeds --seeds SEED`, with fewer faults by `--shrink`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.simulation.env import derive
from xenonode.simulation.faults import KINDS, FaultSpec, Injection, Injector, plan
from xenonode.simulation.faults.kinds import LEDGER_ROT, LOSING_FILES
from xenonode.simulation.invariants import BrokenInvariant, Watch
from xenonode.simulation.lease import Lease, settled_once
from xenonode.simulation.ledger import make_ledger
from xenonode.simulation.loop import NANOSECONDS
from xenonode.simulation.world import World


@dataclass(frozen=True, slots=True)
class Size:
    """How much happens in a seed: servers, rows a leaf holds, seconds of calm, of faults, and of quiet, and faults."""

    servers: int
    leaf_capacity: int
    calm_s: float
    faults_s: float
    quiet_s: float
    kinds: int
    root_groups: int = 1
    tries: int = 1  # of prices and places


FULL = Size(servers=30, leaf_capacity=24, calm_s=30.0, faults_s=370.0, quiet_s=170.0, kinds=8)
"""Ten virtual minutes. Leaves hold less than there are servers, so that summaries have something to say. Quiet lasts
two periods of adverts, and what a zone lives at most."""
SMALL = Size(servers=12, leaf_capacity=8, calm_s=20.0, faults_s=120.0, quiet_s=130.0, kinds=5)
"""A quarter of its cost, for looking at many seeds."""
COPIED = replace(SMALL, root_groups=3)
"""The same, where each root has three groups of holders."""
SALTED = replace(SMALL, tries=2)
"""The same, where prices and places have two tries each."""
SIZES = {"full": FULL, "small": SMALL, "copied": COPIED, "salted": SALTED}
SALTED_DIMENSIONS = ("price.cpu", "location")
DRAWN = tuple(kind for kind in KINDS if kind != LEDGER_ROT)
"""The kinds that seeds have. What no audit can see of a rotten ledger would break a seed, and rightly."""
SHORTEST_S = {"network": 5.0, "node": 5.0, "disk": 20.0, "byzantine": 45.0}
"""Long enough for a fault to meet something: servers write, and summaries are told again, twice a minute at least."""
LONGEST_S = {"network": 40.0, "node": 40.0, "disk": 40.0, "byzantine": 110.0}
IN_WRITES = frozenset({"disk_lost_write", "disk_torn_write", "disk_full"})
"""These meet only who writes. Of servers that is the one with the session, which then has to go on with its journal."""
MOST = {"network": 4, "node": 3, "disk": 2, "byzantine": 2}
"""Hosts that one injection strikes."""
SEARCH_EVERY_S = 45.0
HORIZON_S = 1_500.0


@dataclass(frozen=True, slots=True)
class SeedResult:
    """How one seed went. `broken` is empty when all held."""

    seed: int
    trace: str
    virtual_s: float
    datagrams: int
    searches: int
    bites: dict[str, int] = field(default_factory=dict)
    injections: tuple[Injection, ...] = ()
    broken: str = ""


def draw(seed: int, names: dict[str, list[str]], size: Size = FULL) -> tuple[Injection, ...]:
    """The faults of a seed: some kinds in turn, so that a few seeds have all of them; times and places are chance."""
    rng = Random(int.from_bytes(derive(seed, "faults of a seed")))
    kinds = DRAWN
    first = seed * size.kinds
    specs = []
    for place in range(first, first + size.kinds):
        kind = KINDS[kinds[place % len(kinds)]]
        for_s = rng.uniform(SHORTEST_S[kind.family], LONGEST_S[kind.family])
        group = rng.choice(kind.groups)
        at_s = rng.uniform(0.0, size.faults_s - for_s)
        count = 1 if group == "corp" else rng.randint(1, MOST[kind.family])
        parameters = {"after_writes": 0} if "after_writes" in kind.parameters else {}
        specs.append(FaultSpec(kind.name, at_s, for_s, targets=group, count=count, parameters=parameters))
    # The last server hosts the session: without its journal it could not go on with it, which other tests are about.
    host = names["servers"][-1]
    found = plan(specs, seed, names, size.faults_s)
    return tuple(replace(one, targets=_aimed(one, host, names["servers"][0])) for one in found)


def _aimed(one: Injection, host: str, instead: str) -> tuple[str, ...]:
    targets = list(one.targets)
    if one.kind in LOSING_FILES:
        targets = [instead if name == host else name for name in targets]
    elif one.kind in IN_WRITES and "corp" not in targets:
        targets.append(host)
    return tuple(dict.fromkeys(targets))


class Story:
    """What happens in a seed's world."""

    def __init__(self, world: World, injections: Sequence[Injection], size: Size) -> None:
        self.world, self.injections, self.size = world, injections, size
        self.watch, self.injector = Watch(world), Injector(world)
        self.searches = 0

    async def run(self) -> Counter[str]:
        """From the start to the last check. Raises BrokenInvariant."""
        world, watch = self.world, self.watch
        await world.begin()
        watching = watch.start()
        await asyncio.sleep(max(0.0, self.size.calm_s - world.simulation.loop.time()))
        lease = Lease(world, world.clients[0], world.servers[-1])
        await lease.open()
        searching = asyncio.create_task(self._search_now_and_then(), name="searches")
        faults = asyncio.create_task(self.injector.run(self.injections), name="faults")
        await self._while_they_go_on((watching, searching), faults, self.size.faults_s)
        searching.cancel()
        quiet = asyncio.create_task(asyncio.sleep(self.size.quiet_s), name="quiet")
        await self._while_they_go_on((watching,), quiet, self.size.quiet_s)
        watching.cancel()
        await watch.after_quiet()
        await lease.stop()
        watch.require("every claim is settled once", settled_once(await lease.account()))
        watch.check()
        return self.injector.scene.bites

    async def _while_they_go_on(
        self, endless: Sequence[asyncio.Task[None]], work: asyncio.Task[object], least_s: float
    ) -> None:
        """Until `work` is done, and so long at least. Raises what it failed with, or what ended one that never ends."""
        ends_s = self.world.simulation.loop.time() + least_s
        await asyncio.wait({*endless, work}, return_when=asyncio.FIRST_COMPLETED)
        left_s = ends_s - self.world.simulation.loop.time()
        if work.done() and work.exception() is None and left_s > 0:
            await asyncio.wait(endless, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (*endless, work):
            if task.done():
                task.result()

    async def _search_now_and_then(self) -> None:
        """What faults do to searches is their business, but not what an answer is made of."""
        while True:
            await asyncio.sleep(SEARCH_EVERY_S)
            try:
                answer = await self.world.clients[0].call(lambda client: client.finding.search("cores >= 1"))
            except (XenoError, ControlError):
                continue
            self.searches += 1
            self.watch.answer(answer)


def run_seed(seed: int, injections: Sequence[Injection] | None = None, size: Size = FULL) -> SeedResult:
    """One seed; what is broken stands in the result. With `injections`, those instead of the seed's own."""
    world = World(
        seed, servers=size.servers, leaf_capacity=size.leaf_capacity, root_groups=size.root_groups,
        tries={name: size.tries for name in SALTED_DIMENSIONS if size.tries > 1},
        ledger=make_ledger(seed),
    )  # fmt: skip
    simulation = world.simulation
    simulation.loop.horizon_ns = int(HORIZON_S * NANOSECONDS)
    chosen = draw(seed, world.groups(), size) if injections is None else tuple(injections)
    story = Story(world, chosen, size)
    broken = ""
    try:
        simulation.run(story.run())
        world.trace.listener = None
        trace, virtual_s = world.trace.hexdigest(), simulation.loop.time()
        world.close()
    except BrokenInvariant as error:
        flag = {FULL: "", COPIED: " --copied", SALTED: " --salted"}.get(size, " --small")
        error.command = f"scripts/simulate_seeds --seeds {seed}{flag}"
        broken = str(error)
    except Exception as error:  # whatever it is, it is how this seed ended
        broken = f"{error}\n{''.join(traceback.format_exception(error))}"
    if broken:
        trace, virtual_s = world.trace.hexdigest(), simulation.loop.time()
        simulation.loop.close()
    return SeedResult(
        seed,
        trace,
        virtual_s,
        simulation.network.statistics.sent,
        story.searches,
        dict(sorted(story.injector.scene.bites.items())),
        chosen,
        broken,
    )
