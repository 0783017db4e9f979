"""XenoCorp behind a real control server: registering without a certificate, then returning with one."""

from __future__ import annotations

import asyncio
import time

import pytest

from dht.identity import ED25519, Signer
from xenonode.control.client import connect
from xenonode.control.errors import ControlError
from xenonode.control.server import serve
from xenonode.control.tls import TlsIdentity, issue, make_authority
from xenonode.control.tls_transport import TlsTransport

from .world import World, seed


class TlsWorld(World):
    """A XenoCorp that issues certificates, at the real time, since TLS checks it."""

    def __init__(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        authority = make_authority(seed("authority"), name="XenoCorp", now_ms=now_ms)

        def certify(key: bytes, entity: str, role: str, not_before_ms: int, expires_ms: int) -> bytes:
            return issue(authority, key, name=entity, now_ms=not_before_ms, lifetime_ms=expires_ms - not_before_ms)

        super().__init__(start_ms=now_ms, certify=certify, authority_pem=authority.certificate_pem)

    def transport(self, signer_seed: bytes, certificate: bytes, authority: bytes) -> TlsTransport:
        """One end of a mutually authenticated connection."""
        return TlsTransport(TlsIdentity(signer_seed, certificate), [authority])


def test_a_member_registers_anonymously_and_then_proves_its_key() -> None:
    async def run() -> None:
        world = TlsWorld()
        own = await world.service.enrol(world.keys.node.public_key)
        papers = await world.ask(None, "info")
        mine = world.transport(seed("wcorp.node"), own.certificate, papers["authority"])
        server = await serve(
            "127.0.0.1", 0, world.service.handlers, transport=mine, anonymous=("info", "register", "status")
        )
        host, port = server.address
        alice: Signer = ED25519.generate(seed("alice"))

        stranger = await connect(host, port, world.keys.node.public_key, transport=TlsTransport(None, []))
        registration = world.registration("alice", "client").seal(alice).raw
        grant = await stranger.call("register", {"registration": registration})
        with pytest.raises(ControlError):
            await stranger.call("renew", {})
        await stranger.close()

        known = world.transport(seed("alice"), grant["certificate"], grant["authority"])
        member = await connect(host, port, world.keys.node.public_key, transport=known)
        renewed = await member.call("renew", {})
        assert world.trust.credential(renewed["credential"], world.now_ms).entity == grant["entity"]
        order = world.order(1).seal(alice).raw
        with pytest.raises(ControlError) as caught:
            await member.call("order.create", {"order": order})
        assert caught.value.code == "no_funds" and "credited" in caught.value.next_step
        await member.close()
        await server.close()

    asyncio.run(run())
