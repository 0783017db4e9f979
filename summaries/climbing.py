"""Telling a trie node's parent what it summarises, and answering those who wait for the parent to know.

Decides when a claim sets out and when a waiting request is answered: rule 1 of holder.py, widen before acknowledging.
"""

from __future__ import annotations

from summaries.holder_state import NEVER_MS, RETRY_MS, HolderState
from summaries.messages import Accepted, NotReady, Wanted, ZoneUpdate
from summaries.node import TrieNode, Waiter
from summaries.trie import ROOT

FIRST_RETRY_MS, LAST_RETRY_MS = 1_000, 15_000  # doubled in between; at last as often as zones are tightened
MAX_WAITERS = 256  # unanswered requests at one trie node; the oldest is told to retry


class Climbing:
    """Claims on their way up."""

    def __init__(self, state: HolderState) -> None:
        self._state = state

    def settle(self, node: TrieNode, now_ms: int) -> None:
        """Answer who can be answered; claim a wider zone when someone still waits for it."""
        if not node.ready:
            return
        if node.prefix == ROOT:
            node.claimed, node.settled = node.zone, True
        if node.settled and node.waiters:
            waiting = []
            for waiter in node.waiters:
                if node.claimed.covers(waiter.zone):
                    offer = waiter.offer
                    done = Accepted(node.splits) if offer is None else Wanted(node.lacks(offer.postings))
                    self._state.reply(waiter.request, done)
                else:
                    waiting.append(waiter)
            node.waiters = waiting
        if node.is_idle and not node.version:
            return  # an empty leaf that no parent has heard of
        if not node.climbing and node.climb_ms <= now_ms and not (node.settled and node.is_covered):
            if not node.is_covered:
                node.grew = True
            self.climb(node, now_ms)

    def due_ms(self, node: TrieNode) -> int:
        """When `settle` would have something to do, if nothing comes in until then."""
        if node.climbing or (node.settled and node.is_covered) or (node.is_idle and not node.version):
            return NEVER_MS
        return node.climb_ms

    def wait(self, node: TrieNode, waiter: Waiter) -> None:
        if len(node.waiters) >= MAX_WAITERS:
            self._state.reply(node.waiters.pop(0).request, NotReady(RETRY_MS))
        node.waiters.append(waiter)

    def release_overtaken(self, node: TrieNode) -> None:
        """What waits for a zone that a newer word has since narrowed would wait for ever."""
        for waiter in [one for one in node.waiters if not node.zone.covers(one.zone)]:
            node.waiters.remove(waiter)
            self._state.reply(waiter.request, NotReady(RETRY_MS))

    def climb(self, node: TrieNode, now_ms: int) -> None:
        parent = node.prefix.parent
        if parent is None or node.climbing:
            return
        groups = self._state.groups_of(parent)
        if not self._state.has_room(groups):
            return
        version = self._state.next_version()
        zone = node.zone.roomy() if node.grew else node.zone
        update = ZoneUpdate(node.prefix, self._state.incarnation, version, zone, node.splits)
        # From here on the parent may know no more than this, so nothing wider is settled.
        node.version, node.claimed, node.settled, node.climbing = version, zone, False, groups
        node.told_ms = now_ms
        for group in range(groups):
            self._state.push(parent, update, now_ms, node=node.prefix, group=group)

    def failed(self, node: TrieNode, version: int, now_ms: int) -> None:
        """No quorum took this claim. Where others are nearer by now none ever will, so it sets out ever less often."""
        if not node.climbing or node.version != version:
            return  # another group's failed before
        node.climbing = 0
        node.climb_ms = now_ms + min(FIRST_RETRY_MS << min(node.failures, 8), LAST_RETRY_MS)
        node.failures += 1

    def arrived(self, node: TrieNode, version: int, now_ms: int) -> None:
        """A quorum of one group of the parent's holders has this claim; it is known once all groups have it."""
        if not node.climbing or node.version != version:
            return
        node.climbing -= 1
        if not node.climbing:
            node.climb_ms, node.failures, node.settled = 0, 0, True
            self.settle(node, now_ms)
