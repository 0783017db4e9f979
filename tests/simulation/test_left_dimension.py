"""A server leaves one dimension while it runs: nothing that was acknowledged is lost, and searches by it stay whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dht.record import owned_key
from xenonode import peer as peer_module
from xenonode.client.owner import Owner
from xenonode.control.client import connect
from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.server.errors import NotKeptError
from xenonode.simulation.world import World

NAME = "price.cpu"
QUERIES = ("price.cpu >= 0 USD/h", "price.cpu >= 0 USD/h order by price.cpu", "cores >= 1")


def play(seed: int, servers: int, story: Callable[[World], Coroutine[Any, Any, None]], **options: Any) -> None:
    with World(seed, servers=servers, leaf_capacity=4, **options) as world:
        world.run(story(world))


async def everybody_is_found(world: World) -> None:
    there = {server.running.home.signer.public_key for server in world.servers if server.running is not None}
    for text in QUERIES:
        answer = await world.clients[0].call(lambda client: client.finding.search(text))  # noqa: B023
        assert answer.complete and {each.advert.server_key for each in answer.servers} == there, text


async def nobody_is_led_to(gone: bytes, server: Any) -> None:
    """Whom a lookup that was under way asked after the goodbye has it again, and loses it by its first question."""
    overlay = server.running.peer.endpoint.overlay(NAME)
    if gone in overlay.table.by_id:
        assert gone not in {each.node_id for each in await server.node.start(overlay.find(gone))}
    assert gone not in overlay.table.by_id


@pytest.mark.parametrize("seed", [1, 2])
def test_servers_leave_one_after_the_other_and_everybody_is_found_through_it_at_once_and_later(seed: int) -> None:
    async def story(world: World) -> None:
        await world.begin()
        await asyncio.sleep(60.0)
        for server in world.servers[:4]:
            peer = server.running.peer
            held = sum(len(node.rows) for node in peer.holdings[NAME].holder.nodes().values())
            handed = await server.node.start(peer.leave(NAME))
            assert handed.rows <= held and not handed.rows_pending and not handed.records_lost
            assert NAME not in peer.holdings and peer.left == [NAME]
            await everybody_is_found(world)
            own_id = peer.endpoint.overlay(NAME).node_id
            for other in world.servers:
                if other is not server:
                    await nobody_is_led_to(own_id, other)
        await asyncio.sleep(400.0)  # their adverts are renewed several times, and holders tell them from the dead
        await everybody_is_found(world)
        assert all(not server.running.publisher.last.pending for server in world.servers)
        for server in world.servers[:4]:
            await server.node.start(server.running.peer.enter(NAME))
            assert server.running.peer.left == [] and NAME in server.running.peer.holdings
        await asyncio.sleep(30.0)
        await everybody_is_found(world)

    play(seed, 12, story)


def test_a_server_that_holds_hundreds_of_adverts_hands_them_on() -> None:
    async def story(world: World) -> None:
        await world.begin()
        await asyncio.sleep(60.0)
        count = 6 + 60
        handed = 0
        for server in world.servers[:2]:
            handed += (await server.node.start(server.running.peer.leave(NAME))).rows
            answer = await world.clients[0].call(lambda client: client.finding.search(QUERIES[0]))
            assert answer.complete and len(answer.servers) == count
        assert handed > count / 2

    play(4, 6, story, fleet=60)


def test_values_that_lay_there_are_read_afterwards_and_go_on_being_published() -> None:
    async def story(world: World) -> None:
        await world.begin()
        await asyncio.sleep(30.0)
        dimension = world.servers[0].running.peer.schema.dimensions[0].name
        overlays = [server.running.peer.endpoint.overlay(dimension) for server in world.servers]
        writer, value, now_ms = overlays[0], b"what was acknowledged", world.now_ms
        expires_ms = world.servers[0].node.env.now_ms() + 120_000
        key = owned_key(dimension, writer.endpoint.signer.public_key, "name")
        put = writer.records.put_value(key, value, expires_ms, seq=1, name="name")
        assert await world.servers[0].node.start(put) >= 3
        for server in world.servers[:3]:
            handed = await server.node.start(server.running.peer.leave(dimension))
            assert not handed.records_lost
        for server in world.servers[3:]:
            overlay = server.running.peer.endpoint.overlay(dimension)
            got = await server.node.start(overlay.records.get_value(key, writer.endpoint.signer.public_key))
            assert got == value
        guest = (await world.servers[0].node.start(world.servers[0].running.peer.placement(dimension))).overlay
        assert guest.endpoint.is_client and guest.records.publishing.lag_ms(now_ms()) == 0
        before = guest.endpoint.counters["records-stored-again"]
        await asyncio.sleep(90.0)
        assert guest.endpoint.counters["records-stored-again"] > before

    play(5, 8, story)


def test_the_owner_alone_takes_a_server_out_and_in_and_is_told_what_became_of_it() -> None:
    async def story(world: World) -> None:
        await world.begin()
        await asyncio.sleep(30.0)
        server, other = world.servers[0], world.servers[1]
        address = server.config.control.pair

        async def owners() -> None:
            owner = await Owner.connect(server.running.home, address)
            before = {each["dimension"]: each for each in await owner.dimensions()}
            assert all(each["joined"] and each["contacts"] == 6 for each in before.values()) and len(before) == 11
            told = await owner.leave(NAME)
            assert not told["joined"] and not told["adverts_not_taken"] and told["adverts"] == 0
            assert told["adverts_handed_on"] == before[NAME]["adverts"] > 0 and not told["records_not_taken"]
            assert [each["dimension"] for each in await owner.dimensions() if not each["joined"]] == [NAME]
            for again, code in ((owner.leave(NAME), "not_joined"), (owner.leave("x"), "no_dimension")):
                with pytest.raises(ControlError) as caught:
                    await again
                assert caught.value.code == code and caught.value.next_step
            assert (await owner.enter(NAME))["joined"]
            with pytest.raises(ControlError, match="has not left"):
                await owner.enter(NAME)
            await owner._connection.close()

        async def strangers() -> None:
            key = server.running.home.signer.public_key
            held = other.running.held.papers
            connection = await connect(*address, key, transport=other.running.home.transport(held.certificate, []))
            for method in ("owner.dimensions", "owner.leave", "owner.enter"):
                with pytest.raises(ControlError) as caught:
                    await connection.call(method, {"dimension": NAME})
                assert caught.value.code == "not_owner"
            await connection.close()

        await server.node.start(owners())
        await other.node.start(strangers())
        await everybody_is_found(world)

    play(7, 6, story)


def test_what_was_left_stays_left_over_a_restart_and_the_last_one_is_not_left() -> None:
    async def story(world: World) -> None:
        await world.begin()
        server = world.servers[0]
        await server.node.start(server.running.peer.leave(NAME))
        server.crash()
        await asyncio.sleep(5.0)
        await server.restart()
        peer = server.running.peer
        assert peer.left == [NAME] and NAME not in peer.holdings
        await asyncio.sleep(30.0)
        await everybody_is_found(world)
        for name, code in ((NAME, "not_joined"), ("nonsense", "not_joined")):
            with pytest.raises(XenoError) as caught:
                await server.node.start(peer.leave(name))
            assert caught.value.code == code
        with pytest.raises(XenoError, match="has not left"):
            await server.node.start(peer.enter("cores"))
        names = [each.name for each in peer.schema.dimensions if each.name != NAME]
        for name in names[:-1]:
            await server.node.start(peer.leave(name))
        with pytest.raises(XenoError, match="last dimension"):
            await server.node.start(peer.leave(names[-1]))
        await everybody_is_found(world)
        await server.stop()

    play(6, 6, story)


def test_a_server_that_has_left_a_dimension_and_then_moves_is_found_by_it_at_its_new_address() -> None:
    async def story(world: World) -> None:
        await world.begin()
        await asyncio.sleep(30.0)
        server = world.servers[0]
        await server.node.start(server.running.peer.leave(NAME))
        server.move()
        there = server.node.host.address
        await asyncio.sleep(20.0)
        answer = await world.clients[0].call(lambda client: client.finding.search(QUERIES[0]))
        key = server.running.home.signer.public_key
        assert answer.complete and len(answer.servers) == len(world.servers)
        [found] = [each.advert.advert for each in answer.servers if each.advert.server_key == key]
        assert found.control.host == found.udp.host == there
        assert not server.running.publisher.last.pending

    play(8, 6, story)


def test_leaving_goes_on_where_whoever_asked_waits_no_longer_and_entering_waits_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = peer_module.hand_on

    async def slowly(*args: Any) -> int:
        await asyncio.sleep(400.0)
        return await real(*args)

    async def story(world: World) -> None:
        await world.begin()
        await asyncio.sleep(30.0)
        server = world.servers[0]
        peer, overlay = server.running.peer, server.running.peer.endpoint.overlay(NAME)
        listeners = len(overlay._listeners)

        async def cut_off() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(300.0):
                    await peer.leave(NAME)

        monkeypatch.setattr(peer_module, "hand_on", slowly)
        await server.node.start(cut_off())
        assert peer.left == [NAME] and server.running.home.disk.read("left") == NAME.encode()
        with pytest.raises(XenoError) as caught:
            await server.node.start(peer.enter(NAME))
        assert caught.value.code == "leaving" and caught.value.next_step
        handed = await server.node.start(peer.leave(NAME))
        assert handed.rows and not peer._leaving and NAME not in peer.holdings  # renewed by their owners meanwhile
        await everybody_is_found(world)
        await server.node.start(peer.enter(NAME))
        assert overlay.active and len(overlay.table) == len(world.servers) and len(overlay._listeners) == listeners
        assert server.running.home.disk.read("left") == b""
        await asyncio.sleep(30.0)
        await everybody_is_found(world)
        monkeypatch.setattr(peer_module, "hand_on", slowly)
        leaving = server.node.start(peer.leave(NAME))
        await asyncio.sleep(60.0)
        await server.stop()  # and does not wait for it
        assert leaving.done() and not peer._leaving

    play(9, 5, story)


def test_what_fails_while_it_leaves_or_enters_leaves_nothing_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    real = peer_module.hand_on

    async def fails(*args: Any) -> int:
        raise RuntimeError("a defect")

    async def story(world: World) -> None:
        await world.begin()
        await asyncio.sleep(30.0)
        server, network = world.servers[0], world.simulation.network
        peer, overlay = server.running.peer, server.running.peer.endpoint.overlay(NAME)
        disk = server.running.home.disk
        disk.full = True
        with pytest.raises(NotKeptError, match="takes no writes"):
            await server.node.start(peer.leave(NAME))
        assert peer.left == [] and overlay.active and NAME in peer.holdings
        disk.full = False
        monkeypatch.setattr(peer_module, "hand_on", fails)
        with pytest.raises(RuntimeError, match="a defect"):
            await server.node.start(peer.leave(NAME))
        monkeypatch.setattr(peer_module, "hand_on", real)
        assert peer.left == [NAME] and NAME not in peer.holdings and not overlay.active
        await everybody_is_found(world)
        everybody_else = set(network.names().values()) - {server.node.host.name}
        network.partition("alone", [server.node.host.name], everybody_else)
        entering = [server.node.start(peer.enter(NAME)), server.node.start(peer.placement(NAME))]
        for outcome in await asyncio.gather(*entering, return_exceptions=True):
            assert isinstance(outcome, XenoError) and outcome.code == "no_seed"
        network.heal("alone")
        await asyncio.sleep(60.0)
        assert peer.left == [NAME] and NAME not in peer.holdings and not overlay.active and not len(overlay.table)
        assert server.running.home.disk.read("left") == NAME.encode()

        async def cut_off() -> None:
            entering = asyncio.create_task(peer.enter(NAME))
            await asyncio.sleep(0.01)
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)

        waiting = server.node.start(cut_off()), server.node.start(peer.placement(NAME))
        assert (await asyncio.gather(*waiting))[1].overlay.endpoint.is_client
        await asyncio.sleep(60.0)
        assert peer.left == [NAME] and NAME not in peer.holdings and not overlay.active and not len(overlay.table)
        await server.node.start(peer.enter(NAME))
        assert overlay.active and len(overlay.table) == len(world.servers)
        await asyncio.sleep(30.0)
        await everybody_is_found(world)

    play(10, 5, story)
