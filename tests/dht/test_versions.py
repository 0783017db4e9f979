"""A node of this version survives what a newer one may say: other versions, types, kinds, and fields of records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dht import datagram, wire
from dht.envelope import seal
from dht.errors import LocalError, PeerRefusedError
from dht.identity import ED25519
from dht.record import RECORD_TYPE, open_record

Run = Callable[[Callable[[Any], Any]], None]
KEY = bytes(20)


async def _session(world: Any) -> tuple[Any, Any, Any]:
    node, other = await world.grow(2, ["cpu"])
    return node, other, other.sessions.peers[node.address].session


def test_a_datagram_of_another_version_or_type_is_counted_and_draws_nothing(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node, other, session = await _session(world)
        await asyncio.sleep(0.1)
        sent: list[bytes] = []
        node.send = lambda data, address: sent.append(data)
        network_key = datagram.network_key(world.network_id)
        tag = int.from_bytes(network_key[:4], "big")
        for version in (0, 2, 15):
            body = wire.pack([1, -2, KEY])
            data = datagram.seal(version << 4 | 5, tag, session.send_session, 900 + version, body, session.send_key)
            node._received(data, other.address)
        node._received(datagram.seal(datagram.VERSION << 4 | 12, tag, 1, 1, b"", network_key), other.address)
        assert not sent and node.counters["foreign"] == 3 and node.counters["unknown-type"] == 1

    run(scenario)


def test_a_greeting_in_another_version_is_told_in_fewer_bytes_which_one_is_spoken(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node, other, _ = await _session(world)
        sent: list[bytes] = []
        node.send = lambda data, address: sent.append(data)
        key = datagram.network_key(world.network_id)
        tag = int.from_bytes(key[:4], "big")
        head = datagram.MIN_DATAGRAM_BYTES
        hello = datagram.seal(2 << 4 | 1, tag, 77, 0, bytes(datagram.MAX_DATAGRAM_BYTES - head), key)
        node._received(hello, ("127.0.0.1", 9))
        (answer,) = sent
        assert datagram.HEADER.unpack_from(answer) == (datagram.VERSIONS, tag, 77, 0) and len(answer) < len(hello)
        assert datagram.genuine(answer, key)
        assert wire.unpack(answer[datagram.HEADER_BYTES : -datagram.MAC_BYTES]) == [datagram.VERSION]
        for short in (datagram.seal(2 << 4 | 1, tag, 78, 0, b"", key), datagram.seal(2 << 4 | 2, tag, 78, 0, b"", key)):
            node._received(short, ("127.0.0.1", 9))
        assert len(sent) == 1 and node.counters["other-version"] == 3
        for _ in range(1_000):
            node._received(hello, ("127.0.0.1", 9))
        assert len(sent) < 250, "nobody is told without end"
        del node.send
        node._received(answer, other.address)  # what a later version would send to us, were it the older one
        assert node.counters["unknown-type"] == 1
        assert len(await other.overlay("cpu").find(KEY)) == 2

    run(scenario)


def test_overlays_of_one_tag_are_refused_together() -> None:
    network = b"network"
    names: dict[int, str] = {}
    for number in range(300_000):
        other = names.setdefault(datagram.overlay_tag(network, f"d{number}"), f"d{number}")
        if other != f"d{number}":
            break
    else:
        raise AssertionError("a birthday that should have come")
    with pytest.raises(LocalError, match=f"overlay 'd{number}' has the tag of '{other}'"):
        datagram.overlay_tags(network, ["cpu", other, f"d{number}"])
    assert len(datagram.overlay_tags(network, ["cpu", other])) == 2


def test_a_kind_of_a_newer_version_is_refused_and_the_session_lives_on(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node, other, _ = await _session(world)
        overlay = other.overlay("cpu")
        answered = asyncio.get_running_loop().create_future()
        other.call(node.address, overlay.tag, -99, b"?", lambda call, error, body: answered.set_result(error))
        assert isinstance(await answered, PeerRefusedError)
        with pytest.raises(PeerRefusedError):
            await overlay.ask(node.overlay("cpu").contact, 60_000, b"?")
        assert len(await overlay.find(KEY)) == 2

    run(scenario)


def test_a_request_with_a_further_position_is_counted_and_the_session_lives_on(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node, other, session = await _session(world)
        body = wire.pack([77, -2, KEY, "of a later version"])
        other.send_sealed(datagram.REQUEST, session, other.overlay("cpu").tag, body)
        await asyncio.sleep(0.1)
        assert node.counters["WireError"] == 1
        assert len(await other.overlay("cpu").find(KEY)) == 2

    run(scenario)


def test_a_record_with_fields_of_a_newer_version_is_kept_as_it_is(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node, other, _ = await _session(world)
        now_ms = world.wall_ms()
        body = {"overlay": "cpu", "key": KEY, "seq": 1, "expires_ms": now_ms + 60_000, "payload": b"v", "colour": "red"}
        raw = seal(other.signer, RECORD_TYPE, body).raw
        assert open_record(raw, ED25519, "cpu", KEY, now_ms).envelope.body["colour"] == "red"
        assert await other.overlay("cpu").records.put(KEY, raw, now_ms + 60_000, republish=False) == 2
        assert node.overlay("cpu").records.shelf.get(KEY, now_ms)[0].raw == raw

    run(scenario)


def test_an_envelope_of_a_type_that_nobody_knows_yet_may_be_stored(run: Run) -> None:
    async def scenario(world: Any) -> None:
        _, other, _ = await _session(world)
        expires_ms = world.wall_ms() + 60_000
        raw = seal(other.signer, "of-version-2", {"seq": 1, "expires_ms": expires_ms}).raw
        assert await other.overlay("cpu").records.put(KEY, raw, expires_ms, republish=False) == 2
        assert await other.overlay("cpu").records.get(KEY) == [raw]

    run(scenario)
