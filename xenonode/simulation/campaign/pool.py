"""Running jobs on all cores: one process a core, each with one simulation at a time.

Decides how processes are made (spawned, so that nothing of the parent leaks into a run), fed, watched and ended: one
that dies takes its own run with it and is replaced; none outlives the parent. Leaves keeping results to its user.
A process a simulation, because one world does not profit from several.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.resource_tracker import ensure_running
from typing import Any

from xenonode.simulation import pages
from xenonode.simulation.campaign.jobs import Job
from xenonode.simulation.campaign.results import Finished
from xenonode.simulation.sampling import Sample
from xenonode.simulation.verdict import RunResult

TOLD_EVERY_S = 0.2
"""A run tells of itself at most so often; people see no more."""
HEARD_EVERY_S = 1.0
"""The pool speaks up at least so often, so that its user can show that time passes."""
ENDING_S = 5.0
"""A process that hung up is gone after some milliseconds."""
DIED_TIMES_MAX = 3
"""A job whose process dies so often is given up; it would go on for ever."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A run tells how far it is; an empty sample: its nodes are joining."""

    job: Job
    sample: Sample


@dataclass(frozen=True, slots=True)
class Died:
    """A run's process ended before the run did: killed, or out of memory; `next_step` is for who reads of it."""

    job: Job
    reason: str
    next_step: str = "use fewer --jobs"


Event = Sampled | Finished | Died | None


class _Worker:
    def __init__(self, context: Any) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        with _uninterrupted(), pages.inherited():
            self.process.start()
        theirs.close()
        self.job: Job | None = None

    @property
    def given(self) -> Job:
        """The job that it works at."""
        assert self.job is not None
        return self.job

    def give(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(OSError):  # one that has just died is found to be so when it is listened to
            self.connection.send(job)

    def end(self, patience_s: float = 0.0) -> None:
        """`patience_s` is for one that is ending by itself, so that how it ended is not hidden."""
        if patience_s:
            self.process.join(patience_s)
        self.process.terminate()
        self.process.join(ENDING_S)
        self.process.kill()  # one that somebody stopped hears nothing else
        self.process.join()
        self.connection.close()


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[Event]:
    """Run all jobs; yields what happens, and None now and then. Closing the iterator ends every process."""
    context = multiprocessing.get_context("spawn")
    todo, died = list(reversed(jobs)), dict.fromkeys((job.number for job in jobs), 0)
    workers = [_Worker(context) for _ in range(min(processes, len(jobs)))]
    try:
        for worker in workers:
            worker.give(todo.pop())
            yield Sampled(worker.given, {})
        while busy := {worker.connection: worker for worker in workers if worker.job is not None}:
            ready = wait(list(busy), HEARD_EVERY_S)
            if not ready:
                yield None
            for connection in ready:
                worker = busy[connection]
                job = worker.given
                try:
                    kind, *told = worker.connection.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    worker.end(ENDING_S)
                    died[job.number] += 1
                    again = died[job.number] < DIED_TIMES_MAX
                    yield Died(job, f"{_ending(worker.process.exitcode)}{'; it begins again' if again else ''}")
                    if again:
                        todo.append(job)
                    if todo:
                        workers.append(_Worker(context))
                        workers[-1].give(todo.pop())
                        yield Sampled(workers[-1].given, {})
                    continue
                if kind == "sample":
                    yield Sampled(job, told[0])
                    continue
                worker.job = None
                yield Finished(job, RunResult.from_fields(told[0]), told[1])
                if todo:
                    worker.give(todo.pop())
                    yield Sampled(worker.given, {})
    finally:
        for worker in workers:
            worker.end()


def carry_out(job: Job) -> tuple[dict[str, Any], float]:
    """Run one job in this process: its result's fields, and its processor time."""
    return _timed(job, None)


def _timed(job: Job, connection: Connection | None) -> tuple[dict[str, Any], float]:
    from xenonode.simulation.experiment import run

    began_s, told_s = time.process_time(), time.monotonic()

    def tell(sample: Sample) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if connection is not None and now_s - told_s >= TOLD_EVERY_S:
            told_s = now_s
            connection.send(("sample", sample))

    result = run(job.scenario, job.seed, tell, job.injections)
    return result.to_fields(), round(time.process_time() - began_s, 3)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits, here until this is over, and in a process that is made meanwhile until it says what to do of it.

    A terminal interrupts every process of a command; one that still imports would tell of it by a traceback.
    """
    ensure_running()  # the standard library's helper; when it is made, it lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection) -> None:
    """What a process does until its parent hangs up. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.getLogger().addHandler(logging.NullHandler())  # nodes in trouble warn; that is what is measured here
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            try:
                connection.send(("done", *_timed(job, connection)))
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception:
                traceback.print_exc()  # `run` raises for nothing that a run does: this is a mistake of ours
                raise


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"its process was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"its process ended with status {status}"
