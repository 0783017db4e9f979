"""Seeds of small platforms with faults of every kind: all invariants hold, and the same seed is the same run."""

from __future__ import annotations

import pytest

from scripts.seeds.pool import Outcome, run_many, table
from xenonode.simulation.faults import KINDS

SEEDS = range(1)
TWICE = (0,)
"""These run once more with another hash seed."""
PROCESSES = 2
LIMIT_S = 5_400


@pytest.mark.timeout(LIMIT_S)
def test_every_invariant_holds_in_every_seed_and_every_fault_has_struck(capfd: pytest.CaptureFixture[str]) -> None:
    jobs = [(seed, "0") for seed in SEEDS] + [(seed, "4711") for seed in TWICE]
    with capfd.disabled():
        outcomes = run_many(jobs, PROCESSES, tell)
        own, again = outcomes[: len(SEEDS)], outcomes[len(SEEDS) :]
        print(*table(own, list(KINDS)), sep="\n")
    broken = {outcome.seed: outcome.broken for outcome in outcomes if outcome.broken}
    assert not broken, "\n".join(f"seed {seed}: {text}" for seed, text in broken.items())
    for outcome in again:
        assert outcome.trace == next(one.trace for one in own if one.seed == outcome.seed)


def tell(outcome: Outcome) -> None:
    verdict = "BROKEN" if outcome.broken else "held"
    print(f"seed {outcome.seed}: {verdict}, trace {outcome.trace}, {outcome.cpu_s} CPU s")
