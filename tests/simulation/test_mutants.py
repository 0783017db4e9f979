"""The invariants see: each deliberate bug is caught by a seed that holds without it."""

from __future__ import annotations

import pytest

from scripts.seeds.pool import Job, run_one
from xenonode.simulation.seeds import SEARCH_EVERY_S, SMALL

MODULE = "tests.simulation.mutants.plants"
SIZE = "small"
CAUGHT = {
    "lost_acknowledgement": (0, "adverts are durable"),
    "double_capture": (0, "every claim is settled once"),
    "narrow_zone": (0, "summaries include what is below them"),
    "unverified_advert": (6, "what is held is proved"),
    "leaked_entry": (0, "in-flight tables drain"),
}
"""A seed that catches each, and by what."""
HOLDS = (0,)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CAUGHT)
def test_a_planted_bug_is_caught(name: str) -> None:
    seed, invariant = CAUGHT[name]
    outcome = run_one(Job(SIZE, seed), name, module=MODULE)
    assert outcome.broken.startswith(invariant), outcome.broken or "nothing was noticed"
    assert f"scripts/simulate_seeds --seeds {seed} --small" in outcome.broken


@pytest.mark.timeout(900)
def test_a_wrong_answer_ends_a_seed_when_it_is_given_though_faults_go_on() -> None:
    outcome = run_one(Job(SIZE, 0), "server_twice", module=MODULE)
    assert outcome.broken.startswith("searches return what is signed and in force: one server is in an answer twice")
    assert outcome.virtual_s < SMALL.calm_s + 2 * SEARCH_EVERY_S


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", HOLDS)
def test_without_it_the_same_seed_holds(seed: int) -> None:
    assert run_one(Job(SIZE, seed)).broken == ""
