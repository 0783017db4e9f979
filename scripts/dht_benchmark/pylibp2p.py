"""py-libp2p as a contender, where it is installed: its Kademlia over TCP, with a trio loop in a thread of its own.

Few nodes, since each of them connects to all others and a get takes hundreds of milliseconds of CPU.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from scripts.dht_benchmark.contender import Achieved

MOST_NODES = 8
MOST_KEYS = 8
TIMEOUT_S = 20.0
NAMESPACE = "benchmark"


class PyLibp2p:
    """Hosts that know one another, each with a DHT."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.keys: list[str] = []
        self.rng = random.Random()
        self.turns = 0
        self._token: Any = None
        self._over: Any = None
        self._thread: threading.Thread | None = None

    async def build(self, nodes: int, keys: int, seed: int) -> None:
        import trio

        self.rng = random.Random(seed)
        begun = threading.Event()
        serving = partial(trio.run, self._serve, min(nodes, MOST_NODES), begun)
        self._thread = threading.Thread(target=serving, name="trio", daemon=True)
        self._thread.start()
        await asyncio.to_thread(begun.wait, TIMEOUT_S * MOST_NODES)
        if len(self.nodes) < min(nodes, MOST_NODES):
            raise SystemExit("py-libp2p's hosts did not open")
        for _ in range(min(keys, MOST_KEYS)):
            key = f"/{NAMESPACE}/{self.rng.randbytes(8).hex()}"
            await self._on_trio(self._put, self.nodes[len(self.keys) % len(self.nodes)], key)
            self.keys.append(key)

    async def turn(self, kind: str) -> Achieved:
        """Gets only, one after the other."""
        self.turns += 1
        node, key = self.nodes[self.turns % len(self.nodes)], self.rng.choice(self.keys)
        # All of so few nodes hold everything; whoever asks must not.
        node.value_store.remove(key.encode())
        value = await self._on_trio(self._get, node, key)
        return lambda: float(value is not None)

    def questions(self) -> int:
        return 0

    async def close(self) -> None:
        import trio

        trio.from_thread.run_sync(self._over.set, trio_token=self._token)

    async def _on_trio(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        import trio

        return await asyncio.to_thread(trio.from_thread.run, work, *arguments, trio_token=self._token)

    async def _put(self, node: Any, key: str) -> None:
        import trio

        with trio.move_on_after(TIMEOUT_S):
            await node.put_value(key, b"v" * 100)

    async def _get(self, node: Any, key: str) -> Any:
        import trio

        with trio.move_on_after(TIMEOUT_S):
            return await node.get_value(key)
        return None

    async def _serve(self, nodes: int, begun: threading.Event) -> None:
        """Everything that lives on trio's loop: hosts and their services, until the end."""
        import trio
        from libp2p import new_host
        from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
        from libp2p.peer.peerinfo import PeerInfo
        from libp2p.records.validator import Validator
        from libp2p.tools.anyio_service import background_trio_service
        from multiaddr import Multiaddr

        class Anything(Validator):  # type: ignore[misc]
            def validate(self, key: str, value: bytes) -> None:
                """Any value."""

            def select(self, key: str, values: list[bytes]) -> int:
                return 0

        self._token, self._over = trio.lowlevel.current_trio_token(), trio.Event()
        async with AsyncExitStack() as stack:
            hosts, services = [], []
            for _ in range(nodes):
                host = new_host()
                await stack.enter_async_context(host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]))
                service = KadDHT(host, DHTMode.SERVER, max_peers_per_subnet=0)
                service.register_validator(NAMESPACE, Anything())
                await stack.enter_async_context(background_trio_service(service))
                hosts.append(host)
                services.append(service)
            infos = [PeerInfo(host.get_id(), host.get_addrs()) for host in hosts]
            for host, service in zip(hosts, services, strict=True):
                for info in infos:
                    if info.peer_id != host.get_id():
                        with trio.move_on_after(TIMEOUT_S):
                            await host.connect(info)
                            await service.add_peer(info.peer_id)
            self.nodes = services
            begun.set()
            await self._over.wait()
