"""What one node does for the tries of one dimension: message in; replies and pushes out.

Decides when an advert is accepted, when a leaf splits, what a parent is told and what a reader
sees. Rests on four rules:

1. **Widen before acknowledging.** A row that is not inside the zone which a quorum of the parent's
   holders has is answered only once they have it; the parent's holders in turn answer only once
   theirs have it. So a search never misses an acknowledged advert.
2. **Splits are monotone.** Split bits are only added: by who has too many rows, or hears of it from
   two others. A holder that splits keeps serving its rows until a quorum of the child's holders
   accepted each; publishers get Moved.
3. **Entries never go back.** An aggregation point keeps what each holder of a child said, and only
   a higher (incarnation, version) replaces it: a late message cannot narrow a newer widening.
4. **Nothing is taken on trust.** Rows come from `verify`, never from what a sender claims; a
   malformed or impossible message is refused and changes nothing.

            Insert             over capacity              all rows accepted below
  (absent) -------> LEAF ----------------------> SPLITTING ----------------------> AP, or a marker
      | asked, or first heard of: RECOVERING (Pull from the peers) until they all answered

The driver carries messages: `received` for what arrives, `answered` for the replies to a Push,
`tick` every second. R, and which nodes are nearest a key, are the overlay's business.
"""

from __future__ import annotations

from collections.abc import Callable

from summaries.answer import answer, digest, outline
from summaries.asks import REPLICAS
from summaries.climbing import Climbing
from summaries.copying import Copying
from summaries.errors import MessageError, RemoteError
from summaries.handing import Handing
from summaries.holder_state import REBUILD_MS, RETRY_MS, HolderState, InFlight
from summaries.keeping import Keeping
from summaries.messages import (
    Accepted,
    AdvertIs,
    AtCopy,
    Delete,
    Fetch,
    Here,
    Insert,
    Locate,
    Marked,
    Message,
    Moved,
    NotReady,
    Offer,
    Overview,
    Pull,
    Read,
    Refused,
    Renew,
    Stale,
    SumUpdate,
    Tally,
    ZoneUpdate,
)
from summaries.node import TrieNode, Waiter
from summaries.pending import Action, Pending, Push, Reply, Verify, quorum
from summaries.recovering import Recovering
from summaries.schema import Schema
from summaries.tallying import Tallying
from summaries.trie import ROOT, Prefix, region
from summaries.zone import Zone

DEFAULT_CAPACITY = 2_048  # measured: half the questions of 1,024, a quarter of those of 512
HEARTBEAT_MS = 30_000  # a zone that did not change is told again: three times in an entry's life
PUSH_TIMEOUT_MS = 6_000  # three hard time-outs of an RPC: the driver has given up long before
NEARER_ASKED_MS = 2_000  # a hard time-out: after two without an answer somebody is gone
# What only those answer for a root who know no three nearer.
OF_A_ROOT = (Insert, Renew, ZoneUpdate, Read, Overview, Tally)


