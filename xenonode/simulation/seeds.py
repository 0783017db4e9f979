"""One seed's run of a small platform with faults of every kind, and what must hold: the simulator's own proof.

Decides the world (thirty servers, a paid session, ten virtual minutes), which faults a seed draws and when, and what
is looked at. A failing seed is run again by `scripts/simulate_seeds --seeds SEED`, with fewer faults by `--shrink`.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from xenonode.client import Client
from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.simulation.env import derive
from xenonode.simulation.faults import KINDS, FaultSpec, Injection, Injector, plan
from xenonode.simulation.invariants import BrokenInvariant, Watch
from xenonode.simulation.lease import Lease, settled_once
from xenonode.simulation.ledger import make_ledger
from xenonode.simulation.loop import NANOSECONDS
from xenonode.simulation.world import World

SERVERS = 30
LEAF_CAPACITY = 24
"""Less than there are servers, so that tries have more than one leaf and summaries something to say."""
CALM_S, FAULTS_S, QUIET_S = 30.0, 370.0, 170.0
"""Before the first fault, with faults, and after the last: two periods of adverts and what a zone lives at most."""
KINDS_EACH = 8
LONGEST_S = {"network": 40.0, "node": 40.0, "disk": 30.0, "byzantine": 120.0}
MOST = {"network": 4, "node": 3, "disk": 2, "byzantine": 2}
"""Hosts that one injection strikes."""
SEARCH_EVERY_S = 45.0
HORIZON_S = 1_500.0
LEASE_SPARED = frozenset({"cold_restart", "disk_bit_rot"})
"""A server that lost its journal cannot go on with its sessions; whose money that is, other tests say."""


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


def draw(seed: int, names: dict[str, list[str]]) -> tuple[Injection, ...]:
    """The faults of a seed: some kinds in turn, so that a few seeds have all of them; times and places are chance."""
    rng = Random(int.from_bytes(derive(seed, "faults of a seed")))
    kinds = list(KINDS)
    first = seed * KINDS_EACH
    specs = []
    for place in range(first, first + KINDS_EACH):
        kind = KINDS[kinds[place % len(kinds)]]
        for_s = rng.uniform(5.0, LONGEST_S[kind.family])
        group = rng.choice(kind.groups)
        at_s = rng.uniform(0.0, FAULTS_S - for_s)
        count = 1 if group == "corp" else rng.randint(1, MOST[kind.family])
        specs.append(FaultSpec(kind.name, at_s, for_s, targets=group, count=count))
    return plan(specs, seed, names, FAULTS_S)


class Story:
    """What happens in a seed's world."""

    def __init__(self, world: World, injections: Sequence[Injection]) -> None:
        self.world, self.injections = world, injections
        self.watch, self.injector = Watch(world), Injector(world)
        self.searches = 0

    async def run(self) -> Counter[str]:
        """From the start to the last check. Raises BrokenInvariant."""
        world, watch = self.world, self.watch
        await world.begin()
        watching = watch.start()
        await asyncio.sleep(max(0.0, CALM_S - world.simulation.loop.time()))
        lease = Lease(world, world.clients[0], world.servers[-1])
        await lease.open()
        searching = asyncio.create_task(self._search_now_and_then(), name="searches")
        faults = asyncio.create_task(self.injector.run(self.injections), name="faults")
        await self._while_watched(watching, faults, FAULTS_S)
        await faults
        searching.cancel()
        await self._while_watched(watching, asyncio.create_task(asyncio.sleep(QUIET_S)), QUIET_S)
        watching.cancel()
        await watch.after_quiet()
        await lease.stop()
        watch.require("every claim is settled once", settled_once(await lease.account()))
        watch.check()
        return self.injector.scene.bites

    async def _while_watched(self, watching: asyncio.Task[None], work: asyncio.Task[object], least_s: float) -> None:
        ends_s = self.world.simulation.loop.time() + least_s
        await asyncio.wait({watching, work}, return_when=asyncio.FIRST_COMPLETED)
        if not watching.done() and (left_s := ends_s - self.world.simulation.loop.time()) > 0:
            await asyncio.wait({watching}, timeout=left_s)
        if watching.done():
            watching.result()

    async def _search_now_and_then(self) -> None:
        """What faults do to searches is their business, but not what an answer is made of."""
        while True:
            await asyncio.sleep(SEARCH_EVERY_S)
            try:
                answer = await self.world.clients[0].call(partial(Client.search, text="cores >= 1"))
            except (XenoError, ControlError):
                continue
            self.searches += 1
            self.watch.answer(answer)


def run_seed(seed: int, injections: Sequence[Injection] | None = None) -> SeedResult:
    """One seed; what is broken stands in the result. With `injections`, those instead of the seed's own."""
    world = World(seed, servers=SERVERS, leaf_capacity=LEAF_CAPACITY, ledger=make_ledger(seed))
    simulation = world.simulation
    simulation.loop.horizon_ns = int(HORIZON_S * NANOSECONDS)
    chosen = draw(seed, world.groups()) if injections is None else tuple(injections)
    story = Story(world, chosen)
    broken = ""
    try:
        simulation.run(story.run())
        world.trace.listener = None
        trace, virtual_s = world.trace.hexdigest(), simulation.loop.time()
        world.close()
    except BrokenInvariant as error:
        error.command = f"scripts/simulate_seeds --seeds {seed}"
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
