"""The questions of a quiet network in parts: over several processes, and kept, so that a run that was stopped goes on.

Decides how large a part is, and that a file of parts is only ever of one run. A question follows from seed and number
alone, and nothing changes on a quiet network, so that it does not matter who asks which.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

from xenonode.simulation.errors import SimulationError
from xenonode.simulation.recall_bench.quiet import Quiet, Tally

PART = 140  # questions: ten of each class; half a minute
NODES, CAPACITY = 100, 512

Tallies = dict[str, Tally]


def asked_in_parts(
    seed: int, adverts: int, questions: int, jobs: int = 1, keep: Path | None = None
) -> Iterator[tuple[int, Tallies]]:
    """How many questions are done, and the newest part's tallies. Raises SimulationError for another run's file."""
    run = {"seed": seed, "adverts": adverts, "questions": questions}
    kept = _kept(keep, run) if keep is not None else {}
    parts = [(first, min(first + PART, questions)) for first in range(0, questions, PART)]
    done = 0
    for (first, end), tallies in kept.items():
        done += end - first
        yield done, tallies
    wanted = [(seed, adverts, *part) for part in parts if part not in kept]
    with multiprocessing.Pool(max(1, min(jobs, len(wanted)))) as pool:
        for first, end, tallies in pool.imap_unordered(_asked, wanted):
            if keep is not None:
                told = {kind: _fields(tally) for kind, tally in tallies.items()}
                _note(keep, {"first": first, "end": end, "tallies": told})
            done += end - first
            yield done, tallies


def _asked(part: tuple[int, int, int, int]) -> tuple[int, int, Tallies]:
    seed, adverts, first, end = part
    world, began_s = _world(seed, adverts), time.process_time()
    tallies = world.run(first, end)
    next(iter(tallies.values())).cpu_s = time.process_time() - began_s
    return first, end, tallies


@cache
def _world(seed: int, adverts: int) -> Quiet:
    return Quiet(seed, adverts, NODES, CAPACITY)


def _kept(keep: Path, run: dict[str, int]) -> dict[tuple[int, int], Tallies]:
    """The parts that a file has; a new one begins with what run it is of."""
    if not keep.exists():
        _note(keep, run)
    first, *lines = keep.read_text().splitlines()
    if json.loads(first) != run:
        raise SimulationError(f"{keep} is of another run: {first}")
    kept = {}
    for line in lines:
        try:
            part = json.loads(line)
        except ValueError:  # the run was stopped while it wrote this line
            continue
        kept[part["first"], part["end"]] = {kind: _tally(told) for kind, told in part["tallies"].items()}
    return kept


def _fields(tally: Tally) -> dict[str, object]:
    return {one.name: getattr(tally, one.name) for one in fields(tally)}


def _tally(told: dict[str, object]) -> Tally:
    return Tally(**{**told, "matches": Counter(told["matches"])})  # type: ignore[arg-type]


def _note(keep: Path, line: dict[str, object]) -> None:
    with keep.open("a") as file:
        file.write(json.dumps(line) + "\n")
