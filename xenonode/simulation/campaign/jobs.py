"""Which runs a campaign is made of, and when two runs are the same run.

Decides the order (points of the grid, then seeds), the form of `--seeds`, and a run's key: a hash of the scenario's
content, the seed, the version of the code and the catalogue's machines, so that a result is never taken for another's.
Pure but for reading its own source, and the catalogue.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.resources
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from xenonode.catalogue import catalogue_rows
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.faults import Injection, check_targets
from xenonode.simulation.scenario import Scenario, ScenarioError
from xenonode.simulation.scenario_file import load

SEEDS_MAX = 100_000
SEED_MOST = 2**63 - 1
SEEDS_STEP = "write 7, 0..99 or 1,5,10..12"
SHOWN_MAX = 60
"""Of a wrong argument so much is told; no seed is longer."""
PACKAGES = ("dht", "hypervisor", "summaries", "xenonode")


@dataclass(frozen=True, slots=True)
class Job:
    """One run to do. `point` has the values of the swept keys."""

    number: int
    scenario: Scenario
    point: Mapping[str, Any]
    seed: int
    key: str
    injections: tuple[Injection, ...] | None = None

    @property
    def title(self) -> str:
        """For people: its point and its seed."""
        return " ".join([*(f"{name}={value}" for name, value in self.point.items()), f"seed {self.seed}"])


def jobs_of(
    source: str, sets: Mapping[str, str], seeds: tuple[int, ...], injections: tuple[Injection, ...] | None = None
) -> list[Job]:
    """All runs, after every point of the sweep was checked. Raises ScenarioError.

    With `injections` (a replay's), those faults instead of the ones that each seed plans.
    """
    base = load(source, sets)
    version = code_version()
    told = "" if injections is None else json.dumps([each.to_fields() for each in injections], sort_keys=True)
    found: list[Job] = []
    for values in itertools.product(*base.sweep.values()):
        point = dict(zip(base.sweep, values))
        scenario = load(source, sets, point)
        here = None if injections is None else _fitted(injections, scenario)
        for seed in seeds:
            material = f"{scenario.digest()} {seed} {version} {told}".encode()
            key = hashlib.blake2b(material, digest_size=16, person=b"xeno-simulation").hexdigest()
            found.append(Job(len(found), scenario, point, seed, key, here))
    return found


def _fitted(injections: tuple[Injection, ...], scenario: Scenario) -> tuple[Injection, ...]:
    """A replay's faults in this scenario, held to what its own are: whom and when. Raises ScenarioError."""
    names, end_ms = scenario.names(), round(1_000 * scenario.duration_s)
    for each in injections:
        try:
            check_targets(each.kind, each.targets, names)
            if each.at_ms >= end_ms:
                told = f"not before the end, duration_s = {scenario.duration_s:g}"
                raise SimulationError(f"{each.kind}: it begins at {each.at_ms / 1_000:g} s, {told}")
        except SimulationError as error:
            raise ScenarioError(str(error), "replay faults with the scenario that they were found with") from error
    return tuple(replace(each, for_ms=min(each.for_ms, end_ms - each.at_ms)) for each in injections)


def parse_seeds(text: str) -> tuple[int, ...]:
    """'7', '0..99' or '1,5,10..12': each once, in the order written. Raises ScenarioError."""
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        shown = f"--seeds {text[:SHOWN_MAX]!r}"
        if not first.isdecimal() or (dots and not last.isdecimal()):
            raise ScenarioError(f"{shown}: {part.strip()[:SHOWN_MAX]!r} is no seed", SEEDS_STEP, "usage")
        digits = max(len(first), len(last))  # Python reads numbers of some thousand digits only
        low, high = (int(first), int(last) if dots else int(first)) if digits < SHOWN_MAX else (0, SEED_MOST + 1)
        if low > high or high > SEED_MOST or high - low + len(found) >= SEEDS_MAX:
            told = f"{part.strip()!r} goes backwards" if low > high else f"more than {SEEDS_MAX} seeds, or too large"
            raise ScenarioError(f"{shown}: {told}", SEEDS_STEP, "usage")
        found.update(dict.fromkeys(range(low, high + 1)))
    return tuple(found)


@functools.cache
def code_version() -> str:
    """The release, and a hash of the installed sources and machines: what was run by other code, or with other prices
    (they are apache-libcloud's), is run again. Raises XenoError where there is no catalogue."""
    digest = hashlib.blake2b(digest_size=6, person=b"xeno-code")
    for package in PACKAGES:
        for name, text in _sources(importlib.resources.files(package), package):
            digest.update(len(name).to_bytes(4) + name.encode() + len(text).to_bytes(8) + text)
    digest.update(repr(catalogue_rows()).encode())
    return f"{importlib.metadata.version('xenonode')}+{digest.hexdigest()}"


def _sources(folder: Any, path: str) -> Iterator[tuple[str, bytes]]:
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{path}/{each.name}"
        if each.is_dir():
            if each.name != "__pycache__":
                yield from _sources(each, name)
        elif each.name.endswith((".py", ".lark")):
            yield name, each.read_bytes()
