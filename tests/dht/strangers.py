"""What tests put before a live endpoint: raw sockets, handshakes made by hand, and ears."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from dht.handshake import Handshaker
from dht.identity import ED25519, X25519_EXCHANGE, Signer


class Socket(asyncio.DatagramProtocol):
    """A raw socket that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.heard.append(data)


async def raw_socket() -> tuple[Any, Socket]:
    return await asyncio.get_running_loop().create_datagram_endpoint(Socket, local_addr=("127.0.0.1", 0))


def shaker(world: Any, *, credential: bytes | None = None, signer: Signer | None = None) -> Handshaker:
    signer = signer or world.signer()
    return Handshaker(
        signer,
        credential or world.credential_for(signer),
        world.member_check,
        ED25519,
        X25519_EXCHANGE,
        network_id=world.network_id,
        rng=random.Random(5),
        client=False,
    )


def overheard(endpoint: Any) -> tuple[list[bytes], Callable[[bytes, Any], None]]:
    """All that the endpoint sends from now on, and its way of sending."""
    sent: list[bytes] = []
    send = endpoint.send

    def note(data: bytes, address: Any) -> None:
        sent.append(data)
        send(data, address)

    endpoint.send = note
    return sent, send
