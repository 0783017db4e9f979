"""Fewer faults that make a run fail as it did: delta debugging, a run a step.

Decides what "as it did" means: the same check does not hold. Leaves the search to `xenonode.simulation.shrink`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from xenonode.simulation.campaign.results import Finished
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.experiment import run
from xenonode.simulation.faults import Injection
from xenonode.simulation.scenario import ScenarioError
from xenonode.simulation.shrink import shrink


def fewest(failed: Finished, tell: Callable[[str], None]) -> tuple[Injection, ...]:
    """A part of the run's faults of which none can be left out. `tell` hears of each run on the way."""
    job, check = failed.job, failed.result.verdict.check

    def fails(some: Sequence[Injection]) -> bool:
        again = run(job.scenario, job.seed, injections=some).verdict.check == check
        tell(f"    with {len(some)} faults: {'fails' if again else 'does not fail so'}")
        return again

    return shrink([Injection.from_fields(fields) for fields in failed.result.faults], fails)


def read_injections(path: Path) -> tuple[Injection, ...]:
    """What `--shrink` wrote. Raises ScenarioError."""
    try:
        return tuple(Injection.from_fields(fields) for fields in json.loads(path.read_text(encoding="utf-8")))
    except SimulationError as error:
        raise ScenarioError(f"{path}: {error}") from error
    except OSError as error:
        raise ScenarioError(f"{path} cannot be read: {error.strerror}", "name the file that --shrink wrote") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        step = "it is a JSON list of faults, as --shrink writes it"
        raise ScenarioError(f"{path} has no faults to inject: {error!r:.100}", step) from error
