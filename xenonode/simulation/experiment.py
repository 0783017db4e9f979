"""One run of a scenario: a world from a seed, what clients do in it, what is measured, and whether all checks held.

Decides the course: everybody joins; clients, churn and faults act for the scenario's duration; then quiet, in which
sessions are settled and queries asked whose answers must be whole; then the ledger's audit. Leaves each of these to
its module. The same scenario and seed give the same result, to the byte, in every process.

    result = run(load("churn"), seed=7)
    result.row["recall_mean"], result.verdict.passed
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from random import Random
from statistics import fmean
from typing import Any

from xenonode.simulation.arrivals import arrivals, draw_class
from xenonode.simulation.asking import Asking
from xenonode.simulation.checking import SETTLING_S, CheckError, check_ledger, check_quiet, check_settled, check_shares
from xenonode.simulation.coming_and_going import Churning
from xenonode.simulation.env import derive
from xenonode.simulation.faults import Injection, Injector, plan
from xenonode.simulation.invariants import BrokenInvariant, Watch
from xenonode.simulation.invariants.broken import Ring
from xenonode.simulation.leases import Leases, Market
from xenonode.simulation.loop import NANOSECONDS
from xenonode.simulation.sampling import Questions, Sample, market, paid_usd, spread
from xenonode.simulation.scenario import Scenario
from xenonode.simulation.stand import EXPECTED, PlatformStand, stand_for
from xenonode.simulation.verdict import BROKEN, ERROR, Row, RunResult, Verdict

EVENTS_KEPT = 40
"""The last things that happened, for whoever has to find out why a run failed: two screenfuls."""
HORIZON_SPARE_S = 86_400.0
"""A run that is this long overdue will not end: joins and settlements take seconds."""

Tell = Callable[[Sample], None]


def run(
    scenario: Scenario, seed: int, tell: Tell | None = None, injections: Sequence[Injection] | None = None
) -> RunResult:
    """One run; never raises for what the run itself did. `tell` hears each sample as it is taken.

    With `injections`, those faults instead of the ones that the scenario and the seed plan.
    """
    experiment = Experiment(scenario, seed, tell or (lambda sample: None), injections)
    world, failed = experiment.stand.world, None
    try:
        with world:
            try:
                world.run(experiment.course())
            except Exception as error:
                failed = experiment.failed(error)  # now, since closing a world goes on sending: ends of its streams
                raise
        return experiment.result(Verdict())
    except Exception as error:
        return failed or experiment.failed(error)


class Experiment:
    """A run under way."""

    def __init__(
        self, scenario: Scenario, seed: int, tell: Tell, injections: Sequence[Injection] | None = None
    ) -> None:
        self.scenario, self.seed, self._tell = scenario, seed, tell
        self.stand = stand_for(scenario, seed, injections or ())
        self.loop = self.stand.world.simulation.loop
        horizon_s = scenario.duration_s + scenario.checks.quiet_s + HORIZON_SPARE_S
        self.loop.horizon_ns = round(horizon_s * NANOSECONDS)
        self.platform = self.stand.world if isinstance(self.stand, PlatformStand) else None
        self.events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self.series: list[Row] = []
        self.questions = Questions()
        planned = plan(scenario.faults, seed, scenario.names(), scenario.duration_s, world=scenario.kind)
        self.injections = planned if injections is None else tuple(injections)
        self.injector = Injector(self.stand.world)
        self.watch = Watch(self.stand.world) if scenario.checks.invariants else None
        self.ring = self.watch.ring if self.watch is not None else Ring(self.stand.world.trace)
        look = self.watch.answer if self.watch is not None else lambda answer: answer
        self.asking = Asking(self.stand, scenario.workload.strict, self.note, self.now_s, look)
        self.churning = Churning(self.stand, scenario.churn, seed, self.note, self.spawn)
        self.leases = Leases(self.platform, scenario.workload, self.note, self.now_s)
        self._asked: list[asyncio.Task[None]] = []
        self._began_s = 0.0
        self._sampled = 0

    def now_s(self) -> float:
        """Virtual seconds since all had joined."""
        return self.loop.time() - self._began_s

    def note(self, text: str) -> None:
        """Something happened that a reader of a failure will want to know."""
        self.events.append(f"{self.loop.time():.3f} s: {text}")

    def rng(self, purpose: str) -> Random:
        """A stream of its own for each purpose."""
        return Random(int.from_bytes(derive(self.seed, "experiment", purpose)))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let something go on beside the course; its failure fails the run at once."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(_fail_the_run)
        return task

    # -- the course

    async def course(self) -> None:
        """From the first join to the last check. Raises CheckError."""
        scenario, workload = self.scenario, self.scenario.workload
        try:
            await self.stand.begin()
        except EXPECTED as error:
            raise CheckError("joining", str(error)) from error
        self._began_s = self.loop.time()
        self.note("all have joined")
        sampling = self.spawn(self._sample_for_ever())
        acting = [
            self.spawn(self._arrive("queries", workload.queries_per_s, self._query)),
            self.spawn(self._arrive("sessions", workload.sessions_per_s, self.leases.one)),
        ]
        if workload.reprice_every_s and self.platform is not None:
            acting.append(self.spawn(Market(self.platform, workload).go_on()))
        if self.watch is not None:
            watching = self.watch.start(scenario.checks.watch_every_s)
            watching.add_done_callback(_fail_the_run)
        self.churning.start()
        striking = self.spawn(self._strike())
        await asyncio.sleep(scenario.duration_s)
        await striking
        self.note("quiet begins")
        least_s = 2 * scenario.advert_period_ms / 1_000
        if self.watch is not None and scenario.checks.quiet_s < least_s:
            told = f"checks.quiet_s is {scenario.checks.quiet_s:g}, less than two periods of adverts, {least_s:g}"
            self.note(f"{told}: what must hold after the quiet may need longer")
        for task in acting:
            task.cancel()
        self.leases.wind_up()
        await self.churning.stop()
        await asyncio.sleep(scenario.checks.quiet_s)
        if self._asked:  # what a crashed client began never ends
            await asyncio.wait(self._asked, timeout=SETTLING_S)
        await check_quiet(scenario, self.asking, self.rng("quiet"))
        if self.platform is not None:
            await check_ledger(self.platform, self.note)
            if scenario.checks.invariants:
                check_settled(self.platform, self.leases, self.injections)
        if self.watch is not None:
            watching.cancel()
            await self.watch.after_quiet()
        self.sample()
        sampling.cancel()
        check_shares(scenario, self.asking, self.leases)

    async def _strike(self) -> None:
        for injection in self.injections:
            told = partial(self.note, f"fault: {injection}")
            self.loop.call_later(injection.at_ms / 1_000, told)
        await self.injector.run(self.injections)

    async def _arrive(self, name: str, rate: float, act: Callable[[Random], Coroutine[Any, Any, None]]) -> None:
        moments, rng = self.rng(f"{name} arrive"), self.rng(name)
        for moment_s in arrivals(moments, rate, self.scenario.workload, self.scenario.duration_s):
            await asyncio.sleep(max(0.0, moment_s - self.now_s()))
            own = Random(rng.getrandbits(64))  # each its own, so that what one draws changes no other
            self._asked.append(self.spawn(act(own)))

    async def _query(self, rng: Random) -> None:
        client, kind = rng.randrange(self.scenario.nodes.clients), draw_class(rng, self.scenario.workload)
        await self.asking.ask(rng, client, kind)

    # -- what is measured

    async def _sample_for_ever(self) -> None:
        while True:
            self.sample()
            await asyncio.sleep(self.scenario.sample_every_s)

    def sample(self) -> None:
        """Measure everything now."""
        recent = [row["recall"] for row in self.asking.over[self._sampled :]]
        self._sampled = len(self.asking.over)
        statistics = self.stand.world.simulation.network.statistics
        sample: Sample = {
            "t_s": self.now_s(),
            "servers_up": sum(self.stand.is_up(server) for server in self.stand.servers()),
            "rpcs": self.questions.look(self.stand.endpoints()),
            "datagrams": statistics.sent,
            "lost": statistics.lost + statistics.blocked,
            "queries": len(self.asking.rows),
            "recall": fmean(recent) if recent else None,
            "sessions": len(self.leases.all),
            "sessions_open": self.leases.open(),
            "sessions_settled": self.leases.count("settled"),
            "paid_usd": paid_usd(self.platform.transfers) if self.platform is not None else 0.0,
            **market(self.stand.points()),
            **spread(self._sent()),
        }
        self.series.append(sample)
        self._tell(sample)

    def _sent(self) -> dict[str, int]:
        """Datagrams that each host sent, over all its lives."""
        nodes = self.stand.world.simulation.nodes
        return {name: sum(node.host.sent.values()) for name, node in nodes.items()}

    def failed(self, error: Exception) -> RunResult:
        """All figures until a check did not hold, or something went wrong."""
        cause = error.__cause__  # what failed beside the course reaches it through the loop
        error = cause if isinstance(cause, CheckError | BrokenInvariant) else error
        status, check, detail, trace = ERROR, type(error).__name__, str(error), ""
        if isinstance(error, CheckError):
            status, check = BROKEN, error.check
        elif isinstance(error, BrokenInvariant):
            status, check, detail = BROKEN, error.name, error.detail
        else:
            trace = "".join(traceback.format_exception(error))
        packets = self.ring.told(self.stand.world.simulation.network.names())
        return self.result(Verdict(status, check, detail, self.loop.time(), tuple(self.events), packets, trace))

    def result(self, verdict: Verdict) -> RunResult:
        """All figures of the run so far."""
        last, sent = self.series[-1] if self.series else {}, self._sent()
        faults, kinds = self._faults()
        row: Row = {
            "seed": self.seed,
            "status": verdict.status,
            "check": verdict.check,
            "virtual_s": self.loop.time(),
            "joined_s": self._began_s,
            "rpcs": last.get("rpcs"),
            "datagrams": self.stand.world.simulation.network.statistics.sent,
            **self.asking.figures(),
            **self.leases.figures(),
            "paid_usd": last.get("paid_usd"),
            "price_mean_usd": last.get("price_mean_usd"),
            "churn_left": self.churning.left,
            "churn_returned": self.churning.returned,
            **spread(sent),
            "faults": len(self.injections),
            "fault_bites": sum(kind["bit"] for kind in kinds),
            "trace": self.stand.world.simulation.trace.hexdigest(),
        }
        nodes: list[Row] = [{"node": name, "sent": count} for name, count in sent.items()]
        sessions = [lease.to_fields() for lease in self.leases.all]
        return RunResult(row, self.series, self.asking.rows, sessions, nodes, faults, kinds, verdict)

    def _faults(self) -> tuple[list[Row], list[Row]]:
        """Each fault that was planned, with how often its kind met something meanwhile; and the same by kind."""
        scene = self.injector.scene
        faults: list[Row] = [{**each.to_fields(), "bit": scene.met(each)} for each in self.injections]
        kinds: list[Row] = []
        for kind in dict.fromkeys(injection.kind for injection in self.injections):
            own = [fault["bit"] for fault in faults if fault["kind"] == kind]
            struck = sum(each > 0 for each in own)
            kinds.append({"kind": kind, "planned": len(own), "struck": struck, "bit": scene.so_far(kind)})
        return faults, kinds


def _fail_the_run(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        context = {"message": "the experiment's own work failed", "exception": error}
        task.get_loop().call_exception_handler(context)
