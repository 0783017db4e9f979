"""What a search found, and what it cost.

Decides the form of a result. What counts as complete stands here, too: nothing unreachable, nothing unverified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from summaries.idset import IdSet
from summaries.point import Point
from summaries.trie import Prefix


class Match(NamedTuple):
    """One advert that matches. Without a finish step, `point` is None and the row is hearsay."""

    id: int
    seq: int
    rank: int
    contact: bytes
    point: Point | None = None
    advert: bytes = b""
    round_trip_us: int | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What a search cost. `rounds` is the longest chain of questions that had to wait for another."""

    rpcs: int = 0
    rounds: int = 0
    aggregation_points: int = 0
    leaves: int = 0
    pruned: int = 0
    probes: int = 0
    rejected: int = 0  # candidates whose current advert does not match, or is gone
    root_age_ms: int = 0  # how old the oldest root was that was believed, or confirmed by digest


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`unreachable` names (dimension, prefix) of what could not be read by enough replicas."""

    matches: tuple[Match, ...]
    counts: Counts
    unreachable: tuple[tuple[str, Prefix], ...]
    unverified: tuple[int, ...]  # ids that match by a row, whose advert nobody would show
    least_total: int
    most_total: int

    @property
    def complete(self) -> bool:
        return not self.unreachable and not self.unverified

    def ids(self) -> IdSet:
        return IdSet(match.id for match in self.matches)


@dataclass(slots=True)
class Tally:
    """Counts while they are being counted."""

    rpcs: int = 0
    rounds: int = 0
    aggregation_points: int = 0
    leaves: int = 0
    pruned: int = 0
    probes: int = 0
    rejected: int = 0
    root_age_ms: int = 0

    def counts(self) -> Counts:
        return Counts(
            self.rpcs, self.rounds, self.aggregation_points, self.leaves, self.pruned, self.probes, self.rejected,
            self.root_age_ms,
        )  # fmt: skip
