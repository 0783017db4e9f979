"""Copies of a root at other nodes than its own holders, so that a popular root is read from many.

A root has `root_groups` groups of R holders, each nearest to a key of its own; group 0 are its own holders (holder.py).
Whoever claims a zone tells every group, and counts the claim as known once a quorum of *each* has it (climbing.py): so
a reader who unites two of three of any one group misses nothing acknowledged. One voice of each group is no quorum.

A copy has what children claim, and no rows. It answers for the root only once a quorum of the root's own holders said
that it is split and that no row is left there: nothing is acknowledged any more at a trie node that a quorum knows to
be split. Until then it says NotReady, and its reader begins anew with the root's own holders. A quorum that lost its
memory at once knows no split any more and takes rows, so that a copy asks again every CONFIRM_MS whether it is still
so; whoever says otherwise ends it, silence does not.

    (absent) --told of a zone--> LEARNING --a quorum is split, without rows, and told all it has--> READY
       ^                            ^                                                              |   |
       |                            +---------- one of them has rows, or knows of no split --------+   |
       +------------ nobody claimed anything for SILENCE_MS: others are nearer by now -----------------+

Readers create nothing, or each of their questions could make a stranger ask the root's own holders for all they have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from summaries.answer import answer, outline
from summaries.errors import MessageError
from summaries.holder_state import REBUILD_MS, RETRY_MS, HolderState
from summaries.messages import Accepted, Digest, Message, NotReady, Overview, Pull, Read, Stale, ZoneUpdate
from summaries.node import TrieNode
from summaries.pending import MAX_PAGES, Pending, quorum
from summaries.point import Rows
from summaries.trie import ROOT, split_bit

MAX_GROUPS = 64  # of one root: 192 nodes, each told of every child's zone by three holders in 30 s
SILENCE_MS = 60_000  # two heartbeats of a claim: each child's holders tell a copy that they count
LEARN_AGAIN_MS = 5_000  # while the root has rows of its own
CONFIRM_MS = 15_000  # as often as zones are rebuilt: so long may what a root that forgot its split took be missed here


@dataclass(slots=True)
class _Learning:
    """What the root's own holders were asked, and who of them told all."""

    tokens: set[int] = field(default_factory=set)
    told: set[bytes] = field(default_factory=set)
    pages: dict[bytes, int] = field(default_factory=dict)  # asked for, by holder
    asked: int = 0


