"""Running jobs on a Dask cluster: the same runs, on many machines.

Decides how a run is handed over (a pure function of the job; a worker that dies has its runs done by another) and that
every worker has the same code and catalogue, since a result is named by them; those that are there when it begins need
one thread, since a simulation takes its process whole. Leaves starting a cluster to its owner.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from xenonode.errors import XenoError
from xenonode.simulation.campaign.jobs import Job, code_version
from xenonode.simulation.campaign.pool import Died, Event, carry_out
from xenonode.simulation.campaign.results import Finished
from xenonode.simulation.verdict import RunResult

logger = logging.getLogger(__name__)

SAME = "install the same xenonode and apache-libcloud on every worker"
CONNECT_S = 15
"""A scheduler on another continent answers in one."""


def run_all(jobs: Sequence[Job], address: str) -> Iterator[Event]:
    """Run all jobs there; yields each as it is finished. Closing the iterator cancels the rest. Raises XenoError."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        step = "pip install 'xenonode[cluster]', here and on the cluster's workers"
        raise XenoError("a cluster needs the package distributed", step, "missing_package") from error
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        step = "start one with 'dask scheduler' and 'dask worker', and name it as tcp://HOST:8786"
        raise XenoError(f"no Dask scheduler answers at {address}: {error}", step, "cluster") from error
    try:
        _check_workers(client, address)
        by_key = {f"xenonode-{job.key}": job for job in jobs}
        here = code_version()
        futures = [client.submit(_carry_out_as, here, job, key=key, pure=True) for key, job in by_key.items()]
        for future in as_completed(futures):
            job = by_key[future.key]
            if future.status == "finished":
                fields, cpu_s = future.result()
                yield Finished(job, RunResult.from_fields(fields), cpu_s)
            else:
                yield _given_up(job, future.exception())
    finally:
        client.close()


def _carry_out_as(version: str, job: Job) -> tuple[dict[str, Any], float]:
    """On a worker, which may have come after we looked at those that were there."""
    if code_version() != version:
        told = f"a worker has xenonode {code_version()}, who asked has {version}"
        raise XenoError(told, SAME, "cluster")
    return carry_out(job)


def _given_up(job: Job, error: BaseException) -> Died:
    if isinstance(error, XenoError):
        return Died(job, error.message, error.next_step)
    return Died(job, f"the cluster gave it up: {error!r:.200}", "look into the logs of the cluster's workers")


def _check_workers(client: Any, address: str) -> None:
    here, theirs = code_version(), client.run(code_version)
    if not theirs:  # no failure: a queue's, or an adaptive cluster's, begin once there is work
        step = f"start some with: dask worker {address} --nworkers auto --nthreads 1"
        logger.warning("the Dask scheduler at %s has no workers yet; %s", address, step)
    for name, version in theirs.items():
        if version != here:
            told = f"worker {name} has xenonode {version}, this is {here}"
            raise XenoError(told, SAME, "cluster")
    for name, threads in client.nthreads().items():
        if threads != 1:
            told = f"worker {name} has {threads} threads, but a simulation takes its process whole"
            raise XenoError(told, "start workers with: dask worker ADDRESS --nworkers auto --nthreads 1", "cluster")
