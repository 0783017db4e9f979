"""Each attack meets its bar, at a smaller size than `scripts/attack` runs it at."""

from __future__ import annotations

import pytest

from .catalogue import FULL, SMALL


@pytest.mark.parametrize("name", SMALL)
def test_the_attack_stays_below_its_bar(name: str) -> None:
    outcome = SMALL[name]()
    assert outcome.holds, outcome


def test_the_script_runs_all_that_are_tested() -> None:
    assert list(FULL) == list(SMALL)
