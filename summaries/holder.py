"""What one node does for the tries of one dimension: message in; replies and pushes out.

Decides when an advert is accepted, when a leaf splits, what a parent is told and what a reader
sees. Rests on four rules:

1. **Widen before acknowledging.** A row that is not inside the zone which a quorum of the parent's
   holders has is answered only once they have it; the parent's holders in turn answer only once
   theirs have it. So a search never misses an acknowledged advert.
2. **Splits are monotone.** Split bits are only added. A holder that splits, or hears of it, keeps
   serving its rows until a quorum of the child's holders accepted each; publishers get Moved.
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

import xxhash

from summaries.answer import answer, digest, outline
from summaries.errors import LocalError, MessageError, RemoteError
from summaries.messages import (
    MAX_OFFER,
    Accepted,
    AdvertIs,
    Delete,
    Digest,
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
    Posting,
    Pull,
    Question,
    Read,
    Refused,
    Result,
    Stale,
    Wanted,
    ZoneUpdate,
)
from summaries.node import TrieNode, Waiter
from summaries.pending import MAX_PAGES, Action, Pending, Push, Recovery, Reply, Verify, quorum
from summaries.point import Point, Rows
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix, destination, is_near, keys_of, path_bits
from summaries.zone import Zone

DEFAULT_CAPACITY = 512
REBUILD_MS = 15_000
HEARTBEAT_MS = 30_000  # a zone that did not change is told again: three times in an entry's life
PUSH_TIMEOUT_MS = 6_000  # three hard time-outs of an RPC: the driver has given up long before
MAX_ROWS = 65_536  # all nodes of a dimension together: 6 MB of columns beside 64 MB of adverts
MAX_NODES = 4_096
MAX_WAITERS = 256  # unanswered requests at one trie node; the oldest is told to retry
MAX_PUSHES = 1_024  # pushes in flight
HANDOVER_WINDOW = 16  # rows on their way to children at once: a few datagrams' burst per peer
OFFER_WINDOW = 8
TURNS, TURN_MS = 4, 3_000  # replicas hand over one after the other: 3 s is three ticks
FETCH_WINDOW = 16
MAX_HOPS = 12  # Moved answers that one row follows: deeper than any trie
RETRY_MS = 150  # about one round trip across an ocean


class Holder:
    """The state of one node for one dimension. Pure: time is a parameter, randomness none.

    `me` is this node's packed contact; `incarnation` grows with every start (its start time will
    do). `verify(advert, now_ms)` returns the point of an advert whose signature, credential and
    expiry are good, else None. `turn` says the how-manieth of a prefix's holders this one is, from 0.
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
    ) -> None:
        if capacity < 1:
            raise LocalError("a leaf holds at least one row")
        self.schema, self.dimension, self.me, self.incarnation = schema, dimension, me, incarnation
        self.capacity = capacity
        self._verify, self._may_hold, self._axis = verify, may_hold, schema.dimension(dimension)
        self._turn = turn or self._drawn_turn
        self._nodes: dict[Prefix, TrieNode] = {}
        self._shape: dict[Prefix, int] = {}  # split bits of aggregation points that others hold
        self._pushes: dict[int, Pending] = {}
        self._handing: set[tuple[Prefix, int, int]] = set()  # rows offered or inserted below, not concluded
        self._wanted: set[tuple[Prefix, int, int]] = set()  # rows that were offered below and are wanted
        self._inserting = self._offering = 0
        self._rows = 0  # counted anew at every tick
        self._recovering: dict[Prefix, Recovery] = {}
        self._next_token = 1
        self._out: list[Action] = []

    # ----- what the driver calls

    def received(self, message: Message, sender: bytes, request: object, now_ms: int) -> list[Action]:
        """Take in a question; its Reply comes now or from a later call."""
        try:
            self._dispatch(message, sender, request, now_ms)
        except RemoteError as error:
            self._reply(request, Refused(str(error)[:200]))
        return self._flush()

    def answered(self, token: int, asked: int, sender: bytes, reply: Message | None, now_ms: int) -> list[Action]:
        """Take in one node's reply to a Push (None: it did not answer). `asked` nodes were asked in all."""
        pending = self._pushes.get(token)
        if pending is not None and sender not in pending.heard:
            pending.heard.add(sender)
            self._conclude(token, pending, max(asked, 1), sender, reply, now_ms)
        return self._flush()

    def tick(self, now_ms: int) -> list[Action]:
        """Expire, tighten, retry. Call about once a second."""
        for token in [one for one, held in self._pushes.items() if held.since_ms + PUSH_TIMEOUT_MS <= now_ms]:
            self._abandon(token, self._pushes[token])
        for prefix in sorted(self._nodes):
            node = self._nodes[prefix]
            if not node.ready:
                self._recover(node, now_ms)
                continue
            if node.refresh_ms <= now_ms:
                node.refresh_ms = now_ms + REBUILD_MS
                node.rebuild(now_ms)
                self._release_overtaken(node)
                if node.is_idle and prefix != ROOT and not node.claimed.count and not node.tombstones:
                    del self._nodes[prefix]
                    continue
                # A zone that grew a moment ago stays roomy for another period: more may be coming.
                tighten = node.claimed != node.zone and not (node.grew and node.zone.count)
                if tighten or node.told_ms + HEARTBEAT_MS <= now_ms:
                    node.settled = False
                node.grew = False
            self._settle(node, now_ms)
            self._hand_over(node, now_ms)
        self._rows = sum(len(node.rows) for node in self._nodes.values())
        self._wanted = {row for row in self._wanted if row[0] in self._nodes and len(self._nodes[row[0]].rows)}
        return self._flush()

    def statistics(self) -> dict[str, int]:
        """Counts for display: trie nodes, rows, entries, pushes in flight."""
        return {
            "nodes": len(self._nodes),
            "rows": sum(len(node.rows) for node in self._nodes.values()),
            "entries": sum(len(held) for node in self._nodes.values() for held in node.entries.values()),
            "pushes": len(self._pushes),
        }

    def install(self, node: TrieNode) -> None:
        """Keep a trie node that was built elsewhere (bulk.py), in the place of what is held."""
        self._nodes[node.prefix] = node
        self._recovering.pop(node.prefix, None)

    def nodes(self) -> dict[Prefix, TrieNode]:
        """The trie nodes held, for inspection only."""
        return dict(self._nodes)

    # ----- questions

    def _dispatch(self, message: Message, sender: bytes, request: object, now_ms: int) -> None:
        if isinstance(message, Insert):
            self._insert(message, request, now_ms)
        elif isinstance(message, Delete):
            self._delete(message, request, now_ms)
        elif isinstance(message, ZoneUpdate):
            self._zone_update(message, sender, request, now_ms)
        elif isinstance(message, Marked):
            if not self._may_hold(message.prefix, sender):  # splits are for ever: a stranger's would shred the trie
                raise MessageError("the sender is not near this prefix's key")
            node = self._nodes.get(message.prefix)
            if node is not None and node.mark(message.splits):
                self._hand_over(node, now_ms)
            self._reply(request, Accepted(node.splits if node else 0))
        elif isinstance(message, Offer):
            self._offered(message, request)
        elif isinstance(message, Pull):
            node = self._nodes.get(message.prefix)
            self._reply(request, digest(node if node and node.ready else None, message))
        elif isinstance(message, (Read, Fetch, Locate, Overview)):
            self._look(message, sender, request, now_ms)
        else:
            raise MessageError("not a question")

    def _look(self, message: Read | Fetch | Locate | Overview, sender: bytes, request: object, now_ms: int) -> None:
        node = self._node(message.prefix, now_ms)
        if not node.ready:
            self._reply(request, NotReady(RETRY_MS))
        elif isinstance(message, Read):
            self._reply(request, answer(node, message, sender, now_ms))
        elif isinstance(message, Overview):
            self._reply(request, outline(node, message, sender))
        elif isinstance(message, Fetch):
            self._reply(request, AdvertIs(node.rows.raw_of(message.id) or b""))
        elif not message.prefix.contains(message.key):
            raise MessageError("the key is not under this prefix")
        else:
            where = node.destination(message.key)
            self._reply(request, Here() if where == node.prefix else Moved(where))

    def _checked(self, message: Insert | Delete, now_ms: int) -> Point:
        if not message.prefix.contains(message.key):
            raise MessageError("the key is not under this prefix")
        point = self._verify(message.advert, now_ms)
        if point is None:
            raise MessageError("the advert does not verify")
        return point

    def _insert(self, message: Insert, request: object, now_ms: int) -> None:
        point = self._checked(message, now_ms)
        if point.gone or point.expires_s <= now_ms // 1000:
            raise MessageError("the advert has expired or is a tombstone")
        own_keys, zone = self._derive(point)
        if not any(is_near(self._axis, message.key, own) for own in own_keys):
            raise MessageError("the key is not this advert's")
        node = self._node(message.prefix, now_ms)
        where = node.destination(message.key)
        if where != node.prefix:
            self._reply(request, Moved(where))
            return
        held = node.rows.find(point.id, message.key)
        buried = node.tombstones.get((point.id, message.key), (-1, 0))[0]
        newest = max(held.seq if held else -1, buried)
        if point.seq < newest or point.seq == buried:
            self._reply(request, Stale(newest))
            return
        if held is not None and held.seq == point.seq:
            if node.rows.raw_of(point.id, message.key) != message.advert:
                raise MessageError("two adverts with one sequence number")
        elif held is None and self._rows >= MAX_ROWS:
            self._reply(request, NotReady(REBUILD_MS))
            return
        else:
            node.rows.put(point, message.key, message.advert)
            self._rows += held is None
        node.zone = node.zone.union(zone) if not node.zone.count else node.zone.widened(zone, held is None, 0)
        self._wait(node, Waiter(request, zone))
        self._split(node, now_ms)
        self._settle(node, now_ms)

    def _derive(self, point: Point) -> tuple[list[int], Zone]:
        """An advert's own keys and zone."""
        epoch, derived = self.schema.epoch, point.derived
        if (epoch, self.dimension) not in derived:
            derived[epoch, self.dimension] = keys_of(self.schema, self.dimension, point)
        if ("zone", epoch) not in derived:
            derived["zone", epoch] = Zone.of_point(self.schema, point)
        return derived[epoch, self.dimension], derived["zone", epoch]

    def _delete(self, message: Delete, request: object, now_ms: int) -> None:
        point = self._checked(message, now_ms)
        node = self._nodes.get(message.prefix)
        if node is None:
            self._reply(request, Accepted())
            return
        held = node.rows.find(point.id, message.key)
        # A tombstone removes its own sequence number too; an advert only older rows.
        last = point.seq if point.gone else point.seq - 1
        if last >= 0:
            node.bury(point.id, message.key, last, now_ms)
        if held is not None and held.seq <= last:
            node.rows.drop(point.id, message.key)
        where = node.destination(message.key)
        self._reply(request, Accepted(node.splits) if where == node.prefix else Moved(where))

    def _zone_update(self, message: ZoneUpdate, sender: bytes, request: object, now_ms: int) -> None:
        parent = message.child.parent
        if parent is None or len(message.zone.lows) != len(self.schema.ordered):
            raise MessageError("not a child's zone")
        if not self._may_hold(message.child, sender):
            raise MessageError("the sender is not near this child's key")
        node = self._node(parent, now_ms)
        newer = node.hear(message.child, sender, message.incarnation, message.version, message.zone, now_ms)
        if not newer and node.entries[message.child][sender].version != message.version:
            self._reply(request, Stale(node.entries[message.child][sender].version))
            return
        node.mark(message.splits)
        self._wait(node, Waiter(request, message.zone))
        self._settle(node, now_ms)
        self._hand_over(node, now_ms)

    # ----- splitting

    def _split(self, node: TrieNode, now_ms: int) -> None:
        if node.ready and node.overflow(self.capacity):
            self._push(node.prefix, Marked(node.prefix, node.splits), now_ms)
            self._climb(node, now_ms)
            self._hand_over(node, now_ms)

    def _hand_over(self, node: TrieNode, now_ms: int) -> None:
        """Send rows that belong below to their leaf: offer them first, then insert what is wanted."""
        if not node.ready or not node.is_split or not len(node.rows):
            return
        if not node.hand_over_ms:
            # Replicas split together. Those whose turn is later find most of the work done.
            node.hand_over_ms = now_ms + min(self._turn(node.prefix), TURNS - 1) * TURN_MS
        if node.hand_over_ms > now_ms:
            return
        full = self._offering >= OFFER_WINDOW
        if full and self._inserting >= HANDOVER_WINDOW:
            return
        offers: dict[Prefix, list[Posting]] = {}
        for id, key, seq in node.rows.postings():
            row = (node.prefix, id, key)
            if row in self._handing:
                continue
            if full and (row not in self._wanted or self._inserting >= HANDOVER_WINDOW):
                continue
            where = self._below(node.destination(key), key)
            if row not in self._wanted:
                offers.setdefault(where, []).append(Posting(id, key, seq))
            elif self._inserting < HANDOVER_WINDOW:
                insert = Insert(where, key, node.rows.raw_of(id, key) or b"")
                if self._push(where, insert, now_ms, node=node.prefix, row=(id, key, seq)) is not None:
                    self._handing.add(row)
                    self._inserting += 1
        for where in sorted(offers):
            for start in range(0, len(offers[where]), MAX_OFFER):
                if self._offering >= OFFER_WINDOW:
                    return
                some = tuple(offers[where][start : start + MAX_OFFER])
                if self._push(where, Offer(where, some), now_ms, node=node.prefix) is not None:
                    self._handing.update((node.prefix, one.id, one.key) for one in some)
                    self._offering += 1

    def _drawn_turn(self, prefix: Prefix) -> int:
        return xxhash.xxh3_64_intdigest(self.me + prefix.bits.to_bytes(8, "big")) % TURNS

    def _below(self, where: Prefix, key: int) -> Prefix:
        """Where a key belongs under `where`, as far as others told us when we last got it wrong."""
        while (deeper := destination(where, self._shape.get(where.anchor, 0), key)) != where:
            where = deeper
        return where

    def _told_moved(self, where: Prefix) -> None:
        anchor = where.parent
        if anchor is not None:
            if anchor not in self._shape and len(self._shape) >= MAX_NODES:
                del self._shape[next(iter(self._shape))]
            self._shape[anchor] = self._shape.get(anchor, 0) | path_bits(where)

    def _offered(self, message: Offer, request: object) -> None:
        """Say which of the offered rows a child still lacks. Unsettled ones count as lacking."""
        node = self._nodes.get(message.prefix)
        if node is not None and node.is_split and message.postings:
            self._reply(request, Moved(node.destination(message.postings[0].key)))
            return
        wanted = tuple(range(len(message.postings)))
        if node is not None and node.ready and node.settled and node.claimed.covers(node.zone):
            held = [node.rows.find(one.id, one.key) for one in message.postings]
            wanted = tuple(
                place
                for place, (point, one) in enumerate(zip(held, message.postings))
                if point is None or point.seq < one.seq
            )
        self._reply(request, Wanted(wanted))

    def _take_wanted(self, token: int, pending: Pending, asked: int, reply: Message | None, now_ms: int) -> None:
        offer = pending.message
        if not isinstance(offer, Offer):
            return
        if isinstance(reply, Wanted):
            pending.agreed += 1
            pending.wanted.update(place for place in reply.places if place < len(offer.postings))
        else:
            if isinstance(reply, Moved) and offer.prefix.covers(reply.prefix):
                self._told_moved(reply.prefix)
            pending.failed += 1
        if pending.failed > asked - quorum(asked):
            self._abandon(token, pending)
        elif pending.agreed >= quorum(asked):
            self._abandon(token, pending)  # which frees its rows: they are dropped or inserted next
            node = self._nodes.get(pending.prefix)
            for place, one in enumerate(offer.postings):
                if place in pending.wanted:
                    self._wanted.add((pending.prefix, one.id, one.key))
                elif node is not None:
                    self._drop_handed(node, (one.id, one.key, one.seq))
            if node is not None:
                self._hand_over(node, now_ms)

    def _handed(self, pending: Pending, now_ms: int) -> None:
        """A quorum of the child's holders has the row: it is theirs now."""
        node = self._nodes.get(pending.prefix)
        if node is None or pending.row is None:
            return
        self._drop_handed(node, pending.row)
        self._hand_over(node, now_ms)

    def _drop_handed(self, node: TrieNode, row: tuple[int, int, int]) -> None:
        id, key, seq = row
        self._wanted.discard((node.prefix, id, key))
        held = node.rows.find(id, key)
        if held is not None and held.seq == seq:
            node.rows.drop(id, key)
        if not len(node.rows):
            node.refresh_ms = 0  # tell the parent at the next tick that this is a leaf no more

    # ----- telling the parent

    def _wait(self, node: TrieNode, waiter: Waiter) -> None:
        if len(node.waiters) >= MAX_WAITERS:
            self._reply(node.waiters.pop(0).request, NotReady(RETRY_MS))
        node.waiters.append(waiter)

    def _release_overtaken(self, node: TrieNode) -> None:
        """What waits for a zone that a newer word has since narrowed would wait for ever."""
        for waiter in [one for one in node.waiters if not node.zone.covers(one.zone)]:
            node.waiters.remove(waiter)
            self._reply(waiter.request, NotReady(RETRY_MS))

    def _settle(self, node: TrieNode, now_ms: int) -> None:
        """Answer who can be answered; claim a wider zone when someone still waits for it."""
        if not node.ready:
            return
        if node.prefix == ROOT:
            node.claimed, node.settled = node.zone, True
        if node.settled:
            waiting = []
            for waiter in node.waiters:
                if node.claimed.covers(waiter.zone):
                    self._reply(waiter.request, Accepted(node.splits))
                else:
                    waiting.append(waiter)
            node.waiters = waiting
        if node.is_idle and not node.version:
            return  # an empty leaf that no parent has heard of
        if not node.climbing and not (node.settled and node.claimed.covers(node.zone)):
            if not node.claimed.covers(node.zone):
                node.grew = True
            self._climb(node, now_ms)

    def _climb(self, node: TrieNode, now_ms: int) -> None:
        parent = node.prefix.parent
        if parent is None or node.climbing:
            return
        version = node.version + 1
        zone = node.zone.roomy() if node.grew else node.zone
        update = ZoneUpdate(node.prefix, self.incarnation, version, zone, node.splits)
        if self._push(parent, update, now_ms, node=node.prefix) is not None:
            # From here on the parent may know no more than this, so nothing wider is settled.
            node.version, node.claimed, node.settled, node.climbing = version, zone, False, True
            node.told_ms = now_ms

    # ----- replies to pushes

    def _conclude(
        self, token: int, pending: Pending, asked: int, sender: bytes, reply: Message | None, now_ms: int
    ) -> None:
        message = pending.message
        if isinstance(message, (Pull, Fetch)):
            self._pulled(token, pending, asked, sender, reply, now_ms)
            return
        if isinstance(message, Offer):
            self._take_wanted(token, pending, asked, reply, now_ms)
            return
        node = self._nodes.get(pending.prefix)
        if isinstance(reply, Accepted) or (isinstance(reply, Stale) and pending.row is not None):
            pending.agreed += 1
            if isinstance(reply, Accepted) and isinstance(message, ZoneUpdate) and node is not None:
                self._learn(node, reply.splits, now_ms)
        elif isinstance(reply, Moved) and pending.row is not None and isinstance(message, Insert):
            self._follow(token, pending, message, reply.prefix, now_ms)
            return
        else:
            pending.failed += 1
        if pending.agreed >= quorum(asked):
            self._finish(token, pending, now_ms)
        elif pending.failed > asked - quorum(asked):
            self._abandon(token, pending)

    def _finish(self, token: int, pending: Pending, now_ms: int) -> None:
        del self._pushes[token]
        node = self._nodes.get(pending.prefix)
        if pending.row is not None:
            self._free(pending)
            self._handed(pending, now_ms)
        elif isinstance(pending.message, ZoneUpdate) and node is not None:
            node.climbing = False
            if node.version == pending.message.version:
                node.settled = True
            self._settle(node, now_ms)

    def _abandon(self, token: int, pending: Pending) -> None:
        """Not enough of them answered: the next tick tries again."""
        del self._pushes[token]
        node = self._nodes.get(pending.prefix)
        if pending.row is not None or isinstance(pending.message, Offer):
            self._free(pending)
        elif isinstance(pending.message, ZoneUpdate) and node is not None:
            node.climbing = False
        elif isinstance(pending.message, (Pull, Fetch)) and pending.prefix in self._recovering:
            recovery = self._recovering[pending.prefix]
            if recovery.generation == pending.hops:
                recovery.restart()

    def _free(self, pending: Pending) -> None:
        """The rows of an insert or offer are not under way any more."""
        if pending.row is not None:
            self._handing.discard((pending.prefix, pending.row[0], pending.row[1]))
            self._inserting -= 1
        elif isinstance(pending.message, Offer):
            self._handing.difference_update((pending.prefix, one.id, one.key) for one in pending.message.postings)
            self._offering -= 1

    def _follow(self, token: int, pending: Pending, message: Insert, where: Prefix, now_ms: int) -> None:
        """The child is split already: send the row to where it belongs now."""
        self._abandon(token, pending)
        if pending.row is None or pending.hops >= MAX_HOPS or where.length <= message.prefix.length:
            return
        if not where.contains(message.key):
            return
        self._told_moved(where)
        id, key, _ = pending.row
        again = Insert(where, key, message.advert)
        if self._push(where, again, now_ms, node=pending.prefix, row=pending.row, hops=pending.hops + 1) is not None:
            self._handing.add((pending.prefix, id, key))
            self._inserting += 1

    def _learn(self, node: TrieNode, splits: int, now_ms: int) -> None:
        """Our parent knows of splits below us: a replica of ours was fuller than we are."""
        if not node.prefix.is_anchor and node.mark(splits):
            self._hand_over(node, now_ms)

    # ----- starting and restarting

    def _node(self, prefix: Prefix, now_ms: int) -> TrieNode:
        node = self._nodes.get(prefix)
        if node is None:
            if len(self._nodes) >= MAX_NODES and not self._forget_one():
                raise MessageError("no room for another trie node")
            node = self._nodes[prefix] = TrieNode(prefix, self.schema, Rows(self.schema))
            self._recover(node, now_ms)
        return node

    def _forget_one(self) -> bool:
        idle = [prefix for prefix, node in self._nodes.items() if node.is_idle and prefix != ROOT]
        # Then markers of old splits: a publisher that still knows one starts again at the root.
        idle += [prefix for prefix, node in self._nodes.items() if not (len(node.rows) or node.entries or node.waiters)]
        idle = [prefix for prefix in idle if prefix != ROOT]
        for prefix in idle[:1]:
            del self._nodes[prefix]
            self._recovering.pop(prefix, None)
        return bool(idle)

    def _recover(self, node: TrieNode, now_ms: int) -> None:
        """Learn from the peers what this trie node holds; until they answered it is not ready."""
        recovery = self._recovering.setdefault(node.prefix, Recovery())
        if not recovery.asking:
            token = self._push(node.prefix, Pull(node.prefix), now_ms, hops=recovery.generation)
            recovery.asking = token is not None

    def _pulled(
        self, token: int, pending: Pending, asked: int, sender: bytes, reply: Message | None, now_ms: int
    ) -> None:
        recovery, node = self._recovering.get(pending.prefix), self._nodes.get(pending.prefix)
        directed = isinstance(pending.message, Fetch) or bool(
            isinstance(pending.message, Pull) and pending.message.cursor
        )
        if directed or len(pending.heard) >= asked:
            self._pushes.pop(token, None)
        if recovery is None or node is None or recovery.generation != pending.hops:
            return
        if isinstance(reply, Digest) and reply.known and reply.prefix == node.prefix:
            self._take_digest(node, recovery, sender, reply, now_ms)
        elif isinstance(reply, AdvertIs) and isinstance(pending.message, Fetch):
            self._take_advert(node, recovery, pending.message.id, reply.advert, now_ms)
        elif not isinstance(reply, Digest):
            recovery.failed += 1
        if directed:
            recovery.open -= 1
        else:
            recovery.asked, recovery.answers = asked, recovery.answers + 1
        self._fetch_more(node, recovery, now_ms)

    def _take_digest(
        self, node: TrieNode, recovery: Recovery, sender: bytes, reply: Digest, now_ms: int
    ) -> None:
        node.mark(reply.splits)
        for fact in reply.entries:
            fits = fact.child.parent == node.prefix and len(fact.zone.lows) == len(self.schema.ordered)
            if fits and self._may_hold(fact.child, fact.holder):
                node.hear(fact.child, fact.holder, fact.incarnation, fact.version, fact.zone, now_ms)
        for posting in reply.postings:
            held = node.rows.find(posting.id, posting.key)
            if node.prefix.contains(posting.key) and (held is None or held.seq < posting.seq):
                recovery.want(posting.id, posting.key, sender)
        more = reply.next and recovery.pages < MAX_PAGES
        question = Pull(node.prefix, reply.next)
        if more and self._push(node.prefix, question, now_ms, to=sender, hops=recovery.generation) is not None:
            recovery.open += 1
            recovery.pages += 1

    def _take_advert(self, node: TrieNode, recovery: Recovery, id: int, advert: bytes, now_ms: int) -> None:
        keys = recovery.fetching.pop(id, [])
        point = self._verify(advert, now_ms) if advert else None
        if point is None or point.id != id or point.gone or point.expires_s <= now_ms // 1000:
            return
        own = keys_of(self.schema, self.dimension, point)
        for key in keys:
            held = node.rows.find(id, key)
            near = any(is_near(self._axis, key, one) for one in own)
            if near and (held is None or held.seq < point.seq):
                node.rows.put(point, key, advert)
                node.zone = node.zone.union(Zone.of_point(self.schema, point))

    def _fetch_more(self, node: TrieNode, recovery: Recovery, now_ms: int) -> None:
        while recovery.wanted and len(recovery.fetching) < FETCH_WINDOW:
            id = next(iter(recovery.wanted))
            sender, keys = recovery.wanted.pop(id)
            question = Fetch(node.prefix, id)
            if self._push(node.prefix, question, now_ms, to=sender, hops=recovery.generation) is None:
                break
            recovery.fetching[id] = keys
            recovery.open += 1
        if recovery.answers < recovery.asked or not recovery.asked or recovery.open or recovery.wanted:
            return
        if recovery.failed > recovery.asked - quorum(recovery.asked):
            recovery.restart()  # too few peers to be sure: the next tick asks again
            return
        del self._recovering[node.prefix]
        node.ready, node.refresh_ms = True, now_ms + REBUILD_MS
        # If nobody had anything it is an empty leaf until the next rebuild, so that whoever asked is told.
        self._split(node, now_ms)
        self._settle(node, now_ms)
        self._hand_over(node, now_ms)

    # ----- out

    def _push(
        self,
        where: Prefix,
        message: Question,
        now_ms: int,
        *,
        node: Prefix | None = None,
        row: tuple[int, int, int] | None = None,
        hops: int = 0,
        to: bytes | None = None,
    ) -> int | None:
        """Send to the R nearest `where`, or to one; None when too much is in flight already."""
        if len(self._pushes) >= MAX_PUSHES:
            return None
        token, self._next_token = self._next_token, self._next_token + 1
        self._pushes[token] = Pending(node or where, now_ms, message, set(), hops=hops, row=row)
        self._out.append(Push(token, where, message, to))
        return token

    def _reply(self, request: object, message: Result) -> None:
        self._out.append(Reply(request, message))

    def _flush(self) -> list[Action]:
        out, self._out = self._out, []
        return out


__all__ = ["Action", "Holder", "Push", "Reply", "Verify", "quorum"]
