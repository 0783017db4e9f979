"""Nodes on loopback sockets, with credentials that an issuer of the tests signs."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from dht.endpoint import Endpoint
from dht.envelope import open_envelope, seal
from dht.errors import RemoteError
from dht.handshake import Member
from dht.identity import ED25519, Signer

ISSUER = ED25519.generate(b"issuer issuer issuer issuer issu")
NETWORK = b"test network"


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def member_check(raw: bytes, now_ms: int) -> Member:
    envelope = open_envelope(raw, ED25519, "credential")
    if envelope.key != ISSUER.public_key:
        raise RemoteError("a credential of another issuer")
    body = envelope.body
    if body["expires_ms"] <= now_ms:
        raise RemoteError("an expired credential")
    return Member(body["key"], body["nonce"], body["entity"], body["expires_ms"], body.get("role") != "client")


def credential_for(
    signer: Signer, *, issuer: Signer = ISSUER, expires_ms: int | None = None, role: str = "server"
) -> bytes:
    body = {
        "key": signer.public_key,
        "nonce": signer.public_key[:8],
        "entity": signer.public_key.hex()[:8],
        "expires_ms": wall_ms() + 3_600_000 if expires_ms is None else expires_ms,
        **({} if role == "server" else {"role": role}),
    }
    return seal(issuer, "credential", body).raw


class World:
    """Endpoints of one test; all of them are closed at its end."""

    wall_ms = staticmethod(wall_ms)
    credential_for = staticmethod(credential_for)
    member_check = staticmethod(member_check)
    network_id = NETWORK

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.rng = random.Random(7)

    def signer(self) -> Signer:
        return ED25519.generate(self.rng.randbytes(32))

    async def open(self, *, port: int = 0, signer: Signer | None = None, **options: Any) -> Endpoint:
        signer = signer or self.signer()
        credential = options.pop("credential", None) or credential_for(signer)
        options = {
            "network_id": NETWORK,
            "now_ms": wall_ms,
            "rng": random.Random(self.rng.random()),
            **options,
        }
        endpoint = Endpoint(signer, credential, options.pop("member_check", member_check), **options)
        await endpoint.open("127.0.0.1", port)
        self.endpoints.append(endpoint)
        return endpoint

    async def grow(self, count: int, dimensions: list[str], **options: Any) -> list[Endpoint]:
        """Nodes that have joined all overlays, ten at a time."""
        nodes = [await self.open(**options) for _ in range(count)]
        for start in range(0, count, 10):
            await asyncio.gather(
                *(
                    node.overlay(dimension).join([nodes[0].address])
                    for node in nodes[start : start + 10]
                    for dimension in dimensions
                )
            )
        return nodes

    async def close(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.close()


@pytest.fixture
def run() -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]:
    """Run one coroutine in a world of its own; no handler may have failed in it."""

    def runner(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def whole() -> None:
            world = World()
            try:
                await scenario(world)
                assert not any(endpoint.counters["fault"] for endpoint in world.endpoints)
            finally:
                await world.close()

        asyncio.run(whole())

    return runner
