"""`xenonode simulate`: runs a scenario over seeds and a sweep, keeps what is finished, and says what failed and how."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xenonode.cli.command import Run, command, usage_error
from xenonode.errors import XenoError

if TYPE_CHECKING:
    from xenonode.simulation.campaign.jobs import Job
    from xenonode.simulation.campaign.pool import Event
    from xenonode.simulation.campaign.results import Finished, Results
    from xenonode.simulation.scenario import Scenario

EVENTS_SHOWN = 12
"""Last events of a failing run that are printed; its file has more."""
PACKETS_SHOWN = 8
"""Last datagrams and stream segments, likewise."""
FAILURES_SHOWN = 5
"""Failing runs that are told in full."""
DIFFERENCES_SHOWN = 4
"""Figures of a run that was another when it was repeated."""
AGAIN = "-again"
"""What such a run's file is called after the first one's."""
REPLAY = "-replay"
"""What a replay's folder is called after the first one's."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Replay:
    """What all runs of this command have in common, and so their replays."""

    scenario: str
    sets: Mapping[str, str]
    folder: Path
    injections: Path | None

    def command(self, finished: Finished) -> str:
        """What does this run alone, again."""
        from xenonode.simulation.scenario_file import swept_as_set

        point = finished.job.point.items()
        sets = {**self.sets, **{name: _toml(swept_as_set(self.scenario, name, value)) for name, value in point}}
        words = ["xenonode", "simulate", self.scenario, "--seeds", str(finished.job.seed)]
        words += [word for name, value in sets.items() for word in ("--set", f"{name}={value}")]
        words += ["--fresh", "--out", f"{str(self.folder).removesuffix(REPLAY)}{REPLAY}"]
        return shlex.join(words if self.injections is None else [*words, "--injections", str(self.injections)])


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    example = "xenonode simulate churn --seeds 0..9 --set nodes.servers=12 --out results"
    command(app, "simulate", example=example, setting="nodes.servers=20")(simulate)


def simulate(
    run: Run,
    scenario: Annotated[str, typer.Argument(help="A scenario's TOML file, or the name of a shipped one.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds: 7, 0..99 or 1,5,10..12.")] = "0",
    jobs: Annotated[int, typer.Option(min=0, max=4096, help="Processes; 0: one a core.")] = 0,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of the results; default simulations/NAME.")] = "",
    cluster: Annotated[str, typer.Option(metavar="ADDRESS", help="A Dask scheduler to run on (extra 'cluster').")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what is kept from before, and compare.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Tables as Parquet, too (extra 'parquet').")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Find the fewest faults with which the first failing run still fails.")
    ] = False,
    injections: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Faults to do instead of those that the seeds plan (JSON).")
    ] = None,
    plots: Annotated[bool, typer.Option("--plots", help="Draw figures and a page (extra 'plots').")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the shipped scenarios.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="List every key of a scenario, for its file and --set.")] = False,
) -> None:
    """Simulate the platform: its real code under a virtual clock, a scenario's nodes, network, faults and clients.

    --set overrides a key of the scenario (see --keys). Finished runs are kept: the same command goes on from them.
    """
    from xenonode.simulation.campaign.jobs import code_version, jobs_of, parse_seeds
    from xenonode.simulation.campaign.results import Results
    from xenonode.simulation.campaign.shrinking import read_injections
    from xenonode.simulation.stand import needs_ledger_disk

    if list_:
        _print_scenarios(run)
        return
    if keys:
        _print_keys(run)
        return
    if not scenario:
        raise usage_error("no scenario is named", "name a file, or one of 'xenonode simulate --list'")
    _check_packages(parquet, plots)
    given = None if injections is None else read_injections(injections)
    todo = jobs_of(scenario, run.overrides, parse_seeds(seeds), given)
    for job in todo:
        needs_ledger_disk(job.scenario, job.injections or ())
    folder = Path(out or Path("simulations") / todo[0].scenario.name)
    processes = jobs or len(os.sched_getaffinity(0))
    with Results(folder) as results:
        about = {"scenario": todo[0].scenario.fields(), "sets": run.overrides, "version": code_version()}
        results.begin(about)
        finished, unlike = _carry_out(run, results, todo, partial(_engine, cluster, processes), fresh)
        results.write_tables(finished, parquet=parquet)
        if plots:
            _draw(run, results, todo, finished)
        failed = next((each for each in finished if not each.result.verdict.passed), None)
        replay = _Replay(scenario, run.overrides, folder, injections)
        if shrink and failed is not None:
            _shrink(run, replay, results, failed)
        elif shrink:
            run.output.note("--shrink: nothing failed, so there are no faults to leave out")
    _report(run, replay, finished, unlike, len(todo))


