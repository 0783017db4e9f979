"""Seeds of small platforms with faults of every kind: all invariants hold, and the same seed is the same run."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from scripts.seeds.pool import PLANNED_LEAST, Outcome, never_struck, run_many, table
from xenonode.simulation.faults import KINDS

SEEDS = {"small": range(21), "full": range(1)}
"""From the first on, none left out: eight small ones have every kind of fault.
`scripts/simulate_seeds --seeds 0..999 --jobs 2` runs as many as one likes."""
BROKEN: dict[tuple[str, int], str] = {}
"""Seeds that are known to break, and what is known of it; one that holds again has to go from here."""
AGAIN = (0, 5)
"""These run once more, with another hash seed."""
HASH_SEEDS = ("0", "4711")
PROCESSES = 2
LIMIT_S = 3_600


def _seeds(size: str) -> list[Any]:
    def marks(seed: int) -> list[pytest.MarkDecorator]:
        why = BROKEN.get((size, seed))
        return [pytest.mark.xfail(strict=True, reason=why)] if why else []

    return [pytest.param(size, seed, marks=marks(seed), id=f"{size}-{seed}") for seed in SEEDS[size]]


@cache
def outcomes(size: str) -> dict[tuple[int, str], Outcome]:
    """All seeds of a size, two at a time; by seed and hash seed."""
    jobs = [(seed, HASH_SEEDS[0]) for seed in SEEDS[size]]
    if size == "small":
        jobs += [(seed, HASH_SEEDS[1]) for seed in AGAIN]
    return dict(zip(jobs, run_many(jobs, PROCESSES, tell, size)))


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    """What `outcomes` gives, whose lines are to be seen while they come."""

    def shown(size: str) -> dict[tuple[int, str], Outcome]:
        with capfd.disabled():
            return outcomes(size)

    return shown


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("size, seed", [one for size in SEEDS for one in _seeds(size)])
def test_every_invariant_holds(size: str, seed: int, run: Any) -> None:
    assert run(size)[seed, HASH_SEEDS[0]].broken == ""


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("seed", AGAIN)
def test_the_same_seed_is_the_same_run_whatever_the_hash_seed(seed: int, run: Any) -> None:
    found = run("small")
    assert len({found[seed, hash_seed].trace for hash_seed in HASH_SEEDS}) == 1


@pytest.mark.timeout(LIMIT_S)
def test_every_kind_of_fault_is_planned_and_strikes(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    kinds = list(KINDS)
    found = [outcome for (_, hash_seed), outcome in run("small").items() if hash_seed == HASH_SEEDS[0]]
    with capfd.disabled():
        print("", *table(found, kinds), sep="\n")
    assert {one["kind"] for outcome in found for one in outcome.injections} == set(kinds)
    assert [kind for kind in kinds if not any(outcome.bites.get(kind) for outcome in found)] == []


def test_a_kind_that_never_strikes_is_told_once_enough_seeds_planned_it() -> None:
    def planned(seeds: int, **bites: int) -> list[Outcome]:
        both = [{"kind": "loss"}, {"kind": "mtu"}]
        return [Outcome(seed, "", 0.0, 0.0, 0, 0, "", bites, both) for seed in range(seeds)]

    assert never_struck(planned(PLANNED_LEAST - 1, loss=1)) == []
    assert never_struck(planned(PLANNED_LEAST, loss=1)) == ["mtu"]
    assert never_struck([*planned(PLANNED_LEAST, loss=1), *planned(1, mtu=1)]) == []


def tell(outcome: Outcome) -> None:
    verdict = "BROKEN" if outcome.broken else "held"
    print(f"seed {outcome.seed}: {verdict}, trace {outcome.trace}, {outcome.cpu_s} CPU s", flush=True)
