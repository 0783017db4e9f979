"""What the parts of one holder share: its trie nodes, its pushes in flight, and what is to be sent.

Decides the bounds of what is in flight and nothing else. climbing.py, handing.py and recovering.py each know this, and
holder.py knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from summaries.errors import LocalError, MessageError
from summaries.messages import AtCopy, Digest, Question, Result, ZoneUpdate
from summaries.node import TrieNode
from summaries.pending import Action, Pending, Push, Reply, Verify
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix

MAX_PUSHES = 1_024  # pushes in flight
RETRY_MS = 150  # about one round trip across an ocean
REBUILD_MS = 15_000
NEVER_MS = 1 << 62
ID_BYTES = 20  # with which a packed contact begins; its address follows, and may change


@dataclass(frozen=True, slots=True)
class InFlight:
    """Pushes that wait for answers, the oldest of them, and rows: those noted as under way, those in pushes."""

    pushes: int
    oldest_ms: int | None
    rows_noted: int
    rows_pushed: int


class HolderState:
    """One node's trie nodes of one dimension, and its questions to others."""

    def __init__(
        self,
        schema: Schema,
        dimension: str,
        me: bytes,
        verify: Verify,
        incarnation: int,
        capacity: int,
        may_hold: Callable[[Prefix, bytes], bool],
        ahead_ms: Callable[[], int],
        root_groups: int = 1,
    ) -> None:
        if capacity < 1:
            raise LocalError("a leaf holds at least one row")
        self.schema, self.dimension, self.me, self.incarnation = schema, dimension, me, incarnation
        self.capacity, self.root_groups = capacity, root_groups
        self.verify, self.may_hold, self.axis = verify, may_hold, schema.dimension(dimension)
        self._ahead_ms = ahead_ms
        self.nodes: dict[Prefix, TrieNode] = {}
        self.pushes: dict[int, Pending] = {}
        self.version = 0
        self._next_token = 1
        self._out: list[Action] = []

    def push(
        self,
        where: Prefix,
        message: Question,
        now_ms: int,
        *,
        node: Prefix | None = None,
        row: tuple[int, int, int] | None = None,
        hops: int = 0,
        to: bytes | None = None,
        group: int = 0,
        have: tuple[bytes, ...] = (),
    ) -> int | None:
        """Send to the R nearest `where`, or a copy of it, or to one; None when too much is in flight already."""
        if len(self.pushes) >= MAX_PUSHES:
            return None
        token, self._next_token = self._next_token, self._next_token + 1
        self.pushes[token] = Pending(node or where, now_ms, message, set(), hops=hops, row=row)
        sent = AtCopy(message) if group else message  # type: ignore[arg-type]
        self._out.append(Push(token, where, sent, to, group, have))
        return token

    def wall_ms(self, now_ms: int) -> int:
        """What the wall clock says: adverts expire by it, and it may jump. All else is timed by `now_ms`."""
        return now_ms + self._ahead_ms()

    def next_version(self) -> int:
        """Greater than all that this holder gave before: it may have forgotten a trie node of which parents know."""
        self.version += 1
        return self.version

    def has_room(self, pushes: int) -> bool:
        """Whether so many pushes more may be in flight."""
        return len(self.pushes) + pushes <= MAX_PUSHES

    def groups_of(self, prefix: Prefix) -> int:
        """How many groups of holders must know what is claimed of a trie node's children."""
        return self.root_groups if prefix == ROOT else 1

    def check_claim(self, message: ZoneUpdate, sender: bytes) -> None:
        """Raise MessageError for what is no claim of one of a child's holders."""
        if message.child.parent is None or len(message.zone.lows) != len(self.schema.ordered):
            raise MessageError("not a child's zone")
        if not self.may_hold(message.child, sender):
            raise MessageError("the sender is not near this child's key")

    def take_facts(self, node: TrieNode, page: Digest, now_ms: int) -> None:
        """Take in what another says that children's holders said, of whom may be such holders."""
        for fact in page.entries:
            fits = fact.child.parent == node.prefix and len(fact.zone.lows) == len(self.schema.ordered)
            if fits and self.may_hold(fact.child, fact.holder):
                node.hear(fact.child, fact.holder, fact.incarnation, fact.version, fact.zone, now_ms)

    def told_split(self, node: TrieNode, splits: int, voter: bytes) -> bool:
        """Somebody says what is split: we believe ourselves, and any two others. Whether anything new is split."""
        return node.mark(splits) if self.is_me(voter) else node.vote(splits, voter[:ID_BYTES])

    def is_me(self, contact: bytes) -> bool:
        """Whether this is our contact: a node that has moved answers itself from another address."""
        return contact[:ID_BYTES] == self.me[:ID_BYTES]

    def reply(self, request: object, message: Result) -> None:
        self._out.append(Reply(request, message))

    def flush(self) -> list[Action]:
        out, self._out = self._out, []
        return out