def _check_packages(parquet: bool, plots: bool) -> None:
    """What is missing is said before the runs, not after them. Raises XenoError."""
    from xenonode.catalogue import catalogue_rows
    from xenonode.simulation.campaign.plots import load_pyplot
    from xenonode.simulation.campaign.results import load_pyarrow

    if parquet:
        load_pyarrow()
    if plots:
        load_pyplot()
    catalogue_rows()  # every world's machines are from there


def _engine(cluster: str, processes: int, jobs: Sequence[Job]) -> Iterator[Event]:
    """What carries runs out: processes here, or a cluster."""
    from xenonode.simulation.campaign.cluster import run_all as on_cluster
    from xenonode.simulation.campaign.pool import run_all

    return on_cluster(jobs, cluster) if cluster else run_all(jobs, processes)


def _carry_out(
    run: Run, results: Results, jobs: Sequence[Job], engine: Callable[[Sequence[Job]], Iterator[Event]], fresh: bool
) -> tuple[list[Finished], list[str]]:
    """Run what is not kept yet; what was finished is kept even when this is interrupted. In the jobs' order.

    Also returns what is to be said of runs that were not the same as before.
    """
    from xenonode.cli.simulation_progress import Progress
    from xenonode.simulation.campaign.pool import Died, Sampled

    kept = {job.number: found for job in jobs if (found := results.stored(job)) is not None}
    done = {} if fresh else dict(kept)
    todo = [job for job in jobs if job.number not in done]
    if done:
        run.output.note(f"{len(done)} of {len(jobs)} runs are kept from before")
    lost: list[Died] = []
    unlike: list[str] = []
    before = {each: signal.signal(each, _interrupt) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Progress(run.output, len(jobs), list(done.values())) as progress:
            for event in engine(todo) if todo else ():
                if event is None or isinstance(event, Sampled):
                    progress.tell(event)
                elif isinstance(event, Died):
                    progress.note(f"{event.job.title}: {event.reason}")
                    lost.append(event)
                else:
                    told = _keep(results, kept.get(event.job.number), event)
                    done[event.job.number] = event
                    progress.finished(event)
                    if told:
                        progress.note(told)
                        unlike.append(told)
    except KeyboardInterrupt as error:
        before = {}  # this process ends at once, and what ends it is heard once
        if done:
            results.write_tables([done[number] for number in sorted(done)])
        message = f"interrupted; {len(done)} of {len(jobs)} runs are kept in {results.folder}"
        raise XenoError(message, "the same command goes on from there", "interrupted") from error
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if len(done) < len(jobs):
        last = lost[-1]
        message = f"{len(jobs) - len(done)} runs could not be carried out: {last.job.title}: {last.reason}"
        raise XenoError(message, last.next_step, "died")
    return [done[number] for number in sorted(done)], unlike


def _keep(results: Results, before: Finished | None, now: Finished) -> str:
    """A run that is repeated must be the same run: of one that is not both are kept, and this is what to say of it."""
    from xenonode.simulation.campaign.results import difference

    differing = [] if before is None else difference(before, now)
    path = results.keep(now, AGAIN if differing else "")
    if not differing:
        return ""
    what = "; ".join(differing[:DIFFERENCES_SHOWN])
    return f"{now.job.title} is not repeatable: {what}; {results.path(now.job)} is then, {path} now"


def _draw(run: Run, results: Results, jobs: Sequence[Job], finished: Sequence[Finished]) -> None:
    from xenonode.simulation.campaign.page import page
    from xenonode.simulation.campaign.plots import draw
    from xenonode.simulation.campaign.results import tables

    rows, keys, scenario = tables(finished), list(jobs[0].point), jobs[0].scenario
    figures = draw(rows, keys)
    for each in figures:
        results.write(f"{each.name}.png", each.png)
    path = results.write("report.html", page(scenario.name, scenario.shows, rows, keys, figures))
    run.output.note(f"{len(figures)} figures are in {path}")


def _shrink(run: Run, replay: _Replay, results: Results, failed: Finished) -> None:
    """Keep the fewest faults that make the run fail as it did, and say how to do just those."""
    from xenonode.simulation.campaign.shrinking import fewest

    run.output.note(f"{failed.job.title}: looking for the fewest of {len(failed.result.faults)} faults that fail")
    left = fewest(failed, run.output.note)
    data = json.dumps([each.to_fields() for each in left], indent=1).encode()
    path = results.write(f"faults-{failed.job.key[:12]}.json", data)
    for each in left:
        run.output.note(f"    {each}")
    if not left:
        run.output.note("    it fails without any fault")
    run.output.note(f"    replay: {dataclasses.replace(replay, injections=path).command(failed)}")


def _report(run: Run, replay: _Replay, finished: Sequence[Finished], unlike: list[str], wanted: int) -> None:
    """The answer; raises where a run failed, or was another than before."""
    failed = [each for each in finished if not each.result.verdict.passed]
    rows = [_row(each) for each in finished]
    value = {
        "scenario": replay.scenario,
        "folder": str(replay.folder),
        "passed": len(finished) - len(failed),
        "failed": [_failure(replay, each) for each in failed],
        "not_repeatable": unlike,
        "runs": [{**each.job.point, **each.result.row, "cpu_s": each.cpu_s} for each in finished],
        "faults": (kinds := _by_kind(finished)),
    }
    columns = ("run", "status", "virtual s", "RPCs", "queries", "recall", "sessions", "paid USD", "CPU s", "trace")
    run.output.rows(value, columns, rows, "No runs.")
    if kinds and not run.output.as_json:
        cells = [tuple(kind.values()) for kind in kinds]
        run.output.text(None, "\n")
        run.output.rows(kinds, ("fault", "planned", "struck", "bit", "runs that it bit in"), cells, "No faults.")
    for kind in kinds:
        if not kind["struck"]:
            early = ", or runs failed before it was due" if len(failed) else ""
            run.output.note(f"{kind['kind']} met nobody: it was too short, or its targets were away or idle{early}")
    run.output.note(f"{len(finished) - len(failed)} of {wanted} runs passed; tables are in {replay.folder}")
    for each in failed[:FAILURES_SHOWN]:
        _tell_failure(run, _failure(replay, each))
    if unlike:
        step = "this is a bug of the simulator; please report it with the scenario and both files"
        raise XenoError(f"{len(unlike)} of {wanted} runs: {unlike[0]}", step, "not_repeatable")
    if failed:
        first = failed[0]
        text = f"{len(failed)} of {wanted} runs failed; {first.job.title}: {first.result.verdict.check}"
        raise XenoError(text, f"replay it: {replay.command(first)}", "simulation")


def _tell_failure(run: Run, told: Mapping[str, Any]) -> None:
    note = run.output.note
    note(f"\n{told['run']} failed after {told['virtual_s']:.3f} virtual s: {told['check']}: {told['detail']}")
    for line in told["last_events"][-EVENTS_SHOWN:]:
        note(f"    {line}")
    for line in told["last_packets"][-PACKETS_SHOWN:]:
        note(f"    {line}")
    if told["traceback"]:
        note(told["traceback"])
    note(f"    replay: {told['replay']}")


def _by_kind(finished: Sequence[Finished]) -> list[dict[str, Any]]:
    """Of each kind of fault: injections planned, those that met anything, how often they did, and in how many runs."""
    sums: dict[str, dict[str, Any]] = {}
    for each in finished:
        for row in each.result.fault_kinds:
            kind = sums.setdefault(
                row["kind"], {"kind": row["kind"], "planned": 0, "struck": 0, "bit": 0, "runs_bitten": 0}
            )
            for name in ("planned", "struck", "bit"):
                kind[name] += row[name]
            kind["runs_bitten"] += row["bit"] > 0
    return list(sums.values())


def _failure(replay: _Replay, finished: Finished) -> dict[str, Any]:
    verdict = finished.result.verdict
    return {
        "run": finished.job.title,
        "seed": finished.job.seed,
        "virtual_s": verdict.virtual_s,
        "check": verdict.check,
        "detail": verdict.detail,
        "last_events": list(verdict.last_events),
        "last_packets": list(verdict.last_packets),
        "traceback": verdict.trace,
        "trace": finished.result.row["trace"],
        "replay": replay.command(finished),
    }


def _toml(value: object) -> str:
    """A swept value as --set reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _row(finished: Finished) -> tuple[object, ...]:
    row = finished.result.row
    recall = "-" if row["recall_mean"] is None else f"{row['recall_mean']:.4f}"
    paid = "-" if row["paid_usd"] is None else f"{row['paid_usd']:.6f}"
    sessions = f"{row['sessions_settled']}/{row['sessions']}"
    return (
        finished.job.title, row["status"] if finished.result.verdict.passed else f"FAILED {row['check']}",
        f"{row['virtual_s']:.0f}", row["rpcs"], row["queries"], recall, sessions, paid, f"{finished.cpu_s:.1f}",
        row["trace"][:16],
    )  # fmt: skip


def _print_scenarios(run: Run) -> None:
    from xenonode.simulation.campaign.jobs import jobs_of
    from xenonode.simulation.scenario_file import shipped

    value, rows = [], []
    for name in shipped():
        points = [job.scenario for job in jobs_of(name, {}, (0,))]
        first, nodes, virtual_s = points[0], _span(map(_nodes, points)), _span(map(_virtual_s, points))
        value.append({
            "name": name, "shows": first.shows, "kind": first.kind, "costs": first.costs,
            "nodes": nodes, "virtual_s": virtual_s, "points": len(points),
        })  # fmt: skip
        sizes = (" to ".join(dict.fromkeys(map(str, span.values()))) for span in (nodes, virtual_s))
        rows.append((name, *sizes, len(points), first.costs or "not measured", first.shows))
    columns = ("scenario", "nodes", "virtual s", "points", "a run takes", "shows")
    run.output.rows(value, columns, rows, "None.")


def _nodes(scenario: Scenario) -> int:
    """Its hosts, and machines behind them."""
    return scenario.nodes.servers + scenario.nodes.fleet + scenario.nodes.clients


def _virtual_s(scenario: Scenario) -> int:
    """Its length with the quiet."""
    return round(scenario.duration_s + scenario.checks.quiet_s)


def _span(sizes: Iterable[int]) -> dict[str, int]:
    """Over all points of a sweep."""
    found = list(sizes)
    return {"least": min(found), "most": max(found)}


def _print_keys(run: Run) -> None:
    from xenonode.simulation.fault_tables import fault_keys
    from xenonode.simulation.scenario_file import SWEEP, keys

    value, rows = [], []
    for name, default, key in (*keys(), *fault_keys(), ("sweep", None, SWEEP)):
        written = "" if default in (None, ()) else _toml(default)
        value.append({"key": name, "default": written, **dataclasses.asdict(key)})
        rows.append((name, written, key.bounds or ", ".join(map(_toml, key.choices)), key.about))
    run.output.rows(value, ("key", "default", "values", "meaning"), rows, "")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Once: whoever presses Ctrl-C twice still has the processes ended, the tables written, and told what is kept."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
