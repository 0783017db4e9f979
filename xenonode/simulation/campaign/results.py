"""The folder of a campaign's results: what is finished is kept, one file a run, and made into tables.

Decides how results survive (written beside, flushed, renamed; a damaged one is run again), who may write (one
campaign at a time), and what a table holds: a line a row, the swept keys and the seed in front.

    DIR/runs/KEY.json.gz     one finished run, all of it; KEY-again where it was repeated and was another
    DIR/runs.csv ...         tables over the runs of the last command; .parquet where asked for
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import gzip
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xenonode.errors import XenoError
from xenonode.simulation.campaign.jobs import Job
from xenonode.simulation.verdict import COLUMNS, TABLES, Row, RunResult

LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that was carried out, and the processor time that it took (which no seed decides)."""

    job: Job
    result: RunResult
    cpu_s: float


class Results:
    """See the module. Use as a context manager: it holds the folder's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1

    def __enter__(self) -> Results:
        with _told(self.folder):
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise XenoError(
                f"another simulation is writing into {self.folder}",
                "wait until it is over, or give this one a folder of its own: --out DIR",
                "folder_in_use",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def begin(self, about: Mapping[str, Any]) -> None:
        """Say what is in here; finds out whether anything can be written before hours were spent."""
        self._write("about.json", (json.dumps(about, indent=2, sort_keys=True) + "\n").encode())

    def path(self, job: Job) -> Path:
        """Where a run is kept."""
        return self.folder / "runs" / f"{job.key}.json.gz"

    def stored(self, job: Job) -> Finished | None:
        """The run, if it was carried out before; None where it was not, or its file is damaged."""
        try:
            fields = json.loads(gzip.decompress(self.path(job).read_bytes()))
            return Finished(job, RunResult.from_fields(fields), float(fields["cpu_s"]))
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None

    def keep(self, finished: Finished, again: str = "") -> Path:
        """Keep a run; with `again` after its key, beside the one that is there. Raises XenoError without space."""
        fields = finished.result.to_fields() | {"cpu_s": finished.cpu_s, "point": dict(finished.job.point)}
        data = gzip.compress(json.dumps(fields, sort_keys=True).encode(), mtime=0)
        return self._write(f"runs/{finished.job.key}{again}.json.gz", data)

    def write_tables(self, runs: Sequence[Finished], *, parquet: bool = False) -> list[Path]:
        """Every table over these runs. Raises XenoError."""
        written = []
        point = list(runs[0].job.point) if runs else []
        for name, rows in tables(runs).items():
            found = (key for row in rows for key in row)
            columns = list(dict.fromkeys([*point, "seed", *COLUMNS.get(name, ()), *found]))
            written.append(self._write(f"{name}.csv", _csv(rows, columns)))
            if parquet:
                written.append(self._write(f"{name}.parquet", _parquet(rows, columns)))
        return written

    def write(self, name: str, data: bytes) -> Path:
        """A further file, such as a plot. Raises XenoError."""
        return self._write(name, data)

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        beside = path.with_name(f".{path.name}.new")
        with _told(self.folder):
            try:
                with beside.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    beside.unlink()
                raise
        return path


def difference(before: Finished, now: Finished) -> list[str]:
    """What is not the same of one run that was carried out twice: the trace, which tells most, and then the rest."""
    then, again = before.result.row, now.result.row
    names = [name for name in {"trace": "", **then, **again} if then.get(name) != again.get(name)]
    return [f"{name} {then.get(name)} then, {again.get(name)} now" for name in names]


def tables(runs: Sequence[Finished]) -> dict[str, list[Row]]:
    """All rows of these runs by table, the swept keys and the seed in front."""
    found: dict[str, list[Row]] = {"runs": [{**run.job.point, **run.result.row, "cpu_s": run.cpu_s} for run in runs]}
    for name in TABLES:
        found[name] = [
            {**run.job.point, "seed": run.job.seed, **row} for run in runs for row in getattr(run.result, name)
        ]
    return found


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What the system says of a folder, as an error for people."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        message = f"{error.filename or folder}: {error.strerror or error}"
        kept = "the same command goes on from the runs that were kept"
        next_step = f"free some space, or name another folder with --out DIR; {kept}"
        if not full:
            next_step = "name a folder that you may write to: --out DIR"
        raise XenoError(message, next_step, "no_space" if full else "results") from error


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def load_pyarrow() -> tuple[Any, Any]:
    """The packages `pyarrow` and `pyarrow.parquet`. Raises XenoError without them."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        step = "pip install 'xenonode[parquet]'"
        raise XenoError("Parquet needs the package pyarrow", step, "missing_package") from error
    return pyarrow, parquet


def _parquet(rows: Sequence[Row], names: Sequence[str]) -> bytes:
    pyarrow, parquet = load_pyarrow()
    columns = {}
    for name in names:
        values = [_cell(row.get(name)) for row in rows]
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):  # a swept key with values of several types
            columns[name] = pyarrow.array([None if value is None else str(_cell(value)) for value in values])
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()
