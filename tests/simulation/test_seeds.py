"""Seeds of small platforms with faults of every kind: all invariants hold, and the same seed is the same run."""

from __future__ import annotations

import pytest

from scripts.seeds.pool import PLANNED_LEAST, Outcome, never_struck, run_many, table
from xenonode.simulation.faults import KINDS

SEEDS = {"full": (0, 3), "small": (0, 1, 3, 16, 18, 19, 20)}
"""`scripts/simulate_seeds --seeds 0..999 --jobs 2` runs as many as one likes."""
AGAIN = "4711"
"""The first seed of each size runs once more, with this hash seed."""
PROCESSES = 2
LIMIT_S = 3_600


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("size", SEEDS)
def test_every_invariant_holds_and_the_same_seed_is_the_same_run(size: str, capfd: pytest.CaptureFixture[str]) -> None:
    seeds = SEEDS[size]
    jobs = [(seed, "0") for seed in seeds] + [(seeds[0], AGAIN)]
    with capfd.disabled():
        outcomes = run_many(jobs, PROCESSES, tell, size)
        print(*table(outcomes[:-1], list(KINDS)), sep="\n")
    broken = {outcome.seed: outcome.broken for outcome in outcomes if outcome.broken}
    assert not broken, "\n".join(f"seed {seed}: {text}" for seed, text in broken.items())
    assert outcomes[-1].trace == outcomes[0].trace


def test_a_kind_that_never_strikes_is_told_once_enough_seeds_planned_it() -> None:
    def outcomes(seeds: int, **bites: int) -> list[Outcome]:
        planned = [{"kind": "loss"}, {"kind": "mtu"}]
        return [Outcome(seed, "", 0.0, 0.0, 0, 0, "", bites, planned) for seed in range(seeds)]

    assert never_struck(outcomes(PLANNED_LEAST - 1, loss=1)) == []
    assert never_struck(outcomes(PLANNED_LEAST, loss=1)) == ["mtu"]
    assert never_struck([*outcomes(PLANNED_LEAST, loss=1), *outcomes(1, mtu=1)]) == []


def tell(outcome: Outcome) -> None:
    verdict = "BROKEN" if outcome.broken else "held"
    print(f"seed {outcome.seed}: {verdict}, trace {outcome.trace}, {outcome.cpu_s} CPU s")
