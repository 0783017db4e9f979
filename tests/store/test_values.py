"""Values under writers' names: in the overlays to 64 KiB, above that from the writer's server, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.chunks import MAX_PAYLOAD_BYTES
from dht.errors import RemoteError
from xenonode.client.owner import Owner
from xenonode.control.errors import ControlError
from xenonode.control.server import Caller
from xenonode.errors import XenoError
from xenonode.model.entity import Address
from xenonode.simulation.world import World
from xenonode.store import values
from xenonode.store.values import KEPT_BYTES_MAX, LARGEST_BYTES, PIECE_BYTES, Desk, Elsewhere, Uploads

CONTROL = Address("10.0.0.7", 7_411)
MEMBER, OWNER = b"m" * 32, b"o" * 32
HOUR_MS = 3_600_000


def ask(key: bytes, handler: Any, **body: Any) -> dict[str, Any]:
    return asyncio.run(handler(Caller(key, ("10.0.0.9", 1), "1"), body))  # type: ignore[no-any-return]


@given(st.integers(1, LARGEST_BYTES), st.binary(min_size=32, max_size=32), st.integers(1, 65_535))
def test_where_a_value_is_survives_the_wire(size_bytes: int, digest: bytes, port: int) -> None:
    for host in ("10.0.0.7", "fd00::7"):
        elsewhere = Elsewhere(size_bytes, digest, Address(host, port))
        assert Elsewhere.of(elsewhere.packed()) == elsewhere


@given(st.binary(max_size=100))
def test_any_bytes_say_where_a_value_is_or_are_refused(data: bytes) -> None:
    try:
        found = Elsewhere.of(b"\1" + data)
    except RemoteError:
        return
    assert 0 < found.size_bytes <= LARGEST_BYTES and len(found.digest) == 32


def test_a_desk_gives_out_what_it_keeps_until_it_expires_and_keeps_no_more_than_its_bound() -> None:
    now_ms = [0]
    desk = Desk(CONTROL, lambda: now_ms[0])
    read = desk.handlers()["value.read"]
    value = random.Random(1).randbytes(PIECE_BYTES + 5)
    kept = desk.keep(value, HOUR_MS)
    assert kept == Elsewhere(len(value), hashlib.sha256(value).digest(), CONTROL)
    assert ask(MEMBER, read, digest=kept.digest, offset=0)["piece"] == value[:PIECE_BYTES]
    assert ask(MEMBER, read, digest=kept.digest, offset=PIECE_BYTES)["piece"] == value[PIECE_BYTES:]
    assert ask(MEMBER, read, digest=kept.digest, offset=10**9)["piece"] == b""
    for body in ({"digest": bytes(32), "offset": 0}, {"digest": kept.digest, "offset": -1}, {"digest": 7}, {}):
        with pytest.raises(ControlError):
            ask(MEMBER, read, **body)
    for number in range(KEPT_BYTES_MAX // LARGEST_BYTES - 1):
        desk.keep(bytes([number]) * LARGEST_BYTES, HOUR_MS)
    desk.keep(value, 2 * HOUR_MS)  # once more is not twice
    with pytest.raises(XenoError, match="gives out"):
        desk.keep(b"x" * LARGEST_BYTES, HOUR_MS)
    now_ms[0] = HOUR_MS
    desk.keep(b"x" * LARGEST_BYTES, 2 * HOUR_MS)
    assert ask(MEMBER, read, digest=kept.digest, offset=0)["piece"]
    now_ms[0] = 2 * HOUR_MS
    with pytest.raises(ControlError, match="not any more"):
        ask(MEMBER, read, digest=kept.digest, offset=0)


def test_a_newer_value_of_a_name_takes_the_room_of_the_older() -> None:
    desk = Desk(CONTROL, lambda: 0)
    read = desk.handlers()["value.read"]
    older = desk.keep(bytes(LARGEST_BYTES), HOUR_MS)
    for number in range(1, 9):
        newer = desk.keep(bytes([number]) * LARGEST_BYTES, HOUR_MS)
        assert ask(MEMBER, read, digest=older.digest, offset=0)["piece"], "until the newer one's record is stored"
        desk.name("n", newer.digest)
        older = newer
    desk.name("m", older.digest)
    desk.name("n", None)
    assert ask(MEMBER, read, digest=older.digest, offset=0)["piece"], "another name's record says it"
    desk.drop(older.digest)
    assert ask(MEMBER, read, digest=older.digest, offset=0)["piece"]
    desk.name("m", None)
    with pytest.raises(ControlError):
        ask(MEMBER, read, digest=older.digest, offset=0)


def test_only_the_owner_uploads_and_only_in_order() -> None:
    published: list[tuple[str, bytes, int]] = []

    async def publish(name: str, value: bytes, life_ms: int) -> int:
        published.append((name, value, life_ms))
        return 8

    take = Uploads(OWNER, publish).handlers()["owner.publish"]
    value = random.Random(2).randbytes(2 * PIECE_BYTES + 1)
    head = {"name": "n", "life_ms": HOUR_MS, "size_bytes": len(value), "digest": hashlib.sha256(value).digest()}
    with pytest.raises(ControlError, match="owner"):
        ask(MEMBER, take, **head, offset=0, piece=b"")
    for bad in ({"offset": 5, "piece": b"x"}, {"offset": 0, "piece": value + b"x"}, {"offset": 0}, {"piece": b""}):
        with pytest.raises(ControlError):
            ask(OWNER, take, **head, **bad)
    with pytest.raises(ControlError):
        ask(OWNER, take, **{**head, "size_bytes": LARGEST_BYTES + 1}, offset=0, piece=b"")
    first, second, _ = list(values.pieces(value))
    ask(OWNER, take, **head, offset=0, piece=first[1])
    other = {**head, "name": "m"}
    ask(OWNER, take, **other, offset=0, piece=first[1])
    for wrong in (head, {**other, "digest": bytes(32)}):
        with pytest.raises(ControlError, match="two publish"):
            ask(OWNER, take, **wrong, offset=second[0], piece=second[1])
    with pytest.raises(ControlError, match="announced"):
        ask(OWNER, take, **{**head, "size_bytes": 3}, offset=0, piece=b"abc")
    assert not published
    answers = [ask(OWNER, take, **head, offset=offset, piece=piece) for offset, piece in values.pieces(value)]
    assert [answer["holders"] for answer in answers] == [0, 0, 8] and published == [("n", value, HOUR_MS)]
    assert list(values.pieces(b"")) == [(0, b"")]


def reading(payload: bytes | None, answers: list[dict[str, Any]], profile: str = "local") -> Coroutine[Any, Any, bytes]:
    async def get_value(key: bytes, owner: bytes, *, holders: int) -> bytes | None:
        return payload

    async def call(method: str, body: dict[str, Any]) -> dict[str, Any]:
        return answers.pop(0)

    overlay: Any = SimpleNamespace(dimension="cores", records=SimpleNamespace(get_value=get_value))
    return values.read(overlay, OWNER, "n", profile, lambda control: call)


def test_a_server_that_gives_out_something_else_is_not_believed() -> None:
    value = b"v" * 100
    there = Elsewhere(100, hashlib.sha256(value).digest(), CONTROL).packed()
    good = [{"piece": value}]
    assert asyncio.run(reading(there, list(good))) == value
    lies: list[list[dict[str, Any]]] = [
        [{"piece": b"w" * 100}],
        [{"piece": value + b"x"}],
        [{"piece": value[:60]}, {"piece": value[60:]}],  # or it could send a byte at a time
        [{"piece": b""}],
        [{"piece": "text"}],
        [{}],
    ]
    for answers in lies:
        with pytest.raises(XenoError, match="does not hold"):
            asyncio.run(reading(there, answers))
    with pytest.raises(XenoError, match=r"10\.0\.0\.7"):
        asyncio.run(reading(there, list(good), profile="public"))
    for payload in (b"", b"\2x", b"\1x"):
        with pytest.raises(XenoError, match="does not hold"):
            asyncio.run(reading(payload, []))
    with pytest.raises(XenoError, match="no node has"):
        asyncio.run(reading(None, []))
    assert asyncio.run(reading(b"\0" + value, [])) == value


def test_a_client_reads_what_a_server_published_small_or_large_and_the_newer_of_two() -> None:
    rng = random.Random(3)
    with World(seed=3, servers=4, clients=1) as world:
        world.run(until=30)
        server, reader = world.servers[1], world.clients[0]
        assert server.running is not None
        home, address = server.running.home, server.config.control.pair
        key = home.signer.public_key.hex()

        async def publish(value: bytes) -> int:
            connected = await Owner.connect(home, address)
            return await connected.publish("v", value, HOUR_MS)

        async def published(value: bytes) -> int:
            return await server.node.start(publish(value), "publish")

        for size_bytes in (0, 700, MAX_PAYLOAD_BYTES - 1, MAX_PAYLOAD_BYTES, 3 * PIECE_BYTES + 1, 1):
            value = rng.randbytes(size_bytes)
            assert world.run(published(value)) >= 4
            assert world.run(reader.call(lambda client: client.values.get(key, "v"))) == value
        with pytest.raises(XenoError, match="overlays hold up to"):
            world.run(reader.call(lambda client: client.values.put("v", bytes(MAX_PAYLOAD_BYTES), HOUR_MS)))
        assert world.run(reader.call(lambda client: client.values.put("v", b"mine", HOUR_MS))) >= 4
        assert world.run(reader.call(lambda client: client.values.get("me", "v"))) == b"mine"
        assert world.run(reader.call(lambda client: client.values.get(key, "v"))) == value
