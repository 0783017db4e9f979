"""What a search read, so that the same search run again reads only what changed.

Decides which questions of a repeated search are asked in a cheaper way: a trie node whose whole answer is remembered is
asked for its digest only, and read anew where that differs; a server's advert that was shown a moment ago is not asked
for again. Stands between a search and its driver, and changes no answer: a digest names items, order, holders, bounds
and ranks, so what is recalled is what would be answered. What it leaves out (a change that alters no rank) is seen when
the server is asked again, after REVERIFY_MS.

    recall(ask) -> outcome, or None;  instead(ask) -> what to send;  restore(ask, outcome) -> outcome, or None: send it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from summaries.asks import Ask, Outcome, Probe
from summaries.messages import Answer, Read
from summaries.point import Point

REVERIFY_MS = 30_000  # a fifth of a heartbeat: after so long a server is asked for its advert again
MAX_NODES = 4_096  # trie nodes remembered: what a search of some 100,000 adverts reads
MAX_ADVERTS = 4_096
_Key = tuple[str, Read]


@dataclass(frozen=True, slots=True)
class Shown:
    """An advert that its server showed, when, and how long that took."""

    raw: bytes
    seq: int
    read_ms: int
    round_trip_us: int | None


class Memory:
    """For one query that is asked again and again."""

    def __init__(self, verify: Callable[[bytes, int], Point | None], reverify_ms: int = REVERIFY_MS) -> None:
        self._verify, self._reverify_ms = verify, reverify_ms
        self._pages: dict[_Key, dict[int, Answer]] = {}
        self._confirmed: set[_Key] = set()  # in this round
        self._adverts: dict[bytes, Shown] = {}
        self.spared = 0  # questions that were not asked

    def begin(self) -> None:
        """Another round begins."""
        self._confirmed.clear()

    def recall(self, ask: Ask | Probe, now_ms: int) -> Answer | Shown | None:
        """What is known without asking."""
        if isinstance(ask, Probe):
            shown = self._adverts.get(ask.contact)
            fresh = shown is not None and shown.seq >= ask.seq and 0 <= now_ms - shown.read_ms < self._reverify_ms
            self.spared += fresh
            return shown if fresh else None
        if isinstance(ask.message, Read) and ask.message.first and not ask.message.digest_only:
            key = _key(ask.dimension, ask.message)
            page = self._pages.get(key, {}).get(ask.message.first) if key in self._confirmed else None
            self.spared += page is not None
            return page
        return None

    def instead(self, ask: Ask) -> Ask:
        """The question to send in the place of one: for the digest, where the whole answer is remembered."""
        message = ask.message
        if not isinstance(message, Read) or message.first or message.digest_only:
            return ask
        pages = self._pages.get(_key(ask.dimension, message), {})
        if not pages or sum(len(page.children) + len(page.rows) for page in pages.values()) < pages[0].total:
            return ask
        return replace(ask, message=replace(message, digest_only=True))

    def restore(self, ask: Ask, sent: Ask, outcome: Outcome, now_ms: int) -> Outcome:
        """The answer to `ask` that the outcome of `sent` stands for; None where `ask` itself must be sent after all."""
        message = ask.message
        if not isinstance(message, Read) or message.digest_only or not isinstance(outcome, Answer):
            return outcome
        key = _key(ask.dimension, message)
        if sent is not ask:
            first = self._pages.get(key, {}).get(0)
            if first is not None and (first.digest, first.total) == (outcome.digest, outcome.total):
                self._confirmed.add(key)
                return first
            self._pages.pop(key, None)
            return None
        self._learn(key, message.first, outcome)
        return outcome

    def shown(self, probe: Probe, raw: bytes | None, round_trip_us: int | None, now_ms: int) -> None:
        """A server answered a probe."""
        point = self._verify(raw, now_ms) if raw else None
        if point is None or raw is None:
            self._adverts.pop(probe.contact, None)
            return
        if len(self._adverts) >= MAX_ADVERTS and probe.contact not in self._adverts:
            del self._adverts[next(iter(self._adverts))]
        self._adverts[probe.contact] = Shown(raw, point.seq, now_ms, round_trip_us)

    def _learn(self, key: _Key, first: int, page: Answer) -> None:
        pages = self._pages.get(key)
        if not first or pages is None or (pages[0].digest, pages[0].total) != (page.digest, page.total):
            if first:
                self._pages.pop(key, None)
                return
            if len(self._pages) >= MAX_NODES and key not in self._pages:
                del self._pages[next(iter(self._pages))]
            pages = self._pages[key] = {}
        pages[first] = page


def _key(dimension: str, message: Read) -> _Key:
    return dimension, replace(message, first=0, digest_only=False)
