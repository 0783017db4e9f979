"""What a holder says of what the adverts below it come to, and what it remembers of its children's sums.

Decides when a node's sum is told to its parent's holders (soft state beside the zones: it is repeated, ages, and no
search depends on it), which child's word is taken, and the answer to a Tally. A sum is told only where every child's
is known and no row is on its way down; a node of the environment trie tells none, since an advert stands there once
for each environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import xxhash

from summaries.answer import named
from summaries.errors import MessageError
from summaries.filter import CompiledFilter, Filter, compiled
from summaries.forms import MAX_AGE_MS, part_fields, tally_child_fields
from summaries.holder_state import NEVER_MS, HolderState
from summaries.inside import surely_passes
from summaries.messages import Accepted, SumUpdate, Tallied, Tally, TallyChild, TallyPart
from summaries.node import TrieNode
from summaries.size import MAX_MESSAGE_BYTES, packed_size
from summaries.sums import Aggregate, sum_of
from summaries.trie import Prefix

TOLD_MS = 30_000  # the first of a prefix's holders tells so often, as often as zones are told again
TOLD_IF_UNCHANGED_MS = 60_000
OTHERS_TOLD_MS = 120_000  # the other holders: for the case that the first is gone
UNKNOWN_MS = 5_000  # until a node looks again whether all of its children have told
BELIEVED_MS = 300_000
PAGES_MS = 2_000  # a census reads the pages of one answer within some round trips
MADE_MAX = 16
GROUPS = ("", "country", "region", "owner", "currency")
MAX_TELLERS = 8  # holders remembered a child, as for entries
MAX_NAME = 128  # of a group: no text of an advert is longer
_FRAME_BYTES = 60
_PAGE_ITEMS = 100


@dataclass(slots=True)
class _Told:
    order: tuple[int, int]  # incarnation, number
    aggregate: Aggregate
    heard_ms: int


@dataclass(slots=True)
class _Telling:
    """What this holder last told of one of its nodes."""

    aggregate: Aggregate | None = None
    told_ms: int = 0
    due_ms: int = 0  # when to look again


class Tallying:
    """The sums of one dimension at one holder: those that its nodes' children told, and those that it tells."""

    def __init__(self, state: HolderState) -> None:
        self._state = state
        self._children: dict[Prefix, dict[Prefix, dict[bytes, _Told]]] = {}  # node -> child -> holder
        self._telling: dict[Prefix, _Telling] = {}
        self._made: dict[tuple[Prefix, int, Filter, str], tuple[int, list[TallyPart], bytes]] = {}

    def hear(self, message: SumUpdate, sender: bytes, request: object, now_ms: int) -> None:
        """Take a child's sum in, if the child's zone is known from the same holder."""
        parent = message.child.parent
        node = None if parent is None else self._state.nodes.get(parent)
        self._state.reply(request, Accepted(node.splits if node else 0))
        if node is None or sender not in node.entries.get(message.child, {}):
            return
        tellers = self._children.setdefault(node.prefix, {}).setdefault(message.child, {})
        order, old = (message.incarnation, message.number), tellers.get(sender)
        if old is None or order > old.order:
            if old is None and len(tellers) >= MAX_TELLERS:
                del tellers[min(sorted(tellers), key=lambda one: tellers[one].heard_ms)]
            tellers[sender] = _Told(order, message.aggregate, now_ms)

    def tell(self, node: TrieNode, turn: Callable[[Prefix], int], now_ms: int) -> None:
        """Tell the parent's holders what a node comes to, when that is due; `turn` says how many do so before us."""
        parent = node.prefix.parent
        if parent is None or not self._tells(node):
            return
        telling = self._telling.get(node.prefix)
        if telling is None:
            telling = self._telling[node.prefix] = _Telling()
        if now_ms < telling.due_ms:
            return
        telling.due_ms = now_ms + (OTHERS_TOLD_MS if turn(node.prefix) else TOLD_MS)
        aggregate = self._of(node, now_ms)
        if aggregate is None:
            telling.due_ms = now_ms + UNKNOWN_MS
            return
        if aggregate == telling.aggregate and now_ms - telling.told_ms < TOLD_IF_UNCHANGED_MS:
            return
        update = SumUpdate(node.prefix, self._state.incarnation, self._state.next_version(), aggregate)
        if self._state.push(parent, update, now_ms, node=node.prefix) is not None:
            telling.aggregate, telling.told_ms = aggregate, now_ms

    def due_ms(self, node: TrieNode) -> int:
        """When `tell` would look again, if nothing comes in until then."""
        if not self._tells(node):
            return NEVER_MS
        telling = self._telling.get(node.prefix)
        return telling.due_ms if telling is not None else 0

    def _tells(self, node: TrieNode) -> bool:
        return node.settled and node.prefix.length > 0 and self._state.axis.kind != "categorical"

    def forget_gone(self) -> None:
        """Forget what belongs to nodes and children that are gone."""
        nodes = self._state.nodes
        for prefix in [one for one in self._telling if one not in nodes]:
            del self._telling[prefix]
        for prefix in [one for one in self._children if one not in nodes]:
            del self._children[prefix]
        for prefix, held in self._children.items():
            for child in [one for one in held if one not in nodes[prefix].entries]:
                del held[child]

    def answer(self, node: TrieNode, question: Tally, reader: bytes, now_ms: int) -> Tallied:
        """One page of what passes: rows by group, children that answer for themselves, and children to be asked."""
        if question.group not in GROUPS:
            raise MessageError(f"adverts are grouped by one of {', '.join(GROUPS[1:])}")
        condition = compiled(node.schema, question.filter)
        parts, told_apart = self._rows(node, question, condition, now_ms)
        hashed = xxhash.xxh3_64(told_apart)
        said: list[TallyPart] = []
        children = []
        for child, zone, holders in node.children():
            if not condition.passes(zone):
                continue
            told = self._child(node, child, now_ms) if question.whole and not question.group else None
            if told is not None and surely_passes(node.schema, question.filter, zone, _only_currency(told.aggregate)):
                said.append(TallyPart("", min(max(now_ms - told.heard_ms, 1), MAX_AGE_MS), zone.leaves, told.aggregate))
            else:
                hashed.update(repr(child).encode())
                children.append(TallyChild(child, zone.count, len(holders), named(holders, child, reader, 2)))
        children += [TallyChild(child, 0, 0, ()) for child in node.frontier()]
        if said:
            whole = sum_of(one.aggregate for one in said).fitting()
            parts.append(TallyPart("", max(one.age_ms for one in said), sum(one.leaves for one in said), whole))
        total, mark = len(parts) + len(children), hashed.intdigest()
        splitting = bool(len(node.rows) and (node.entries or node.is_split))
        if question.digest_only:
            return Tallied(node.prefix, (), (), total, mark, splitting)
        some, rest = _page(parts, children, question.first)
        return Tallied(node.prefix, some, rest, total, mark, splitting)

    def _rows(
        self, node: TrieNode, question: Tally, condition: CompiledFilter, now_ms: int
    ) -> tuple[list[TallyPart], bytes]:
        """The groups of a node's own rows, and what tells them from others; pages of one answer share the work."""
        key = (node.prefix, node.rows.changes, question.filter, question.group)
        known = self._made.get(key)
        if known is not None and now_ms - known[0] < PAGES_MS:
            return list(known[1]), known[2]
        groups: dict[str, list[int]] = {}
        for place in _alive(node, condition.select(node.rows), self._state.wall_ms(now_ms)):
            value = node.rows.points[place].attributes.get(question.group, "") if question.group else ""
            groups.setdefault(str(value)[:MAX_NAME], []).append(place)
        parts = [TallyPart(name, 0, 0, Aggregate.of_rows(node.rows, groups[name]).fitting()) for name in sorted(groups)]
        mark = repr([(one.name, one.aggregate) for one in parts]).encode()
        if len(self._made) >= MADE_MAX:
            del self._made[next(iter(self._made))]
        if len(parts) > 1:
            self._made[key] = now_ms, parts, mark
        return list(parts), mark

    def _child(self, node: TrieNode, child: Prefix, now_ms: int) -> _Told | None:
        """What a child last said it comes to: the newest word of its holders."""
        tellers = self._children.get(node.prefix, {}).get(child, {})
        fresh = [one for _, one in sorted(tellers.items()) if one.heard_ms + BELIEVED_MS > now_ms]
        return max(fresh, key=lambda one: one.heard_ms, default=None)

    def _of(self, node: TrieNode, now_ms: int) -> Aggregate | None:
        children = node.children()
        if not children:
            alive = _alive(node, list(range(len(node.rows))), self._state.wall_ms(now_ms))
            own = Aggregate.of_rows(node.rows, alive)
            return own.fitting() if own.count and not node.is_split else None
        told = [self._child(node, child, now_ms) for child, _, _ in children]
        if len(node.rows) or node.frontier() or None in told:
            return None
        return sum_of(one.aggregate for one in told if one is not None).fitting()


def _page(
    parts: list[TallyPart], children: list[TallyChild], first: int
) -> tuple[tuple[TallyPart, ...], tuple[TallyChild, ...]]:
    room = MAX_MESSAGE_BYTES - _FRAME_BYTES
    some: list[TallyPart] = []
    rest: list[TallyChild] = []
    items: list[TallyPart | TallyChild] = [*parts, *children]
    for item in items[first : first + _PAGE_ITEMS]:
        room -= packed_size(part_fields(item) if isinstance(item, TallyPart) else tally_child_fields(item))
        if room < 0:
            break
        if isinstance(item, TallyPart):
            some.append(item)
        else:
            rest.append(item)
    return tuple(some), tuple(rest)


def _alive(node: TrieNode, places: list[int], wall_ms: int) -> list[int]:
    return [place for place in places if node.rows.points[place].expires_s > wall_ms // 1000]


def _only_currency(aggregate: Aggregate) -> str:
    """The currency that all of these adverts are priced in, or none."""
    one = aggregate.priced
    return one[0].currency if len(one) == 1 and one[0].count == aggregate.count else ""
