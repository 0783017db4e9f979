"""How others see a node: directly, through a translator, not at all; and what a change of address costs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.contact import pack_address
from dht.datagram import REQUEST, seal
from dht.endpoint import Endpoint
from dht.errors import LocalError, PeerRefusedError
from dht.reachability import MAX_TELLERS, MIN_MISSED, Reachability, UnreachableError

Run = Callable[[Any], None]


class Translator(asyncio.DatagramProtocol):
    """A NAT before one endpoint; `strict` lets only those in whom the endpoint has written to."""

    def __init__(self, endpoint: Endpoint, *, strict: bool) -> None:
        self._endpoint = endpoint
        self._strict = strict
        self._written: set[Any] = set()
        self.dropped = 0
        self.address: Any = None
        self._transport: Any = None

    async def move(self, host: str = "127.0.0.1") -> None:
        """Give the endpoint another address outside."""
        if self._transport is not None:
            self._transport.close()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))
        self.address = self._transport.get_extra_info("sockname")
        self._endpoint._socket.send = self.send  # type: ignore[union-attr, method-assign]

    def remember(self, addresses: Iterable[Any]) -> None:
        """These were written to before."""
        self._written.update(addresses)

    def send(self, data: bytes, address: Any) -> None:
        self._written.add(address)
        self._transport.sendto(data, address)

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._strict and address not in self._written:
            self.dropped += 1
        else:
            self._endpoint._received(data, address)


async def behind(world: Any, *, strict: bool, **options: Any) -> tuple[Endpoint, Translator]:
    endpoint = await world.open(**options)
    translator = Translator(endpoint, strict=strict)
    await translator.move()
    return endpoint, translator


def test_a_node_behind_a_strict_translator_learns_that_and_may_not_serve(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(14, ["cpu"])
        node, translator = await behind(world, strict=True)
        assert node.reachability == "unknown" and node.observed_address is None
        for peer in nodes[:4]:
            await node.ping(peer.address)
        with pytest.raises(UnreachableError, match=f"{translator.address[1]}.*forward this UDP port"):
            await node.examine_reachability(serve=True)
        assert node.reachability == "unreachable" and node.observed_address == translator.address
        assert translator.dropped

    run(scenario)


def test_who_was_written_to_in_a_run_before_this_one_proves_nothing(run: Run) -> None:
    """A translator's memory outlives the node: its strangers get in, and nobody who comes from elsewhere does."""

    async def scenario(world: Any) -> None:
        nodes = await world.grow(14, ["cpu"])
        node, translator = await behind(world, strict=True)
        translator.remember(each.address for each in nodes)
        for peer in nodes[:4]:
            await node.ping(peer.address)
        with pytest.raises(UnreachableError, match="under the same number"):
            await node.examine_reachability(serve=True)
        assert node.counters["strangers"] and translator.dropped

    run(scenario)


def test_one_peer_is_enough_to_find_out_that_the_port_is_open_or_not(run: Run) -> None:
    async def scenario(world: Any) -> None:
        peer = await world.open()
        for strict, verdict in ((False, "mapped"), (True, "unreachable")):
            node, translator = await behind(world, strict=strict)
            await node.ping(peer.address)
            translator.remember([peer.address])
            found = await node.examine_reachability()
            assert found == ("direct" if verdict == "mapped" else verdict)  # one voice does not say where we are seen

    run(scenario)


def test_a_peer_knocks_only_so_often_and_only_where_its_session_is(run: Run) -> None:
    async def scenario(world: Any) -> None:
        peer, asker = await world.open(), await world.open()
        answers = [asker.ask(peer.address, -11, b"") for _ in range(60)]
        granted = [each for each in await asyncio.gather(*answers, return_exceptions=True) if each == b""]
        assert len(granted) <= 24
        await asyncio.sleep(0.1)
        # What no examination waits for proves nothing: who sends it may have been written to.
        assert asker.reachability == "unknown" and asker.counters["unknown-session"]
        assert await (await world.open()).examine_reachability() == "unknown"

    run(scenario)


def test_a_knock_that_was_heard_is_not_believed_twice_nor_a_forged_one(run: Run) -> None:
    async def scenario(world: Any) -> None:
        peer, node = await world.open(), await world.open()
        await node.ping(peer.address)
        session = peer.peer(node.address).session
        session.counter += 1
        knock = seal(REQUEST, node.network_tag, session.send_session, session.counter, b"", session.send_key)
        elsewhere = ("127.0.0.1", 9)
        node.reach._knocks = asyncio.Event()  # as while it examines itself
        node._received(knock[:-1] + bytes([knock[-1] ^ 1]), elsewhere)
        assert node.reachability == "unknown"
        written_to = await world.open()
        await node.ping(written_to.address)
        node._received(knock, written_to.address)
        assert node.reachability == "unknown"
        node._received(knock, elsewhere)
        assert node.reachability == "direct"
        node.reach.state.forget()
        node._received(knock, elsewhere)
        assert node.reachability == "unknown"

    run(scenario)


