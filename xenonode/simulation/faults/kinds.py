"""The kinds of faults: what each does, to whom, with which parameters. A scenario's [[fault]] tables name them.

Decides names, defaults and the worlds that know a kind. Leaves when and whom to `plan`, doing it to `inject`.
Amounts are integers with their unit last, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xenonode.simulation.errors import SimulationError
from xenonode.simulation.network import MILLION

PLATFORM, PEERS = "platform", "peers"
GROUPS = ("servers", "clients", "corp", "any")
WORLDS = (PLATFORM, PEERS)
CORP = ("corp",)
DAY_MS = 86_400_000
BOUNDS = {
    "_ppm": (0, 1_000_000),
    "_us": (0, 600_000_000),
    "mtu_bytes": (0, 65_507),
    "skew_ms": (-365 * DAY_MS, 365 * DAY_MS),
    "jump_ms": (-365 * DAY_MS, 365 * DAY_MS),
    "_ms": (0, DAY_MS),
    "times": (1, 10_000),
    "live": (0, 1),
    "after_writes": (0, 1_000_000),
}
"""What a parameter may be, by how its name ends; the first that fits."""
LEDGER_ROT = "ledger_bit_rot"
LOSING_FILES = frozenset({"cold_restart", "disk_bit_rot"})
"""Whom these strike may come back without what it knew of its sessions."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: a sentence for help, whom it may strike (the first group by default), and its parameters' defaults."""

    name: str
    family: str
    sentence: str
    groups: tuple[str, ...] = ("servers",)
    parameters: Mapping[str, int] = field(default_factory=dict)
    worlds: tuple[str, ...] = WORLDS


def _network(name: str, sentence: str, **parameters: int) -> Kind:
    return Kind(name, "network", sentence, ("any", "servers", "clients", "corp"), parameters)


def _node(name: str, sentence: str, *groups: str, **parameters: int) -> Kind:
    worlds = (PLATFORM,) if groups == CORP else WORLDS
    return Kind(name, "node", sentence, groups or ("servers", "corp"), parameters, worlds)


def _disk(name: str, sentence: str, *groups: str, **parameters: int) -> Kind:
    worlds = (PLATFORM,) if groups == CORP else WORLDS
    return Kind(name, "disk", sentence, groups or ("servers", "corp"), parameters, worlds)


def _byzantine(name: str, sentence: str, **parameters: int) -> Kind:
    return Kind(name, "byzantine", sentence, ("servers",), parameters)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _network("loss", "Packets to and from the targets are lost.", loss_ppm=100_000),
        _network("duplication", "Datagrams arrive twice.", duplicate_ppm=50_000),
        _network("reordering", "Packets are held back, and later ones overtake them.", reorder_ppm=200_000),
        _network("corruption", "One bit of a datagram is flipped.", corrupt_ppm=30_000),
        _network("delay", "Every packet is late by so much.", extra_us=400_000),
        _network("clog", "Packets wait, and arrive all at once when it is over."),
        _network("swizzle", "The targets are clogged one after the other, and freed in another order."),
        _network("partition", "The targets and all others hear nothing of each other."),
        _network("partition_one_way", "The targets hear all others, who hear nothing of the targets."),
        _network("partition_regional", "All hosts in the targets' regions are parted from all others."),
        _network("mtu", "Longer datagrams vanish.", mtu_bytes=576),
        _network("nat", "Datagrams reach the targets only from where they sent some first."),
        _node("crash", "Power fails; the node comes back with its disk."),
        _node("crash_loop", "Power fails again and again.", times=3, up_ms=4_000),
        _node("cold_restart", "Power fails; the node comes back with an empty disk.", "servers"),
        _node("pause", "Nothing of the node runs; then all that waited does.", "servers", "corp", "clients"),
        _node("slow_cpu", "Each callback takes so long.", "servers", "corp", step_us=1_000),
        _node("clock_skew", "The clock is wrong by so much, within what is tolerated.", skew_ms=60_000),
        _node("clock_jump", "The clock jumps, beyond what is tolerated, and later back.", "servers", jump_ms=-600_000),
        _node("address_change", "The node comes back under another address; live=1: it runs on.", "servers", live=0),
        _node("churn", "Nodes stop in order, or crash, and come back, one after the other.", "servers", away_ms=15_000),
        _node("corp_away", "XenoCorp crashes, and comes back on its ledger.", "corp"),
        _disk("disk_lost_write", "Power fails in a write of which nothing is left.", after_writes=2),
        _disk("disk_torn_write", "Power fails in a write of which a beginning is left.", after_writes=2),
        _disk("disk_bit_rot", "A bit of a file is flipped while the node is down."),
        _disk("disk_full", "No write finds room."),
        _disk(LEDGER_ROT, "A bit of the ledger flips while XenoCorp is down; if it sees it, a backup returns.", *CORP),
        _byzantine("silent", "Requests are heard, and never answered."),
        _byzantine("closest_wrong", "Lookups are told of those farthest from what they look for."),
        _byzantine("closest_colluding", "Lookups are told of the targets only."),
        _byzantine("eclipse", "Lookups are told of made-up ids next to what they look for."),
        _byzantine("adverts_forged", "Adverts with broken signatures are inserted, and shown to searches."),
        _byzantine("adverts_replayed", "Adverts that others replaced are inserted again."),
        _byzantine("adverts_expired", "Adverts of yesterday are inserted, under tomorrow's numbers."),
        _byzantine("summaries_empty", "Aggregation points and leaves say that there is nothing."),
        _byzantine("summaries_full", "Parents are told of zones that exclude nobody."),
        _byzantine("summaries_stale", "What was said first of a trie node is said for ever."),
        _byzantine("summaries_forged", "Leaves name servers that do not exist, parents hear of zones too narrow."),
        _byzantine("equivocation", "Two adverts are signed and published under one sequence number."),
        _byzantine("store_flood", "Records are stored by the hundred, under made-up keys as well."),
    )
}


