"""Where seeds were run, the tests end with a table of the faults that struck in them."""

from __future__ import annotations

import pytest

from scripts.seeds.table import table
from tests.simulation import seed_runs
from xenonode.simulation.seeds import DRAWN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Faults by seeds."""
    if seed_runs.outcomes.cache_info().currsize:
        for size in seed_runs.SEEDS:
            terminalreporter.section(f"faults by {size} seeds")
            for line in table(seed_runs.first_runs(size), list(DRAWN)):
                terminalreporter.line(line)