class Holder:
    """The state of one node for one dimension. Pure: time is a parameter, randomness none.

    `now_ms` never goes back nor jumps; `ahead_ms()` is what the wall clock, by which adverts expire, shows beyond it.

    `me` is this node's packed contact, of which the node id stays as it is when the node moves; `incarnation` grows
    with every start (its start time will do). `verify(advert, wall_ms)` returns the point of an advert whose signature,
    credential and expiry are good, else None. `turn` says the how-manieth of a prefix's holders this one is, from 0,
    or `replicas` where so many others are nearer. A root has `root_groups` groups of holders, one of them its own:
    copying.py.
    """

    def __init__(
        self,
        schema: Schema,
        dimension: str,
        me: bytes,
        verify: Verify,
        *,
        incarnation: int,
        capacity: int = DEFAULT_CAPACITY,
        may_hold: Callable[[Prefix, bytes], bool] = lambda child, holder: True,
        turn: Callable[[Prefix], int] | None = None,
        ahead_ms: Callable[[], int] = lambda: 0,
        root_groups: int = 1,
        replicas: int = REPLICAS,
    ) -> None:
        self.dimension = dimension
        self._state = HolderState(
            schema, dimension, me, verify, incarnation, capacity, may_hold, ahead_ms, root_groups
        )
        self._climbing = Climbing(self._state)
        self._handing = Handing(self._state, self._climbing, turn)
        self._recovering = Recovering(self._state, self._climbing, self._handing)
        self._tallying = Tallying(self._state)
        self._keeping = Keeping(self._state, self._climbing, self._handing, self._recovering)
        self.copying = Copying(self._state)
        self._rank, self._replicas = turn, replicas
        self._nearer_asked_ms = -NEARER_ASKED_MS
        self._outside = False  # whether others were nearer to the root's key since we learnt what it holds
        # Before, a tick would change nothing, unless something comes in.
        self._quiet_until_ms = 0

    # ----- what the driver calls

    def received(self, message: Message, sender: bytes, request: object, now_ms: int) -> list[Action]:
        """Take in a question; its Reply comes now or from a later call."""
        self._quiet_until_ms = 0
        try:
            self._dispatch(message, sender, request, now_ms)
        except RemoteError as error:
            self._state.reply(request, Refused(str(error)[:200]))
        return self._state.flush()

    def answered(self, token: int, asked: int, sender: bytes, reply: Message | None, now_ms: int) -> list[Action]:
        """Take in one node's reply to a Push (None: it did not answer). `asked` nodes were asked in all."""
        self._quiet_until_ms = 0
        pending = self._state.pushes.get(token)
        if pending is not None and sender not in pending.heard:
            pending.heard.add(sender)
            self._conclude(token, pending, max(asked, 1), sender, reply, now_ms)
        return self._state.flush()

    def tick(self, now_ms: int) -> list[Action]:
        """Expire, tighten, retry. Call about once a second; where nothing is due yet it costs nothing."""
        self._is_near_root(now_ms)
        if now_ms < self._quiet_until_ms:
            return []
        for token in [one for one, held in self._state.pushes.items() if held.since_ms + PUSH_TIMEOUT_MS <= now_ms]:
            self._abandon(token, self._state.pushes[token], now_ms)
        for prefix in sorted(self._state.nodes):
            node = self._state.nodes[prefix]
            if not node.ready:
                self._recovering.recover(node, now_ms)
                continue
            if node.refresh_ms <= now_ms:
                node.refresh_ms = now_ms + REBUILD_MS
                node.rebuild(now_ms, self._state.wall_ms(now_ms))
                self._climbing.release_overtaken(node)
                if node.is_idle and prefix != ROOT and not node.claimed.count and not node.tombstones:
                    del self._state.nodes[prefix]
                    continue
                # A zone that grew a moment ago stays roomy for another period: more may be coming.
                tighten = node.claimed != node.zone and not (node.grew and node.zone.count)
                if tighten or node.told_ms + HEARTBEAT_MS <= now_ms:
                    node.settled = False
                node.grew = False
                self._handing.remind(node, now_ms)
            self._climbing.settle(node, now_ms)
            self._handing.hand_over(node, now_ms)
            self._tallying.tell(node, self._handing.turn, now_ms)
        self.copying.tick(now_ms)
        self._keeping.count()
        self._tallying.forget_gone()
        self._handing.forget_gone()
        self._quiet_until_ms = self._next_due_ms(now_ms)
        return self._state.flush()

    def _next_due_ms(self, now_ms: int) -> int:
        """When something is due here next, if nothing comes in until then."""
        due_ms = min((held.since_ms for held in self._state.pushes.values()), default=now_ms) + PUSH_TIMEOUT_MS
        due_ms = min(due_ms, self.copying.due_ms(due_ms))
        for node in self._state.nodes.values():
            if not node.ready or self._handing.may_hand_over(node):
                return now_ms
            due_ms = min(due_ms, node.refresh_ms, self._climbing.due_ms(node), self._tallying.due_ms(node))
        return due_ms

    def retire(self, now_ms: int) -> list[Action]:
        """Hold nothing any more: tell those who name this node to readers that there is nothing here.

        To be called once others have acknowledged what is held here; nothing is to be received afterwards.
        """
        state = self._state
        for prefix, node in sorted(state.nodes.items()):
            parent = prefix.parent
            if parent is None or not node.version:
                continue  # nobody is told who holds a root, or this
            empty = Zone.empty(state.schema)
            update = ZoneUpdate(prefix, state.incarnation, state.next_version(), empty, node.splits)
            for group in range(state.groups_of(parent)):
                state.push(parent, update, now_ms, node=prefix, group=group)
        state.nodes.clear()
        return state.flush()

    def statistics(self) -> dict[str, int]:
        """Counts for display: trie nodes, rows, entries, pushes in flight."""
        return {
            "nodes": len(self._state.nodes),
            "rows": sum(len(node.rows) for node in self._state.nodes.values()),
            "entries": sum(len(held) for node in self._state.nodes.values() for held in node.entries.values()),
            "pushes": len(self._state.pushes),
        }

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held and nothing under way, so that a tick would change nothing."""
        return not (self._state.nodes or self._state.pushes or self.copying.node)

    def in_flight(self) -> InFlight:
        """What waits for answers, for who checks that nothing waits for ever."""
        since = [held.since_ms for held in self._state.pushes.values()]
        return InFlight(len(since), min(since, default=None), *self._handing.under_way())

    def install(self, node: TrieNode) -> None:
        """Keep a trie node that was built elsewhere (bulk.py), in the place of what is held."""
        self._quiet_until_ms = 0
        self._state.nodes[node.prefix] = node
        self._state.version = max(self._state.version, node.version)
        self._recovering.forget(node.prefix)

    def nodes(self) -> dict[Prefix, TrieNode]:
        """The trie nodes held, for inspection only."""
        return dict(self._state.nodes)

    # ----- questions

    def _dispatch(self, message: Message, sender: bytes, request: object, now_ms: int) -> None:
        if isinstance(message, OF_A_ROOT):
            where = message.child.parent if isinstance(message, ZoneUpdate) else message.prefix
            if where == ROOT:
                self._check_rank(now_ms)
        if isinstance(message, Insert):
            self._keeping.insert(message, request, now_ms)
        elif isinstance(message, Delete):
            self._keeping.delete(message, request, now_ms)
        elif isinstance(message, Renew):
            self._keeping.renew(message, request, now_ms)
        elif isinstance(message, ZoneUpdate):
            self._zone_update(message, sender, request, now_ms)
        elif isinstance(message, Marked):
            if not self._state.may_hold(message.prefix, sender):
                raise MessageError("the sender is not near this prefix's key")
            node = self._state.nodes.get(message.prefix)
            if node is not None and self._state.told_split(node, message.splits, sender):
                self._handing.hand_over(node, now_ms)
            self._state.reply(request, Accepted(node.splits if node else 0))
        elif isinstance(message, Offer):
            self._handing.offered(message, request, now_ms)
        elif isinstance(message, Pull):
            node = self._state.nodes.get(message.prefix)
            self._state.reply(request, digest(node if node and node.ready else None, message))
        elif isinstance(message, SumUpdate):
            self._tallying.hear(message, sender, request, now_ms)
        elif isinstance(message, (Read, Fetch, Locate, Overview, Tally)):
            self._look(message, sender, request, now_ms)
        elif isinstance(message, AtCopy):
            self.copying.received(message.question, sender, request, now_ms)
        else:
            raise MessageError("not a question")

    def _check_rank(self, now_ms: int) -> None:
        """Refuse to stand for the root's holders where others are nearer: nobody names who holds a root.

        Below, parents name whoever claims to hold, and readers ask all but one of these. What is told to the root of
        the wrong ones alone no reader finds, and what they have is not all. They are asked, too, lest the dead count.
        """
        if self._is_near_root(now_ms):
            return
        if self._nearer_asked_ms + NEARER_ASKED_MS <= now_ms:
            self._nearer_asked_ms = now_ms
            self._state.push(ROOT, Pull(ROOT), now_ms)
        raise MessageError("others are nearer to the root's key")

    def _is_near_root(self, now_ms: int) -> bool:
        """Whether we are among the root's holders.

        Whoever was not for a while has missed what the others took meanwhile. When those are gone, what it still has is
        no more than a part: it learns the root anew before it answers for it, as if it had just started.
        """
        if self._rank is None:
            return True
        if self._rank(ROOT) >= self._replicas:
            self._outside = True
            return False
        if self._outside:
            self._outside = False
            node = self._state.nodes.get(ROOT)
            if node is not None and node.ready:
                node.ready = False
                self._recovering.recover(node, now_ms)
                self._quiet_until_ms = 0
        return True

    def _look(
        self, message: Read | Fetch | Locate | Overview | Tally, sender: bytes, request: object, now_ms: int
    ) -> None:
        node = self._recovering.node(message.prefix, now_ms)
        if not node.ready:
            self._state.reply(request, NotReady(RETRY_MS))
        elif isinstance(message, Read):
            self._state.reply(request, answer(node, message, sender, self._state.wall_ms(now_ms), now_ms))
        elif isinstance(message, Overview):
            self._state.reply(request, outline(node, message, sender))
        elif isinstance(message, Tally):
            self._state.reply(request, self._tallying.answer(node, message, sender, now_ms))
        elif isinstance(message, Fetch):
            self._fetch(node, message, request, now_ms)
        elif not message.prefix.contains(message.key):
            raise MessageError("the key is not under this prefix")
        else:
            where = node.destination(message.key)
            self._state.reply(request, Here() if where == node.prefix else Moved(where, node.holders_of(where)))

    def _fetch(self, node: TrieNode, message: Fetch, request: object, now_ms: int) -> None:
        advert = next((raw for rows in node.shown(now_ms) if (raw := rows.raw_of(message.id)) is not None), None)
        if advert is None and message.id in node.handed:
            self._state.reply(request, Moved(node.destination(node.handed[message.id][0])))
        else:
            self._state.reply(request, AdvertIs(advert or b""))

    def _zone_update(self, message: ZoneUpdate, sender: bytes, request: object, now_ms: int) -> None:
        self._state.check_claim(message, sender)
        node = self._recovering.node(message.child.parent or ROOT, now_ms)
        newer = node.hear(message.child, sender, message.incarnation, message.version, message.zone, now_ms)
        if not newer and node.entries[message.child][sender].version != message.version:
            self._state.reply(request, Stale(node.entries[message.child][sender].version))
            return
        if not message.child.is_anchor:  # it can tell how it is split itself; that it exists proves nothing, since
            # whoever inserts an advert far below makes honest holders of what should not be there
            self._state.told_split(node, message.splits & region(message.child), sender)
        self._climbing.wait(node, Waiter(request, message.zone))
        self._climbing.settle(node, now_ms)
        self._handing.hand_over(node, now_ms)

    # ----- replies to pushes

    def _conclude(
        self, token: int, pending: Pending, asked: int, sender: bytes, reply: Message | None, now_ms: int
    ) -> None:
        message = pending.message
        if token in self.copying.pulls:
            self.copying.pulled(token, pending, asked, sender, reply, now_ms)
            return
        if isinstance(message, (Pull, Fetch)):
            self._recovering.pulled(token, pending, asked, sender, reply, now_ms)
            return
        if isinstance(message, Offer):
            self._handing.take_wanted(token, pending, asked, sender, reply, now_ms)
            return
        node = self._state.nodes.get(pending.prefix)
        if isinstance(reply, Accepted) or (isinstance(reply, Stale) and pending.row is not None):
            pending.agreed += 1
            if isinstance(reply, Accepted) and isinstance(message, ZoneUpdate) and node is not None:
                self._handing.learn(node, reply.splits, sender, now_ms)
        elif isinstance(reply, Moved) and pending.row is not None and isinstance(message, Insert):
            self._handing.follow(token, pending, message, reply.prefix, now_ms)
            return
        else:
            pending.failed += 1
        if pending.agreed >= quorum(asked):
            self._finish(token, pending, now_ms)
        elif pending.failed > asked - quorum(asked):
            self._abandon(token, pending, now_ms)

    def _finish(self, token: int, pending: Pending, now_ms: int) -> None:
        del self._state.pushes[token]
        node = self._state.nodes.get(pending.prefix)
        if pending.row is not None:
            self._handing.free(pending)
            self._handing.handed(pending, now_ms)
        elif isinstance(pending.message, ZoneUpdate) and node is not None:
            self._climbing.arrived(node, pending.message.version, now_ms)

    def _abandon(self, token: int, pending: Pending, now_ms: int) -> None:
        """Not enough of them agreed: a later tick tries again."""
        del self._state.pushes[token]
        node = self._state.nodes.get(pending.prefix)
        if pending.row is not None or isinstance(pending.message, Offer):
            self._handing.free(pending)
        elif isinstance(pending.message, ZoneUpdate) and node is not None:
            self._climbing.failed(node, pending.message.version, now_ms)
        elif token in self.copying.pulls:
            self.copying.abandoned(token, now_ms)
        elif isinstance(pending.message, (Pull, Fetch)):
            self._recovering.abandoned(pending)


__all__ = ["Action", "Holder", "Push", "Reply", "Verify", "quorum"]
