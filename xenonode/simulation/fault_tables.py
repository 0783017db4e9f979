"""A scenario's [[fault]] tables: TOML to what the faults' own package plans.

Decides the form of a table (kind, at_s, for_s, every_s, targets, count, share; all else are the kind's parameters) and
how what is wrong is told. Which kinds there are, and what they do, stands in `faults.kinds`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from xenonode.simulation.errors import SimulationError
from xenonode.simulation.faults import KINDS, FaultSpec, plan
from xenonode.simulation.faults.kinds import GROUPS, Kind, bounds_of
from xenonode.simulation.network import MILLION
from xenonode.simulation.scenario import FOREVER_S, NODES_MAX, Key, Scenario

TIMES = {
    "at_s": Key("when it begins, in virtual time since all have joined", 0, FOREVER_S),
    "for_s": Key("how long it lasts; no longer than to the end", 0, FOREVER_S),
    "every_s": Key("after how long it begins again; 0: it does not", 0, FOREVER_S),
}
COUNT = Key("how many of the group are drawn; 1 where there is no share either", 1, NODES_MAX)
SHARE = Key("which share of the group is drawn, instead of a count; 0: nobody, else at least one", 0, 1)
OWN = {
    "kind": Key("what the [[fault]] table of number N does, from 0: one of those below"),
    **TIMES,
    "targets": Key('a group, or hosts: ["server-1"]; empty: the first that the kind strikes', choices=GROUPS),
    "count": COUNT,
    "share": SHARE,
    "draw": Key('a name, as "liars": faults that have the same one strike the same of a group, each time'),
}
"""The keys that faults of all kinds have."""


class FaultError(ValueError):
    """A fault that cannot be planned; `key` is where it stands in the file."""

    def __init__(
        self,
        key: str,
        message: str,
        next_step: str = "'xenonode simulate --keys' lists all kinds, and whom they strike",
    ) -> None:
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


def fault_keys() -> Iterator[tuple[str, Any, Key]]:
    """What a fault has: key, default, meaning. First the keys of all kinds, then each kind with its parameters."""
    defaults = {each.name: each.default for each in dataclasses.fields(FaultSpec)}
    for name, key in OWN.items():
        yield f"fault.N.{name}", None if name == "kind" else defaults.get(name), key
    for kind in KINDS.values():
        worlds = "" if len(kind.worlds) > 1 else f" (kind {kind.worlds[0]} only)"
        about = f"{kind.sentence} Strikes {', '.join(kind.groups)}{worlds}."
        yield f'fault.N.kind = "{kind.name}"', None, Key(about)
        for name, default in kind.parameters.items():
            yield f"fault.N.{name}", default, _parameter(kind, name)


def _parameter(kind: Kind, name: str) -> Key:
    return Key(f"of {kind.name}", *bounds_of(name))


def _fault(table: Mapping[str, Any], place: str) -> FaultSpec:
    name = table.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        near = difflib.get_close_matches(str(name), KINDS, 1, 0.5)
        told = f"there is no fault {name!r:.60}" if "kind" in table else "names no kind"
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

    def number(name: str, key: Key, wanted: type) -> Any:
        return _number(table[name], f"{place}.{name}", key, wanted) if name in table else None

    times = {name: number(name, key, float) for name, key in TIMES.items() if name in table}
    share = number("share", SHARE, float)
    parameters = {name: number(name, _parameter(kind, name), int) for name in kind.parameters if name in table}
    try:
        return FaultSpec(
            kind=name,
            **times,
            targets=_targets(table.get("targets", ""), f"{place}.targets"),
            count=number("count", COUNT, int),
            share_ppm=None if share is None else round(share * MILLION) or int(share > 0),
            draw=_text(table.get("draw", ""), f"{place}.draw"),
            parameters=parameters,
        )
    except SimulationError as error:
        raise FaultError(place, str(error)) from error


def _number(raw: Any, place: str, key: Key, wanted: type) -> Any:
    words = "a whole number" if wanted is int else "a number"
    fits = isinstance(raw, wanted) or (wanted is float and isinstance(raw, int))
    if not fits or isinstance(raw, bool):
        raise FaultError(place, f"must be {words}, not {raw!r:.60}", f"it is: {key.about}")
    if not key.holds(raw):
        raise FaultError(place, f"must be in {key.bounds}, not {raw!r:.60}", f"it is: {key.about}")
    return wanted(raw)


def _text(raw: Any, place: str) -> str:
    if not isinstance(raw, str):
        raise FaultError(place, f"must be a text in quotes, not {raw!r:.60}", f"it is: {OWN['draw'].about}")
    return raw


def _targets(raw: Any, key: str) -> str | tuple[str, ...]:
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list) and raw and all(isinstance(each, str) for each in raw):
        return tuple(raw)
    step = 'write "servers", or ["server-1", "server-2"]'
    raise FaultError(key, f"must be a group or a list of hosts' names, not {raw!r:.60}", step)
