"""How far a simulation is, on stderr: bars on a terminal, a line now and then where there is none.

Decides what is worth telling: virtual time, questions a second, recall, sessions, money. Never decides anything else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from xenonode.cli.output import Output
from xenonode.simulation.campaign.pool import Sampled
from xenonode.simulation.campaign.results import Finished

PLAIN_EVERY_S = 10.0
"""Lines in a log, which somebody may have to read."""
LINES_MAX = 200
"""Of a large sweep every finished run would be too many: beyond this, one in so many is told."""


class Progress:
    """See the module. A context manager."""

    def __init__(self, output: Output, runs: int, kept: Sequence[Finished]) -> None:
        self._output, self._runs, self._done = output, runs, len(kept)
        self._began_s = self._told_s = time.monotonic()
        self._rpcs = 0
        self._latest: dict[str, Sampled] = {}
        self._since_s: dict[str, float] = {}
        self._bars: Bars | None = None
        self._tasks: dict[int, TaskID] = {}
        if sys.stderr is not None and sys.stderr.isatty() and not output.as_json:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[told]}"),
                TimeElapsedColumn(),
            )
            self._bars = Bars(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
            self._whole = self._bars.add_task("all runs", total=self._runs, completed=self._done, told="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            self._output.note(text)

    def tell(self, event: Sampled | None) -> None:
        """A run is so far; None: time passes."""
        if event is not None:
            self._latest[event.job.title] = event
            if not event.sample:  # it begins, perhaps again
                self._since_s[event.job.title] = time.monotonic()
        if self._bars is not None and event is not None:
            self._bar(self._bars, event)
        elif self._bars is None and time.monotonic() - self._told_s >= PLAIN_EVERY_S:
            self._told_s = time.monotonic()
            for each in self._latest.values():
                self._output.note(f"  {each.job.title}: {self._told(each)}")

    def finished(self, run: Finished) -> None:
        """A run is over."""
        self._done += 1
        self._latest.pop(run.job.title, None)
        self._since_s.pop(run.job.title, None)
        self._rpcs += int(run.result.row["rpcs"] or 0)
        if self._bars is not None:
            task = self._tasks.pop(run.job.number, None)
            if task is not None:
                self._bars.remove_task(task)
            rate = self._rpcs / max(0.001, time.monotonic() - self._began_s)
            self._bars.update(self._whole, completed=self._done, told=f"{rate:,.0f} RPC/s")
        if not run.result.verdict.passed:
            verdict = run.result.verdict
            self.note(
                f"{run.job.title}: FAILED {verdict.check}: {verdict.detail.splitlines()[0] if verdict.detail else ''}"
            )
        elif self._bars is None and self._done % (1 + self._runs // LINES_MAX) == 0:
            row = run.result.row
            recall = "" if row["recall_mean"] is None else f", recall {row['recall_mean']:.4f}"
            rate = (row["rpcs"] or 0) / max(0.001, run.cpu_s)
            self.note(
                f"{self._done}/{self._runs} {run.job.title}: {row['status']}{recall}, {row['virtual_s']:.0f} virtual s"
                f" in {run.cpu_s:.1f} CPU s, {rate:,.0f} RPC/s"
            )

    def _bar(self, bars: Bars, event: Sampled) -> None:
        job = event.job
        if job.number not in self._tasks:
            total = job.scenario.duration_s + job.scenario.checks.quiet_s
            self._tasks[job.number] = bars.add_task(job.title, total=total, told="")
        bars.update(self._tasks[job.number], completed=event.sample.get("t_s") or 0, told=self._told(event))

    def _told(self, event: Sampled) -> str:
        sample, job = event.sample, event.job
        if not sample:
            return "its nodes join"
        now_s, until_s = sample["t_s"] or 0, job.scenario.duration_s + job.scenario.checks.quiet_s
        far = f"{now_s:.0f} of {until_s:.0f} virtual s" if now_s <= until_s else f"{now_s:.0f} virtual s, last checks"
        took_s = time.monotonic() - self._since_s.get(job.title, self._began_s)
        recall = "" if sample["recall"] is None else f", recall {sample['recall']:.3f}"
        return (
            f"{far}, {sample['rpcs']:,} RPCs, {(sample['rpcs'] or 0) / max(0.001, took_s):,.0f} RPC/s,"
            f" {sample['servers_up']} servers up{recall},"
            f" {sample['sessions_open']} sessions, {sample['paid_usd']:.6f} USD"
        )
