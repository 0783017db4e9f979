"""Seeds to results, in a few processes at a time.

Each seed runs in a process of its own with a hash seed of its own, so that nothing is left over from another one, and
an order of sets would show: a seed in two of them has to give one trace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 900
"""Of one seed: some seventy times what it should take."""
PLANNED_LEAST = 4
"""A fault of a few seconds may meet nothing in one seed, or in two."""
SEEDS_SHOWN = 10
"""In each line of the table."""


@dataclass(frozen=True)
class Outcome:
    """How one seed went, as its process tells it."""

    seed: int
    trace: str
    virtual_s: float
    cpu_s: float
    datagrams: int
    searches: int
    broken: str
    bites: dict[str, int] = field(default_factory=dict)
    injections: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def run_many(
    jobs: Sequence[tuple[int, str]], processes: int, tell: Callable[[Outcome], None], size: str = "full"
) -> list[Outcome]:
    """Run (seed, PYTHONHASHSEED) pairs; outcomes in the order of the jobs. `tell` hears of each when it is done."""
    found: dict[int, Outcome] = {}
    with ThreadPoolExecutor(processes) as pool:
        futures = {pool.submit(run_one, seed, hash_seed, size): place for place, (seed, hash_seed) in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                outcome = found[futures[future]] = future.result()
                tell(outcome)
        except KeyboardInterrupt:  # it reaches the processes that run as well; what waits must not begin
            pool.shutdown(cancel_futures=True)
            raise
    return [found[place] for place in range(len(jobs))]


def run_one(
    seed: int, hash_seed: str = "0", size: str = "full", *arguments: str, module: str = "scripts.seeds.one"
) -> Outcome:
    """One seed in a process of its own; one that dies is an outcome, too."""
    command = [sys.executable, "-m", module, str(seed), size, *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    try:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(seed, "", 0.0, 0.0, 0, 0, f"not done after {LIMIT_S} s")
    if done.returncode or not done.stdout.strip():
        return Outcome(seed, "", 0.0, 0.0, 0, 0, f"its process failed: {done.stderr[-4_000:]}")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def table(outcomes: Sequence[Outcome], kinds: Sequence[str]) -> Iterator[str]:
    """For each kind of fault: how many seeds planned it, in how many it struck, how often in all, and in which seeds.

    Of those each is shown with how often; one that planned the kind and never met it has a dash.
    """
    yield f"{'fault':20}{'planned':>8}{'struck':>7}{'times':>9}  seed: times"
    for kind in kinds:
        planned = [one for one in outcomes if any(each["kind"] == kind for each in one.injections)]
        struck = {one.seed: one.bites.get(kind, 0) for one in planned}
        shown = [f"{seed}: {times or '-'}" for seed, times in list(struck.items())[:SEEDS_SHOWN]]
        more = ", ..." if len(struck) > SEEDS_SHOWN else ""
        counted = f"{len(struck):8}{sum(times > 0 for times in struck.values()):7}{sum(struck.values()):9}"
        yield f"{kind:20}{counted}  {', '.join(shown)}{more}".rstrip()
    cpu_s = sorted(outcome.cpu_s for outcome in outcomes) or [0.0]
    yield (
        f"{len(outcomes)} seeds, {sum(bool(outcome.broken) for outcome in outcomes)} broken; CPU seconds a seed: "
        f"median {cpu_s[len(cpu_s) // 2]:.1f}, most {cpu_s[-1]:.1f}; "
        f"{sum(outcome.datagrams for outcome in outcomes)} datagrams, "
        f"{sum(outcome.virtual_s for outcome in outcomes) / 3_600:.1f} virtual hours"
    )


def never_struck(outcomes: Sequence[Outcome]) -> list[str]:
    """Kinds that enough seeds planned for one to strike, and that struck in none: such a fault tests nothing."""
    planned = Counter(kind for outcome in outcomes for kind in sorted({one["kind"] for one in outcome.injections}))
    return [
        kind for kind, seeds in sorted(planned.items())
        if seeds >= PLANNED_LEAST and not any(outcome.bites.get(kind) for outcome in outcomes)
    ]  # fmt: skip
