"""The folder in which finished seeds are kept, so that a thousand of them can be stopped and gone on with.

Decides when a kept outcome is still one (the same code), and what a broken seed leaves for who looks into it: a file
that `scripts/simulate_seeds --replay` runs again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.seeds.pool import Job, Outcome, is_hash_seed
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.faults import Injection
from xenonode.simulation.scenario import ScenarioError
from xenonode.simulation.seeds import SIZES


@dataclass(frozen=True)
class Replay:
    """A seed with faults of one's choice; None: those that it draws itself."""

    job: Job
    injections: tuple[Injection, ...] | None

    @property
    def text(self) -> str:
        """As it stands in a file."""
        faults = None if self.injections is None else [one.to_fields() for one in self.injections]
        return json.dumps({**asdict(self.job), "faults": faults}, indent=1) + "\n"

    @staticmethod
    def of(outcome: Outcome) -> Replay:
        """What was run."""
        chosen = tuple(Injection.from_fields(fields) for fields in outcome.injections)
        return Replay(outcome.job, chosen if outcome.ran else None)

    @staticmethod
    def read(path: Path) -> Replay:
        """Raises ScenarioError."""
        step = "name a file that a broken seed or --shrink left"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            job, faults = Job(fields["size"], fields["seed"], fields.get("hash_seed", "0")), fields["faults"]
            if job.size not in SIZES or type(job.seed) is not int or not is_hash_seed(job.hash_seed):
                raise ScenarioError(f"{path}: size {job.size!r}, seed {job.seed!r}, {job.hash_seed!r:.20}", step)
            return Replay(job, None if faults is None else tuple(Injection.from_fields(one) for one in faults))
        except OSError as error:
            raise ScenarioError(f"{path} cannot be read: {error.strerror}", step) from error
        except (SimulationError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ScenarioError(f"{path} is no seed to replay: {error!r:.100}", step) from error


class Kept:
    """The folder. Raises ScenarioError where it cannot be made or written."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self._version = folder, version
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            step = "name a folder that you may write with --out"
            raise ScenarioError(f"{folder} cannot be made: {error.strerror}", step) from error

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Those of the jobs that were finished before, by the same code."""
        return [outcome for job in jobs if (outcome := self._read(job)) is not None]

    def keep(self, outcome: Outcome) -> None:
        """Keep one; a broken one leaves a replay, too, and one that held no old one.

        One whose process died leaves a replay alone, and is run again: it may have been the machine's fault.
        """
        if outcome.ran:
            text = json.dumps({"version": self._version, "outcome": asdict(outcome)})
            self._write(self._path(outcome.job), text)
        replay = self.replay_of(outcome)
        if outcome.broken:
            self._write(replay, Replay.of(outcome).text)
        else:
            replay.unlink(missing_ok=True)

    def replay_of(self, outcome: Outcome) -> Path:
        """Where a broken seed's faults are."""
        return self.folder / f"broken-{outcome.job.name}.json"

    def write_shrunk(self, outcome: Outcome, injections: Sequence[Injection]) -> Path:
        """The fewest faults with which a seed breaks, beside all of them."""
        path = self.folder / f"shrunk-{outcome.job.name}.json"
        self._write(path, Replay(outcome.job, tuple(injections)).text)
        return path

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def _read(self, job: Job) -> Outcome | None:
        try:
            fields = json.loads(self._path(job).read_text(encoding="utf-8"))
            return Outcome(**fields["outcome"]) if fields["version"] == self._version else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or cut off while it was written: it is run again

    def _write(self, path: Path, text: str) -> None:
        beside = path.with_suffix(".new")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            step = f"make room in {self.folder}, or name another folder with --out; what is finished is kept"
            raise ScenarioError(f"{path} cannot be written: {error.strerror}", step) from error
