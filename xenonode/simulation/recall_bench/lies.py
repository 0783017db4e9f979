"""What a lying holder says in the place of the truth.

Decides four ways to lie: nothing is here (empty); everything may be below (ones); what was here some time ago (stale);
adverts that nobody signed (forged). All of them acknowledge whatever they are told, so that a publisher counts them
among its replicas.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from summaries.answer import answer
from summaries.holder import Holder
from summaries.messages import (
    Accepted,
    AdvertIs,
    Answer,
    AtCopy,
    Child,
    Delete,
    Digest,
    Fetch,
    Insert,
    Locate,
    Message,
    Moved,
    Offer,
    Pull,
    Question,
    Read,
    Renew,
    Row,
    Wanted,
    ZoneUpdate,
)
from summaries.node import TrieNode
from summaries.point import Rows
from summaries.trie import KEY_BITS, ROOT, Prefix

Kind = Literal["empty", "ones", "stale", "forged"]
KINDS: tuple[Kind, ...] = ("empty", "ones", "stale", "forged")
BOGUS = 16  # children or rows that a liar makes up at once
LARGEST_SEQUENCE = 2**60


@dataclass(slots=True)
class Liar:
    """One lying node."""

    kind: Kind
    random: Random
    frozen: dict[tuple[str, Prefix], TrieNode] = field(default_factory=dict)  # what a stale one goes on showing

    def freeze(self, holder: Holder) -> None:
        """Remember what is held now, to show it for ever."""
        copies = {} if holder.copying.node is None else {ROOT: holder.copying.node}
        for prefix, node in (copies | holder.nodes()).items():
            rows = Rows(node.schema)
            for id, key, _ in node.rows.postings():
                point = node.rows.find(id, key)
                if point is not None:
                    rows.put(point, key, node.rows.raw_of(id, key) or b"")
            self.frozen[holder.dimension, prefix] = _kept(node, rows)

    def instead(self, holder: Holder, question: Question, sender: bytes, now_ms: int) -> Message | None:
        """The lie; None where the truth will do. At a copy it lies as it does at a root of its own."""
        if isinstance(question, AtCopy):
            question = question.question
        if self.kind == "stale":
            return self._stale(holder, question, sender, now_ms)
        if isinstance(question, (Insert, Delete, Renew, ZoneUpdate)):
            return Accepted()
        if isinstance(question, Offer):
            return Wanted(())
        if isinstance(question, Pull):
            return Digest(question.prefix, False, 0, (), ())
        if isinstance(question, Read):
            return self._read(question)
        if isinstance(question, Fetch):
            return AdvertIs(self.random.randbytes(600) if self.kind == "forged" else b"")
        if isinstance(question, Locate) and self.kind == "ones" and question.prefix.length + 6 <= KEY_BITS:
            length = question.prefix.length + 6
            return Moved(Prefix(question.key >> (KEY_BITS - length), length))
        return None

    def _read(self, question: Read) -> Answer:
        children: tuple[Child, ...] = ()
        rows: tuple[Row, ...] = ()
        prefix = question.prefix
        if self.kind == "ones" and prefix.length % 6 == 0 and prefix.length + 6 <= KEY_BITS:
            first = prefix.bits << 6
            found = [Prefix(first | self.random.randrange(64), prefix.length + 6) for _ in range(BOGUS)]
            children = tuple(Child(one, 0, 10**6, 10**4, 3, ()) for one in sorted(set(found)))
        elif self.kind == "forged":
            rows = tuple(
                Row(self.random.getrandbits(64), LARGEST_SEQUENCE, 0, self.random.randbytes(6)) for _ in range(BOGUS)
            )
        total = len(children) + len(rows)
        shown = () if question.digest_only else children[question.first :]
        listed = () if question.digest_only else rows[max(question.first - len(children), 0) :]
        return Answer(prefix, shown, listed, len(rows), 0, total, self.random.getrandbits(32) if total else 0)

    def _stale(self, holder: Holder, question: Question, sender: bytes, now_ms: int) -> Message | None:
        if isinstance(question, Read):
            node = self.frozen.get((holder.dimension, question.prefix))
            return None if node is None else answer(node, question, sender, now_ms)
        if isinstance(question, Fetch):
            node = self.frozen.get((holder.dimension, question.prefix))
            return None if node is None else AdvertIs(node.rows.raw_of(question.id) or b"")
        return None


def _kept(node: TrieNode, rows: Rows) -> TrieNode:
    """A copy of a trie node that no later message changes."""
    entries = {child: dict(held) for child, held in node.entries.items()}
    kept = TrieNode(node.prefix, node.schema, rows, node.splits, entries, ready=True)
    kept.zone = kept.claimed = replace(node.zone)
    return kept
