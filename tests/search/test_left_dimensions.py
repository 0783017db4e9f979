"""Peers that take no part in a dimension, on real sockets: they ask there from one that is open when it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random

import pytest

from dht.endpoint import Endpoint
from dht.identity import ED25519, Signer
from summaries.parse import parse
from xenonode.env import LiveEnv
from xenonode.errors import XenoError
from xenonode.model.entity import Address
from xenonode.peer import Peer

from .network import Issuing, acquainted, advertise

NAME = "price.cpu"
SERVERS = 4
Made = tuple[Peer, Signer, bytes]


def on_loopback(scenario: Callable[[Issuing, list[Made]], Awaitable[None]]) -> None:
    """Among servers that are joined; the last one may be closed and made again."""

    async def run() -> None:
        env = LiveEnv()
        spare, _, _ = Issuing(ED25519, env.now_ms(), Address("127.0.0.1", 1)).peer(env, 0)
        await spare.endpoint.open("127.0.0.1", 0)
        first = spare.endpoint.address
        await spare.close()
        issuing = Issuing(ED25519, env.now_ms(), Address(*first))
        made = [issuing.peer(env, number) for number in range(SERVERS)]
        try:
            await made[0][0].start(first)
            await asyncio.gather(*(peer.start(("127.0.0.1", 0)) for peer, _, _ in made[1:]))
            await acquainted([peer for peer, _, _ in made])
            await scenario(issuing, made)
        finally:
            await asyncio.gather(*(peer.close() for peer, _, _ in made))

    asyncio.run(run())


async def begin_without(issuing: Issuing, made: list[Made]) -> Peer:
    """Start the last server again, as one that left a dimension in its former life."""
    await made[-1][0].close()
    made[-1] = issuing.peer(LiveEnv(), SERVERS - 1)
    peer = made[-1][0]
    peer.stay_out([NAME])
    await peer.start(("127.0.0.1", 0))
    return peer


def test_a_server_that_starts_without_a_dimension_asks_there_at_once_and_is_found_by_it() -> None:
    async def scenario(issuing: Issuing, made: list[Made]) -> None:
        peer = await begin_without(issuing, made)
        placements = await asyncio.gather(*(asyncio.create_task(peer.placement(NAME)) for _ in range(3)))
        assert len(set(map(id, placements))) == 1 and len(placements[0].overlay.table) == SERVERS - 1
        assert placements[0].overlay.endpoint.is_client and NAME not in peer.holdings
        client, _, _ = issuing.peer(LiveEnv(), SERVERS, client=True)
        try:
            servers = await advertise(made, Random(7))
            assert not any(server.outcome is None or server.outcome.pending for server in servers)
            await client.start(("127.0.0.1", 0))
            answer = await client.searcher.search(parse(f"{NAME} >= 0 USD/h", currency="USD"))
            assert answer.complete and len(answer.servers) == SERVERS
        finally:
            await client.close()

    on_loopback(scenario)


def test_a_socket_that_could_not_be_opened_is_opened_at_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(issuing: Issuing, made: list[Made]) -> None:
        peer = await begin_without(issuing, made)

        async def full(*args: object, **options: object) -> None:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(Endpoint, "open", full)
            tries = [asyncio.create_task(peer.placement(NAME)) for _ in range(2)]
            for failed in await asyncio.gather(*tries, return_exceptions=True):
                assert isinstance(failed, XenoError) and "Too many open files" in failed.message
        assert peer._endpoints() == [peer.endpoint]
        await peer.rebind("127.0.0.1")  # nothing that is not open is in the way
        assert len((await peer.placement(NAME)).overlay.table) == SERVERS - 1

    on_loopback(scenario)


def test_where_the_machine_has_another_address_what_it_asks_with_stays_open_and_is_greeted_anew() -> None:
    async def scenario(issuing: Issuing, made: list[Made]) -> None:
        peer = await begin_without(issuing, made)
        guest = (await peer.placement(NAME)).overlay
        assert guest.endpoint.own_address[0] == "0.0.0.0" and guest.endpoint.sessions.by_number
        port = guest.endpoint.own_address[1]
        await peer.rebind("127.0.0.2")
        assert peer.endpoint.address[0] == "127.0.0.2" and not guest.endpoint.sessions.by_number
        assert len(await guest.find(guest.node_id)) == SERVERS - 1
        assert guest.endpoint.own_address == ("0.0.0.0", port)

    on_loopback(scenario)


def test_behind_a_router_that_forwards_its_port_a_server_can_ask_as_clients_do() -> None:
    async def run() -> None:
        env = LiveEnv()
        issuing = Issuing(ED25519, env.now_ms(), Address("8.8.4.4", 7_400))
        issuing.network = replace(issuing.network, profile="public")
        peer, _, _ = issuing.peer(env, 0)
        try:
            await peer.open(("127.0.0.1", 0), advertise="8.8.8.8")  # the socket's own is none for others
            assert (await peer._as_guest()).endpoint.is_open
        finally:
            await peer.endpoint.close()
            await asyncio.gather(*(each.close() for each in peer._endpoints()))

    asyncio.run(run())
