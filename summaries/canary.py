"""A publisher looks for itself: whether those who acknowledged its advert show it to readers.

Decides what is asked of whom, and what an answer proves. Each holder of the leaf, of every aggregation point above it,
and of one of the root's copies is asked what a reader of a common kind would ask: a few ranges around the advert's own
values, wider by chance, so that the question does not tell who asks. A holder that answers whole and shows neither the
row nor a child on the way to it hides it; so does one that shows a row older than what was acknowledged. Silence proves
nothing, nor does an answer of several pages. Answers are nobody's proof to others: what one publisher saw is one voice
among those of all whose rows a holder should show, and an honest holder that missed one row is outvoted by the rest.

    start() -> asks, each to a named holder;  answered(ask, reply);  finished -> seen: holder -> whether it shows us
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from summaries.asks import Ask, Outcome
from summaries.filter import Comparison, Filter
from summaries.messages import Answer, NotReady, Read
from summaries.point import Point
from summaries.publish import Posting
from summaries.query import Query, conjunction, filter_of
from summaries.rank import Order
from summaries.trie import ROOT, Prefix

ATTRIBUTES = ("cores", "cpu.available", "memory.available", "disk.available", "net.available", "uptime")
RANGES = 2  # as most questions have; more would make the answer short, and the question rare
WIDEST = 0.3  # of a value, to each side
MAX_RETRIES = 2  # of a holder that is not ready


def way(leaf: Prefix) -> list[Prefix]:
    """A leaf and all that summarises it, up to the root."""
    found = [leaf]
    while (parent := found[-1].parent) is not None:
        found.append(parent)
    return found


class Canary:
    """One posting of one advert, looked for at `holders` of its way. `acknowledged_seq`: no older row will do.

    `copied` are the holders of the root's copy in `group`; `salt` says in which of the dimension's tries.
    """

    def __init__(
        self,
        dimension: str,
        point: Point,
        posting: Posting,
        acknowledged_seq: int,
        holders: Mapping[Prefix, Sequence[bytes]],
        rng: Random,
        copied: Sequence[bytes] = (),
        group: int = 0,
        salt: int = 0,
    ) -> None:
        self.seen: dict[bytes, bool] = {}
        self._dimension, self._point, self._posting, self._least_seq = dimension, point, posting, acknowledged_seq
        self._holders, self._rng, self._copied, self._group, self._salt = holders, rng, copied, group, salt
        self._open: dict[int, int] = {}  # by the ask's number: how often it was sent again

    def start(self) -> list[Ask]:
        """One question for each holder, in an order that does not tell what they have in common."""
        filter_ = self._filter()
        whom = [(prefix, one, 0) for prefix in way(self._posting.leaf) for one in self._holders.get(prefix, ())]
        whom += [(ROOT, one, self._group) for one in self._copied]
        asks = []
        for number, (prefix, holder, group) in enumerate(whom):
            self._open[number] = 0
            question = Read(prefix, filter_, Order(), 0, holders=2)
            asks.append(Ask(number, self._dimension, prefix, question, holder, group=group, salt=self._salt))
        self._rng.shuffle(asks)
        return asks

    def answered(self, ask: Ask, reply: Outcome) -> list[Ask]:
        """Take in what one holder said."""
        times = self._open.pop(ask.number, None)
        if times is None or ask.holder is None:
            return []
        if isinstance(reply, NotReady) and times < MAX_RETRIES:
            self._open[ask.number] = times + 1
            return [replace(ask, after_ms=reply.retry_ms)]
        if isinstance(reply, Answer) and reply.prefix == ask.prefix:
            shows = self._shows(reply)
            if shows is not None:
                self.seen[ask.holder] = shows and self.seen.get(ask.holder, True)
        return []

    @property
    def finished(self) -> bool:
        return not self._open

    def _shows(self, answer: Answer) -> bool | None:
        """Whether an answer leads a reader to the advert; None where it has further pages."""
        if any(child.prefix.contains(self._posting.key) for child in answer.children):
            return True
        if any(row.id == self._point.id and row.seq >= self._least_seq for row in answer.rows):
            return True
        return False if len(answer.children) + len(answer.rows) >= answer.total else None

    def _filter(self) -> Filter:
        values = self._point.attributes
        numbers = {name: value for name in ATTRIBUTES if isinstance(value := values.get(name), int) and value}
        ranges = []
        for name in self._rng.sample(sorted(numbers), min(RANGES, len(numbers))):
            value = numbers[name]
            low = value - int(value * self._rng.uniform(0.0, WIDEST))
            high = value + int(value * self._rng.uniform(0.0, WIDEST))
            ranges += [Comparison(name, ">=", low), Comparison(name, "<=", high)]
        found, _ = filter_of(Query(conjunction(*ranges)))
        return found
