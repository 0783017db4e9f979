"""What only TLS decides: certificates, their time and their issuer, and what is not TLS at all."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc

import pytest
from control_worlds import TlsWorld, play_tls, seed_of

from xenonode.control import tls, tls_transport
from xenonode.control.client import connect
from xenonode.control.errors import ControlError, LocalError
from xenonode.control.server import Caller, serve
from xenonode.control.tls import (
    DAY_MS,
    LEAF_LIFETIME_MS,
    TlsIdentity,
    certificate_expires_ms,
    certificate_key,
    issue,
    make_authority,
)
from xenonode.control.tls_transport import TlsTransport


async def whoami(caller: Caller, body: dict[str, object]) -> dict[str, object]:
    return {"key": caller.public_key}


async def code_of(server_transport: TlsTransport, client_transport: TlsTransport, key: bytes) -> str:
    server = await serve("127.0.0.1", 0, {"whoami": whoami}, transport=server_transport)
    try:
        connection = await connect(*server.address, key, transport=client_transport)
        await connection.call("whoami", {})
        await connection.close()
    except ControlError as error:
        assert error.message and error.next_step
        return error.code
    finally:
        await server.close()
    return "ok"


def test_a_server_that_listens_elsewhere_keeps_its_connections_and_is_not_where_it_was() -> None:
    async def scenario(world: TlsWorld) -> None:
        ours = TlsTransport(world.identity("a"), [world.corp.certificate_pem])
        server = await serve("127.0.0.1", 0, {"whoami": whoami}, transport=ours)
        former = server.address
        kept = await connect(*former, world.key("a"), transport=ours)
        await server.open("127.0.0.2", former[1])
        assert server.address == ("127.0.0.2", former[1])
        fresh = await connect(*server.address, world.key("a"), transport=ours)
        for connection in (kept, fresh):
            assert (await connection.call("whoami", {}))["key"] == world.key("a")
            await connection.close()
        with pytest.raises(ControlError, match="reached"):
            await connect(*former, world.key("a"), transport=ours)
        await server.close()

    play_tls(scenario)


def test_certificates_carry_the_key_and_live_seven_days() -> None:
    world = TlsWorld()
    leaf = world.identity("a").certificate_pem
    assert certificate_key(leaf) == world.key("a")
    assert abs(certificate_expires_ms(leaf) - world.now_ms - LEAF_LIFETIME_MS) < 1_000
    assert LEAF_LIFETIME_MS == 7 * DAY_MS


def test_a_certificate_for_another_key_or_for_no_key_is_our_mistake() -> None:
    world = TlsWorld()
    with pytest.raises(LocalError, match="another key"):
        TlsIdentity(seed_of("b"), world.identity("a").certificate_pem)
    with pytest.raises(LocalError, match="Ed25519"):
        issue(world.corp, b"short", name="x", now_ms=world.now_ms)


def test_seeds_are_not_shown() -> None:
    world = TlsWorld()
    assert "corp...." not in repr(world.corp) and "a......." not in repr(world.identity("a"))


def test_expired_certificates_of_either_end_are_refused_by_name() -> None:
    async def scenario(world: TlsWorld) -> None:
        old = {"now_ms": world.now_ms - 8 * DAY_MS}
        authorities = [world.corp.certificate_pem]
        stale_server = TlsTransport(world.identity("server", **old), authorities)
        stale_client = TlsTransport(world.identity("client", **old), authorities)
        good_server, good_client = world.transport("server"), world.transport("client")
        key = world.key("server")
        assert await code_of(stale_server, good_client, key) == "certificate_expired"
        assert await code_of(good_server, stale_client, key) == "certificate_expired"
        early = TlsTransport(world.identity("server", now_ms=world.now_ms + DAY_MS), authorities)
        assert await code_of(early, good_client, key) == "certificate_refused"
        assert await code_of(good_server, good_client, key) == "ok"

    play_tls(scenario)


def test_certificates_of_another_issuer_are_refused_at_either_end() -> None:
    async def scenario(world: TlsWorld) -> None:
        other = make_authority(seed_of("impostor"), name="XenoCorp", now_ms=world.now_ms)
        leaf = issue(other, world.key("server"), name="server", now_ms=world.now_ms)
        forged = TlsTransport(TlsIdentity(seed_of("server"), leaf), [world.corp.certificate_pem])
        key = world.key("server")
        assert await code_of(forged, world.transport("client"), key) == "certificate_refused"
        assert await code_of(world.transport("server"), forged, key) == "certificate_refused"

    play_tls(scenario)


def test_an_authority_made_again_from_its_seed_vouches_for_earlier_leaves() -> None:
    async def scenario(world: TlsWorld) -> None:
        again = make_authority(seed_of("corp"), name="XenoCorp", now_ms=world.now_ms + 60_000)
        assert again.certificate_pem != world.corp.certificate_pem
        client = TlsTransport(world.identity("client"), [again.certificate_pem])
        assert await code_of(world.transport("server"), client, world.key("server")) == "ok"

    play_tls(scenario)


def test_without_an_authority_the_pinned_key_decides() -> None:
    async def scenario(world: TlsWorld) -> None:
        newcomer = TlsTransport(None, [])
        server = await serve(
            "127.0.0.1", 0, {"whoami": whoami}, transport=world.transport("server"), anonymous={"whoami"}
        )
        connection = await connect(*server.address, world.key("server"), transport=newcomer)
        assert await connection.call("whoami", {}) == {"key": None}
        await connection.close()
        with pytest.raises(ControlError) as caught:
            await connect(*server.address, world.key("other"), transport=newcomer)
        assert caught.value.code == "wrong_key"
        with pytest.raises(LocalError, match="key must be given"):
            await connect(*server.address, None, transport=newcomer)
        await server.close()

    play_tls(scenario)


def test_a_renewed_certificate_serves_on_the_port_that_listens_already() -> None:
    async def scenario(world: TlsWorld) -> None:
        old = world.identity("server", now_ms=world.now_ms - 8 * DAY_MS)
        transport = TlsTransport(old, [world.corp.certificate_pem])
        server = await serve("127.0.0.1", 0, {"whoami": whoami}, transport=transport)
        with pytest.raises(ControlError):
            await connect(*server.address, world.key("server"), transport=world.transport("client"))
        transport.renew(world.identity("server"))
        connection = await connect(*server.address, world.key("server"), transport=world.transport("client"))
        await connection.close()
        await server.close()

    play_tls(scenario)


def test_what_is_not_tls_ends_quietly_and_the_next_caller_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(world: TlsWorld) -> None:
        server = await serve("127.0.0.1", 0, {"whoami": whoami}, transport=world.transport("server"))
        for number in range(20):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(random.Random(number).randbytes(300))
            assert len(await reader.read()) < 100  # at most a TLS alert
            writer.close()
        connection = await connect(*server.address, world.key("server"), transport=world.transport("client"))
        assert await connection.call("whoami", {}) == {"key": world.key("client")}
        assert server.statistics.handshakes_failed == 20
        await connection.close()
        await server.close()

    play_tls(scenario)
    assert not [record for record in caplog.records if record.exc_info]


def test_a_listener_that_is_not_tls_is_named_as_another_protocol() -> None:
    async def scenario(world: TlsWorld) -> None:
        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        other = await asyncio.start_server(shout, "127.0.0.1", 0)
        address = other.sockets[0].getsockname()
        with pytest.raises(ControlError) as caught:
            await connect(*address, world.key("server"), transport=world.transport("client"))
        assert caught.value.code == "bad_peer"
        other.close()

    play_tls(scenario)


def test_who_hangs_up_in_mid_handshake_takes_nobody_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "MAX_HANDSHAKES", 3)

    async def scenario(world: TlsWorld) -> None:
        server = await serve("127.0.0.1", 0, {"whoami": whoami}, transport=world.transport("server"))
        for _ in range(12):
            _, writer = await asyncio.open_connection(*server.address)
            await asyncio.sleep(0.02)
            writer.transport.abort()
            await asyncio.sleep(0.02)
            gc.collect()  # a lost connection is a cycle of asyncio's objects
        connection = await connect(*server.address, world.key("server"), transport=world.transport("client"))
        assert connection.peer_key == world.key("server") and server.statistics.handshakes_failed == 0
        await connection.close()
        await server.close()

    play_tls(scenario)


def test_stalled_handshakes_are_bounded_and_their_places_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "MAX_HANDSHAKES", 3)
    monkeypatch.setattr(tls, "HANDSHAKE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(tls_transport, "HANDSHAKE_TIMEOUT_S", 0.5)

    async def scenario(world: TlsWorld) -> None:
        server = await serve("127.0.0.1", 0, {"whoami": whoami}, transport=world.transport("server"))
        stalled = [await asyncio.open_connection(*server.address) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(ControlError):
            await connect(*server.address, world.key("server"), transport=world.transport("client"))
        assert server.statistics.handshakes_failed == 1
        for reader, writer in stalled:
            assert await reader.read() == b""  # timed out by the server
            writer.close()
        await asyncio.sleep(0.1)
        connection = await connect(*server.address, world.key("server"), transport=world.transport("client"))
        await connection.close()
        await server.close()

    play_tls(scenario)


def test_what_is_no_tls_costs_little_memory_until_it_is_collected() -> None:
    """With asyncio's own buffers these hundred would hold 26 MB."""

    async def scenario(world: TlsWorld) -> None:
        server = await serve("127.0.0.1", 0, {"whoami": whoami}, transport=world.transport("server"))
        rng = random.Random(3)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(100):
                reader, writer = await asyncio.open_connection(*server.address)
                writer.write(rng.randbytes(600))
                await reader.read()
                writer.close()
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
        assert server.statistics.handshakes_failed == 100
        assert held_bytes < 8 * 2**20
        await server.close()

    play_tls(scenario)