def bounds_of(parameter: str) -> tuple[int, int]:
    """The least and the most that a parameter of a fault may be."""
    return next(bounds for end, bounds in BOUNDS.items() if parameter.endswith(end))


def _kind(name: str, parameters: Mapping[str, int]) -> Kind:
    kind = KINDS.get(name)
    if kind is None:
        raise SimulationError(f"there is no fault {name!r}; there are: {', '.join(KINDS)}")
    unknown = sorted(set(parameters) - set(kind.parameters))
    if unknown:
        known = ", ".join(kind.parameters) or "none"
        raise SimulationError(f"{name} has no parameter {unknown[0]!r}; it has: {known}")
    for parameter, value in parameters.items():
        least, most = bounds_of(parameter)
        if not least <= value <= most:
            raise SimulationError(f"{name}: {parameter} must be in {least}..{most}, not {value}")
    return kind


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """One [[fault]] table: from `at_s` for `for_s` seconds, again every `every_s` (0: once).

    `targets` is a group or names of hosts; of a group `count` are drawn (1 where neither is given), or a share of it in
    millionths: of 0 nobody, of any other at least one. Each time others; with a `draw`, a name, always the same, whom
    all specs of that name strike: of fewer, some of them.
    """

    kind: str
    at_s: float = 0.0
    for_s: float = 10.0
    every_s: float = 0.0
    targets: str | tuple[str, ...] = ""
    count: int | None = None
    share_ppm: int | None = None
    draw: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind = _kind(self.kind, self.parameters)
        if min(self.at_s, self.for_s, self.every_s) < 0 or (self.every_s and self.every_s < self.for_s):
            raise SimulationError(f"{self.kind}: times must not be below 0, nor every_s below for_s")
        if (self.count is not None and self.count < 1) or not 0 <= (self.share_ppm or 0) <= MILLION:
            raise SimulationError(f"{self.kind}: count is at least 1, a share 0 to 1")
        if self.count is not None and self.share_ppm is not None:
            raise SimulationError(f"{self.kind}: either count or share, not both")
        if not isinstance(self.targets, str) and (self.count, self.share_ppm, self.draw) != (None, None, ""):
            raise SimulationError(f"{self.kind}: count, share and draw are of a group, and its targets are named")
        if isinstance(self.targets, str) and self.targets and self.targets not in kind.groups:
            told = f"{self.kind} strikes {' or '.join(kind.groups)}, not {self.targets!r}"
            raise SimulationError(f"{told}; hosts are named in a list: [{self.targets!r}]")

    @property
    def group(self) -> str:
        """The group that targets are drawn from."""
        return self.targets if isinstance(self.targets, str) and self.targets else KINDS[self.kind].groups[0]


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault at one time to these hosts; plain values, so that a failing list of them can be kept and shrunk."""

    kind: str
    at_ms: int
    for_ms: int
    targets: tuple[str, ...]
    parameters: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _kind(self.kind, self.parameters)
        if min(self.at_ms, self.for_ms) < 0:
            raise SimulationError(f"{self.kind}: times must not be below 0")
        if not self.targets:
            raise SimulationError(f"{self.kind}: it has no targets")

    def parameter(self, name: str) -> int:
        """A parameter, or its default."""
        return self.parameters.get(name, KINDS[self.kind].parameters[name])

    def to_fields(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kind": self.kind,
            "at_ms": self.at_ms,
            "for_ms": self.for_ms,
            "targets": list(self.targets),
            "parameters": dict(self.parameters),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Injection:
        """From what `to_fields` gave."""
        return cls(
            str(fields["kind"]),
            int(fields["at_ms"]),
            int(fields["for_ms"]),
            tuple(fields["targets"]),
            {name: int(value) for name, value in dict(fields["parameters"]).items()},
        )

    def __str__(self) -> str:
        return f"{self.kind} of {', '.join(self.targets)} from {self.at_ms / 1000:.3f} s for {self.for_ms / 1000:.3f} s"
