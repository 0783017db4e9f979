"""What came of a run: its figures, and whether it passed; and how a failure is told so that it can be replayed.

Decides the shape of results, as rows of plain values. Leaves writing them to `results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PASSED, BROKEN, ERROR = "passed", "broken", "error"
"""All checks held; one did not; the run itself went wrong (a task failed, nothing could go on, a mistake of ours)."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a run failed, or that it passed."""

    status: str = PASSED
    check: str = ""  # the name of what did not hold
    detail: str = ""
    virtual_s: float = 0.0
    last_events: tuple[str, ...] = ()
    last_packets: tuple[str, ...] = ()
    trace: str = ""  # the traceback of a mistake

    @property
    def passed(self) -> bool:
        """Whether all checks held."""
        return self.status == PASSED


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run: scalars in `row`, the rest as tables. All of it follows from scenario, seed and version."""

    row: Row
    series: list[Row]
    queries: list[Row]
    sessions: list[Row]
    nodes: list[Row]
    faults: list[Row]  # what was planned, and what of it struck; the replay of a shrunk run reads them
    fault_kinds: list[Row]  # the same by kind: injections planned, those that met anything, and how often they did
    verdict: Verdict = field(default_factory=Verdict)

    def to_fields(self) -> dict[str, Any]:
        """As JSON."""
        verdict = {name: getattr(self.verdict, name) for name in Verdict.__slots__}
        tables = {name: getattr(self, name) for name in TABLES}
        return {"row": self.row, **tables, "verdict": verdict}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> RunResult:
        """What `to_fields` wrote. Raises KeyError or TypeError for anything else."""
        verdict = dict(fields["verdict"])
        for name in ("last_events", "last_packets"):
            verdict[name] = tuple(verdict[name])
        return cls(fields["row"], **{name: fields[name] for name in TABLES}, verdict=Verdict(**verdict))


COLUMNS = {
    "series": (
        "t_s", "servers_up", "rpcs", "datagrams", "lost", "queries", "recall", "sessions", "sessions_open",
        "sessions_settled", "paid_usd", "adverts", "free_cores", "price_mean_usd", "price_least_usd", "load_most",
        "load_mean",
    ),
    "queries": (
        "t_s", "client", "class", "quiet", "query", "answered", "expected", "found", "hits", "stale", "recall",
        "complete", "rpcs", "rounds", "duration_ms", "error",
    ),
    "sessions": (
        "number", "client", "arrived_s", "cores", "wanted_s", "state", "reason", "server", "tried", "open_s",
        "ended_s", "price_usd", "paid_usd",
    ),
    "nodes": ("node", "sent"),
    "faults": ("kind", "at_ms", "for_ms", "targets", "parameters", "bit"),
    "fault_kinds": ("kind", "planned", "struck", "bit"),
}  # fmt: skip
"""What a table's rows have, whatever happened: one without rows still says what it would hold."""
TABLES = tuple(COLUMNS)
