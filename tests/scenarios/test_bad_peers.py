"""Peers that vanish, lie, or send noise; and a client while XenoCorp is down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dht import wire
from dht.contact import pack_address
from dht.errors import DhtError
from summaries.point import Point
from summaries.publish import Publication
from xenonode.client import Client
from xenonode.demo.plan import free_ports
from xenonode.model.advert import VerifiedAdvert

from .live import Answer, Live, need_hosting, until

pytestmark = pytest.mark.timeout(600)
DATAGRAMS = 10_000
BATCH = 50
WARM_UPS = 10
GROWTH_MAX_BYTES = 24 * 2**20
"""What a server may grow by while it runs on; ten thousand datagrams that were kept would be 12 MB at least, and
whatever is kept for each sender comes on top."""
BARGAIN = "price.cpu <= 0.000000010 USD/h"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """XenoCorp, two servers, and a client with money."""
    need_hosting()
    made = Live(tmp_path_factory.mktemp("peers"), servers=2)
    try:
        made.start()
        yield made
    finally:
        made.close()
    assert made.leftovers() == []


@pytest.fixture(scope="module")
def client(live: Live) -> Client:
    return live.run(live.member("10 USD"))


def command(live: Live, *arguments: str) -> Answer:
    """A command of the same client, beside the one that runs here and has its port."""
    [port] = free_ports(1)
    return live.command(*arguments, "--set", f"udp=127.0.0.1:{port}")


async def carried(peer: Any, publication: Publication, within_s: float = 60) -> bool:
    """Carry a publication to its end, as a server would; whether any holder took it."""
    waiting = asyncio.Queue[Any]()
    asks = publication.start()
    async with asyncio.timeout(within_s):
        while not publication.finished:
            for ask in asks:
                peer.asker.carry(ask, lambda outcome, ask=ask: waiting.put_nowait((ask, outcome)))
            asks = publication.answered(*await waiting.get())
    return publication.accepted


def point(peer: Any, found: VerifiedAdvert, seq: int, price_nano: int | None = None) -> Point:
    attributes = dict(found.attributes)
    if price_nano is not None:
        attributes["price.cpu"] = price_nano
    advert = found.advert
    return Point.from_attributes(
        peer.schema,
        id=found.row_id,
        seq=seq,
        expires_s=advert.expires_ms // 1000,
        attributes=attributes,
        contact=pack_address(advert.udp.pair),
    )


def test_an_advert_whose_signature_does_not_fit_is_held_by_nobody_and_never_found(live: Live, client: Client) -> None:
    async def scenario() -> None:
        assert (await client.finding.search("cores >= 1")).complete
        found = await client.servers.advert(live.plan.servers[0].control)
        peer = await client.presence.joined()
        honest = found.envelope.raw
        seq = found.advert.seq + 1
        cheap = replace(found.advert, seq=seq, prices=replace(found.advert.prices, cpu_nano_per_hour=1))
        [version, type_, key, _, signature] = cast("list[Any]", wire.decode(honest))
        broken = wire.encode([version, type_, key, cheap.to_fields(), signature])
        forged = cheap.seal(client._home.signer).raw
        for name, raw in (("signature of other bytes", broken), ("another key's signature", forged)):
            lie = point(peer, found, seq, price_nano=1)
            assert not await carried(peer, Publication(peer.schema, "price.cpu", lie, raw)), name
        # The same way, the server's own advert is taken: it is the signature that is refused.
        assert await carried(peer, Publication(peer.schema, "price.cpu", point(peer, found, found.advert.seq), honest))
        answer = await client.finding.search(BARGAIN)
        assert answer.complete and not answer.servers
        right = await client.finding.search("price.cpu >= 0.000000010 USD/h")
        assert found.server_key in [each.advert.server_key for each in right.servers]

    live.run(scenario())


def test_garbage_neither_stops_a_server_nor_makes_it_grow(live: Live, client: Client) -> None:
    rng = random.Random(10_000)
    [place, _] = live.plan.servers
    process = live.process(place)

    async def scenario() -> None:
        samples = await real_datagrams(client)
        assert samples
        await throw(place.udp_port, samples, rng, DATAGRAMS // 5)
        for _ in range(WARM_UPS):  # the first connections' buffers stay with the allocator
            noise(place.control_port, rng)
            await asyncio.sleep(0.2)
        before = resident_bytes(process.pid)
        await throw(place.udp_port, samples, rng, DATAGRAMS)
        for _ in range(WARM_UPS):
            noise(place.control_port, rng)
            await asyncio.sleep(0.2)
        await asyncio.sleep(1)
        grown = resident_bytes(process.pid) - before
        assert process.running and grown < GROWTH_MAX_BYTES, f"{grown} bytes"

        async def found() -> bool:
            answer = await client.finding.search("cores >= 1")
            return answer.complete and len(answer.servers) == len(live.plan.servers)

        await until(found)
        assert (await client.servers.advert(place.control)).server_key.hex() == process.status["key"]

    live.run(scenario())
    log = place.config.with_suffix(".log").read_text()
    assert "Traceback" not in log, log
    assert '"traceback"' not in (place.folder / "log.jsonl").read_text()


def test_a_server_that_vanished_cannot_be_asked_and_a_search_shows_that_it_was_silent(
    live: Live, client: Client
) -> None:
    place = live.plan.servers[1]
    key = live.process(place).status["key"]
    live.run(client.finding.search("cores >= 1"))
    live.run(live.network.kill(place))
    for arguments in (("quote", key[:16]), ("advert", "show", place.control)):
        command(live, *arguments).refusal(f"{place.control_port}")
    command(live, "session", "create", key[:16], "--order", "ab" * 16).refusal(f"{place.control_port}")
    found = command(live, "search", "cores >= 1", "--partial").json
    # Until its advert expires it may stand there from a holder's copy, but without the round trip of an answer.
    round_trips = {each["advert"]["server"]: each["rtt_ms"] for each in found["servers"]}
    assert round_trips.pop(key, None) is None
    assert len(round_trips) == 1 and None not in round_trips.values()
    live.run(live.network.start_server(1))


def test_while_xenocorp_is_down_a_search_works_and_money_says_who_does_not_answer(live: Live, client: Client) -> None:
    order = command(live, "order", "create", "1", "USD").json["order"]
    assert command(live, "search", "cores >= 1").json["complete"]
    live.run(live.network.kill(live.plan.corp))
    found = command(live, "search", "cores >= 1").json
    assert len(found["servers"]) == len(live.plan.servers)
    command(live, "advert", "show", live.plan.servers[0].control)
    for arguments in (
        ("order", "create", "1", "USD"),
        ("order", "show", order),
        ("order", "release", order),
        ("statement",),
        ("register",),
        ("session", "create", live.plan.servers[0].control, "--order", order, "--cpu", "100 ms/s"),
    ):
        assert command(live, *arguments).refusal("XenoCorp", "answer")["code"] == "unreachable"
    assert command(live, "status").json["registered"] is True
    live.run(live.network.start_corp())
    state = command(live, "order", "show", order).json
    assert (state["free_nano"], state["status"]) == (10**9, "open")
    assert command(live, "order", "release", order).json["status"] == "closed"


def test_a_server_says_when_every_search_finds_its_advert(live: Live) -> None:
    control = live.plan.servers[0].control
    live.run(until(lambda: command(live, "advert", "show", control).json["pending"] == []))


# -- noise -----------------------------------------------------------------------------------------------


async def real_datagrams(client: Client) -> list[bytes]:
    """What a member really sends to a stranger: beginnings of the handshake."""
    peer = await client.presence.joined()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.setblocking(False)
        found = []
        for _ in range(3):
            with contextlib.suppress(DhtError):
                await peer.endpoint.ping(sink.getsockname(), timeout_ms=300)
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.append(sink.recv(2048))
        return found


async def throw(port: int, samples: list[bytes], rng: random.Random, count: int) -> None:
    """Random and mutated datagrams from a few ports; not faster than a socket's buffer takes them in."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(8)]
        for number in range(count):
            rng.choice(sockets).sendto(garbage(samples, rng), ("127.0.0.1", port))
            if number % BATCH == 0:
                await asyncio.sleep(0.01)


def garbage(samples: list[bytes], rng: random.Random) -> bytes:
    kind, data = rng.randrange(4), bytearray(rng.choice(samples))
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 1400))
    if kind == 1:
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)
    if kind == 2:
        return bytes(data[: rng.randrange(len(data))])
    return bytes(data[:1]) + rng.randbytes(rng.randrange(0, 1200))


def noise(port: int, rng: random.Random) -> None:
    """Connections that speak no protocol, break off in the middle of one, or say nothing."""
    hello = bytes.fromhex("160301020001fc0303")  # a TLS client's first bytes, and then not
    with contextlib.ExitStack() as opened:
        for number in range(40):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            with contextlib.suppress(OSError):
                if number % 4 < 3:
                    begin = (b"", hello, b"GET / HTTP/1.1\r\n\r\n")[number % 4]
                    connection.sendall(begin + rng.randbytes(rng.randrange(0, 4000)))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