def test_a_node_goes_on_at_another_address_and_is_found_in_all_its_overlays(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(12, ["cpu", "memory"])
        node, dimensions = nodes[5], ("cpu", "memory")
        answers = [node.ask(each.address, 7, b"") for each in nodes[:3]]  # under way, and refused by everybody
        port = node.address[1]
        await node.rebind("127.0.0.2")
        assert node.address == ("127.0.0.2", port) and node.has_address
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(each).__name__ for each in outcomes] == ["PeerRefusedError"] * 3
        await asyncio.sleep(2.0)
        for dimension in dimensions:
            wanted = node.overlay(dimension)
            assert wanted.contact.address == ("127.0.0.2", port)
            for each in nodes:
                if each is not node:
                    found = await each.overlay(dimension).find(wanted.node_id, 1)
                    assert [one.address for one in found] == [("127.0.0.2", port)]
                    assert each.overlay(dimension).table.by_id[wanted.node_id].address == ("127.0.0.2", port)
        assert node.counters["rebound"] == 1 and not node.counters["fault"]

    run(scenario)


def test_a_node_whose_port_is_taken_at_the_other_address_stays_where_it_is(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node, other = await world.open(), await world.open()
        with socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.2", node.address[1]))
            with pytest.raises(OSError, match="in use"):
                await node.rebind("127.0.0.2")
        with pytest.raises(LocalError, match="no address for a network"):
            await node.rebind("8.8.8.8")
        assert (await other.ping(node.address)).member == node.member

    run(scenario)


def test_who_follows_a_translator_asks_again_and_again_and_believes_the_new_address_at_once(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(8, ["cpu"])
        node, translator = await behind(world, strict=False)
        for peer in nodes:
            await node.ping(peer.address)
        await node.reach.learn()
        node.reach.follows = True
        before = translator.address
        assert node.observed_address == before
        await translator.move("127.0.0.2")
        node.reach.look_out()
        await asyncio.sleep(0.5)
        assert node.observed_address == translator.address != before
        assert await node.examine_reachability() == "mapped"

    run(scenario)


def test_who_says_something_else_each_time_does_not_keep_a_node_asking(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(8, ["cpu"])
        node = await world.open()
        for peer in nodes:
            await node.ping(peer.address)
        node.reach.follows = True
        await node.reach.learn()
        before = node.counters["sent"]
        for number in range(50):
            body = node.vitals() + pack_address((f"10.9.9.{number}", 4_000))
            node.reach._take_seen(node.peer(nodes[0].address), body)
        await asyncio.sleep(0.3)
        assert node.counters["sent"] - before <= 16 and node.observed_address == node.address

    run(scenario)


def test_calls_that_did_not_come_at_first_do_not_count_once_knocks_get_through(run: Run) -> None:
    """Simulated seed 41: all who were to call had met the node meanwhile, as many started together."""

    async def scenario(world: Any) -> None:
        nodes = await world.grow(6, ["cpu"])
        node = await world.open()
        for peer in nodes:
            await node.ping(peer.address)
        for _ in range(MIN_MISSED):
            node.reach.state.missed(node.loop.time())
        assert node.reachability == "unreachable"
        assert await node.examine_reachability(serve=True) == "direct"

    run(scenario)


def test_a_call_to_what_is_no_address_of_this_network_is_refused(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node, asker = await world.open(), await world.open()
        with pytest.raises(PeerRefusedError, match="no address of this network"):
            await asker.ask(node.address, -10, pack_address(("8.8.8.8", 4_000)))
        assert not node.counters["fault"] and node.peer(("8.8.8.8", 4_000)) is None

    run(scenario)


def test_two_examinations_at_once_do_not_take_each_others_knocks(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(8, ["cpu"])
        node = await world.open()
        for peer in nodes:
            await node.ping(peer.address)
        verdicts = await asyncio.gather(*(node.examine_reachability() for _ in range(3)))
        assert verdicts == ["direct"] * 3

    run(scenario)


def test_a_node_that_strangers_reach_is_direct_or_mapped(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(14, ["cpu"])
        open_node = await world.open()
        mapped, translator = await behind(world, strict=False)
        for node in (open_node, mapped):
            for peer in nodes[:4]:
                await node.ping(peer.address)
        assert await open_node.examine_reachability(serve=True) == "direct"
        assert open_node.observed_address == open_node.address
        assert await mapped.examine_reachability(serve=True) == "mapped"
        assert mapped.observed_address == translator.address != mapped.address

    run(scenario)


def test_a_change_of_address_costs_one_handshake_and_no_answer(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(6, ["cpu"])
        node, translator = await behind(world, strict=True)
        overlay = node.overlay("cpu")
        await overlay.join([nodes[0].address])
        nodes[1].overlay("cpu").handle(1, lambda contact, body, reply: reply(str(contact.address[1]).encode()))
        before = await overlay.ask(nodes[1].overlay("cpu").contact, 1, b"")
        assert before == str(translator.address[1]).encode()
        await translator.move()
        after = await overlay.ask(nodes[1].overlay("cpu").contact, 1, b"")
        assert after == str(translator.address[1]).encode() != before
        known = nodes[1].overlay("cpu").table.by_id[overlay.node_id]
        assert known.address == translator.address

    run(scenario)


def test_paths_that_are_kept_open_are_used_with_nothing_to_ask(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: Any) -> None:
        monkeypatch.setattr("dht.reaching.KEEP_OPEN_IDLE_S", 0.01)
        server, client = await world.open(), await world.open(client=True)
        await client.ping(server.address)
        client.reach.tick(client.loop.time())
        await asyncio.sleep(0.1)
        heard_s = client.peer(server.address).heard_s
        client.reach.tick(client.loop.time())
        await asyncio.sleep(0.1)
        assert client.peer(server.address).heard_s == heard_s
        client.keep_open(server.address)
        client.reach.tick(client.loop.time())
        await asyncio.sleep(0.1)
        assert client.peer(server.address).heard_s > heard_s

    run(scenario)


def test_a_peer_calls_strangers_for_another_only_so_often(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(10, ["cpu"])
        asker = await world.open()
        answers = [asker.ask(nodes[0].address, -9, b"") for _ in range(40)]
        granted = [each for each in await asyncio.gather(*answers, return_exceptions=True) if each == b""]
        assert len(granted) <= 4

    run(scenario)


def test_in_a_public_network_a_private_address_will_do_only_for_who_follows_a_translators(run: Run) -> None:
    async def scenario(world: Any) -> None:
        for follows, host, fits in ((False, "10.0.0.1", False), (True, "10.0.0.1", True), (True, "127.0.0.1", False)):
            node = await world.open()
            node.profile, node.reach.follows = "public", follows
            assert node._may_have(host) is fits and node._may_have("9.9.9.9")

    run(scenario)


def test_what_one_peer_says_is_likely_and_no_more() -> None:
    reachability = Reachability("local")
    assert reachability.likely is None
    reachability.told(("10.1.0.1", 4_000), ("9.9.9.9", 7_410))
    assert reachability.likely == ("9.9.9.9", 7_410) and reachability.observed is None


@given(st.integers(0, 16))
def test_a_minority_of_liars_cannot_move_us(liars: int) -> None:
    reachability = Reachability("local")
    for n in range(MAX_TELLERS):
        seen = ("10.9.9.9", 9) if n < liars else ("10.0.0.1", 4000)
        reachability.told((f"10.1.0.{n + 1}", 4000), seen)
    assert reachability.observed == ("10.0.0.1", 4000)


def test_one_place_has_one_voice_and_too_few_say_nothing() -> None:
    reachability = Reachability("public")
    for n in range(50):
        reachability.told((f"8.8.8.{n}", 4000), ("9.9.9.9", 9))
    assert reachability.observed is None


def test_a_stranger_outweighs_calls_that_did_not_come_until_its_proof_is_old() -> None:
    reachability, own = Reachability("local"), ("10.0.0.1", 4000)
    reachability.reached(0.0)
    for _ in range(MIN_MISSED):
        reachability.missed(10.0)
    assert reachability.verdict(own, 10.0) == "direct" and reachability.verdict(own, 1_000.0) == "unknown"
    for _ in range(MIN_MISSED):
        reachability.missed(1_000.0)
    assert reachability.verdict(own, 1_000.0) == "unreachable"
    reachability.reached(1_001.0)
    assert reachability.verdict(own, 1_001.0) == "direct"


def test_the_advice_says_what_others_see_and_whether_the_number_must_stay() -> None:
    own = ("10.0.0.1", 4_000)

    def advice(*seen: tuple[str, int]) -> str:
        reachability = Reachability("local")
        for n, address in enumerate(seen):
            reachability.told((f"10.1.0.{n + 1}", 4_000), address)
        return reachability.advice(own)

    outside = "192.168.7.7"
    assert "see" not in advice().partition(": ")[0] and "NAT" not in advice()
    assert "NAT" not in advice(own, own, own) and "others see it as 10.0.0.1:4000" in advice(own, own, own)
    assert "1 of 1 who were asked see it as 192.168.7.7:4000" in advice((outside, 4_000))
    kept = advice(*[(outside, 4_000)] * 3)
    assert "NAT); others see it as 192.168.7.7:4000" in kept
    assert "same number (4000 to 4000, no other)" in kept and "outwards" not in kept
    moved = advice(*[(outside, 61_234)] * 3)
    assert "192.168.7.7:61234" in moved and "same number (4000 to 4000, no other; outwards" in moved
    each = advice(*[(outside, 41_000 + n) for n in range(3)])
    assert "others see it as 192.168.7.7 under several ports (41000, 41001, ...)" in each
    assert "outwards as well" in each
