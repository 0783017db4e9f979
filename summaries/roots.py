"""Roots that were read lately: every search starts there, so remembering one saves a round and its questions.

Decides what is remembered (each child's whole zone, so that any query can be judged against it), for how long, and
what a filter lets through: the same as the root's holder would. A relaxed search believes it and says how old it was;
a strict one asks the root's holders for the digest of what passes, while it already reads below.

    RootReading: start() -> asks;  answered(ask, reply) -> more;  finished -> view, or None
"""

from __future__ import annotations

from dataclasses import dataclass, field

from summaries.asks import REPLICAS, Ask, Outcome
from summaries.filter import CompiledFilter
from summaries.messages import Child, NotReady, Outline, Outlined, Overview
from summaries.rank import Order
from summaries.schema import Schema
from summaries.trie import ROOT

ROOT_LIFE_MS = 15_000  # search.md: TTL 15 s
MAX_PAGES = 32  # a root has 64 children, nine or so a datagram; splitting ones make no difference
MAX_TRIES = 3


@dataclass(frozen=True, slots=True)
class RootView:
    """One dimension's root as it was at `read_ms`. One with rows of its own is read anew by every search."""

    dimension: str
    read_ms: int
    children: tuple[Outlined, ...]
    has_rows: bool = False
    salt: int = 0  # whose trie of the dimension

    def is_fresh(self, now_ms: int) -> bool:
        return 0 <= now_ms - self.read_ms < ROOT_LIFE_MS

    def leaves(self, condition: CompiledFilter) -> int:
        """How many leaves pass."""
        return sum(one.zone.leaves for one in self.children if condition.passes(one.zone))

    def passing(self, schema: Schema, condition: CompiledFilter, order: Order) -> list[tuple[Child, int]]:
        """The children that a holder of the root would name, with the same bounds; and the marks of their holders."""
        found = []
        for one in self.children:
            if condition.passes(one.zone):
                bound, zone = order.bound(schema, one.zone), one.zone
                child = Child(one.prefix, bound, zone.count, zone.leaves, one.known_holders, one.holders)
                found.append((child, one.mark))
        return found


@dataclass(slots=True)
class RootReading:
    """Reads one root whole, for the sake of later searches."""

    dimension: str
    turn: int = 0
    group: int = 0  # of the root's holders; where it does not answer the root's own are asked
    salt: int = 0  # which of the dimension's tries
    view: RootView | None = None
    finished: bool = False
    _number: int = 0
    _open: int = 0
    _tries: int = 0
    _has_rows: bool = False
    _pages: dict[int, tuple[Outlined, ...]] = field(default_factory=dict)
    _total: int | None = None
    _now_ms: int = 0

    def start(self, now_ms: int) -> list[Ask]:
        self._now_ms = now_ms
        return [self._ask(0)]

    def answered(self, ask: Ask, reply: Outcome) -> list[Ask]:
        """Take in a page (None: no answer)."""
        self._open -= 1
        asks: list[Ask] = []
        if isinstance(reply, Outline) and isinstance(ask.message, Overview):
            asks = self._take(ask.message.first, reply)
        elif self._total is None and self._tries < MAX_TRIES:
            self._tries += 1
            self.turn += 1
            self.group = 0
            wait_ms = reply.retry_ms if isinstance(reply, NotReady) and not ask.group else 0
            asks = [self._ask(0, wait_ms)]
        if not self._open:
            self._conclude()
        return asks

    def _take(self, first: int, page: Outline) -> list[Ask]:
        self._has_rows = self._has_rows or page.has_rows
        self._pages[first] = page.children
        here = first + len(page.children)
        if self._total is None:
            self._total = page.total
            step = max(len(page.children), 1)
            return [self._ask(start) for start in range(here, page.total, step)[:MAX_PAGES]]
        rest = here not in self._pages and here < self._total and bool(page.children) and len(self._pages) < MAX_PAGES
        return [self._ask(here)] if rest else []

    def _conclude(self) -> None:
        self.finished = True
        children = {one.prefix: one for first in sorted(self._pages) for one in self._pages[first]}
        if self._total is not None and len(children) == self._total and children:
            ordered = tuple(children[prefix] for prefix in sorted(children))
            self.view = RootView(self.dimension, self._now_ms, ordered, self._has_rows, self.salt)

    def _ask(self, first: int, after_ms: int = 0) -> Ask:
        self._number += 1
        self._open += 1
        question, replica = Overview(ROOT, first), self.turn % REPLICAS
        return Ask(
            self._number, self.dimension, ROOT, question, None, replica, (), after_ms, group=self.group, salt=self.salt
        )
