"""What the state machines want done: questions to holders, and probes of servers.

Decides only the form. A driver sends each, and hands every one back with its reply exactly once:
`answered(ask, reply)`, with None for no answer in time and ABSENT when the network has no such
replica (fewer nodes than replicas).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from summaries.messages import AtCopy, Message, Question, Salted
from summaries.trie import Prefix

REPLICAS = 3  # search.md: R = 3


@dataclass(frozen=True, slots=True)
class Ask:
    """Send `message` to `holder`, or without one to the `replica`-th nearest node of the prefix's key.

    Nearest means nearest to trie_key(network, epoch, dimension, prefix), counting from 0 and leaving
    out `exclude`; `named` are nodes of whom two told that they hold it. Wait `after_ms` first. A copy of the prefix
    is asked in `group`, whose holders are those nearest to that group's key (copying.py).
    """

    number: int
    dimension: str
    prefix: Prefix
    message: Question
    holder: bytes | None = None
    replica: int = 0
    exclude: tuple[bytes, ...] = ()
    after_ms: int = 0
    named: tuple[bytes, ...] = ()
    group: int = 0
    salt: int = 0  # which of the dimension's tries (salting.py)

    @property
    def sent(self) -> Question:
        """What travels."""
        if self.salt:
            return Salted(self.salt, self.message)  # type: ignore[arg-type]
        return AtCopy(self.message) if self.group else self.message  # type: ignore[arg-type]

    @property
    def key(self) -> int:
        """Which of the prefix's keys its holders are nearest to. Where there are several tries roots have no copies."""
        return self.salt or self.group


class Probe(NamedTuple):
    """Ask the server at `contact` for its current signed advert."""

    number: int
    contact: bytes
    id: int
    seq: int


class Absent:
    """There is no such replica: the network has fewer nodes."""

    __slots__ = ()


ABSENT: Final = Absent()
Outcome = Message | Absent | None