class Copying:
    """One node's copy of its dimension's root."""

    def __init__(self, state: HolderState) -> None:
        self._state = state
        self._node: TrieNode | None = None
        self._learning: _Learning | None = None
        self._heard_ms = self._learn_ms = 0

    @property
    def node(self) -> TrieNode | None:
        """What is held, for inspection only."""
        return self._node

    @property
    def pulls(self) -> set[int]:
        """The pushes whose replies are ours."""
        return self._learning.tokens if self._learning else set()

    def received(
        self, question: Read | Overview | ZoneUpdate, sender: bytes, request: object, now_ms: int
    ) -> None:
        """Take in a question to a copy."""
        prefix = question.child.parent if isinstance(question, ZoneUpdate) else question.prefix
        if prefix != ROOT or self._state.root_groups < 2:
            raise MessageError("there are no copies of this")
        if isinstance(question, ZoneUpdate):
            self._claimed(question, sender, request, now_ms)
        elif self._node is None or not self._node.ready:
            self._state.reply(request, NotReady(RETRY_MS))
        elif isinstance(question, Read):
            self._state.reply(request, answer(self._node, question, sender, self._state.wall_ms(now_ms)))
        else:
            self._state.reply(request, outline(self._node, question, sender))

    def _claimed(self, claim: ZoneUpdate, sender: bytes, request: object, now_ms: int) -> None:
        self._state.check_claim(claim, sender)
        if self._node is None:
            self._node = TrieNode(ROOT, self._state.schema, Rows(self._state.schema))
            self._learn(now_ms)
        # Known from here on, ready or not: what is learnt besides unites with it.
        self._heard_ms = now_ms
        newer = self._node.hear(claim.child, sender, claim.incarnation, claim.version, claim.zone, now_ms)
        held = self._node.entries[claim.child][sender].version
        self._state.reply(request, Accepted() if newer or held == claim.version else Stale(held))

    def tick(self, now_ms: int) -> None:
        """Expire and tighten; forget a copy that nobody tells of anything; learn again what was not to be had."""
        node = self._node
        if node is None:
            return
        if self._heard_ms + SILENCE_MS <= now_ms:
            self._node = self._learning = None
            return
        if self._learning is None and self._learn_ms <= now_ms:
            self._learn(now_ms)
        if node.refresh_ms <= now_ms:
            node.refresh_ms = now_ms + REBUILD_MS
            node.rebuild(now_ms, self._state.wall_ms(now_ms))

    def due_ms(self, latest_ms: int) -> int:
        """When a tick has something to do here, if nothing comes in until then; `latest_ms` at most."""
        node = self._node
        if node is None:
            return latest_ms
        due_ms = min(node.refresh_ms, self._heard_ms + SILENCE_MS, latest_ms)
        return due_ms if self._learning is not None else min(due_ms, self._learn_ms)

    def install(self, node: TrieNode, now_ms: int) -> None:
        """Keep a copy that was built elsewhere (bulk.py)."""
        self._node, self._learning, self._heard_ms = node, None, now_ms

    # ----- learning

    def pulled(
        self, token: int, pending: Pending, asked: int, sender: bytes, reply: Message | None, now_ms: int
    ) -> None:
        """One of the root's own holders told a page of what it holds (None: it did not answer)."""
        learning, node = self._learning, self._node
        first = isinstance(pending.message, Pull) and not pending.message.cursor
        if not first or len(pending.heard) >= asked:
            self._state.pushes.pop(token, None)
        if learning is None or node is None:
            return
        if not first or len(pending.heard) >= asked:
            learning.tokens.discard(token)
        learning.asked = max(learning.asked, asked if first else 0)
        if isinstance(reply, Digest) and reply.known and reply.splits & split_bit(ROOT) and not reply.postings:
            self._state.take_facts(node, reply, now_ms)
            if node.ready:
                learning.told.add(sender)  # the first page says whether it is split and has rows; the rest is known
            else:
                self._continue(learning, sender, reply, now_ms)
        elif isinstance(reply, Digest) and reply.known:
            node.ready = False
        if len(learning.told) >= quorum(learning.asked):
            self._learning, self._learn_ms = None, now_ms + CONFIRM_MS
            if not node.ready:
                node.ready, node.refresh_ms = True, now_ms + REBUILD_MS
                node.rebuild(now_ms, self._state.wall_ms(now_ms))
        elif not learning.tokens:
            self._learning, self._learn_ms = None, now_ms + LEARN_AGAIN_MS

    def abandoned(self, token: int, now_ms: int) -> None:
        """Not all that were asked answered in time."""
        if self._learning is not None:
            self._learning, self._learn_ms = None, now_ms + LEARN_AGAIN_MS

    def _learn(self, now_ms: int) -> None:
        token = self._state.push(ROOT, Pull(ROOT), now_ms)
        self._learning = None if token is None else _Learning({token})
        self._learn_ms = now_ms + LEARN_AGAIN_MS

    def _continue(self, learning: _Learning, sender: bytes, page: Digest, now_ms: int) -> None:
        if not page.next:
            learning.told.add(sender)
            return
        token = None
        if learning.pages.get(sender, 0) < MAX_PAGES:
            token = self._state.push(ROOT, Pull(ROOT, page.next), now_ms, to=sender)
        if token is not None:
            learning.pages[sender] = learning.pages.get(sender, 0) + 1
            learning.tokens.add(token)
