"""Other people's DHTs as contenders, where they are installed: libtorrent and OpenDHT, both in C++.

They run threads of their own, so a turn is a batch of operations in flight together and CPU time is the process's.
"""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

from scripts.dht_benchmark.contender import Achieved

# Operations in flight in one turn: their threads poll, and a longer turn hides what that costs.
IN_FLIGHT = 32
TURN_TIMEOUT_S = 20.0
# Sessions of libtorrent have a thread each; more of them measure the scheduler.
MOST_NODES = 60


class Libtorrent:
    """Sessions with nothing but the DHT."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.keys: list[Any] = []
        self.rng = random.Random()
        self.turns = 0
        self.asked = 0

    async def build(self, nodes: int, keys: int, seed: int) -> None:
        import libtorrent

        self.library = libtorrent
        self.rng = random.Random(seed)
        kinds = libtorrent.alert.category_t
        settings = {
            "listen_interfaces": "127.0.0.1:0",
            "enable_dht": True,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "dht_bootstrap_nodes": "",
            "dht_restrict_routing_ips": False,
            "dht_restrict_search_ips": False,
            "dht_enforce_node_id": False,
            "dht_ignore_dark_internet": False,
            "dht_upload_rate_limit": 1 << 30,
            "dht_block_ratelimit": 1 << 20,
            "alert_mask": kinds.dht_notification | kinds.status_notification,
        }
        self.nodes = [libtorrent.session(settings) for _ in range(min(nodes, MOST_NODES))]
        await asyncio.sleep(1)
        ports = [node.listen_port() for node in self.nodes]
        for node in self.nodes:
            for port in self.rng.sample(ports, min(24, len(ports))):
                node.add_dht_node(("127.0.0.1", port))
        await asyncio.sleep(4)
        for number in range(min(keys, IN_FLIGHT)):
            self.keys.append(self.nodes[number % len(self.nodes)].dht_put_immutable_item(f"value {number}" * 8))
        await asyncio.sleep(4)
        self._drain()
        await self._count()

    async def turn(self, kind: str) -> Achieved:
        """Gets only: what its Python interface can wait for."""
        self.turns += 1
        node = self.nodes[self.turns % len(self.nodes)]
        for key in self.keys:
            node.dht_get_immutable_item(key)
        waiting, found = len(self.keys), 0
        deadline = asyncio.get_running_loop().time() + TURN_TIMEOUT_S
        while waiting and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
            for alert in node.pop_alerts():
                if type(alert).__name__ == "dht_immutable_item_alert":
                    waiting -= 1
                    found += bool(alert.item)
        await self._count()
        return lambda: found / max(1, len(self.keys))

    def questions(self) -> int:
        return self.asked

    async def close(self) -> None:
        for node in self.nodes:
            node.pause()

    def _drain(self) -> None:
        for node in self.nodes:
            node.pop_alerts()

    async def _count(self) -> None:
        """Half of all messages that came in: a question and its answer, both inside of this process."""
        for node in self.nodes:
            node.post_session_stats()
        total, waiting = 0, set(range(len(self.nodes)))
        deadline = asyncio.get_running_loop().time() + TURN_TIMEOUT_S
        while waiting and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
            for number in sorted(waiting):
                for alert in self.nodes[number].pop_alerts():
                    if type(alert).__name__ == "session_stats_alert":
                        total += alert.values["dht.dht_messages_in"]
                        waiting.discard(number)
        self.asked = total // 2


class OpenDht:
    """Runners on loopback."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.keys: list[Any] = []
        self.rng = random.Random()
        self.turns = 0

    async def build(self, nodes: int, keys: int, seed: int) -> None:
        import opendht

        ports: list[int] = []
        self.library = opendht
        self.rng = random.Random(seed)
        for _ in range(min(nodes, MOST_NODES)):
            node = opendht.DhtRunner()
            ports.append(_free_port())
            node.run(port=ports[-1])
            self.nodes.append(node)
        for node in self.nodes[1:]:
            node.bootstrap("127.0.0.1", str(ports[0]))
        await asyncio.sleep(8)
        for number in range(min(keys, IN_FLIGHT)):
            key = opendht.InfoHash.get(f"key {number}")
            self.keys.append(key)
            self.nodes[number % len(self.nodes)].put(key, opendht.Value(b"v" * 100))
        await asyncio.sleep(4)

    async def turn(self, kind: str) -> Achieved:
        """Gets only, all in flight together."""
        self.turns += 1
        node = self.nodes[self.turns % len(self.nodes)]
        ended, found = [0], [0]

        def got(value: Any) -> bool:
            found[0] += 1
            return True

        def done(success: bool, nodes: Any) -> None:
            ended[0] += 1

        for key in self.keys:
            node.get(key, get_cb=got, done_cb=done)
        deadline = asyncio.get_running_loop().time() + TURN_TIMEOUT_S
        while ended[0] < len(self.keys) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 (threads)
            await asyncio.sleep(0.01)
        return lambda: min(1.0, found[0] / max(1, len(self.keys)))

    def questions(self) -> int:
        return 0

    async def close(self) -> None:
        for node in self.nodes:
            node.join()


def _free_port() -> int:
    """A UDP port that nobody has just now; the library does not tell which one it took."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
