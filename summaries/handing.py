"""Splitting a leaf, and handing its rows down to the leaves below.

Decides when a leaf splits, whose turn it is to hand over, and when a row may be dropped here: rule 2 of holder.py.
A reader unites replicas that it asks at different moments. So an aggregation point drops a row only once it can name
the child that has it: else one replica, asked early, would not know the child yet, and another, asked late, would not
have the row any more.
Rows are offered first and inserted only where they are wanted, since replicas split together and each has them all.
Where rows are many they hand over at the same time: so each begins at other rows, and asks what is wanted shortly
before it sends that.
"""

from __future__ import annotations

from collections.abc import Callable

import xxhash

from summaries.climbing import Climbing
from summaries.holder_state import HolderState
from summaries.messages import MAX_OFFER, Insert, Marked, Message, Moved, Offer, Posting, Wanted
from summaries.node import TrieNode, Waiter
from summaries.pending import Pending, quorum
from summaries.trie import Prefix, destination, path_bits
from summaries.zone import Zone, zone_of

MAX_SHAPES = 4_096  # aggregation points of others whose split bits are remembered
HANDOVER_WINDOW = 16  # rows on their way to children at once: a few datagrams' burst per peer
OFFER_WINDOW = 8
LONG = MAX_OFFER  # rows: replicas share the work as soon as it is more than one offer
OFFER_WINDOW_LONG = 4  # each of up to 36 rows: what children were said to lack must not be old when it is inserted
WANTED_MAX = 2 * HANDOVER_WINDOW  # rows of a long leaf that are wanted and wait, before more are offered
TURNS, TURN_MS = 4, 3_000  # replicas hand over one after the other: 3 s is three ticks
KEPT_MS = 6_000  # two turns: by then the child's other claims have come, or it has split and the row is offered anew
_Wanted = tuple[Prefix, int, tuple[bytes, ...]]  # where, with which number, and who of those there has it already
_Chunk = tuple[Prefix, list[tuple[int, int, int]]]  # rows (id, key, seq) that are offered to one leaf at once
MAX_HOPS = 12  # Moved answers that one row follows: deeper than any trie


