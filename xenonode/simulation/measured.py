"""What was measured elsewhere and is read from a file: a matrix of round trips, a trace of servers' outages.

Decides what such files must be (and says which line is not), and where a node lies that the matrix does not have.
Sources of such data: King and PlanetLab round trips (a square of milliseconds), availability traces.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from xenonode.simulation.env import derive

MATRIX_MAX = 5_000
"""25 million entries: 100 MB, and more nodes than any published matrix has."""
FILE_MAX_BYTES = 512 * 2**20
"""A text of 25 million round trips; what is larger was named by mistake."""
ROUND_TRIP_MAX_MS = 60_000
"""Longer than any that was answered at all; what is larger is in other units."""
OUTAGE_MAX_S = 365 * 86_400.0
"""As long as a scenario may last."""
NEAR_US = (500, 5_000)
"""One way from a place of the matrix to a node drawn near it: within the same city or country."""


class MeasuredError(ValueError):
    """A file of measurements that is none; the message says where."""


@dataclass(frozen=True, slots=True)
class LatencyMatrix:
    """One-way latencies in us by row and column: half of the measured round trips. Row `n` is where `server-n` lies."""

    rows_us: tuple[tuple[int, ...], ...]
    digest: str

    def place(self, seed: int, name: str) -> tuple[int, int]:
        """A host's row and its distance to that row's place in us; hosts beyond the matrix are drawn near a row."""
        number = name.rpartition("-")[2]
        if name.startswith(("server-", "node-", "peer-")) and number.isdecimal() and int(number) < len(self.rows_us):
            return int(number), 0
        rng = Random(int.from_bytes(derive(seed, "near", name)))
        return rng.randrange(len(self.rows_us)), rng.randint(*NEAR_US)


@dataclass(frozen=True, slots=True)
class Outage:
    """One server's absence. `up_s` is 0 for one that does not come back."""

    server: int
    down_s: float
    up_s: float


@contextlib.contextmanager
def _csv() -> Iterator[None]:
    """What is no CSV, such as an endless cell, is told as all else that is wrong."""
    try:
        yield
    except csv.Error as error:
        raise MeasuredError(f"it is no CSV: {error}") from None


@_csv()
def read_matrix(path: Path) -> LatencyMatrix:
    """A square CSV of round trips in ms. Raises MeasuredError."""
    text = _text(path)
    rows: list[tuple[int, ...]] = []
    for line, cells in enumerate(csv.reader(io.StringIO(text)), 1):
        if not any(cell.strip() for cell in cells):
            continue
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            bad = next(cell for cell in cells if not _is_number(cell))
            raise MeasuredError(f"line {line}: {bad[:40]!r} is no number of milliseconds") from None
        for column, value in enumerate(values, 1):
            if not 0 <= value <= ROUND_TRIP_MAX_MS:
                told = f"line {line}, column {column}: a round trip of {value:g} ms cannot be"
                raise MeasuredError(f"{told}; it is 0 to {ROUND_TRIP_MAX_MS:,}")
        rows.append(tuple(round(value * 500) for value in values))
        if len(rows) > MATRIX_MAX:
            raise MeasuredError(f"more than {MATRIX_MAX} rows")
    if not rows:
        raise MeasuredError("it is empty")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows):
            raise MeasuredError(f"not square: {len(rows)} rows, but row {number} has {len(row)} columns")
    return LatencyMatrix(tuple(rows), hashlib.blake2b(text.encode(), digest_size=16).hexdigest())


@_csv()
def read_outages(path: Path) -> tuple[Outage, ...]:
    """A CSV with the header server,down_s,up_s; an empty up_s means never. Raises MeasuredError."""
    reader = csv.DictReader(io.StringIO(_text(path)))
    if set(reader.fieldnames or ()) != {"server", "down_s", "up_s"}:
        raise MeasuredError(f"its first line must be server,down_s,up_s, not {','.join(reader.fieldnames or ())[:80]}")
    found = []
    for row in reader:
        try:
            if None in row:
                raise ValueError("more cells than the first line has")
            outage = Outage(int(row["server"]), float(row["down_s"]), float(row["up_s"] or 0))
        except (ValueError, TypeError):
            raise MeasuredError(f"line {reader.line_num}: a server's number and two times in seconds") from None
        times = (outage.down_s, outage.up_s)
        if outage.server < 0 or not all(0 <= time <= OUTAGE_MAX_S for time in times):
            raise MeasuredError(f"line {reader.line_num}: negative, or later than a year")
        if outage.up_s and outage.up_s <= outage.down_s:
            raise MeasuredError(f"line {reader.line_num}: up again at {outage.up_s} s, before it was down")
        found.append(outage)
    found.sort(key=lambda each: (each.down_s, each.server))
    last: dict[int, Outage] = {}
    for outage in found:
        before = last.get(outage.server)
        if before is not None and (not before.up_s or before.up_s > outage.down_s):
            raise MeasuredError(f"server {outage.server} goes down at {outage.down_s} s while it is down")
        last[outage.server] = outage
    return tuple(found)


def _text(path: Path) -> str:
    if "\0" in str(path):
        raise MeasuredError("a path has no zero bytes")
    try:
        raw: bytes
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(FILE_MAX_BYTES + 1)
        if len(raw) > FILE_MAX_BYTES:
            raise MeasuredError(f"larger than {FILE_MAX_BYTES} bytes")
        return raw.decode("utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError:
        raise MeasuredError("it is no text") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MeasuredError(f"it is no whole gzip file: {error}") from None
    except OSError as error:
        raise MeasuredError(f"it cannot be read: {error.strerror or error}") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
