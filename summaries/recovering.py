"""Learning from its peers what a trie node holds, when a holder starts, restarts, or is asked for the first time.

Decides whom to pull from, when enough has been heard to be ready, and what is forgotten when there is no more room.
Rows are taken only as adverts that verify, and entries only from those who may hold the child.
"""

from __future__ import annotations

from summaries.climbing import Climbing
from summaries.errors import MessageError
from summaries.handing import Handing
from summaries.holder_state import REBUILD_MS, HolderState
from summaries.messages import AdvertIs, Digest, Fetch, Message, Pull
from summaries.node import TrieNode
from summaries.pending import MAX_PAGES, Pending, Recovery
from summaries.point import Rows
from summaries.trie import ROOT, Prefix, is_near, keys_of
from summaries.zone import zone_of

MAX_NODES = 4_096
FETCH_WINDOW = 16


class Recovering:
    """Trie nodes that are not ready yet."""

    def __init__(self, state: HolderState, climbing: Climbing, handing: Handing) -> None:
        self._state, self._climbing, self._handing = state, climbing, handing
        self._recovering: dict[Prefix, Recovery] = {}

    def node(self, prefix: Prefix, now_ms: int) -> TrieNode:
        node = self._state.nodes.get(prefix)
        if node is None:
            if len(self._state.nodes) >= MAX_NODES and not self._forget_one():
                raise MessageError("no room for another trie node")
            node = self._state.nodes[prefix] = TrieNode(prefix, self._state.schema, Rows(self._state.schema))
            self.recover(node, now_ms)
        return node

    def recover(self, node: TrieNode, now_ms: int) -> None:
        """Learn from the peers what this trie node holds; until they answered it is not ready."""
        recovery = self._recovering.setdefault(node.prefix, Recovery())
        if not recovery.asking:
            token = self._state.push(node.prefix, Pull(node.prefix), now_ms, hops=recovery.generation)
            recovery.asking = token is not None
        else:
            self._fetch_more(node, recovery, now_ms)  # what had no room among the pushes in flight

    def pulled(
        self, token: int, pending: Pending, asked: int, sender: bytes, reply: Message | None, now_ms: int
    ) -> None:
        recovery, node = self._recovering.get(pending.prefix), self._state.nodes.get(pending.prefix)
        directed = isinstance(pending.message, Fetch) or bool(
            isinstance(pending.message, Pull) and pending.message.cursor
        )
        if directed or len(pending.heard) >= asked:
            self._state.pushes.pop(token, None)
        if recovery is None or node is None or recovery.generation != pending.hops:
            return
        if isinstance(pending.message, Fetch):
            self._take_advert(node, recovery, pending.message.id, reply, now_ms)
        elif isinstance(reply, Digest) and reply.known and reply.prefix == node.prefix:
            self._take_digest(node, recovery, sender, reply, now_ms)
        elif directed:
            recovery.lost = True
        elif not isinstance(reply, Digest):
            recovery.failed += 1
        if directed:
            recovery.open -= 1
        else:
            recovery.asked, recovery.answers = asked, recovery.answers + 1
            recovery.others += not self._state.is_me(sender)
        self._fetch_more(node, recovery, now_ms)

    def abandoned(self, pending: Pending) -> None:
        """A question of a recovery was not answered in time."""
        recovery = self._recovering.get(pending.prefix)
        if recovery is not None and recovery.generation == pending.hops:
            recovery.restart()

    def forget(self, prefix: Prefix) -> None:
        """What this trie node holds is known from elsewhere."""
        self._recovering.pop(prefix, None)

    def _forget_one(self) -> bool:
        nodes = self._state.nodes
        idle = [prefix for prefix, node in nodes.items() if node.is_idle and prefix != ROOT]
        # Then markers of old splits: a publisher that still knows one starts again at the root.
        idle += [prefix for prefix, node in nodes.items() if not (len(node.rows) or node.entries or node.waiters)]
        idle = [prefix for prefix in idle if prefix != ROOT]
        for prefix in idle[:1]:
            del nodes[prefix]
            self._recovering.pop(prefix, None)
        return bool(idle)

    def _take_digest(
        self, node: TrieNode, recovery: Recovery, sender: bytes, reply: Digest, now_ms: int
    ) -> None:
        self._state.told_split(node, reply.splits, sender)
        self._state.take_facts(node, reply, now_ms)
        for posting in reply.postings:
            if node.prefix.contains(posting.key) and _newest(node, posting.id, posting.key) < posting.seq:
                recovery.claims.note(posting.id, posting.key, posting.seq, sender)
        pages = recovery.pages.get(sender, 0)
        if reply.next and pages < MAX_PAGES:
            question = Pull(node.prefix, reply.next)
            if self._state.push(node.prefix, question, now_ms, to=sender, hops=recovery.generation) is None:
                recovery.lost = True
                return
            recovery.open += 1
            recovery.pages[sender] = pages + 1

    def _take_advert(self, node: TrieNode, recovery: Recovery, id: int, reply: Message | None, now_ms: int) -> None:
        if not isinstance(reply, AdvertIs):
            recovery.claims.unanswered(id)
            return
        keys = recovery.claims.answered(id)
        wall_ms = self._state.wall_ms(now_ms)
        point = self._state.verify(reply.advert, wall_ms) if reply.advert else None
        if point is None or point.id != id or point.gone or point.expires_s <= wall_ms // 1000:
            return
        own = keys_of(self._state.schema, self._state.dimension, point)
        for key in sorted(keys):
            near = any(is_near(self._state.axis, key, one) for one in own)
            if near and _newest(node, id, key) < point.seq:
                node.rows.put(point, key, reply.advert)
                node.zone = node.zone.union(zone_of(self._state.schema, point))

    def _fetch_more(self, node: TrieNode, recovery: Recovery, now_ms: int) -> None:
        claims = recovery.claims

        def newest(id: int, key: int) -> int:
            return _newest(node, id, key)

        while claims.coming < FETCH_WINDOW and self._state.has_room(1) and (asked := claims.next(newest)):
            id, sender = asked
            self._state.push(node.prefix, Fetch(node.prefix, id), now_ms, to=sender, hops=recovery.generation)
            recovery.open += 1
        if recovery.answers < recovery.asked or not recovery.asked or recovery.open or claims.waiting:
            return
        recovery.lost = recovery.lost or claims.missing(newest)
        if not recovery.suffices:
            recovery.restart()  # the next tick asks again
            return
        del self._recovering[node.prefix]
        node.ready, node.refresh_ms = True, now_ms + REBUILD_MS
        # If nobody had anything it is an empty leaf until the next rebuild, so that whoever asked is told.
        self._handing.split(node, now_ms)
        self._climbing.settle(node, now_ms)
        self._handing.hand_over(node, now_ms)


def _newest(node: TrieNode, id: int, key: int) -> int:
    """The number of the row under this key, or of one that is gone: both were verified."""
    held = node.rows.find(id, key)
    return max(held.seq if held is not None else -1, node.tombstones.get((id, key), (-1, 0))[0])
