"""`kademlia` as a contender: as shipped, and with the defects mended that cost it most.

The mended one shows how much of a gain is more than bug fixes. It keeps the library's RPC and codec, and mends: the
ping and store loop of peers that fit no bucket, neighbours that stop when one side runs dry, ranges that disagree
by one, lookups that wait for whole rounds and for five seconds, a `get` that awaits its cache store, and a `set`
that is always true.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from typing import Any

from kademlia.crawling import NodeSpiderCrawl, RPCFindResponse, ValueSpiderCrawl
from kademlia.network import Server
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol
from kademlia.routing import RoutingTable
from kademlia.utils import digest

from scripts.dht_benchmark.contender import ASKERS, Achieved, recall

# What the mended one waits for an answer: as long as our own longest soft time-out.
MENDED_TIMEOUT_S = 0.5


class MendedTable(RoutingTable):
    """Neighbours from all buckets; a full bucket keeps its live contacts and pings nobody."""

    def get_bucket_for(self, node: Any) -> int:
        return next(index for index, bucket in enumerate(self.buckets) if node.long_id <= bucket.range[1])

    def add_contact(self, node: Any) -> None:
        index = self.get_bucket_for(node)
        bucket = self.buckets[index]
        if not bucket.add_node(node) and bucket.has_in_range(self.node):
            self.split_bucket(index)
            self.add_contact(node)

    def find_neighbors(self, node: Any, k: int | None = None, exclude: Any = None) -> list[Any]:
        known = (each for bucket in self.buckets for each in bucket.nodes.values())
        without = (node.id, exclude and exclude.id)
        fit = ((node.long_id ^ each.long_id, each) for each in known if each.id not in without)
        return [each for _, each in heapq.nsmallest(k or self.ksize, fit, key=lambda pair: pair[0])]


class MendedProtocol(KademliaProtocol):
    """A new contact is taken in, and that is all."""

    def __init__(self, source_node: Any, storage: Any, ksize: int) -> None:
        super().__init__(source_node, storage, ksize)
        self._wait_timeout = MENDED_TIMEOUT_S
        self.router = MendedTable(self, ksize, source_node)

    def welcome_if_new(self, node: Any) -> None:
        if self.router.is_new_node(node):
            self.router.add_contact(node)


class _Mended:
    """Always alpha in flight; each answer counts as it comes; a malformed one counts as none."""

    async def _crawl(self, ask: Any) -> Any:
        flights: dict[Any, Any] = {}
        crawl: Any = self
        while True:
            for peer in crawl.nearest.get_uncontacted()[: crawl.alpha - len(flights)]:
                crawl.nearest.mark_contacted(peer)
                flights[asyncio.ensure_future(ask(peer, crawl.node))] = peer
            if not flights:
                return None
            done, _ = await asyncio.wait(flights, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                peer, response = flights.pop(future), RPCFindResponse(future.result())
                try:
                    if not response.happened():
                        crawl.nearest.remove([peer.id])
                    elif response.has_value():
                        return response.get_value()
                    else:
                        crawl.nearest.push(response.get_node_list())
                except (TypeError, ValueError, AttributeError, IndexError):
                    crawl.nearest.remove([peer.id])


class MendedNodeCrawl(_Mended, NodeSpiderCrawl):
    async def find(self) -> list[Any]:
        await self._crawl(self.protocol.call_find_node)
        return list(self.nearest)


class MendedValueCrawl(_Mended, ValueSpiderCrawl):
    async def find(self) -> Any:
        return await self._crawl(self.protocol.call_find_value)


class MendedServer(Server):
    """`set` tells the truth, `get` ends with the value."""

    protocol_class = MendedProtocol

    async def get(self, key: Any) -> Any:
        name = digest(key)
        held = self.storage.get(name)
        if held is not None:
            return held
        node = Node(name)
        near = self.protocol.router.find_neighbors(node)
        return await MendedValueCrawl(self.protocol, node, near, self.ksize, self.alpha).find() if near else None

    async def set_digest(self, dkey: bytes, value: Any) -> bool:
        node = Node(dkey)
        near = self.protocol.router.find_neighbors(node)
        nodes = await MendedNodeCrawl(self.protocol, node, near, self.ksize, self.alpha).find()
        if not nodes or self.node.distance_to(node) < max(each.distance_to(node) for each in nodes):
            self.storage[dkey] = value
        results = await asyncio.gather(*(self.protocol.call_store(each, dkey, value) for each in nodes))
        return any(done for done, _ in results)


class Kademlia:
    """N servers of the library."""

    def __init__(self, *, mended: bool) -> None:
        self.server_class = MendedServer if mended else Server
        self.crawl_class = MendedNodeCrawl if mended else NodeSpiderCrawl
        self.nodes: list[Server] = []
        self.keys: list[str] = []
        self.rng = random.Random()
        self.turns = 0

    async def build(self, nodes: int, keys: int, seed: int) -> None:
        await self.open(nodes, seed)
        self.keys = [self.rng.randbytes(8).hex() for _ in range(keys)]
        for key in self.keys:
            self.turns += 1
            await self.nodes[self.turns % ASKERS].set(key, "v" * 100)

    async def open(self, nodes: int, seed: int) -> None:
        """Listen, and bootstrap every node through the first, as users do."""
        self.rng = random.Random(seed)
        for _ in range(nodes):
            server = self.server_class(node_id=self.rng.randbytes(20))
            self.nodes.append(server)
            await server.listen(0, "127.0.0.1")
        port = self.nodes[0].transport.get_extra_info("sockname")[1]
        for server in self.nodes[1:]:
            await server.bootstrap([("127.0.0.1", port)])

    async def turn(self, kind: str) -> Achieved:
        self.turns += 1
        server = self.nodes[self.turns % ASKERS]
        if kind == "get":
            value = await server.get(self.rng.choice(self.keys))
            return lambda: float(value is not None)
        if kind == "set":
            done = await server.set(self.rng.randbytes(8).hex(), "v" * 100)
            return lambda: float(done)
        target = Node(self.rng.randbytes(20))
        near = server.protocol.router.find_neighbors(target)
        nodes = await self.crawl_class(server.protocol, target, near, server.ksize, server.alpha).find()
        found = [node.long_id for node in nodes]
        return lambda: recall(target.long_id, found, [each.node.long_id for each in self.nodes])

    def questions(self) -> int:
        return _Counted.asked

    async def close(self) -> None:
        for server in self.nodes:
            server.stop()


class _Counted:
    """Questions, counted only where time is not: at each reply and each time-out."""

    asked = 0


def count_questions() -> None:
    """Count replies from now on; costs a little, so it is not done while CPU time is measured."""
    accept = KademliaProtocol._accept_response

    def counted(self: Any, *arguments: Any) -> None:
        _Counted.asked += 1
        accept(self, *arguments)

    KademliaProtocol._accept_response = counted
