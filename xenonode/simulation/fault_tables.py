"""A scenario's [[fault]] tables: TOML to what the faults' own package plans.

Decides the form of a table (kind, at_s, for_s, every_s, targets, count, share; all else are the kind's parameters) and
how what is wrong is told. Which kinds there are, and what they do, stands in `faults.kinds`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from xenonode.simulation.errors import SimulationError
from xenonode.simulation.faults import KINDS, FaultSpec, plan
from xenonode.simulation.network import MILLION

if TYPE_CHECKING:
    from xenonode.simulation.scenario import Scenario

TIMES = ("at_s", "for_s", "every_s")
OWN = ("kind", *TIMES, "targets", "count", "share")


class FaultError(ValueError):
    """A fault that cannot be planned; `key` is where it stands in the file."""

    def __init__(self, key: str, message: str, next_step: str = "'xenonode simulate --keys' lists all kinds") -> None:
        super().__init__(message)
        self.key, self.next_step = key, next_step


def read_faults(raw: Any) -> tuple[FaultSpec, ...]:
    """Every table. Raises FaultError."""
    if not isinstance(raw, list) or not all(isinstance(each, dict) for each in raw):
        raise FaultError("fault", "must be tables", "write [[fault]] above each fault's keys")
    return tuple(_fault(table, f"fault[{number}]") for number, table in enumerate(raw))


def check_faults(scenario: Scenario) -> None:
    """Whether this world can have all of them. Raises FaultError."""
    for number, fault in enumerate(scenario.faults):
        if fault.at_s >= scenario.duration_s:
            told = f"at_s = {fault.at_s:g} is not before the end, duration_s = {scenario.duration_s:g}"
            raise FaultError(f"fault[{number}]", told, "let it begin earlier, or the scenario last longer")
        try:
            plan((fault,), 0, scenario.names(), scenario.duration_s, world=scenario.kind)
        except SimulationError as error:
            raise FaultError(f"fault[{number}]", str(error)) from error


def fault_keys() -> Iterator[tuple[str, str, str]]:
    """Every kind: its name, its parameters with their defaults, its sentence."""
    for kind in KINDS.values():
        parameters = ", ".join(f"{name} = {value}" for name, value in kind.parameters.items())
        worlds = "" if len(kind.worlds) > 1 else f" (kind {kind.worlds[0]} only)"
        yield (
            f'[[fault]] kind = "{kind.name}"',
            parameters,
            f"{kind.sentence} Strikes {', '.join(kind.groups)}{worlds}.",
        )


def _fault(table: Mapping[str, Any], place: str) -> FaultSpec:
    name = table.get("kind")
    if name not in KINDS:
        near = difflib.get_close_matches(str(name), KINDS, 1, 0.5)
        told = f"there is no fault {name!r}" if "kind" in table else "names no kind"
        raise FaultError(
            f"{place}.kind", told, f"did you mean {near[0]!r}?" if near else f"take one of {', '.join(KINDS)}"
        )
    kind = KINDS[name]
    for key in table:
        if key not in OWN and key not in kind.parameters:
            known = [*OWN, *kind.parameters]
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"a fault of this kind has {', '.join(known)}"
            raise FaultError(f"{place}.{key}", f"no such key of {name!r}", hint)
    times = {key: _number(table[key], f"{place}.{key}", float) for key in TIMES if key in table}
    share = _number(table["share"], f"{place}.share", float) if "share" in table else None
    if share is not None and not 0 <= share <= 1:
        raise FaultError(f"{place}.share", f"must be in 0..1, not {share:g}", "a tenth of the servers is 0.1")
    parameters = {key: _number(table[key], f"{place}.{key}", int) for key in kind.parameters if key in table}
    try:
        return FaultSpec(
            kind=name,
            **times,
            targets=_targets(table.get("targets", ""), f"{place}.targets"),
            count=_number(table["count"], f"{place}.count", int) if "count" in table else None,
            share_ppm=None if share is None else round(share * MILLION) or int(share > 0),
            parameters=parameters,
        )
    except SimulationError as error:
        raise FaultError(place, str(error)) from error


def _number(raw: Any, key: str, wanted: type) -> Any:
    words = "a whole number" if wanted is int else "a number"
    fits = isinstance(raw, wanted) or (wanted is float and isinstance(raw, int))
    if not fits or isinstance(raw, bool) or not math.isfinite(raw):
        raise FaultError(key, f"must be {words}, not {raw!r:.60}")
    return wanted(raw)


def _targets(raw: Any, key: str) -> str | tuple[str, ...]:
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list) and raw and all(isinstance(each, str) for each in raw):
        return tuple(raw)
    step = 'write "servers", or ["server-1", "server-2"]'
    raise FaultError(key, f"must be a group or a list of hosts' names, not {raw!r:.60}", step)
