"""The seeds that every run of the tests tries, in one pool of processes, when the first test asks for one of them."""

from __future__ import annotations

from functools import cache

from scripts.seeds.pool import Job, Outcome, run_many

SEEDS = {"full": range(100), "small": range(21)}
"""From the first on, none left out: five full ones have every kind of fault.
`scripts/simulate_seeds --seeds 0..999 --jobs 2` runs as many as one likes."""
AGAIN = [("full", 0), ("full", 41), ("full", 82), ("small", 5)]
"""These run once more, with another hash seed."""
HASH_SEEDS = ("0", "4711")
PROCESSES = 2


@cache
def outcomes() -> dict[Job, Outcome]:
    """All of them, two at a time; a line for each while they come."""
    jobs = [Job(size, seed, HASH_SEEDS[0]) for size, seeds in SEEDS.items() for seed in seeds]
    jobs += [Job(size, seed, HASH_SEEDS[1]) for size, seed in AGAIN]
    return dict(zip(jobs, run_many(jobs, PROCESSES, lambda outcome: print(outcome.line, flush=True))))


def first_runs(size: str) -> list[Outcome]:
    """Each seed of a size once."""
    return [outcomes()[Job(size, seed, HASH_SEEDS[0])] for seed in SEEDS[size]]
