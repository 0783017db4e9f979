"""What a lookup knows of each contact, and the order in which it would ask them.

Decides nothing: `lookup` moves the states (its diagram has them) and `blame` says who named whom.
"""

from __future__ import annotations

from bisect import bisect

from .contact import Contact

NEW, ASKED, LATE, OVERDUE, ANSWERED, SILENT, FAILED, DOUBTED = range(8)


class Candidate:
    """One contact that the lookup has heard of."""

    __slots__ = ("contact", "distance", "namers", "path", "state")

    def __init__(self, contact: Contact, distance: int, path: Path, namers: list[Candidate] | None) -> None:
        self.contact = contact
        self.distance = distance
        self.path = path
        self.state = NEW
        # Who named it, kept from the first failure on; None for seeds, whom nobody answers for.
        self.namers = namers


class Path:
    """One path's shortlist, nearest first, and how far along it nothing can change any more."""

    __slots__ = ("alpha", "candidates", "distances", "done", "in_flight", "judged", "limit", "settled", "waiting")

    def __init__(self, alpha: int) -> None:
        self.alpha = alpha
        self.candidates: list[Candidate] = []
        self.distances: list[int] = []
        self.in_flight = 0
        self.done = False
        # So many at the head have answered or failed for good, and so many of those answered.
        self.judged = self.settled = 0
        # All up to this distance are asked, and so many of them are awaited; -1 when that is to be found out.
        self.limit = -1
        self.waiting = 0

    def insert(self, candidate: Candidate) -> None:
        """Put a contact into its place."""
        distance = candidate.distance
        at = bisect(self.distances, distance)
        self.distances.insert(at, distance)
        self.candidates.insert(at, candidate)
        if at < self.judged:
            self.judged = self.settled = 0
        if distance <= self.limit:
            self.limit = -1
