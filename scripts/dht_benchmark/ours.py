"""`dht` as a contender: real sockets, real Ed25519 and X25519, every datagram authenticated."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_left

from dht.contact import Contact
from dht.endpoint import Endpoint, Member
from dht.envelope import open_envelope, seal
from dht.errors import RemoteError
from dht.identity import ED25519
from dht.record import seal_record
from dht.routing import ID_BITS, K
from scripts.dht_benchmark.contender import ASKERS, Achieved, recall

ISSUER = ED25519.generate(bytes(range(32)))
LIFE_MS = 6 * 3_600_000
DIMENSION = "benchmark"
# Handshakes in flight while a network is built.
MEETINGS_AT_ONCE = 50


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def check(raw: bytes, at_ms: int) -> Member:
    envelope = open_envelope(raw, ED25519, "credential")
    if envelope.key != ISSUER.public_key or envelope.body["expires_ms"] <= at_ms:
        raise RemoteError("no credential of this benchmark")
    body = envelope.body
    return Member(body["key"], body["nonce"], body["entity"], body["expires_ms"], serves=True)


class Ours:
    """N endpoints with one overlay each, or with several for the memory figure."""

    def __init__(self, dimensions: int = 1) -> None:
        self.dimensions = [DIMENSION, *(f"{DIMENSION}-{number}" for number in range(1, dimensions))]
        self.nodes: list[Endpoint] = []
        self.keys: list[bytes] = []
        self.numbers: list[int] = []
        self.rng = random.Random()
        self.turns = 0

    async def build(self, nodes: int, keys: int, seed: int) -> None:
        await self.open(nodes, seed)
        self.keys = [self.rng.randbytes(20) for _ in range(keys)]
        for key in self.keys:
            await self._set(key)
        # Until whoever asks has met everybody: a session serves for as long as both live.
        for node in self.nodes[:ASKERS]:
            for first in range(0, nodes, MEETINGS_AT_ONCE):
                others = self.nodes[first : first + MEETINGS_AT_ONCE]
                meetings = (node.ping(other.address) for other in others if other is not node)
                await asyncio.gather(*meetings, return_exceptions=True)

    async def open(self, nodes: int, seed: int) -> None:
        self.rng = random.Random(seed)
        for number in range(nodes):
            signer = ED25519.generate(self.rng.randbytes(32))
            body = {
                "key": signer.public_key,
                "nonce": self.rng.randbytes(16),
                "entity": f"member {number}",
                "expires_ms": now_ms() + LIFE_MS,
            }
            credential = seal(ISSUER, "credential", body).raw
            node_rng = random.Random(self.rng.getrandbits(64))
            node = Endpoint(signer, credential, check, network_id=b"benchmark", now_ms=now_ms, rng=node_rng)
            await node.open("127.0.0.1", 0)
            self.nodes.append(node)
        for dimension in reversed(self.dimensions):
            contacts = [node.overlay(dimension).contact for node in self.nodes]
            contacts.sort(key=lambda contact: contact.number)
            self.numbers = [contact.number for contact in contacts]
            for node in self.nodes:
                overlay = node.overlay(dimension)
                overlay.warm_start(self._met(contacts, overlay.contact.number))
                for bucket in overlay.table.buckets:
                    # As after a join, which has just refreshed all of them; the other contenders have just joined.
                    bucket.used_ms = now_ms()

    def _met(self, contacts: list[Contact], own: int) -> list[Contact]:
        """Whom a node has met that has lived for a while: up to k of each subtree that it is not in, by pure chance.

        The simulator spreads its draws evenly over each subtree, which would spare readers some questions.
        """
        met: list[Contact] = []
        low, high = 0, len(contacts)
        for bits in range(ID_BITS):
            if high - low <= 1:
                break
            bit = 1 << ID_BITS - 1 - bits
            middle = bisect_left(self.numbers, (own >> ID_BITS - bits << ID_BITS - bits) | bit, low, high)
            others = range(low, middle) if own & bit else range(middle, high)
            met += [contacts[index] for index in (others if len(others) <= K else self.rng.sample(others, K))]
            low, high = (middle, high) if own & bit else (low, middle)
        return met

    async def turn(self, kind: str) -> Achieved:
        self.turns += 1
        node = self.nodes[self.turns % ASKERS]
        overlay = node.overlay(DIMENSION)
        if kind == "get":
            records = await overlay.records.get(self.rng.choice(self.keys))
            return lambda: float(bool(records))
        if kind == "set":
            holders = await self._set(self.rng.randbytes(20))
            return lambda: float(holders > 0)
        key = self.rng.randbytes(20)
        found = [contact.number for contact in await overlay.find(key)]
        return lambda: recall(int.from_bytes(key, "big"), found, self.numbers)

    def questions(self) -> int:
        return sum(node.calls.begun for node in self.nodes)

    async def close(self) -> None:
        for node in self.nodes:
            await node.close()

    async def _set(self, key: bytes) -> int:
        """A new record each time, signed by its publisher and checked by each of its holders."""
        self.turns += 1
        node = self.nodes[self.turns % ASKERS]
        expires_ms = now_ms() + LIFE_MS
        raw = seal_record(node.signer, DIMENSION, key, self.turns, expires_ms, b"v" * 100)
        return await node.overlay(DIMENSION).records.put(key, raw, expires_ms, republish=False)
