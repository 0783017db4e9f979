"""What a holder wants sent, and what it remembers of questions that are not answered yet.

Decides the form of a holder's actions and the bookkeeping of its pushes and recoveries; holder.py
decides what they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from summaries.asks import REPLICAS
from summaries.claims import Claims
from summaries.messages import Question, Result
from summaries.point import Point
from summaries.trie import Prefix

MAX_PAGES = 128  # of one holder's digest: a leaf of twice its capacity (2,048) takes 118
MAX_GENERATIONS = 4  # attempts of one recovery to learn everything: about ten seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request that `received` was given."""

    request: object
    message: Result


@dataclass(frozen=True, slots=True)
class Push:
    """Ask `to`, or each of the R nodes nearest the prefix's key (this one too, if it is among them).

    Whoever of these is in `have` has what this brings: it is not asked, and counts as if it had answered Accepted. That
    is to be told later, not from within the call that returned this.
    """

    token: int
    prefix: Prefix
    message: Question
    to: bytes | None = None
    group: int = 0  # whose key: that of a copy, or 0 for the prefix's own
    have: tuple[bytes, ...] = ()


Action = Reply | Push
Verify = Callable[[bytes, int], Point | None]


def quorum(replicas: int) -> int:
    """How many of R replicas make a write durable: any two quorums share a member."""
    return replicas // 2 + 1


@dataclass(slots=True)
class Pending:
    """A push in flight and who answered it."""

    prefix: Prefix
    since_ms: int
    message: Question
    heard: set[bytes]
    agreed: int = 0
    failed: int = 0
    hops: int = 0  # Moved answers followed; for a recovery's questions: its generation
    wanted: dict[bytes, tuple[int, ...]] = field(default_factory=dict)  # of an offer: what each said that it lacks
    row: tuple[int, int, int] | None = None  # (id, key, seq) of a row that is being handed over


class Recovery:
    """What a starting trie node still waits for."""

    __slots__ = (
        "answers", "asked", "asking", "claims", "failed", "generation", "lost", "open", "others", "pages",
    )  # fmt: skip

    def __init__(self) -> None:
        self.generation = 0
        self.restart()

    def restart(self) -> None:
        self.generation += 1
        self.asking, self.lost = False, False
        self.asked = self.answers = self.others = self.failed = self.open = 0
        self.pages: dict[bytes, int] = {}  # asked for, by sender: nobody's many cost another's
        self.claims = Claims()

    @property
    def suffices(self) -> bool:
        """Whether every acknowledged row has been learnt: two of three have each, and we may have been one of the two.

        So no more may be silent than a quorum can do without, and every page and advert must have come. Of a root many
        more are asked than hold it: strangers, who know nothing of it, make up for no holder's silence. After a few
        attempts one other is enough: a replica that never becomes ready would make every answer partial.
        """
        if self.generation < MAX_GENERATIONS:
            replicas, among_them = min(self.asked, REPLICAS), self.asked != self.others
            return not self.lost and self.failed <= max(0, replicas - quorum(replicas) - among_them)
        return self.others - self.failed >= min(1, self.others)
