"""Reading a scenario: from a file, or one that ships with the package, with keys overridden.

Decides how what is wrong is told: the file, the key's whole path, the nearest key that exists, and what to write.
Which keys there are, and what they mean, stands in `scenario` and, for [[fault]] tables, with the faults.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import sys
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xenonode.simulation.fault_tables import FaultError, check_faults, read_faults
from xenonode.simulation.measured import LatencyMatrix, MeasuredError, Outage, read_matrix, read_outages
from xenonode.simulation.scenario import (
    SWITCHES,
    Checks,
    Churn,
    ContradictionError,
    Key,
    NetworkModel,
    Nodes,
    Scenario,
    ScenarioError,
    Workload,
)

SHIPPED = importlib.resources.files("xenonode.simulation") / "scenarios"
SECTIONS: dict[str, type] = {
    "nodes": Nodes,
    "network": NetworkModel,
    "churn": Churn,
    "workload": Workload,
    "checks": Checks,
}
FILES = ("network.matrix", "churn.trace")
"""Keys whose values are paths: in a file they begin at its folder, elsewhere where one stands."""
OWN = ("shows", "costs", "kind", "duration_s", "sample_every_s")
FILE_MAX_BYTES = 262_144
"""A scenario is a page of text; what is larger was named by mistake."""
SWEEP_MAX = 10_000
"""Points of a grid: with a second each this is three hours on one core."""
LONGEST_SHOWN = 60
SWEEP = Key(f'lists of values by key: "nodes.servers" = [10, 20]; each combination is run, of at most {SWEEP_MAX}')

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where something stands, for errors."""

    file: str
    base: Path

    def error(self, key: str, text: str, next_step: str = "") -> ScenarioError:
        return ScenarioError(f"{self.file}: {key}: {text}" if key else f"{self.file}: {text}", next_step)


def load(source: str | Path, sets: Mapping[str, str] | None = None, point: Mapping[str, Any] | None = None) -> Scenario:
    """The scenario in a file, or of a shipped name, with `sets` (KEY -> TOML value) put over it. Raises ScenarioError.

    A key that is set is no longer swept. At one `point` of the sweep nothing is; without one, swept keys have the
    values of the first, since values need to go together at each point only.
    """
    document, place, name = _document(source)
    for key, text in (sets or {}).items():
        value = _value(text)
        _put(document, key, str(Path.cwd() / value) if key in FILES and isinstance(value, str) else value, place)
        _unsweep(document, key)
    if point is None:
        point = {key: values[0] for key, values in _sweep(document.get("sweep", {}), place).items()}
    else:
        document.pop("sweep", None)
    for key, value in point.items():
        _put(document, key, value, place)
    return _scenario(document, place, name)


def swept_as_set(source: str, key: str, value: Any) -> Any:
    """What --set has to say for a value that the sweep of `source` has: paths begin elsewhere there."""
    return str(Path(source).parent / value) if key in FILES and isinstance(value, str) else value


def shipped() -> list[str]:
    """The names of the scenarios that come with the package."""
    if not SHIPPED.is_dir():
        return []
    return sorted(each.name.removesuffix(".toml") for each in SHIPPED.iterdir() if each.name.endswith(".toml"))


def keys() -> Iterator[tuple[str, Any, Key]]:
    """Every key by its whole name, with its default and its meaning."""
    for each in dataclasses.fields(Scenario):
        if each.name in OWN:
            yield each.name, each.default, each.metadata["key"]
    for section, table in SECTIONS.items():
        for each in dataclasses.fields(table):
            default = getattr(table(), each.name)
            yield f"{section}.{each.name}", default, each.metadata["key"]


def _document(source: str | Path) -> tuple[dict[str, Any], _Place, str]:
    path = Path(source)
    if str(source) in shipped() and not path.is_file():
        raw, place = (SHIPPED / f"{source}.toml").read_bytes(), _Place(f"{source} (shipped)", Path.cwd())
    else:
        raw, place = _read(path), _Place(str(path), path.resolve().parent)
    if len(raw) > FILE_MAX_BYTES:
        raise place.error("", f"larger than {FILE_MAX_BYTES} bytes, so it is no scenario", "name another file")
    try:
        document = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also of a number of more digits than Python reads
        raise place.error("", f"no TOML file: {error}", "see the shipped ones: xenonode simulate --list") from error
    return document, place, path.name.removesuffix(".toml")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        near = difflib.get_close_matches(str(path), shipped(), 1, 0.5)
        hint = f"did you mean the shipped scenario {near[0]!r}?" if near else "'xenonode simulate --list' has some"
        raise ScenarioError(f"scenario {path} cannot be read: {error.strerror}", hint) from error


