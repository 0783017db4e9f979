"""What a command prints: a table or lines for people, or one JSON value for programs. Home of rich, with its siblings.

Answers go to stdout, progress and errors to stderr, so that output can be piped whatever happens.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dht.envelope import Envelope
from xenonode.errors import XenoError
from xenonode.model.advert import VerifiedAdvert
from xenonode.model.entity import Address

WIDTH_WHEN_PIPED = 200
"""A pipe has no width; rich would guess 80 and fold the keys."""
LIKELY_A_DATE_MS = 10**12
"""A time in milliseconds above this is a moment after September 2001, not a length."""
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""What a terminal obeys rather than shows: others' words (a region, a refusal's reason) must not move its cursor."""
MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}


class NoReaderError(XenoError):
    """Nobody reads the output any more. The command was carried out; only its answer was lost."""

    def __init__(self) -> None:
        text = "nobody reads the output any more; the command itself was carried out"
        super().__init__(text, "look at what it did with the matching 'list' or 'show' command", "no_reader")


class Output:
    """Prints one command's answer in the form that was asked for."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        if sys.stdout is None:
            raise XenoError(
                "standard output is closed, so the answer could not be shown; nothing was done",
                "redirect it, e.g. > answer.txt or > /dev/null",
                "closed_output",
            )
        width = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else WIDTH_WHEN_PIPED
        terminal = sys.stdout.isatty()
        self._page = io.StringIO()
        self._console = Console(file=self._page, width=width, highlight=False, soft_wrap=True, force_terminal=terminal)
        self._progress = Console(stderr=True, highlight=False, soft_wrap=True)

    def json(self, value: object) -> None:
        """One JSON value on stdout."""
        self._write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")

    def rows(self, value: object, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
        """`value` as JSON, or a table of `rows`; `empty` says what it means that there are none."""
        if self.as_json:
            self.json(value)
            return
        table = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        count = 0
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(shown(str(cell))) for cell in row))
            count += 1
        self._console.print(table if count else escape(empty))
        self._flush()

    def facts(self, value: object, facts: Iterable[tuple[str, object]], title: str = "") -> None:
        """`value` as JSON, or a list of names and values."""
        if self.as_json:
            self.json(value)
            return
        if title:
            self._console.print(f"[bold]{escape(title)}[/]")
        table = Table.grid(padding=(0, 2))
        for name, each in facts:
            for inner, value in _spread(name, each):
                table.add_row(Text(shown(inner.replace("_", " ")), style="dim"), Text(shown(value), overflow="fold"))
        self._console.print(table)
        self._flush()

    def text(self, value: object, text: str) -> None:
        """`value` as JSON, or a text as it is: what an environment wrote is the reader's own, as with ssh."""
        if self.as_json:
            self.json(value)
        else:
            self._write(text if text.endswith("\n") else text + "\n")

    def line(self, value: object, text: str) -> None:
        """One line of an answer that goes on: a JSON value, or text. Whoever reads a pipe has it at once."""
        self._write((json.dumps(plain(value), ensure_ascii=False) if self.as_json else shown(text)) + "\n")

    def note(self, text: str) -> None:
        """A line of progress for people, on stderr; silent for programs."""
        if not self.as_json:
            self._progress.print(escape(shown(text)))

    def _flush(self) -> None:
        self._write(self._page.getvalue())
        self._page.seek(0)
        self._page.truncate()

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError as error:
            # What is left in the buffer goes nowhere, or the interpreter would complain when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise NoReaderError from error

    def mark(self, level: str) -> Text:
        """ok, warn or fail, in its colour."""
        return Text.from_markup(MARKS[level])


def shown(text: str) -> str:
    """Text as it may reach a terminal, without the characters that would steer it."""
    return text.translate(_CONTROLS)


def moment(time_ms: int) -> str:
    """A wall time for people, in UTC, as ISO 8601 has it."""
    return datetime.datetime.fromtimestamp(time_ms // 1000, datetime.UTC).isoformat(" ").replace("+00:00", " UTC")


def plain(value: object) -> object:
    """Any value of the platform as JSON has it: keys and ids in hex, integers exact, names of fields as they are."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, (Path, Address)):
        return str(value)
    if isinstance(value, Envelope):
        return {"id": value.id.hex(), "type": value.type, "key": value.key.hex()}
    if isinstance(value, VerifiedAdvert):
        return {"server": value.server_key.hex(), "owner": value.credential.entity, **_fields(value.advert)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Mapping):
        return {key.hex() if isinstance(key, bytes) else str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return str(value)


def _spread(name: str, value: object) -> list[tuple[str, str]]:
    """A fact as one line, or a line for each part of it; times are told as dates."""
    if isinstance(value, Mapping):
        return [row for inner, each in value.items() for row in _spread(f"{name} {inner}", each)]
    if isinstance(value, bool):
        return [(name, "yes" if value else "no")]
    if name.endswith("_ms") and isinstance(value, int) and value > LIKELY_A_DATE_MS:
        return [(name.removesuffix("_ms"), moment(value))]
    if isinstance(value, (list, tuple)):
        return [(name, ", ".join(str(each) for each in value) or "none")]
    return [(name, str(value))]


def _fields(value: object) -> dict[str, object]:
    """A dataclass by its public fields, without the raw messages inside it."""
    found = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]  # the callers have checked
        if not field.name.startswith("_") and field.name not in ("credential", "raw"):
            found[field.name] = plain(getattr(value, field.name))
    return found
