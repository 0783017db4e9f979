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
from random import Random
from statistics import fmean
from typing import Any

from xenonode.client import Operator
from xenonode.corp.transfers import CAPTURE, FEE
from xenonode.simulation.arrivals import arrivals, draw_class, draw_query
from xenonode.simulation.coming_and_going import Churning
from xenonode.simulation.env import derive
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.leases import AGAIN_S, EXPECTED, Leases, Market
from xenonode.simulation.loop import NANOSECONDS
from xenonode.simulation.recall import Offers, judge
from xenonode.simulation.sampling import Questions, Sample, market, quantile, spread, usd
from xenonode.simulation.scenario import Scenario
from xenonode.simulation.stand import Stand
from xenonode.simulation.verdict import BROKEN, ERROR, Row, RunResult, Verdict

EVENTS_KEPT = 40
"""The last things that happened, for whoever has to find out why a run failed: two screenfuls."""
HORIZON_SPARE_S = 86_400.0
"""A run that is this long overdue will not end: joins and settlements take seconds."""
SETTLING_S = 600.0
"""Until sessions must have been settled once all is quiet: clients wait a minute, servers claim again within five."""

Tell = Callable[[Sample], None]


class CheckError(Exception):
    """A check of the scenario did not hold."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(detail)
        self.check, self.detail = check, detail


def run(scenario: Scenario, seed: int, tell: Tell | None = None) -> RunResult:
    """One run; never raises for what the run itself did. `tell` hears each sample as it is taken."""
    experiment = Experiment(scenario, seed, tell or (lambda sample: None))
    status, check, detail, trace = "", "", "", ""
    try:
        with experiment.stand.world:
            experiment.stand.world.run(experiment.course())
            trace_hash = experiment.stand.world.trace.hexdigest()
        return experiment.result(Verdict(), trace_hash)
    except CheckError as error:
        status, check, detail = BROKEN, error.check, error.detail
    except SimulationError as error:
        status, check, detail = ERROR, type(error).__name__, str(error)
        trace = "".join(traceback.format_exception(error))
    except Exception as error:
        status, check, detail = ERROR, type(error).__name__, str(error)
        trace = traceback.format_exc()
    verdict = Verdict(status, check, detail, experiment.now_s, tuple(experiment.events), trace)
    return experiment.result(verdict, experiment.stand.world.trace.hexdigest())


class Experiment:
    """A run under way."""

    def __init__(self, scenario: Scenario, seed: int, tell: Tell) -> None:
        self.scenario, self.seed, self._tell = scenario, seed, tell
        self.stand = Stand(scenario, seed)
        horizon_s = scenario.duration_s + scenario.checks.quiet_s + HORIZON_SPARE_S
        self.stand.world.simulation.loop.horizon_ns = round(horizon_s * NANOSECONDS)
        self.events: deque[str] = deque(maxlen=EVENTS_KEPT)
        self.series: list[Row] = []
        self.queries: list[Row] = []
        self.questions = Questions()
        self.churning = Churning(self.stand, scenario.churn, seed, self.note, self.spawn)
        self.leases = Leases(self.stand.world, scenario.workload, self.note)
        self._asked: list[asyncio.Task[None]] = []
        self._began_s = 0.0
        self._sampled = 0

    @property
    def now_s(self) -> float:
        """Virtual seconds since the world began."""
        return self.stand.world.simulation.loop.time()

    def note(self, text: str) -> None:
        """Something happened that a reader of a failure will want to know."""
        self.events.append(f"{self.now_s:.3f} s: {text}")

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
        scenario = self.scenario
        await self.stand.begin()
        self._began_s = self.now_s
        self.note("all have joined")
        background = [self.spawn(self._sample_for_ever())]
        if scenario.workload.reprice_every_s:
            background.append(self.spawn(Market(self.stand.world, scenario.workload).go_on()))
        self.leases.begin()
        self.churning.start()
        async with asyncio.TaskGroup() as work:
            work.create_task(self._arrive("queries", scenario.workload.queries_per_s, self._query))
            work.create_task(self._arrive("sessions", scenario.workload.sessions_per_s, self._session))
            work.create_task(asyncio.sleep(scenario.duration_s))
        self.note("quiet begins")
        for task in background[1:]:
            task.cancel()
        self.leases.wind_up()
        await self.churning.stop()
        await asyncio.sleep(scenario.checks.quiet_s)
        await self._settle()
        await self._check()
        self.sample()
        background[0].cancel()

    async def _arrive(self, name: str, rate: float, act: Callable[[Random], Coroutine[Any, Any, None]]) -> None:
        moments, rng = self.rng(f"{name} arrive"), self.rng(name)
        for moment_s in arrivals(moments, rate, self.scenario.workload, self.scenario.duration_s):
            await asyncio.sleep(max(0.0, self._began_s + moment_s - self.now_s))
            own = Random(rng.getrandbits(64))  # each its own, so that what one draws changes no other
            self._asked.append(self.spawn(act(own)))

    async def _settle(self) -> None:
        """Wait for what is still under way; what a crashed client began never ends, and is counted so."""
        if self._asked:
            await asyncio.wait(self._asked, timeout=SETTLING_S)

    # -- queries

    async def _query(self, rng: Random) -> None:
        client = rng.randrange(len(self.stand.world.clients))
        await self.ask(rng, client, draw_class(rng, self.scenario.workload), quiet=False)

    async def ask(self, rng: Random, client: int, kind: str, *, quiet: bool) -> Row | None:
        """One query, compared with every advert in force; None where there are none."""
        points = self.stand.points()
        if not points:
            return None
        text = draw_query(rng, kind, points)
        before: Offers = {point.id: point.attributes for point in points}
        row: Row = {"t_s": self.now_s - self._began_s, "client": client, "class": kind, "quiet": quiet, "query": text}
        self.queries.append(row)
        try:
            answer = await self.stand.ask(client, text, self.scenario.workload.strict)
        except EXPECTED as error:
            row |= {"answered": False, "error": str(getattr(error, "code", "") or error)[:200], "recall": 0.0}
            self.note(f"query failed: {error}")
            return row
        after: Offers = {point.id: point.attributes for point in self.stand.points()}
        judged = judge(answer.query, [found.advert.row_id for found in answer.servers], before, after)
        row |= {
            "answered": True,
            "expected": judged.expected,
            "found": judged.found,
            "hits": judged.hits,
            "stale": judged.stale,
            "recall": judged.recall,
            "complete": answer.complete,
            "rpcs": answer.counts.rpcs,
            "rounds": answer.counts.rounds,
            "duration_ms": answer.duration_ms,
        }
        if judged.recall < 1:
            self.note(f"recall {judged.recall:.2f} ({judged.hits} of {judged.expected}): {text}")
        return row

    # -- sessions

    async def _session(self, rng: Random) -> None:
        await self.leases.one(rng)

    # -- samples

    async def _sample_for_ever(self) -> None:
        while True:
            self.sample()
            await asyncio.sleep(self.scenario.sample_every_s)

    def sample(self) -> None:
        """Measure everything now."""
        recent = [row["recall"] for row in self.queries[self._sampled :] if "recall" in row]
        self._sampled = len(self.queries)
        statistics = self.stand.world.simulation.network.statistics
        paid = sum(each.amount_nano for each in self.stand.world.transfers if each.kind in (CAPTURE, FEE))
        sample: Sample = {
            "t_s": self.now_s - self._began_s,
            "servers_up": sum(server.running is not None for server in self.stand.servers()),
            "rpcs": self.questions.look(self.stand.endpoints()),
            "datagrams": statistics.sent,
            "lost": statistics.lost + statistics.blocked,
            "queries": len(self.queries),
            "recall": fmean(recent) if recent else None,
            "sessions": len(self.leases.all),
            "sessions_open": self.leases.open(),
            "sessions_settled": self.leases.count("settled"),
            "paid_usd": usd(paid),
            **market(self.stand.points()),
            **spread({host.name: sum(host.sent.values()) for host in self.stand.hosts()}),
        }
        self.series.append(sample)
        self._tell(sample)

    # -- checks

    async def _check(self) -> None:
        checks = self.scenario.checks
        asked = [row for row in self.queries if "answered" in row]
        await self._check_quiet()
        await self._check_ledger()
        if asked:
            recall = fmean(row["recall"] for row in asked)
            if recall < checks.recall_least:
                raise CheckError("recall", f"mean recall {recall:.4f} is below {checks.recall_least}")
            answered = fmean(row["answered"] for row in asked)
            if answered < checks.answered_least:
                raise CheckError(
                    "answered", f"{answered:.4f} of the queries were answered, below {checks.answered_least}"
                )
        if self.leases.all:
            settled = self.leases.count("settled") / len(self.leases.all)
            if settled < checks.sessions_least:
                raise CheckError(
                    "sessions", f"{settled:.4f} of the sessions were settled, below {checks.sessions_least}"
                )

    async def _check_quiet(self) -> None:
        checks, rng = self.scenario.checks, self.rng("quiet")
        names = sorted(self.scenario.workload.mix)
        for number in range(checks.quiet_queries):
            client = number % len(self.stand.world.clients)
            row = await self.ask(rng, client, names[number % len(names)], quiet=True)
            if row is None:
                raise CheckError("quiet_recall", "no server is left that advertises")
            if row["recall"] < checks.quiet_recall_least:
                told = f"recall {row['recall']:.4f} is below {checks.quiet_recall_least}"
                raise CheckError("quiet_recall", f"{told} after {checks.quiet_s:g} s of quiet: {row['query']}")

    async def _check_ledger(self) -> None:
        if not self.scenario.checks.invariants:
            return
        while True:
            try:
                audit = await self.stand.world.corp.operate(Operator.audit)
                break
            except EXPECTED as error:
                self.note(f"XenoCorp does not answer its operator: {error}")
                await asyncio.sleep(AGAIN_S)
        if not audit["balanced"]:
            raise CheckError("ledger", f"the books do not balance: {audit['faults']}")

    # -- the result

    def result(self, verdict: Verdict, trace_hash: str) -> RunResult:
        """All figures of the run so far."""
        asked = [row for row in self.queries if "answered" in row]
        answered = [row for row in asked if row["answered"]]
        last: Sample = self.series[-1] if self.series else {}
        sent = {host.name: sum(host.sent.values()) for host in self.stand.hosts()}
        opened: Sequence[float] = [lease.open_s for lease in self.leases.all if lease.open_s is not None]
        row: Row = {
            "seed": self.seed,
            "status": verdict.status,
            "check": verdict.check,
            "virtual_s": self.now_s,
            "joined_s": self._began_s,
            "rpcs": last.get("rpcs"),
            "datagrams": self.stand.world.simulation.network.statistics.sent,
            "queries": len(asked),
            "answered": len(answered),
            "recall_mean": fmean(row["recall"] for row in asked) if asked else None,
            "recall_least": min((row["recall"] for row in asked), default=None),
            "stale": sum(row["stale"] for row in answered),
            "search_ms_median": quantile([row["duration_ms"] for row in answered], 0.5),
            "search_ms_p95": quantile([row["duration_ms"] for row in answered], 0.95),
            "search_rpcs_mean": fmean(row["rpcs"] for row in answered) if answered else None,
            "search_rounds_mean": fmean(row["rounds"] for row in answered) if answered else None,
            "sessions": len(self.leases.all),
            "sessions_settled": self.leases.count("settled"),
            "sessions_unserved": self.leases.count("unserved"),
            "sessions_failed": self.leases.count("failed"),
            "session_open_s_median": quantile(opened, 0.5),
            "paid_usd": last.get("paid_usd"),
            "price_mean_usd": last.get("price_mean_usd"),
            "churn_left": self.churning.left,
            "churn_returned": self.churning.returned,
            **spread(sent),
            "trace": trace_hash,
        }
        nodes: list[Row] = [{"node": name, "sent": count} for name, count in sent.items()]
        return RunResult(
            row, self.series, self.queries, [lease.to_fields() for lease in self.leases.all], nodes, verdict
        )


def _fail_the_run(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        context = {"message": "the experiment's own work failed", "exception": error}
        task.get_loop().call_exception_handler(context)