def _put(document: dict[str, Any], key: str, value: Any, place: _Place) -> None:
    """Set one key of the document by its dotted name; fault.0.at_s is of the first [[fault]] table."""
    if not _is_key(key):
        raise place.error(key, "no such key", _nearest(key, [name for name, _, _ in keys()]))
    *path, last = key.split(".")
    table: Any = document
    for name in path:
        if isinstance(table, list):
            if name not in map(str, range(len(table))):
                raise place.error(key, *_no_such_fault(len(table)))
            table = table[int(name)]
        else:
            table = table.setdefault(name, [] if name == "fault" else {})
        if not isinstance(table, dict | list):
            raise place.error(name, "must be a table", f"write [{name}]")
    if isinstance(table, list):
        raise place.error(key, "names no key of a fault", "write fault.0.at_s, for example")
    table[last] = value


def _no_such_fault(count: int) -> tuple[str, str]:
    if not count:
        step = 'write [[fault]], and below it kind = "loss", into a file; a shipped scenario has the faults that it has'
        return "there is no [[fault]] table of which this could be a key", step
    last = f"the last of {count} [[fault]] tables is fault.{count - 1}"
    return last, "the first one is fault.0"


def _is_key(key: str) -> bool:
    """Whether --set or a sweep may name it."""
    return key.startswith(("workload.mix.", "fault.")) or any(key == name for name, _, _ in keys())


def _unsweep(document: dict[str, Any], key: str) -> None:
    """Take a key out of the sweep, whether it stands there quoted or as tables."""
    table = document.get("sweep")
    path = key.split(".")
    while isinstance(table, dict):
        table.pop(".".join(path), None)
        table, path = table.get(path[0]), path[1:]


