"""Seeds of small platforms with faults of every kind: all invariants hold, and the same seed is the same run."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.seeds.pool import Job, Outcome
from scripts.seeds.table import PLANNED_LEAST, never_struck, not_repeatable
from tests.simulation import seed_runs
from tests.simulation.seed_runs import AGAIN, HASH_SEEDS, SEEDS
from xenonode.simulation.seeds import DRAWN, FULL

BROKEN: dict[tuple[str, int], str] = {}
"""Seeds that are known to break, and what is known of it; one that holds again has to go from here."""
LIMIT_S = 5_400
"""Of the first test that asks for the seeds, which waits for all of them."""


def _seeds(size: str) -> list[Any]:
    def marks(seed: int) -> list[pytest.MarkDecorator]:
        why = BROKEN.get((size, seed))
        return [pytest.mark.xfail(strict=True, reason=why)] if why else []

    return [pytest.param(size, seed, marks=marks(seed), id=f"{size}-{seed}") for seed in SEEDS[size]]


@pytest.fixture
def outcomes(capfd: pytest.CaptureFixture[str]) -> dict[Job, Outcome]:
    """All seeds; their lines are to be seen while they come."""
    with capfd.disabled():
        return seed_runs.outcomes()


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("size, seed", [one for size in SEEDS for one in _seeds(size)])
def test_every_invariant_holds(size: str, seed: int, outcomes: dict[Job, Outcome]) -> None:
    assert outcomes[Job(size, seed, HASH_SEEDS[0])].broken == ""


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("size, seed", AGAIN)
def test_the_same_seed_is_the_same_run_whatever_the_hash_seed(
    size: str, seed: int, outcomes: dict[Job, Outcome]
) -> None:
    assert len({outcomes[Job(size, seed, hash_seed)].trace for hash_seed in HASH_SEEDS}) == 1


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("size", SEEDS)
def test_every_kind_of_fault_is_planned_and_strikes(size: str, outcomes: dict[Job, Outcome]) -> None:
    found = seed_runs.first_runs(size)
    assert {one["kind"] for outcome in found for one in outcome.injections} == set(DRAWN)
    assert [kind for kind in DRAWN if not any(outcome.bites.get(kind) for outcome in found)] == []


def test_a_full_seed_is_thirty_servers_for_ten_minutes() -> None:
    assert FULL.servers >= 30
    assert FULL.calm_s + FULL.faults_s + FULL.quiet_s >= 570  # what is checked at the end takes the rest


def test_a_kind_that_never_strikes_is_told_once_enough_seeds_planned_it() -> None:
    def planned(seeds: int, **bites: int) -> list[Outcome]:
        both = [{"kind": "loss"}, {"kind": "mtu"}]
        return [Outcome(seed, "", 0.0, 0.0, 0, 0, "", bites, both) for seed in range(seeds)]

    assert never_struck(planned(PLANNED_LEAST - 1, loss=1)) == []
    assert never_struck(planned(PLANNED_LEAST, loss=1)) == ["mtu"]
    assert never_struck([*planned(PLANNED_LEAST, loss=1), *planned(1, mtu=1)]) == []


def test_two_traces_of_one_seed_are_told() -> None:
    runs = [("a", "0", 1), ("a", "1", 1), ("b", "0", 2), ("c", "1", 2)]
    assert not_repeatable([Outcome(seed, trace, 0, 0, 0, 0, "", hash_seed=one) for trace, one, seed in runs]) == [2]
