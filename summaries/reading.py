"""One replica's answer being read: its first page, then all others at once.

Decides which items to ask for next, and whether the pages fit together: all must carry the digest of the same
whole, else something changed in between and the answer is read anew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from summaries.messages import Answer
from summaries.trie import Prefix
from summaries.visit import Source, Visit

MAX_PAGES = 256  # of one replica's answer: 10,000 rows, twenty times a full leaf
MAX_PAGES_AT_ONCE = 32  # 35 kB: within what a socket buffers
MAX_RETRIES = 3  # of a replica that is not ready yet, of a page that was lost, or of an answer that changed

Span = tuple[int, int]
"""The first item to ask for, and the one before which another question begins (0: all that fit)."""


@dataclass(slots=True)
class Reading:
    """What one source was asked on behalf of a visit."""

    visit: Visit
    source: Source
    digest_only: bool = False
    round: int = 0  # questions that this one waited for, beyond those that the visit waited for
    late: bool = False  # slower than usual: another source is asked meanwhile
    open: int = 0
    pages: int = 0
    retries: int = 0
    digest: int = 0
    total: int | None = None
    changed: bool = False
    cut: bool = False  # there were more pages than we ask for
    children: set[Prefix] = field(default_factory=set)
    todo: deque[Span] = field(default_factory=lambda: deque([(0, 0)]))

    def next_spans(self) -> list[Span]:
        """What to ask now."""
        spans = []
        while self.todo and self.open < MAX_PAGES_AT_ONCE:
            spans.append(self.todo.popleft())
            self.open += 1
        return spans

    def took(self, span: Span, answer: Answer) -> None:
        """A page came."""
        self.open -= 1
        self.children.update(child.prefix for child in answer.children)
        if self.total is None:
            self.digest, self.total = answer.digest, answer.total
        elif (answer.digest, answer.total) != (self.digest, self.total):
            self.changed = True
        if not self.digest_only:
            self._continue(span, len(answer.children) + len(answer.rows), answer.total)
        if not self.open and not self.todo and self.changed and self.retries < MAX_RETRIES:
            self.retries += 1
            self.total, self.changed = None, False
            self.round += 1
            self.todo.append((0, 0))

    def _continue(self, span: Span, items: int, total: int) -> None:
        first, end = span
        here = first + items
        if here >= (end or total):
            return
        self.round = max(self.round, 1 if not end else 2)
        if not items:
            self.cut = True  # an honest holder's page has at least one item
            return
        starts = list(islice(range(here, end or total, items), MAX_PAGES + 1 - self.pages))
        self.pages += len(starts)
        if self.pages > MAX_PAGES:
            self.cut = True
            return
        self.todo.extend((start, min(start + items, end or total)) for start in starts)

    def lost(self, span: Span) -> bool:
        """No answer to a page; whether it is asked again: one datagram of many may be lost, a dead replica not."""
        self.open -= 1
        if self.total is None or self.retries >= MAX_RETRIES:
            self.todo.clear()
            return False
        self.retries += 1
        self.todo.append(span)
        return True

    @property
    def is_over(self) -> bool:
        return not self.open and not self.todo

    @property
    def is_whole(self) -> bool:
        """Whether every item of one answer was read (or, for a digest, that was)."""
        return self.is_over and self.total is not None and not self.changed and not self.cut

    @property
    def rows(self) -> int:
        return max((self.total or 0) - len(self.children), 0)
