"""Who named whom in a lookup, and who is not believed any more.

Decides which contacts only liars have named. Leaves what a failure is to `lookup`. Until there is one nobody needs to
know who named whom: answers are kept as they came, and gone through at the first failure, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .candidates import DOUBTED, NEW, Candidate
from .contact import Contact

# What a failure says of those who named the contact: that another node answers there is nearly always a lie, that
# nobody answers may be an accident, and one that answers speaks for them. At this score nobody believes them more.
HOSTILE_BLAME, SILENT_BLAME, GOOD_CREDIT, MAX_BLAME = 3, 1, 2, 6


class Blame:
    """The answers of one lookup, and the scores of those who gave them."""

    __slots__ = ("_candidates", "_told", "scores")

    def __init__(self, candidates: Mapping[bytes, Candidate | None]) -> None:
        self._candidates = candidates
        self._told: list[tuple[Candidate, Sequence[Contact]]] = []
        # None until the first failure.
        self.scores: dict[Candidate, int] | None = None

    def told(self, namer: Candidate, contacts: Sequence[Contact]) -> None:
        """A good answer: it speaks for those who named its sender, and its sender for those that it names."""
        if self.scores is None:
            self._told.append((namer, contacts))
        else:
            self.judge(namer, -GOOD_CREDIT)
            self._note_namer(namer, contacts, self.scores)

    def judge(self, candidate: Candidate, weight: int) -> None:
        """Credit or blame those who named a contact; what only liars named is not asked."""
        scores = self._begin() if self.scores is None else self.scores
        for namer in candidate.namers or ():
            before = scores.get(namer, 0)
            scores[namer] = before + weight
            if before < MAX_BLAME <= before + weight:
                self._doubt(scores)

    def forget(self) -> None:
        """Let go of all contacts."""
        self._told.clear()
        self.scores = None

    def _begin(self) -> dict[Candidate, int]:
        scores = self.scores = {}
        told, self._told = self._told, []
        for candidate in self._candidates.values():
            if candidate is not None and candidate.namers is not None:
                candidate.namers = []
        for namer, contacts in told:
            self.judge(namer, -GOOD_CREDIT)
            for contact in contacts:
                named = self._candidates.get(contact.node_id)
                if named is not None and named.namers is not None:
                    named.namers.append(namer)
        return scores

    def _note_namer(self, namer: Candidate, contacts: Sequence[Contact], scores: dict[Candidate, int]) -> None:
        for contact in contacts:
            named = self._candidates.get(contact.node_id)
            if named is None or named.namers is None:
                continue
            named.namers.append(namer)
            if named.state == DOUBTED and scores.get(namer, 0) < MAX_BLAME:
                named.state = NEW
                named.path.done = False
                named.path.limit = -1

    def _doubt(self, scores: dict[Candidate, int]) -> None:
        for candidate in self._candidates.values():
            if (
                candidate is not None
                and candidate.state == NEW
                and candidate.namers
                and all(scores.get(namer, 0) >= MAX_BLAME for namer in candidate.namers)
            ):
                candidate.state = DOUBTED
