"""Adverts that stand when a world begins: the tries that their publications would have grown, built at once.

Decides who holds each leaf and aggregation point: the R nodes nearest to its key, each a copy of its own, as after a
while of life without faults. Whoever advertises knows the holders of its leaves, as it would from its last
publication. Where nobody is a stranger it has sessions with them, too, as holders have with one another and with those
of the trie node above. Leaves out what only studies of growth need: first lookups of them, and rows that go down while
leaves split. What is built is told again, renewed and lost like everything else from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dht.contact import Contact
from summaries.asks import REPLICAS
from summaries.bulk import Advertised, build
from summaries.node import TrieNode
from summaries.publish import Posting
from summaries.trie import Prefix, trie_key
from xenonode.simulation.nearest import Nearest

if TYPE_CHECKING:
    from xenonode.simulation.crowd import Crowd
    from xenonode.simulation.crowd_hosts import CrowdPeer


def establish(crowd: Crowd) -> None:
    """Everybody's first advert stands in a crowd that is open, without a message."""
    adverts: list[Advertised] = []
    for server in crowd.servers:
        assert server.peer is not None
        now_ms = server.node.env.now_ms()
        raw = server.node.call(server.machine.advert, now_ms, server.credential).raw
        adverts.append((server.peer.adverts.verify(raw, now_ms)[1], raw))
    standing: list[dict[str, tuple[tuple[Posting, ...], ...]]] = [{} for _ in adverts]
    several = dict(crowd.published.tries)
    for dimension in (each.name for each in crowd.published.schema.dimensions):
        contacts = crowd.contacts(dimension)
        nearest = Nearest([contact.number for contact in contacts])
        tries = [_Trie(crowd, dimension, salt, contacts, nearest) for salt in range(several.get(dimension, 1))]
        found = [trie.fill(adverts) for trie in tries]
        for own, (point, _) in zip(standing, adverts):
            own[dimension] = tuple(postings[point.id] for postings in found)
        for server, own in zip(crowd.servers, standing):
            for trie, postings in zip(tries, own[dimension]):
                trie.introduce(server, postings)
    for server, (_, raw), own in zip(crowd.servers, adverts, standing):
        server.node.call(server.stand, raw, own)


class _Trie:
    """One of a dimension's tries."""

    def __init__(self, crowd: Crowd, dimension: str, salt: int, contacts: Sequence[Contact], nearest: Nearest) -> None:
        """`contacts` are the servers' in this dimension, among whom `nearest` looks."""
        self._crowd, self._dimension, self._salt = crowd, dimension, salt
        self._contacts, self._nearest = contacts, nearest
        self._holders: dict[Prefix, list[int]] = {}

    def fill(self, adverts: Sequence[Advertised]) -> dict[int, tuple[Posting, ...]]:
        """Build it in those who hold it; where each advert stands, by its row id."""
        crowd, found = self._crowd, dict[int, tuple[Posting, ...]]()
        for rank in range(min(REPLICAS, len(self._contacts))):
            nodes = build(
                crowd.published.schema, self._dimension, adverts, crowd.leaf_capacity, self._named,
                heard_ms=round(crowd.now_s * 1_000),
            )  # fmt: skip
            for prefix, node in nodes.items():
                self._install(crowd.servers[self._places(prefix)[rank]], node)
                if not rank:
                    self._acquaint_holders(prefix)
                    for id, key, _ in node.rows.postings():
                        found[id] = (*found.get(id, ()), Posting(key, prefix))
        return found

    def introduce(self, server: CrowdPeer, postings: Sequence[Posting]) -> None:
        """Let a server know who holds its leaves, as whoever has just published there does."""
        placement = server.peer.joined(self._dimension) if server.peer is not None else None
        assert placement is not None
        for posting in postings:
            server.node.call(placement.told, posting.leaf, self._named(posting.leaf), self._salt)
            self._acquaint(server, posting.leaf)

    def _acquaint_holders(self, prefix: Prefix) -> None:
        """Those who hold a trie node have met one another and those who hold its parent."""
        for place in self._places(prefix):
            for told in (prefix, prefix.parent):
                if told is not None:
                    self._acquaint(self._crowd.servers[place], told)

    def _acquaint(self, server: CrowdPeer, prefix: Prefix) -> None:
        """A server has met those who hold a trie node."""
        acquaintances = self._crowd.acquaintances
        if acquaintances is not None:
            for place in self._places(prefix):
                acquaintances.introduce(server.udp.pair, self._crowd.servers[place].udp.pair)

    def _install(self, server: CrowdPeer, node: TrieNode) -> None:
        assert server.peer is not None
        holding = server.peer.holdings[self._dimension].of(self._salt)

        def install() -> None:
            holding.holder.install(node)
            holding.wake()

        server.node.call(install)

    def _named(self, prefix: Prefix) -> list[bytes]:
        return [self._contacts[place].packed for place in self._places(prefix)]

    def _places(self, prefix: Prefix) -> list[int]:
        """Which servers hold a trie node, nearest first."""
        found = self._holders.get(prefix)
        if found is None:
            network_id, epoch = self._crowd.trust.network.network_id, self._crowd.published.schema.epoch
            key = trie_key(network_id, epoch, self._dimension, prefix, self._salt)
            found = self._holders[prefix] = self._nearest(int.from_bytes(key, "big"), REPLICAS)
        return found
