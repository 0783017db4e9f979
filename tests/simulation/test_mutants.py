"""The invariants see: each deliberate bug is caught by the seeds that pass without it."""

from __future__ import annotations

import pytest

from scripts.seeds.pool import run_one

MODULE = "tests.simulation.mutants.plants"
CAUGHT = {
    "lost_acknowledgement": (0, "adverts are durable"),
    "double_capture": (0, "money is conserved"),
    "narrow_zone": (0, "summaries include what is below them"),
    "unverified_advert": (3, "what is held is proved"),
    "leaked_entry": (0, "in-flight tables drain"),
}
"""A seed that catches each, and by what. test_seeds runs the same seeds without it: there they hold."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CAUGHT)
def test_a_planted_bug_is_caught(name: str) -> None:
    seed, invariant = CAUGHT[name]
    outcome = run_one(seed, "0", MODULE, name)
    assert outcome.broken.startswith(invariant), outcome.broken or "nothing was noticed"
    assert f"scripts/simulate_seeds --seeds {seed}" in outcome.broken