def _value(text: str) -> Any:
    """A value as TOML has it; what is none is a text."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return found["value"] if set(found) == {"value"} else text


def _scenario(document: dict[str, Any], place: _Place, name: str) -> Scenario:
    known = [key for key, _, _ in keys()]
    for key in document:
        if key not in OWN and key not in SECTIONS and key not in ("fault", "sweep"):
            raise place.error(key, "no such key", _nearest(key, [*known, *SECTIONS, "fault", "sweep"]))
    own = _table(Scenario, {key: document[key] for key in OWN if key in document}, "", place)
    sections: dict[str, Any] = {}
    for section, table in SECTIONS.items():
        raw = document.get(section, {})
        if not isinstance(raw, dict):
            raise place.error(section, "must be a table", f"write [{section}] above its keys")
        for key in raw:
            if f"{section}.{key}" not in known:
                raise place.error(f"{section}.{key}", "no such key", _nearest(f"{section}.{key}", known))
        sections[section] = _make(table, _table(table, raw, section, place), section, place)
    try:
        faults = read_faults(document.get("fault", []))
        sweep = _sweep(document.get("sweep", {}), place)
        made = _make(Scenario, {"name": name, **own, **sections, "faults": faults, "sweep": sweep}, "", place)
        check_faults(made)
        _check_switches(document, place)
    except FaultError as error:
        raise place.error(error.key, str(error), error.next_step) from error
    return made


def _check_switches(document: Mapping[str, Any], place: _Place) -> None:
    """Refuse a key whose switch nobody wrote. A switch that is written as off is the baseline of one that is on."""
    written = {f"{section}.{key}" for section in SECTIONS for key in document.get(section, {})}
    for switch, others in SWITCHES.items():
        for other in others:
            name = f"{switch.partition('.')[0]}.{other}"
            if name in written and switch not in written:
                raise place.error(name, f"does nothing without {switch}", f"write {switch}, or leave {name} out")


def _make(table: type[T], values: Mapping[str, Any], section: str, place: _Place) -> T:
    try:
        return table(**values)
    except ContradictionError as error:
        raise place.error(section, str(error), error.next_step) from error


def _table(table: type, raw: Mapping[str, Any], section: str, place: _Place) -> dict[str, Any]:
    hints = typing.get_type_hints(table)
    found = {}
    for each in dataclasses.fields(table):
        if each.name in raw:
            name = f"{section}.{each.name}" if section else each.name
            found[each.name] = _checked(raw[each.name], hints[each.name], each.metadata["key"], name, place)
    return found


def _checked(raw: Any, hint: Any, key: Key, name: str, place: _Place) -> Any:
    shown = repr(raw)[:LONGEST_SHOWN]
    if hint == (LatencyMatrix | None) or hint == tuple[Outage, ...]:
        if not isinstance(raw, str):
            raise place.error(name, f"must be the path of a CSV file, not {shown}", key.about)
        path = place.base / raw
        try:
            return read_matrix(path) if hint == (LatencyMatrix | None) else read_outages(path)
        except MeasuredError as error:
            raise place.error(name, f"{path}: {error}", key.about) from error
    if typing.get_origin(hint) is tuple:
        if not isinstance(raw, list):
            raise place.error(name, f"must be a list, not {shown}", key.about)
        return tuple(_checked(one, typing.get_args(hint)[0], key, name, place) for one in raw)
    if typing.get_origin(hint) is not None and not isinstance(hint, types.UnionType):
        if not isinstance(raw, dict):
            raise place.error(name, f"must be a table, not {shown}", key.about)
        key = Key(key.about)  # its choices are of the words
        return {word: _checked(one, float, key, f"{name}.{word}", place) for word, one in raw.items()}
    words = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}
    fits = isinstance(raw, hint) or (hint is float and isinstance(raw, int))
    if not fits or (isinstance(raw, bool) and hint is not bool):
        raise place.error(name, f"must be {words[hint]}, not {shown}", f"it is: {key.about}")
    if key.choices and raw not in key.choices:
        named = ", ".join(repr(choice) for choice in key.choices)
        near = difflib.get_close_matches(str(raw), key.choices, 1, 0.5)
        raise place.error(name, f"{shown} is none of {named}", f"did you mean {near[0]!r}?" if near else key.about)
    if hint is float and not abs(raw) <= sys.float_info.max:
        raise place.error(name, f"must be finite, not {shown}", key.about)
    if not isinstance(raw, str) and not key.holds(raw):
        raise place.error(name, f"must be in {key.bounds}, not {shown}", f"it is: {key.about}")
    return float(raw) if hint is float else raw


def _sweep(raw: Any, place: _Place) -> dict[str, tuple[Any, ...]]:
    if not isinstance(raw, dict):
        raise place.error("sweep", "must be a table", 'write [sweep], and below it "nodes.servers" = [10, 20]')
    flat = dict(_flat(raw))
    points = 1
    for key, values in flat.items():
        if not _is_key(key):
            raise place.error(f"sweep.{key}", "no such key to sweep", _nearest(key, [name for name, _, _ in keys()]))
        if not isinstance(values, list) or not values:
            raise place.error(f"sweep.{key}", "must be a list of at least one value", f'write "{key}" = [1, 2]')
        if len({repr(value) for value in values}) != len(values):
            raise place.error(f"sweep.{key}", "names a value twice", "leave one of them out")
        points *= len(values)
    if points > SWEEP_MAX:
        raise place.error("sweep", f"has {points} points, more than {SWEEP_MAX}", "sweep fewer keys or values")
    return {key: tuple(values) for key, values in flat.items()}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nearest(key: str, known: Sequence[str]) -> str:
    """The key that was most likely meant: by its whole name, or by its last part in another table."""
    near = difflib.get_close_matches(key, known, 1, 0.75)
    if not near:
        last = {name.rpartition(".")[2]: name for name in known}
        near = [last[word] for word in difflib.get_close_matches(key.rpartition(".")[2], last, 1, 0.6)]
    return f"did you mean {near[0]!r}?" if near else "'xenonode simulate --keys' lists every key"
