"""Adverts that stand when a world begins: the tries that their publications would have grown, built at once.

Decides who holds each leaf and aggregation point: the R nodes nearest to its key, each a copy of its own, as after a
while of life without faults. Whoever advertises knows the holders of its leaves, as it would from its last
publication. Leaves out what only studies of growth need: first lookups of them, and rows that go down while leaves
split. What is built is told again, renewed and lost like everything else from then on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dht.contact import Contact
from dht.routing import ID_BITS
from summaries.asks import REPLICAS
from summaries.bulk import Advertised, build
from summaries.node import TrieNode
from summaries.publish import Posting
from summaries.schema import Schema
from summaries.trie import Prefix, trie_key

if TYPE_CHECKING:
    from xenonode.simulation.crowd import Crowd

Postings = tuple[Posting, ...]


class Nearest:
    """Who of many is nearest to a key, by XOR: looked for among those who share its leading bits."""

    def __init__(self, contacts: Sequence[Contact]) -> None:
        """Their places in `contacts` are what is told."""
        order = sorted((contact.number, place) for place, contact in enumerate(contacts))
        self._numbers = [number for number, _ in order]
        self._places = [place for _, place in order]

    def __call__(self, key: int, count: int) -> list[int]:
        """The places of the `count` nearest, or of all where there are fewer; nearest first."""
        numbers, first, end = self._numbers, 0, 0
        # Everybody inside a block of ids that has the key in it is nearer than everybody outside.
        for bits in range(max(ID_BITS - len(numbers).bit_length(), 0), ID_BITS + 1):
            lowest = key >> bits << bits
            first, end = bisect_left(numbers, lowest), bisect_left(numbers, lowest + (1 << bits))
            if end - first >= count:
                break
        found = sorted(range(first, end), key=lambda index: numbers[index] ^ key)
        return [self._places[index] for index in found[:count]]


class EstablishedTrie:
    """One trie of a dimension, with all its replicas."""

    def __init__(
        self, schema: Schema, dimension: str, adverts: Sequence[Advertised], capacity: int,
        contacts: Sequence[Contact], nearest: Nearest, key_of: Callable[[Prefix], bytes], now_ms: int,
    ) -> None:  # fmt: skip
        """`contacts` are the members' in this dimension, `key_of` gives a trie node's key in the DHT."""
        places: dict[Prefix, list[int]] = {}

        def holders(prefix: Prefix) -> list[int]:
            if prefix not in places:
                places[prefix] = nearest(int.from_bytes(key_of(prefix), "big"), REPLICAS)
            return places[prefix]

        def named(prefix: Prefix) -> list[bytes]:
            return [contacts[place].packed for place in holders(prefix)]

        self._replicas = [
            build(schema, dimension, adverts, capacity, named, now_ms) for _ in range(min(REPLICAS, len(contacts)))
        ]
        self._holders, self.named = holders, named

    def held(self) -> Iterator[tuple[int, TrieNode]]:
        """Each trie node, and the place of the member that holds this copy of it."""
        for rank, nodes in enumerate(self._replicas):
            for prefix, node in nodes.items():
                yield self._holders(prefix)[rank], node

    def postings(self) -> dict[int, Postings]:
        """Where each advert stands, by its row id."""
        found: dict[int, list[Posting]] = {}
        for prefix, node in self._replicas[0].items():
            for id, key, _ in node.rows.postings():
                found.setdefault(id, []).append(Posting(key, prefix))
        return {id: tuple(each) for id, each in found.items()}


def establish(crowd: Crowd) -> None:
    """Everybody's first advert stands in a crowd that is open, without a message."""
    adverts: list[Advertised] = []
    for server in crowd.servers:
        assert server.peer is not None
        now_ms = server.node.env.now_ms()
        raw = server.node.call(server.machine.advert, now_ms, server.credential).raw
        adverts.append((server.peer.adverts.verify(raw, now_ms)[1], raw))
    standing: list[dict[str, tuple[Postings, ...]]] = [{} for _ in adverts]
    for dimension in crowd.published.schema.dimensions:
        tries = _establish(crowd, dimension.name, adverts)
        found = [trie.postings() for trie in tries]
        for server, own, (point, _) in zip(crowd.servers, standing, adverts):
            own[dimension.name] = tuple(postings[point.id] for postings in found)
            for salt, (trie, postings) in enumerate(zip(tries, found)):
                for posting in postings[point.id]:
                    server.meet(dimension.name, posting.leaf, trie.named(posting.leaf), salt)
    for server, (_, raw), own in zip(crowd.servers, adverts, standing):
        server.node.call(server.stand, raw, own)


def _establish(crowd: Crowd, dimension: str, adverts: Sequence[Advertised]) -> list[EstablishedTrie]:
    """Build a dimension's tries in those who hold them."""
    schema, network_id, contacts = crowd.published.schema, crowd.trust.network.network_id, crowd.contacts(dimension)
    nearest, found = Nearest(contacts), list[EstablishedTrie]()
    for salt in range(dict(crowd.published.tries).get(dimension, 1)):
        key_of = partial(trie_key, network_id, schema.epoch, dimension, group=salt)
        now_ms = round(crowd.now_s * 1_000)
        trie = EstablishedTrie(schema, dimension, adverts, crowd.leaf_capacity, contacts, nearest, key_of, now_ms)
        for place, node in trie.held():
            crowd.servers[place].hold(dimension, salt, node)
        found.append(trie)
    return found
