"""A scenario's faults and a seed to a list of injections: who is struck, and when. Pure.

Every spec draws from (seed, its place in the list, its kind), so that taking one away leaves the others as they were;
those with a named draw from (seed, that name).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from xenonode.simulation.env import derive
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.faults.kinds import KINDS, PLATFORM, FaultSpec, Injection
from xenonode.simulation.network import MILLION

INJECTIONS_MAX = 100_000
"""Of one run: far more than any study needs, and a typing error in every_s still ends."""
MEMBERS = {"servers": "a server", "clients": "a client", "corp": "XenoCorp"}
"""What a host of each group is called."""


def plan(
    specs: Sequence[FaultSpec],
    seed: int,
    names: Mapping[str, Sequence[str]],
    duration_s: float,
    *,
    world: str = PLATFORM,
) -> tuple[Injection, ...]:
    """All injections, by time. `names` has the hosts of each group ("servers", "clients", "corp"). SimulationError."""
    found: list[Injection] = []
    everybody = [name for group in sorted(names) for name in names[group]]
    for place, spec in enumerate(specs):
        if world not in KINDS[spec.kind].worlds:
            raise SimulationError(f"a world of {world} knows no {spec.kind}")
        if spec.share_ppm == 0:
            continue  # nobody is struck
        rng = Random(int.from_bytes(derive(seed, "fault", str(place), spec.kind)))
        at_s = spec.at_s
        while at_s < duration_s:
            again = Random(int.from_bytes(derive(seed, "draw", spec.draw))) if spec.draw else rng
            targets = _targets(spec, names, everybody, again)
            for_ms = round(1_000 * min(spec.for_s, duration_s - at_s))
            found.append(Injection(spec.kind, round(1_000 * at_s), for_ms, targets, dict(spec.parameters)))
            if len(found) > INJECTIONS_MAX:
                raise SimulationError(f"{spec.kind}: more than {INJECTIONS_MAX} injections; every_s is too short")
            if not spec.every_s:
                break
            at_s += spec.every_s
    return tuple(sorted(found, key=lambda one: one.at_ms))


def check_targets(kind: str, targets: Sequence[str], names: Mapping[str, Sequence[str]]) -> None:
    """Whether there are these hosts, and this kind may strike them; `names` as for `plan`. Raises SimulationError."""
    groups = KINDS[kind].groups
    group_of = {name: group for group, hosts in names.items() for name in hosts}
    for name in targets:
        if name not in group_of:
            there = ", ".join(_named(group) for group in names.values() if group)
            raise SimulationError(f"{kind}: this world has no host {name!r}; it has {there}")
        if "any" not in groups and group_of[name] not in groups:
            raise SimulationError(f"{kind} strikes {' or '.join(groups)}; {name} is {MEMBERS[group_of[name]]}")


def _targets(
    spec: FaultSpec, names: Mapping[str, Sequence[str]], everybody: Sequence[str], rng: Random
) -> tuple[str, ...]:
    if not isinstance(spec.targets, str):
        check_targets(spec.kind, spec.targets, names)
        return spec.targets
    group = everybody if spec.group == "any" else list(names.get(spec.group, ()))
    if not group:
        raise SimulationError(f"{spec.kind}: this world has no {spec.group}")
    count = spec.count or max(1, len(group) * (spec.share_ppm or 0) // MILLION)
    drawn = rng.sample(range(len(group)), len(group) if spec.draw else min(count, len(group)))
    chosen = set(drawn[:count])
    return tuple(name for place, name in enumerate(group) if place in chosen)


def _named(group: Sequence[str]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
