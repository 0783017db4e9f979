"""What holds again a while after the last fault: everybody is found, everywhere, and every advert is where it belongs.

Decides by the global truth: who is alive, which node ids are nearest to a key, what every server last signed. Each
check returns what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from summaries.asks import REPLICAS
from summaries.node import TrieNode
from summaries.parse import parse
from summaries.pending import quorum
from summaries.point import Point
from summaries.trie import ROOT, Prefix, trie_key
from summaries.zone import Zone
from xenonode.model.advert import Advert
from xenonode.simulation.nearest import Nearest

if TYPE_CHECKING:
    from xenonode.search.holding import TrieHolding
    from xenonode.search.looking import Standing
    from xenonode.search.searching import SearchAnswer
    from xenonode.simulation.node_host import NodeHost
    from xenonode.simulation.stage import Stage

EVERYTHING = (
    "cores >= 1",
    "memory.available >= 0 MiB",
    "price.cpu >= 0 USD/h",
    "near(coord(0, 0, 0, 0), 20 s)",
)
"""Queries that every advert matches, a sold-out server's too, each answered from another dimension's trie."""

POINTS_MAX = 1_000
"""Adverts whose rows are looked for at the end of a run, in every dimension."""


Trie = tuple[str, int]
"""A dimension, and which of its tries."""


class Truth:
    """One world at one moment, as nobody in it can see it."""

    def __init__(self, world: Stage) -> None:
        self.world = world
        up = [host for host in world.holders() if host.running is not None]
        shunned = world.shunned()
        self.hosts = [host for host in up if host.running.home.signer.public_key not in shunned]
        self.names = [dimension.name for dimension in self.hosts[0].running.peer.schema.dimensions]
        self.peer = self.hosts[0].running.peer
        self.expected = {each.server_key: each for each in world.adverts()}
        self._by_key = {host.running.home.signer.public_key: host.node.host.name for host in self.hosts}
        self._before = {
            key: dict(one.publisher.standing)
            for host in self.hosts
            for _, key, one in _advertised(host)
            if one.publisher.is_under_way
        }
        self._nearest: dict[str, Nearest] = {}
        several = self.peer.tries
        self.tries = [(name, salt) for name in self.names for salt in range(several.get(name, 1))]
        self._holders: dict[tuple[Trie, Prefix], list[NodeHost]] = {}
        self._nodes: dict[tuple[Trie, Prefix], list[TrieNode]] = {}
        self._rows: dict[Trie, dict[int, dict[int, int]]] = {}
        self._prefixes: dict[Trie, list[Prefix]] = {}

    def holders(self, trie: Trie, prefix: Prefix) -> list[NodeHost]:
        """The living nodes that should hold a prefix."""
        found = self._holders.get((trie, prefix))
        if found is None:
            network_id, epoch = self.peer.trust.network.network_id, self.peer.schema.epoch
            number = int.from_bytes(trie_key(network_id, epoch, trie[0], prefix, trie[1]), "big")
            nearest = self._nearest.get(trie[0])
            if nearest is None:
                contacts = [host.running.peer.endpoint.overlay(trie[0]).contact for host in self.hosts]
                nearest = self._nearest[trie[0]] = Nearest([contact.number for contact in contacts])
            found = self._holders[trie, prefix] = [self.hosts[place] for place in nearest(number, REPLICAS)]
        return found

    def nodes(self, trie: Trie, prefix: Prefix) -> list[TrieNode]:
        """The trie node at each holder that has it ready."""
        found = self._nodes.get((trie, prefix))
        if found is None:
            found = self._nodes[trie, prefix] = []
            for host in self.holders(trie, prefix):
                node = self._part(host, trie).holder.nodes().get(prefix)
                if node is not None and node.ready:
                    found.append(node)
        return found

    def points(self) -> Iterator[tuple[str, Point, Mapping[str, Standing]]]:
        """Every advert in force, by its server's name; of many, one in so many.

        With those before it, by dimension, that were acknowledged there and which it is just replacing. In a large
        world somebody replaces his at each moment, and some holders have the new one while others have the old one.
        """
        for verified in list(self.expected.values())[:: 1 + len(self.expected) // POINTS_MAX]:
            point = self.peer.adverts.verify(verified.envelope.raw, self.world.now_ms())[1]
            yield self.server(verified.server_key), point, self._before.get(verified.server_key, {})

    def server(self, key: bytes) -> str:
        """Whose key it is."""
        return self._by_key.get(key, key.hex()[:8])

    def newest(self, trie: Trie, id: int) -> tuple[int, list[int]]:
        """Number and keys of an advert's newest rows: a server keeps a key that is near enough to its own."""
        rows = self._rows.get(trie)
        if rows is None:
            rows = self._rows[trie] = {}
            for host in self.hosts:
                for node in self._part(host, trie).holder.nodes().values():
                    for row, key, seq in node.rows.postings():
                        rows.setdefault(row, {})[key] = max(seq, rows.get(row, {}).get(key, 0))
        held = rows.get(id, {})
        newest = max(held.values(), default=0)
        return newest, sorted(key for key, seq in held.items() if seq == newest)

    def shown(self, trie: Trie, prefix: Prefix, id: int, key: int, seq: int) -> int:
        """How many of a prefix's holders have a row under this key that is not older than this."""
        rows = (node.rows.find(id, key) for node in self.nodes(trie, prefix))
        return sum(row is not None and row.seq >= seq for row in rows)

    def prefixes(self, trie: Trie, key: int) -> list[Prefix]:
        """Wherever anybody has a trie node that a key could stand at.

        Not where splits lead: holders that did not hear of one keep older rows, and of an aggregation point whose
        holders all lost power at once nobody knows any more how it was split, though its children tell of themselves.
        """
        everywhere = self._prefixes.get(trie)
        if everywhere is None:
            holdings = (self._part(host, trie) for host in self.hosts)
            everywhere = sorted({prefix for one in holdings for prefix in one.holder.nodes()})
            self._prefixes[trie] = everywhere
        return [prefix for prefix in everywhere if prefix.contains(key)]

    def _part(self, host: NodeHost, trie: Trie) -> TrieHolding:
        holding: TrieHolding = host.running.peer.holdings[trie[0]].of(trie[1])
        return holding

    @property
    def quorum(self) -> int:
        """Of a prefix's holders."""
        return quorum(min(REPLICAS, len(self.hosts)))


