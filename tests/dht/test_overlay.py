"""Overlays over real sockets: everybody is found, records survive, clients leave no trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dht.contact import Contact, unpack_contacts
from dht.endpoint import Endpoint
from dht.errors import JoinError, LocalError, PeerIdentityError, PeerRefusedError, PeerTimeoutError
from dht.record import seal_record
from dht.reply import Reply
from dht.routing import K

Run = Callable[[Any], None]
DIMENSIONS = ["cpu.available", "memory.available", "price.cpu"]


def nearest(nodes: list[Endpoint], dimension: str, key: bytes, k: int = 20) -> list[bytes]:
    target = int.from_bytes(key, "big")
    ids = [node.overlay(dimension).node_id for node in nodes]
    return sorted(ids, key=lambda each: int.from_bytes(each, "big") ^ target)[:k]


def test_an_answer_names_the_nearest_but_the_asker_itself(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(30, ["cpu"])
        overlay = nodes[0].overlay("cpu")
        contacts = list(overlay.table)
        for _ in range(60):
            key, asker = world.rng.randbytes(20), nodes[0].peer(world.rng.choice(contacts).address)
            if asker is None:
                continue
            named = unpack_contacts(overlay.serving._packed_nearest(asker, key), K)
            target, itself = int.from_bytes(key, "big"), overlay.known_contact(asker)
            others = [contact for contact in contacts if contact is not itself]
            assert set(named) == set(sorted(others, key=lambda contact: contact.number ^ target)[:K])

    run(scenario)


def test_find_returns_exactly_the_nearest_in_every_overlay(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(30, [*DIMENSIONS, "location"])
        for _ in range(40):
            key, node = world.rng.randbytes(20), world.rng.choice(nodes)
            for dimension in DIMENSIONS:
                found = await node.overlay(dimension).find(key)
                assert [contact.node_id for contact in found] == nearest(nodes, dimension, key)

    run(scenario)


def test_find_returns_everybody_in_a_network_smaller_than_k(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(8, DIMENSIONS[:1])
        for node in nodes:
            assert len(await node.overlay(DIMENSIONS[0]).find(world.rng.randbytes(20))) == 8
            assert len(node.overlay(DIMENSIONS[0]).peers()) == 7

    run(scenario)


def test_nodes_that_start_all_at_once_find_one_another(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = [await world.open() for _ in range(24)]
        seeds = [node.address for node in nodes[:3]]
        await asyncio.gather(*(node.overlay("cpu").join(seeds) for node in nodes))
        await asyncio.sleep(1.5)
        for node in nodes:
            key = world.rng.randbytes(20)
            assert [contact.node_id for contact in await node.overlay("cpu").find(key)] == nearest(nodes, "cpu", key)

    run(scenario)


def test_a_join_without_any_seed_alive_names_the_seeds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: Any) -> None:
        monkeypatch.setattr("dht.joining.JOIN_ATTEMPTS", 2)
        gone = await world.open()
        address = gone.address
        await gone.close()
        node = await world.open()
        with pytest.raises(JoinError, match=str(address[1])):
            await node.overlay("cpu").join([address])

    run(scenario)


def test_a_record_is_found_from_everywhere_and_the_newer_one_wins(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(20, ["cpu"])
        key, expires_ms = world.rng.randbytes(20), world.wall_ms() + 60_000
        old = seal_record(nodes[3].signer, "cpu", key, 1, expires_ms, b"old")
        new = seal_record(nodes[3].signer, "cpu", key, 2, expires_ms, b"new")
        assert await nodes[3].overlay("cpu").records.put(key, old, expires_ms) == 8
        assert await nodes[3].overlay("cpu").records.put(key, new, expires_ms) == 8
        assert await nodes[3].overlay("cpu").records.put(key, old, expires_ms) == 0
        for node in nodes:
            assert await node.overlay("cpu").records.get(key) == [new]
        assert await nodes[0].overlay("cpu").records.get(world.rng.randbytes(20)) == []

    run(scenario)


def test_many_owners_under_one_key_are_read_page_by_page(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(10, ["cpu"])
        key, expires_ms = world.rng.randbytes(20), world.wall_ms() + 60_000
        raws = [seal_record(node.signer, "cpu", key, 1, expires_ms, bytes(600)) for node in nodes]
        for node, raw in zip(nodes, raws, strict=True):
            assert await node.overlay("cpu").records.put(key, raw, expires_ms) >= 8
        reader = await world.open(client=True)
        await reader.overlay("cpu").join([nodes[0].address])
        assert sorted(await reader.overlay("cpu").records.get(key, holders=3)) == sorted(raws)

    run(scenario)


def test_a_record_for_another_key_or_overlay_or_expiry_is_not_stored(run: Run) -> None:
    async def scenario(world: Any) -> None:
        (node,) = await world.grow(1, ["cpu", "memory"])
        key, expires_ms = world.rng.randbytes(20), world.wall_ms() + 60_000
        raw = seal_record(node.signer, "cpu", key, 1, expires_ms, b"x")
        wrong = (("memory", key, expires_ms), ("cpu", bytes(20), expires_ms), ("cpu", key, 1))
        for overlay, other_key, expiry in wrong:
            with pytest.raises(LocalError):
                await node.overlay(overlay).records.put(other_key, raw, expiry)
        with pytest.raises(LocalError, match="at most"):
            seal_record(node.signer, "cpu", key, 1, expires_ms, bytes(1_000))

    run(scenario)


def test_a_client_finds_and_asks_but_nobody_keeps_it(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(12, ["cpu"])
        client = await world.open(client=True)
        overlay = client.overlay("cpu")
        await overlay.join([nodes[4].address])
        found = await overlay.find(world.rng.randbytes(20))
        assert len(found) == 12
        seen = []

        def handler(contact: Contact, body: bytes, reply: Reply) -> None:
            seen.append((contact, reply.is_client, reply.member.public_key))
            reply(body[::-1])

        nodes[7].overlay("cpu").handle(5, handler)
        assert await overlay.ask(nodes[7].overlay("cpu").contact, 5, b"abc") == b"cba"
        assert seen == [(overlay.contact, True, client.signer.public_key)]
        for node in nodes:
            assert client.address not in node.known_addresses()
            assert overlay.node_id not in node.overlay("cpu").table.by_id
        contact = overlay.contact
        with pytest.raises(PeerIdentityError):
            await nodes[7].overlay("cpu").ask(contact, 5, b"")

    run(scenario)


def test_answers_may_come_later_be_refused_or_never_come(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.grow(2, ["cpu"])
        kept: list[Reply] = []
        loop = asyncio.get_running_loop()
        two.overlay("cpu").handle(1, lambda contact, body, reply: loop.call_later(0.05, reply, b"late"))
        two.overlay("cpu").handle(2, lambda contact, body, reply: reply.refuse("no room: " + body.decode()))
        two.overlay("cpu").handle(3, lambda contact, body, reply: kept.append(reply))
        ask, contact = one.overlay("cpu").ask, two.overlay("cpu").contact
        assert await ask(contact, 1, b"") == b"late"
        with pytest.raises(PeerRefusedError, match="no room: x"):
            await ask(contact, 2, b"x")
        with pytest.raises(PeerTimeoutError):
            await ask(contact, 3, b"", timeout_ms=100)
        with pytest.raises(PeerRefusedError, match="nobody answers"):
            await ask(contact, 4, b"")
        with pytest.raises(LocalError, match="at most"):
            ask(contact, 1, bytes(1_101))
        kept[0](bytes(1_100))
        with pytest.raises(LocalError, match="before"):
            kept[0](b"again")
        assert len(await ask(contact, 1, bytes(1_100))) == 4

    run(scenario)


def test_a_node_asks_itself_without_a_datagram(run: Run) -> None:
    async def scenario(world: Any) -> None:
        (node,) = await world.grow(1, ["cpu"])
        overlay = node.overlay("cpu")
        overlay.handle(1, lambda contact, body, reply: reply(body * 2))
        (own,) = await overlay.find(bytes(20))
        assert await overlay.ask(own, 1, b"x") == b"xx"
        with pytest.raises(PeerRefusedError):
            await overlay.ask(own, 2, b"x")
        assert node.counters["sent"] == 0

    run(scenario)


def test_a_handler_that_fails_is_counted_and_refused_to_the_asker(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.grow(2, ["cpu"])

        def broken(contact: Contact, body: bytes, reply: Reply) -> None:
            raise KeyError("defect")

        two.overlay("cpu").handle(1, broken)
        with pytest.raises(PeerRefusedError, match="internal error"):
            await one.overlay("cpu").ask(two.overlay("cpu").contact, 1, b"")
        assert two.counters.pop("fault") == 1

    run(scenario)


def test_a_node_that_left_is_forgotten_at_once_and_changes_are_told(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(6, ["cpu"])
        told: list[int] = []
        nodes[0].overlay("cpu").on_change(lambda: told.append(1))
        await nodes[5].overlay("cpu").leave()
        await asyncio.sleep(0.2)
        assert all(len(node.overlay("cpu").table) == 4 for node in nodes[:5])
        assert told == [1]

    run(scenario)


def test_a_node_leaves_one_dimension_and_stays_in_the_others_until_it_comes_back(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(6, ["cpu", "memory"])
        gone = nodes[5]
        await gone.overlay("cpu").leave()
        await asyncio.sleep(0.2)
        assert not gone.overlay("cpu").peers() and len(gone.overlay("memory").peers()) == 5
        contact = Contact(gone.overlay("cpu").node_id, gone.address)
        with pytest.raises(PeerRefusedError, match="no such overlay"):
            await nodes[0].overlay("cpu").ask(contact, 1, b"")
        assert len(await nodes[0].overlay("cpu").find(bytes(20))) == 5
        assert len(await nodes[0].overlay("memory").find(bytes(20))) == 6
        await gone.overlay("cpu").join([nodes[0].address])
        assert len(await nodes[1].overlay("cpu").find(gone.overlay("cpu").node_id)) == 6

    run(scenario)