class Handing:
    """Rows on their way down. `turn` says the how-manieth of a prefix's holders this one is, from 0."""

    def __init__(self, state: HolderState, climbing: Climbing, turn: Callable[[Prefix], int] | None) -> None:
        self._state, self._climbing = state, climbing
        self.turn = turn or self._drawn_turn
        self._shape: dict[Prefix, int] = {}  # split bits of aggregation points that others hold
        # By aggregation point or leaf, where its rows' keys belong below, as long as nothing more is split.
        self._ways: dict[Prefix, tuple[int, dict[int, Prefix]]] = {}
        self._handing: set[tuple[Prefix, int, int]] = set()  # rows offered or inserted below, not concluded
        # Rows (id, key) that were offered below and are wanted, in the order in which that was said.
        self._wanted: dict[Prefix, dict[tuple[int, int], _Wanted]] = {}
        # Rows that a quorum below has and that stay here all the same: where they are, and until when we wait.
        self._kept: dict[tuple[Prefix, int, int], tuple[Prefix, int]] = {}
        self._inserting = self._offering = 0

    def split(self, node: TrieNode, now_ms: int) -> None:
        if node.ready and node.overflow(self._state.capacity):
            self._state.push(node.prefix, Marked(node.prefix, node.splits), now_ms)
            self._climbing.climb(node, now_ms)
            self.hand_over(node, now_ms)

    def remind(self, node: TrieNode, now_ms: int) -> None:
        """Tell the other holders of an aggregation point again how it is split: nobody else can tell them."""
        if node.prefix.is_anchor and node.splits:
            self._state.push(node.prefix, Marked(node.prefix, node.splits), now_ms)

    def hand_over(self, node: TrieNode, now_ms: int) -> None:
        """Send rows that belong below to their leaf: offer them first, then insert what is wanted."""
        if not node.ready or not self.may_hand_over(node):
            return
        if not node.hand_over_ms:
            # Replicas split together. Those whose turn is later find most of the work done.
            node.hand_over_ms = now_ms + min(self.turn(node.prefix), TURNS - 1) * TURN_MS
        if node.hand_over_ms > now_ms:
            return
        self._insert_wanted(node, now_ms)
        long = len(node.rows) > LONG
        # What a child lacked when it was asked another replica may have brought by the time that it is inserted.
        if long and len(self._wanted.get(node.prefix, ())) >= WANTED_MAX:
            return
        if self._offering < (OFFER_WINDOW_LONG if long else OFFER_WINDOW):
            self._offer(node, now_ms, long)

    def may_hand_over(self, node: TrieNode) -> bool:
        """Whether there are rows here that belong below."""
        return node.is_split and len(node.rows) > 0

    def _insert_wanted(self, node: TrieNode, now_ms: int) -> None:
        """Insert what those below want, as far as the window allows."""
        wanted = self._wanted.get(node.prefix, {})
        gone = []
        for (id, key), (asked, seq, have) in wanted.items():
            if self._inserting >= HANDOVER_WINDOW:
                break
            row, held = (node.prefix, id, key), node.rows.find(id, key)
            if held is None:
                gone.append((id, key))
            elif row not in self._handing:
                where = self._where(node, key)
                insert = Insert(where, key, node.rows.raw_of(id, key) or b"")
                down, has = (id, key, held.seq), have if (where, held.seq) == (asked, seq) else ()
                if self._state.push(where, insert, now_ms, node=node.prefix, row=down, have=has) is not None:
                    self._handing.add(row)
                    self._inserting += 1
        for place in gone:
            del wanted[place]

    def _offer(self, node: TrieNode, now_ms: int, long: bool) -> None:
        """Offer all rows that are neither wanted nor on their way, as far as the window allows."""
        offers: dict[Prefix, list[tuple[int, int, int]]] = {}
        wanted = self._wanted.get(node.prefix, {})
        for id, key, seq in node.rows.postings():
            row = (node.prefix, id, key)
            if (id, key) not in wanted and row not in self._handing and not self._is_kept(node, row, seq, now_ms):
                offers.setdefault(self._where(node, key), []).append((id, key, seq))
        chunks = [
            (where, offers[where][start : start + MAX_OFFER])
            for where in sorted(offers)
            for start in range(0, len(offers[where]), MAX_OFFER)
        ]
        for where, rows in _in_turn(chunks, self.turn(node.prefix)) if long else chunks:
            if self._offering >= (OFFER_WINDOW_LONG if long else OFFER_WINDOW):
                return
            offer = Offer(where, tuple(Posting(*one) for one in rows))
            if self._state.push(where, offer, now_ms, node=node.prefix) is not None:
                self._handing.update((node.prefix, id, key) for id, key, _ in rows)
                self._offering += 1

    def offered(self, message: Offer, request: object, now_ms: int) -> None:
        """Say which of the offered rows a child still lacks, once searches see what it has of them."""
        node = self._state.nodes.get(message.prefix)
        if node is not None and node.is_split and message.postings:
            self._state.reply(request, Moved(node.destination(message.postings[0].key)))
            return
        if node is None or not node.ready:
            self._state.reply(request, Wanted(tuple(range(len(message.postings)))))
            return
        # Another replica, or who publishes, may have brought a row a moment ago: brought once more, it costs a message
        # to each of us, and a little patience costs none.
        held = Zone.empty(self._state.schema)
        for one in message.postings:
            point = node.rows.find(one.id, one.key)
            if point is not None and point.seq >= one.seq:
                held = held.union(zone_of(self._state.schema, point))
        if not held.count:
            self._state.reply(request, Wanted(tuple(range(len(message.postings)))))
            return
        self._climbing.wait(node, Waiter(request, held, message))
        self._climbing.settle(node, now_ms)

    def take_wanted(
        self, token: int, pending: Pending, asked: int, sender: bytes, reply: Message | None, now_ms: int
    ) -> None:
        offer = pending.message
        if not isinstance(offer, Offer):
            return
        if isinstance(reply, Wanted):
            pending.agreed += 1
            pending.wanted[sender] = reply.places
        else:
            if isinstance(reply, Moved) and offer.prefix.covers(reply.prefix):
                self._told_moved(reply.prefix)
            pending.failed += 1
        if pending.failed > asked - quorum(asked):
            self._let_go(token, pending)
        elif pending.agreed >= quorum(asked):
            self._let_go(token, pending)  # which frees its rows: they are dropped or inserted next
            node = self._state.nodes.get(pending.prefix)
            lacking = {who: set(places) for who, places in pending.wanted.items()}
            for place, one in enumerate(offer.postings):
                have = tuple(sorted(who for who, places in lacking.items() if place not in places))
                if len(have) < len(lacking):
                    self._wanted.setdefault(pending.prefix, {})[one.id, one.key] = offer.prefix, one.seq, have
                elif node is not None:
                    self._drop_handed(node, (one.id, one.key, one.seq), offer.prefix, now_ms)
            if node is not None:
                self.hand_over(node, now_ms)

    def handed(self, pending: Pending, now_ms: int) -> None:
        """A quorum of the child's holders has the row: it is theirs now."""
        node = self._state.nodes.get(pending.prefix)
        if node is None or pending.row is None:
            return
        if isinstance(pending.message, Insert):
            self._drop_handed(node, pending.row, pending.message.prefix, now_ms)
        self._insert_wanted(node, now_ms)  # no more: with leaves of 512 rows to go through all after each is most of it

    def follow(self, token: int, pending: Pending, message: Insert, where: Prefix, now_ms: int) -> None:
        """The child is split already: send the row to where it belongs now."""
        self._let_go(token, pending)
        if pending.row is None or pending.hops >= MAX_HOPS or where.length <= message.prefix.length:
            return
        if not where.contains(message.key):
            return
        self._told_moved(where)
        id, key, _ = pending.row
        again = Insert(where, key, message.advert)
        hops = pending.hops + 1
        if self._state.push(where, again, now_ms, node=pending.prefix, row=pending.row, hops=hops) is not None:
            self._handing.add((pending.prefix, id, key))
            self._inserting += 1

    def learn(self, node: TrieNode, splits: int, sender: bytes, now_ms: int) -> None:
        """Our parent knows of splits below us: a replica of ours was fuller than we are."""
        if not node.prefix.is_anchor and self._state.told_split(node, splits, sender):
            self.hand_over(node, now_ms)

    def free(self, pending: Pending) -> None:
        """The rows of an insert or offer are not under way any more."""
        if pending.row is not None:
            self._handing.discard((pending.prefix, pending.row[0], pending.row[1]))
            self._inserting -= 1
        elif isinstance(pending.message, Offer):
            self._handing.difference_update((pending.prefix, one.id, one.key) for one in pending.message.postings)
            self._offering -= 1

    def under_way(self) -> tuple[int, int]:
        """Rows that are noted as under way, and rows that pushes carry: as many, or some never end."""
        pushed = 0
        for pending in self._state.pushes.values():
            if pending.row is not None:
                pushed += 1
            elif isinstance(pending.message, Offer):
                pushed += len(pending.message.postings)
        return len(self._handing), pushed

    def forget_gone(self) -> None:
        """Forget what was wanted of rows that are not here any more."""
        nodes = self._state.nodes
        self._wanted = {one: rows for one, rows in self._wanted.items() if one in nodes and len(nodes[one].rows)}
        self._kept = {row: held for row, held in self._kept.items() if row[0] in nodes and len(nodes[row[0]].rows)}
        self._ways = {one: ways for one, ways in self._ways.items() if one in nodes and len(nodes[one].rows)}

    def _let_go(self, token: int, pending: Pending) -> None:
        """Whatever comes of it, these rows are not under way any more."""
        del self._state.pushes[token]
        self.free(pending)

    def _drop_handed(self, node: TrieNode, row: tuple[int, int, int], where: Prefix, now_ms: int) -> None:
        """A quorum of the holders of `where` has this row: drop it, unless a reader would then find it nowhere here."""
        id, key, seq = row
        self._wanted.get(node.prefix, {}).pop((id, key), None)
        held = node.rows.find(id, key)
        if held is not None and held.seq == seq:
            if node.prefix.is_anchor and not node.shows(where, zone_of(self._state.schema, held)):
                self._kept[node.prefix, id, key] = where, now_ms + KEPT_MS
                return
            node.hand(id, key, now_ms)
        if not len(node.rows):
            node.refresh_ms = 0  # tell the parent at the next tick that this is a leaf no more

    def _is_kept(self, node: TrieNode, row: tuple[Prefix, int, int], seq: int, now_ms: int) -> bool:
        """Whether a row that those below have stays here a little longer; dropped once we can say where it went."""
        if row not in self._kept:
            return False
        where, until_ms = self._kept.pop(row)
        if until_ms <= now_ms:
            return False
        _, id, key = row
        self._drop_handed(node, (id, key, seq), where, now_ms)
        if row in self._kept:
            self._kept[row] = where, until_ms
        return True

    def _where(self, node: TrieNode, key: int) -> Prefix:
        """Where a row belongs below; remembered, since all rows of a leaf are gone through for each offer."""
        splits, ways = self._ways.get(node.prefix, (-1, {}))
        if splits != node.splits:
            splits, ways = self._ways[node.prefix] = node.splits, {}
        where = ways.get(key)
        if where is None:
            where = ways[key] = self._below(node.destination(key), key)
        return where

    def _below(self, where: Prefix, key: int) -> Prefix:
        """Where a key belongs under `where`, as far as others told us when we last got it wrong."""
        while (deeper := destination(where, self._shape.get(where.anchor, 0), key)) != where:
            where = deeper
        return where

    def _told_moved(self, where: Prefix) -> None:
        anchor = where.parent
        if anchor is not None:
            if anchor not in self._shape and len(self._shape) >= MAX_SHAPES:
                del self._shape[next(iter(self._shape))]
            self._shape[anchor] = self._shape.get(anchor, 0) | path_bits(where)
            self._ways.clear()

    def _drawn_turn(self, prefix: Prefix) -> int:
        return xxhash.xxh3_64_intdigest(self._state.me + prefix.bits.to_bytes(8, "big")) % TURNS


def _in_turn(offers: list[_Chunk], turn: int) -> list[_Chunk]:
    """Replicas begin at different rows, so that each meets what the others have handed over, not the others.

    The first goes forward and the second backward; the others begin in the middle.
    """
    if turn == 1:
        return offers[::-1]
    middle = len(offers) // 2 if turn > 1 else 0
    return offers[middle:] + offers[:middle]