def _advertised(host: NodeHost) -> Iterator[tuple[str, bytes, Any]]:
    """Name and key of everything that a host which is up advertises, and what has its `advertiser` and `publisher`."""
    running = host.running
    if hasattr(running, "advertiser"):
        yield host.node.host.name, running.home.signer.public_key, running
        for machine in getattr(host, "fleet", ()):
            if hasattr(machine, "publisher"):
                yield machine.name, machine.signer.public_key, machine


def everybody_is_up(world: Stage) -> str:
    """Who was down is back."""
    down = [host.node.host.name for host in world.holders() if host.running is None]
    return f"still down: {', '.join(down)}" if down else ""


def adverts_are_in_force(world: Stage) -> str:
    """Everybody up who advertises has an advert in force, which a quorum of holders acknowledged in every trie."""
    for host in world.holders() if world.advertising else ():
        for name, _, one in _advertised(host):
            current, last = one.advertiser.current, one.publisher.last
            if current is None or last is None:
                return f"{name}: it has published no advert since it began"
            advert, _ = Advert.open(current.raw, world.trust.scheme)
            expired_ms = world.now_ms() - advert.expires_ms
            if expired_ms >= 0:
                return f"{name}: its advert expired {expired_ms // 1_000} s ago, and it has issued no other"
            if last.pending:
                return f"{name}: advert {last.seq} is not durable in {', '.join(last.pending)}"
    return ""


def rows_are_held(truth: Truth) -> str:
    """Two of the three nodes nearest to some prefix of an advert's key hold its newest row.

    While it is being replaced, that which a quorum acknowledged before is as good, or one that is newer.
    """
    for name, point, before in truth.points():
        for trie in truth.tries:
            wrong = _not_held(truth, trie, point.id, *truth.newest(trie, point.id))
            if wrong and trie[0] in before:
                wrong = _not_held(truth, trie, point.id, *_former(before[trie[0]], trie))
            if wrong:
                return f"{name}: {wrong}"
    return ""


def _former(standing: Standing, trie: Trie) -> tuple[int, list[int]]:
    """Number and keys of the row that was acknowledged in a trie."""
    return standing.point.seq, [each.key for each in standing.tries[trie[1]]]


