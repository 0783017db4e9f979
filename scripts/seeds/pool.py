"""Seeds to outcomes, in a few processes at a time.

Each seed runs in a process of its own with a hash seed of its own, so that nothing is left over from another one, and
an order of sets would show: a seed in two of them has to give one trace. Leaves to `kept` what is on the disk already,
and to `table` what all of it came to.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from xenonode.simulation import pages

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 900
"""Of one seed: some forty times what it should take."""


@dataclass(frozen=True, order=True)
class Job:
    """One run: a size, a seed, and the PYTHONHASHSEED of its process."""

    size: str
    seed: int
    hash_seed: str = "0"

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.size}-{self.seed}-{self.hash_seed}"


@dataclass(frozen=True)
class Outcome:
    """How one seed went, as its process tells it; of one that died, `trace` is empty, and so is all but `broken`."""

    seed: int
    trace: str
    virtual_s: float
    cpu_s: float
    datagrams: int
    searches: int
    broken: str
    bites: dict[str, int] = field(default_factory=dict)
    injections: list[dict[str, Any]] = field(default_factory=list)
    size: str = "full"
    hash_seed: str = "0"

    @property
    def job(self) -> Job:
        """What was to be run."""
        return Job(self.size, self.seed, self.hash_seed)

    @property
    def ran(self) -> bool:
        """Whether it came to an end of its own; what one whose process was killed would have come to is not known."""
        return bool(self.trace)

    @property
    def line(self) -> str:
        """One line for people."""
        verdict = "BROKEN" if self.broken else "held"
        again = "" if self.hash_seed == "0" else f", hash seed {self.hash_seed}"
        return f"{self.size} seed {self.seed}{again}: {verdict}, trace {self.trace}, {self.cpu_s} CPU s"

    @property
    def text(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def is_hash_seed(text: object) -> bool:
    """Whether Python takes it as PYTHONHASHSEED."""
    return isinstance(text, str) and text.isdecimal() and len(text) <= 10 and int(text) < 2**32


def run_many(jobs: Sequence[Job], processes: int, tell: Callable[[Outcome], None]) -> list[Outcome]:
    """Run them; outcomes in the order of the jobs. `tell` hears of each when it is done, one at a time."""
    found: dict[int, Outcome] = {}
    with ThreadPoolExecutor(processes) as pool:
        futures = {pool.submit(run_one, job): place for place, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                outcome = found[futures[future]] = future.result()
                tell(outcome)
        except KeyboardInterrupt:  # it reaches the processes that run as well; what waits must not begin
            pool.shutdown(cancel_futures=True)
            raise
    return [found[place] for place in range(len(jobs))]


def run_one(job: Job, *arguments: str, module: str = "scripts.seeds.one") -> Outcome:
    """One seed in a process of its own; one that dies is an outcome, too."""
    command = [sys.executable, "-m", module, str(job.seed), job.size, *arguments]
    environment = pages.environment(PYTHONHASHSEED=job.hash_seed)
    failed = Outcome(job.seed, "", 0.0, 0.0, 0, 0, "", size=job.size, hash_seed=job.hash_seed)
    try:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return replace(failed, broken=f"not done after {LIMIT_S} s")
    if done.returncode or not done.stdout.strip():
        return replace(failed, broken=f"its process failed: status {done.returncode}: {done.stderr[-4_000:]}")
    return replace(Outcome(**json.loads(done.stdout.splitlines()[-1])), size=job.size, hash_seed=job.hash_seed)
