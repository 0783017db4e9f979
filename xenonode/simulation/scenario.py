"""A scenario: everything that an experiment is made from, apart from its seed.

Decides the tables of a scenario's TOML file, each key's unit, default, bounds and sentence (`Key`), and which keys
contradict each other. Leaves reading the file, and naming what is wrong where, to `scenario_file`; what happens in
the world to `experiment`. Shares are floats in 0..1, since people write them; they become integers where they act.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dht.datagram import MAX_DATAGRAM_BYTES
from xenonode.errors import XenoError
from xenonode.simulation.faults import FaultSpec
from xenonode.simulation.faults.kinds import WORLDS
from xenonode.simulation.measured import LatencyMatrix, Outage

LATENCIES = ("regions", "plane", "matrix")
SIGNATURES = ("simulated", "ed25519")
DISTRIBUTIONS = ("", "exponential", "weibull")
MIX_STEP = "write mix = { conjunction = 4, topk = 1 }, for example"
QUERY_CLASSES = ("conjunction", "union", "topk", "nearest", "cheapest_within")
SWITCHES = {
    "churn.lifetime": ("lifetime_mean_s", "lifetime_shape", "downtime", "downtime_mean_s", "share", "replace"),
    "churn.downtime": ("downtime_shape",),
    "workload.sessions_per_s": ("session_cores", "session_gib_per_core", "session_mean_s", "session_budget_usd"),
    "workload.surge_for_s": ("surge_at_s", "surge_times"),
    "workload.reprice_every_s": ("reprice_step",),
}
"""Keys, and those next to them that do nothing without them: who writes one of these alone believes that it does."""
NODES_MAX = 100_000
"""As many as the light world was designed for; a typing error must not fill the memory."""
DAY_S = 86_400.0
FOREVER_S = 365 * DAY_S


class ScenarioError(XenoError):
    """A scenario that cannot be run; names the file, the key and the next step."""

    def __init__(self, message: str, next_step: str = "", code: str = "scenario") -> None:
        super().__init__(message, next_step or "see 'xenonode simulate --keys' for every key", code)


class ContradictionError(ValueError):
    """Two keys, or a key's values, do not go together; `scenario_file` adds where."""

    def __init__(self, message: str, next_step: str = "change one of the two") -> None:
        super().__init__(message)
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class Key:
    """What a key of the file means: its sentence, its bounds, and which words it takes."""

    about: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def bounds(self) -> str:
        """For people: its least and its most; empty where it has none."""
        return "" if self.least is None else f"{self.least:.15g}..{self.most:.15g}"

    def holds(self, number: float) -> bool:
        """Whether a number is within them; NaN never is."""
        return self.least is None or self.most is None or self.least <= number <= self.most