def _not_held(truth: Truth, trie: Trie, id: int, seq: int, keys: Sequence[int]) -> str:
    """What is wrong with an advert's rows under these keys, each of which a quorum should hold."""
    if not keys:
        return f"nobody holds its row of {_name(trie)}"
    for key in keys:
        shown = [(truth.shown(trie, one, id, key, seq), one) for one in truth.prefixes(trie, key)]
        held, prefix = max(shown, default=(0, ROOT))
        if held < truth.quorum:
            return f"{held} of {REPLICAS} holders of {_name(trie)} {prefix} have its row"
    return ""


def zones_cover_rows(truth: Truth) -> str:
    """By the summaries one comes from the root to where an advert's row is: none on the way is narrower than it."""
    for name, point, before in truth.points():
        for trie in truth.tries:
            wrong = _not_covered(truth, trie, point, *truth.newest(trie, point.id))
            if wrong and trie[0] in before:
                former = before[trie[0]]
                wrong = _not_covered(truth, trie, former.point, *_former(former, trie))
            if wrong:
                return f"{name}: {wrong}"
    return ""


def _not_covered(truth: Truth, trie: Trie, point: Point, seq: int, keys: Sequence[int]) -> str:
    """Which summary leads past one of an advert's rows under these keys."""
    wanted = Zone.of_point(truth.peer.schema, point)
    for key in keys:
        there = [
            prefix
            for prefix in truth.prefixes(trie, key)
            if truth.shown(trie, prefix, point.id, key, seq) >= truth.quorum
        ]
        wrong = [_excluded(truth, trie, prefix, wanted) for prefix in there]
        if all(wrong):
            return wrong[0] if wrong else f"its row of {_name(trie)} is nowhere"
    return ""


def _excluded(truth: Truth, trie: Trie, prefix: Prefix, wanted: Zone) -> str:
    while (parent := prefix.parent) is not None:
        agreeing = 0
        for node in truth.nodes(trie, parent):
            agreeing += any(child == prefix and zone.covers(wanted) for child, zone, _ in node.children())
        if agreeing < truth.quorum:
            return f"the summary of {_name(trie)} {prefix} at {parent} excludes it"
        prefix = parent
    return ""


def _name(trie: Trie) -> str:
    return trie[0] + (f" #{trie[1]}" if trie[1] else "")


def one_network(truth: Truth) -> str:
    """From every node's contacts one comes to every other node: no part of the network is cut off."""
    at = {host.running.peer.endpoint.address: host.node.host.name for host in truth.hosts}
    for dimension in truth.names:
        known: dict[str, list[str]] = {name: [] for name in at.values()}
        knowing: dict[str, list[str]] = {name: [] for name in at.values()}
        for host in truth.hosts:
            one = host.node.host.name
            for contact in host.running.peer.endpoint.overlay(dimension).table.by_id.values():
                other = at.get(contact.address)
                if other is not None:
                    known[one].append(other)
                    knowing[other].append(one)
        start = next(iter(known))  # whom all reach, and who reaches all, joins all to all
        for ways, told in ((known, f"from {start} no way leads to"), (knowing, f"no way leads to {start} from")):
            lost = sorted(set(known) - _reached(ways, start))
            if lost:
                return f"{dimension}: {told} {', '.join(lost[:5])} ({len(lost)} in all)"
    return ""


def _reached(ways: Mapping[str, Sequence[str]], start: str) -> set[str]:
    seen, work = {start}, [start]
    while work:
        for name in ways[work.pop()]:
            if name not in seen:
                seen.add(name)
                work.append(name)
    return seen


def answer_is_whole(truth: Truth, who: str, query: str, answer: SearchAnswer) -> str:
    """A search finds exactly the adverts in force, and says that it is complete.

    Who vanished for good may be found until its last advert ends: nobody else can withdraw it.
    """
    found = {each.advert.server_key for each in answer.servers}
    lost = sorted(truth.server(key) for key in truth.expected if key not in found)
    ghosts = sorted(truth.server(key) for key in found - set(truth.expected) - truth.world.vanished)
    if lost or ghosts:
        said = "complete" if answer.complete else f"partial ({'; '.join(answer.missing[:3])})"
        return f"{who} asks {query!r}: missing {lost}, not in force {ghosts}; the answer calls itself {said}"
    return "" if answer.complete else f"{who} asks {query!r}: all are found, but it is partial: {answer.missing[:3]}"


__all__ = [
    "EVERYTHING",
    "Truth",
    "adverts_are_in_force",
    "answer_is_whole",
    "everybody_is_up",
    "one_network",
    "parse",
    "rows_are_held",
    "zones_cover_rows",
]