def _key(default: Any, about: str, least: float | None = None, most: float | None = None, *choices: str) -> Any:
    metadata = {"key": Key(about, least, most, choices)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Who takes part."""

    servers: int = _key(10, "XenoServers (kind peers: search peers)", 1, NODES_MAX)
    fleet: int = _key(0, "further machines that the servers' owners advertise through them", 0, NODES_MAX)
    clients: int = _key(2, "clients, who search and lease", 1, NODES_MAX)
    dimensions: int = _key(11, "dimensions that are indexed, a DHT each; fewer only for kind peers", 7, 11)
    established: bool = _key(False, "everybody's first advert stands at the begin, unpublished; only for kind peers")
    leaf_capacity: int = _key(16, "rows a leaf holds before it splits; real networks have 64", 2, 4096)
    advert_period_s: float = _key(0.0, "how often servers advertise anew, 1 to 300; 0: 60, for kind peers 300", 0, 300)
    credit_usd: int = _key(1000, "what each client's account begins with", 1, 10**6)


@dataclass(frozen=True, slots=True)
class NetworkModel:
    """What lies between the nodes."""

    latency: str = _key("regions", "where latencies come from", None, None, *LATENCIES)
    matrix: LatencyMatrix | None = _key(  # noqa: RUF009  # a field: it is made once, and never changed
        None, "CSV file (.gz too) of round trips in ms, a row a node"
    )
    jitter_ms: float = _key(0.5, "added evenly from 0 up to this, one way", 0, 60_000)
    loss: float = _key(0.0, "share of datagrams that are lost", 0, 1)
    duplication: float = _key(0.0, "share that arrives twice", 0, 1)
    reorder: float = _key(0.0, "share that is held back, so that later ones overtake it", 0, 1)
    reorder_ms: float = _key(50.0, "by up to so long", 0, 60_000)
    corruption: float = _key(0.0, "share of datagrams with one bit flipped", 0, 1)
    mtu_bytes: int = _key(65_507, "longer datagrams vanish; below 1200 no handshake fits", MAX_DATAGRAM_BYTES, 65_507)
    bandwidth_bit_per_s: int = _key(0, "each sender's uplink; 0 is no limit", 0, 10**12)
    signatures: str = _key("simulated", "what all sign with; ed25519, as live, takes longer", None, None, *SIGNATURES)

    def __post_init__(self) -> None:
        if (self.latency == "matrix") != (self.matrix is not None):
            raise ContradictionError('matrix = "FILE" and latency = "matrix" go together')


@dataclass(frozen=True, slots=True)
class Churn:
    """How servers go away and come back, apart from faults that are planned."""

    lifetime: str = _key("", "distribution of how long a server stays; empty: for ever", None, None, *DISTRIBUTIONS)
    lifetime_mean_s: float = _key(3600.0, "mean time until a server vanishes", 1, FOREVER_S)
    lifetime_shape: float = _key(0.6, "shape of a Weibull lifetime; below 1 the old stay longer", 0.1, 10)
    downtime: str = _key("exponential", "distribution of how long it is away", None, None, *DISTRIBUTIONS[1:])
    downtime_mean_s: float = _key(120.0, "mean time until it is back", 1, FOREVER_S)
    downtime_shape: float = _key(0.6, "shape of a Weibull downtime", 0.1, 10)
    share: float = _key(1.0, "share of the servers that churn; the others stay", 0, 1)
    replace: bool = _key(False, "who left never returns: a new server, with a new key, takes its place")
    trace: tuple[Outage, ...] = _key(
        (), "CSV file with the columns server, down_s, up_s, in the place of all above; of those before the end"
    )

    def __post_init__(self) -> None:
        if self.trace and self.lifetime:
            raise ContradictionError("either a trace or a lifetime, not both")


@dataclass(frozen=True, slots=True)
class Workload:
    """What clients want. Arrivals are open-loop: they do not wait for one another."""

    queries_per_s: float = _key(0.2, "searches a second, of all clients together (a Poisson process)", 0, 10_000)
    mix: Mapping[str, float] = _key(
        {"conjunction": 1.0}, "weights of the classes of queries", None, None, *QUERY_CLASSES
    )
    strict: bool = _key(True, "searches read two of three replicas")
    sessions_per_s: float = _key(0.0, "sessions a second that begin, of all clients together", 0, 1_000)
    session_cores: tuple[float, ...] = _key((0.25, 2.0), "least and most CPU of a session, in cores", 0.01, 4096)
    session_gib_per_core: float = _key(2.0, "memory of a session, for each of its cores", 0.1, 64)
    session_mean_s: float = _key(120.0, "mean length of a session (exponential)", 5, 30 * DAY_S)
    session_budget_usd: float = _key(5.0, "money of the order that pays for a session", 0.01, 10**6)
    surge_at_s: float = _key(0.0, "when a flash crowd begins: arrivals are multiplied from then", 0, FOREVER_S)
    surge_for_s: float = _key(0.0, "how long the crowd stays; 0: there is none", 0, FOREVER_S)
    surge_times: float = _key(10.0, "by how much arrivals are multiplied", 1, 10_000)
    reprice_every_s: float = _key(0.0, "how often servers set their prices anew; 0: never", 0, FOREVER_S)
    reprice_step: float = _key(0.05, "an idle server lowers its prices by this share, a full one raises them", 0, 0.9)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.mix) - set(QUERY_CLASSES))
        if unknown:
            raise ContradictionError(f"mix: {', '.join(unknown)} is none of {', '.join(QUERY_CLASSES)}", MIX_STEP)
        if any(not weight >= 0 for weight in self.mix.values()) or not 0 < sum(self.mix.values()) < math.inf:
            raise ContradictionError("mix: weights are not negative, and at least one is above 0", MIX_STEP)
        if len(self.session_cores) != 2 or self.session_cores[0] > self.session_cores[1]:
            raise ContradictionError("session_cores is [least, most]", "write session_cores = [0.25, 2.0], for example")


@dataclass(frozen=True, slots=True)
class Checks:
    """When a run has failed."""

    recall_least: float = _key(0.0, "least mean recall of all queries", 0, 1)
    quiet_recall_least: float = _key(1.0, "least recall of each query that is asked once all is quiet", 0, 1)
    quiet_queries: int = _key(5, "queries asked after the quiet", 0, 10_000)
    quiet_s: float = _key(180.0, "quiet at the end, two periods of adverts and more", 0, DAY_S)
    answered_least: float = _key(0.0, "least share of queries that are answered at all", 0, 1)
    sessions_least: float = _key(0.0, "least share of sessions that ran to their settled end", 0, 1)
    invariants: bool = _key(True, "watch the invariants that hold always, and those that hold after the quiet")
    watch_every_s: float = _key(10.0, "how often", 0.1, DAY_S)


@dataclass(frozen=True, slots=True)
class Scenario:
    """See the module. `faults` are [[fault]] tables, `sweep` the grid of keys that a sweep walks through."""

    name: str
    shows: str = _key("", "one sentence: what this scenario shows")
    costs: str = _key("", "what one of its runs took, where it was measured; for whoever chooses")
    kind: str = _key("platform", "platform: all of it; peers: search peers alone, many of them", None, None, *WORLDS)
    duration_s: float = _key(300.0, "virtual time, from when all have joined to when the quiet begins", 1, FOREVER_S)
    sample_every_s: float = _key(10.0, "virtual time between two samples of the series", 0.1, DAY_S)
    nodes: Nodes = field(default_factory=Nodes)
    network: NetworkModel = field(default_factory=NetworkModel)
    churn: Churn = field(default_factory=Churn)
    workload: Workload = field(default_factory=Workload)
    checks: Checks = field(default_factory=Checks)
    faults: tuple[FaultSpec, ...] = ()
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for wrong, told in self._contradictions():
            if wrong:
                raise ContradictionError(told)

    def _contradictions(self) -> Iterator[tuple[object, str]]:
        nodes, workload = self.nodes, self.workload
        yield 0 < nodes.advert_period_s < 1, "nodes.advert_period_s is 0 (as usual), or 1 to 300"
        if self.kind == "platform":
            yield nodes.dimensions != 11, 'nodes.dimensions below 11 needs kind = "peers": the platform has eleven'
            yield nodes.established, 'nodes.established needs kind = "peers": the servers of the platform publish'
        else:
            yield nodes.fleet, 'nodes.fleet needs kind = "platform": a peer has one machine'
            yield workload.sessions_per_s, 'workload.sessions_per_s needs kind = "platform": peers have no XenoCorp'
            yield workload.reprice_every_s, 'workload.reprice_every_s needs kind = "platform": peers sell nothing'
        yield (
            nodes.fleet and workload.sessions_per_s,
            "nodes.fleet and workload.sessions_per_s: machines of a fleet advertise, but host no sessions",
        )
        churn = self.churn
        replaced = churn.lifetime and churn.replace
        lasting = replaced or any(not outage.up_s for outage in churn.trace)
        struck = [fault.kind for fault in self.faults if fault.group in ("servers", "any")]
        yield (
            lasting and struck,
            f"fault {struck and struck[0]!r} strikes servers, and by churn some leave for ever: target clients or corp",
        )
        traced = [outage.server for outage in churn.trace if outage.server >= nodes.servers]
        yield traced, f"churn.trace names server {traced and traced[0]}, but nodes.servers is {nodes.servers}"
        end_s = self.duration_s
        late = min((outage.down_s for outage in churn.trace), default=0) >= end_s
        yield late, f"churn.trace has no outage that begins before the end, duration_s = {end_s:g}"
        late = bool(workload.surge_for_s) and workload.surge_at_s >= end_s
        yield late, f"workload.surge_at_s = {workload.surge_at_s:g} is not before the end, duration_s = {end_s:g}"

    def fields(self) -> dict[str, Any]:
        """All that a result depends on, as JSON has it; files by their content."""
        told = {name: getattr(self, name) for name in ("kind", "duration_s", "sample_every_s")}
        told |= {name: _plain(getattr(self, name)) for name in ("nodes", "network", "churn", "workload", "checks")}
        return told | {"faults": [dataclasses.asdict(fault) for fault in self.faults]}

    @property
    def advert_period_ms(self) -> int:
        """How often servers advertise anew."""
        usual_s = 300.0 if self.kind == "peers" else 60.0
        return round(1_000 * (self.nodes.advert_period_s or usual_s))

    def names(self) -> dict[str, list[str]]:
        """The hosts that the world begins with, by group, as faults name them."""
        servers, clients = range(self.nodes.servers), [f"client-{number}" for number in range(self.nodes.clients)]
        if self.kind == "peers":
            return {"servers": [f"peer-{number}" for number in servers], "clients": clients}
        return {"corp": ["corp"], "servers": [f"server-{number}" for number in servers], "clients": clients}

    def digest(self) -> str:
        """One text for one experiment: equal where, and only where, `fields` are."""
        text = json.dumps(self.fields(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16, person=b"xeno-scenario").hexdigest()


def _plain(table: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in dataclasses.fields(table):
        value = getattr(table, each.name)
        if isinstance(value, LatencyMatrix):
            value = value.digest
        elif each.name == "trace":
            value = [dataclasses.astuple(outage) for outage in value]
        elif isinstance(value, tuple):
            value = list(value)
        found[each.name] = dict(sorted(value.items())) if isinstance(value, Mapping) else value
    return found
