"""A live endpoint against restarts, strangers, forgers, replays, spoofers and noise."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from strangers import overheard, raw_socket, shaker

from dht import datagram, wire
from dht.answering import PING
from dht.contact import Contact, pack_contacts
from dht.coordinates import Coordinate
from dht.deadlines import Deadlines, release
from dht.endpoint import Endpoint
from dht.errors import LocalError, PeerBusyError, PeerIdentityError, PeerRefusedError, PeerTimeoutError, RemoteError
from dht.limits import LIMITS, Allowance, Bucket, Limits, Places
from dht.peers import Call, Peer
from dht.reply import Reply
from dht.sessions import MAX_PINGS_PER_REVIEW

Run = Callable[[Any], None]


def test_a_ping_tells_round_trip_place_and_member(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.open(), await world.open()
        pong = await one.ping(two.address)
        assert 0 < pong.rtt_ms < 500 and isinstance(pong.coordinate, Coordinate)
        assert pong.member.public_key == two.signer.public_key

    run(scenario)


def test_clock_skew_is_the_median_of_the_peers(run: Run) -> None:
    async def scenario(world: Any) -> None:
        (one,) = [await world.open()]
        assert one.clock_skew_ms() is None
        for skew_ms in (5_000, 5_000, -3_600_000):
            peer = await world.open(now_ms=lambda skew_ms=skew_ms: world.wall_ms() + skew_ms)
            await one.overlay("cpu").endpoint.ping(peer.address)
            peer.overlay("cpu")
            call: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def observed(done: Call, error: Any, body: bytes, call: asyncio.Future[None] = call) -> None:
                one.observe(done, body)
                call.set_result(None)

            one.call(peer.address, one.overlay("cpu").tag, -1, b"", observed)
            await call
        assert abs((one.clock_skew_ms() or 0) - 5_000) < 500

    run(scenario)


def test_node_level_questions_reach_their_handler(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.open(), await world.open()
        two.handle(9, lambda peer, body, reply: reply(body + str(peer.address[1]).encode()))
        assert await one.ask(two.address, 9, b"from ") == b"from " + str(one.address[1]).encode()
        with pytest.raises(PeerRefusedError):
            await one.ask(two.address, 8, b"")

    run(scenario)


def test_both_ends_may_begin_at_once(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.open(), await world.open()
        for node in (one, two):
            node.handle(1, lambda peer, body, reply: reply(body))
        for first, second in ((b"x", b"y"), (b"z", b"w")):
            asks = [one.ask(two.address, 1, first), two.ask(one.address, 1, second)]
            assert await asyncio.gather(*asks) == [first, second]
        await asyncio.sleep(0.05)
        assert one.session_count() <= 2 and not one.sessions._half_open and not two.sessions._half_open

    run(scenario)


def test_a_silent_address_is_a_time_out_and_leaves_nothing_behind(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one = await world.open()
        transport, _ = await raw_socket()
        with pytest.raises(PeerTimeoutError):
            await one.ask(transport.get_extra_info("sockname"), 1, b"")
        await asyncio.sleep(0.6)
        transport.close()
        assert one.call_count() == 0 and one.session_count() == 0
        assert not one.sessions.peers and not one.sessions.greetings

    run(scenario)


def test_a_restarted_node_is_found_again_by_those_who_remember_it(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(6, ["cpu"])
        signer, port = nodes[3].signer, nodes[3].address[1]
        contact = nodes[3].overlay("cpu").contact
        await nodes[3].close()
        again = await world.open(port=port, signer=signer)
        again.overlay("cpu").handle(1, lambda contact, body, reply: reply(b"back"))
        # No word from the restarted node: the old session draws a RESET, and the question is asked once more.
        assert await nodes[1].overlay("cpu").ask(contact, 1, b"") == b"back"
        assert nodes[1].counters["PeerIdentityError"] == 0 and again.counters["unknown-session"] >= 1
        await again.overlay("cpu").join([nodes[0].address])
        for node in nodes[:3]:
            assert contact in await node.overlay("cpu").find(contact.node_id)

    run(scenario)


def test_another_member_at_a_known_address_is_not_taken_for_the_former(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(4, ["cpu"])
        contact, port = nodes[3].overlay("cpu").contact, nodes[3].address[1]
        await nodes[3].close()
        other = await world.open(port=port)
        other.overlay("cpu").handle(1, lambda contact, body, reply: reply(b"impostor"))
        with pytest.raises(PeerIdentityError):
            await nodes[1].overlay("cpu").ask(contact, 1, b"")
        await nodes[1].overlay("cpu").find(contact.node_id)
        assert contact.node_id not in nodes[1].overlay("cpu").table.by_id

    run(scenario)


def test_nodes_that_die_during_lookups_delay_them_little_and_are_dropped(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(24, ["cpu"])
        dead, live = nodes[1::5], [node for n, node in enumerate(nodes) if n % 5 != 1]
        dead_ids = {node.overlay("cpu").node_id for node in dead}
        for node in dead:
            await node.close()
        keys = [world.rng.randbytes(20) for _ in live]
        finds = [node.overlay("cpu").find(key) for node, key in zip(live, keys, strict=True)]
        for key, found in zip(keys, await asyncio.gather(*finds), strict=True):
            # Answers still name the dead among their 20, which may hide the farthest of the living.
            target = int.from_bytes(key, "big")
            nearest = sorted((each.overlay("cpu").contact for each in live), key=lambda each: each.number ^ target)
            assert found[:8] == nearest[:8] and not dead_ids & {contact.node_id for contact in found}
        await asyncio.sleep(4.2)
        # Who was not among anybody's 20 is met by a further lookup; a silent peer is asked twice, 2 s each.
        for node in live:
            assert len(await node.overlay("cpu").find(world.rng.randbytes(20))) == len(live)
            for key in (bytes(20), b"\xff" * 20):
                await node.overlay("cpu").find(key)
        await asyncio.sleep(4.6)
        for node in live:
            assert not dead_ids & set(node.overlay("cpu").table.by_id)

    run(scenario)


@pytest.mark.parametrize("flaw", ["expired", "other issuer", "other key", "garbage"])
def test_a_flawed_credential_opens_no_session(run: Run, flaw: str) -> None:
    async def scenario(world: Any) -> None:
        server = await world.open()
        signer, other = world.signer(), world.signer()
        credential = {
            "expired": world.credential_for(signer, expires_ms=1),
            "other issuer": world.credential_for(signer, issuer=other),
            "other key": world.credential_for(other),
            "garbage": b"\xc1" * 200,
        }[flaw]
        transport, socket = await raw_socket()
        forger = shaker(world, credential=credential, signer=signer)
        transport.sendto(forger.hello_datagram(forger.hello(77)), server.address)
        await asyncio.sleep(0.1)
        transport.close()
        assert socket.heard == [] and server.session_count() == 0
        with pytest.raises((LocalError, RemoteError)):
            await world.open(signer=signer, credential=credential)

    run(scenario)


def test_a_server_with_a_flawed_credential_is_not_believed(run: Run) -> None:
    async def scenario(world: Any) -> None:
        client = await world.open()
        loose = world.member_check

        def gullible(raw: bytes, now_ms: int) -> Any:
            return loose(raw, 0)

        signer = world.signer()
        expired = world.credential_for(signer, expires_ms=1)
        server = await world.open(signer=signer, credential=expired, member_check=gullible)
        with pytest.raises(PeerTimeoutError):
            await client.ping(server.address, timeout_ms=300)
        assert client.counters["RemoteError"] >= 1 and client.session_count() == 0

    run(scenario)


def test_another_network_is_not_heard(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, other = await world.open(), await world.open(network_id=b"another")
        with pytest.raises(PeerTimeoutError):
            await one.ping(other.address, timeout_ms=200)
        assert other.counters["foreign"] >= 1 and other.counters["sent"] == 0

    run(scenario)


def test_replayed_and_altered_datagrams_change_nothing(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.open(), await world.open()
        seen: list[bytes] = []

        def note(peer: Peer, body: bytes, reply: Reply) -> None:
            seen.append(body)
            reply(b"")

        two.handle(1, note)
        sent, send = overheard(one)
        for n in range(20):
            await one.ask(two.address, 1, bytes([n]))
        assert len(seen) == 20
        rng = random.Random(3)
        for data in [data for data in sent if data[0] == datagram.REQUEST]:
            for _ in range(10):
                send(data, two.address)
                altered = bytearray(data)
                altered[rng.randrange(13, len(altered))] ^= 1 << rng.randrange(8)
                send(bytes(altered), two.address)
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)
        assert len(seen) == 20 and two.counters["replayed"] == 200 and two.counters["bad-mac"] == 200

    run(scenario)


def test_a_datagram_from_another_address_is_not_the_sessions(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.open(), await world.open()
        two.handle(1, lambda peer, body, reply: reply(b""))
        sent, _ = overheard(one)
        await one.ask(two.address, 1, b"")
        transport, socket = await raw_socket()
        transport.sendto(sent[-1], two.address)
        await asyncio.sleep(0.1)
        transport.close()
        assert len(socket.heard) == 1 and len(socket.heard[0]) == datagram.MIN_DATAGRAM_BYTES <= len(sent[-1])

    run(scenario)


def test_an_unproved_address_never_draws_more_than_it_sent(run: Run) -> None:
    async def scenario(world: Any) -> None:
        server = await world.open()
        server.overlay("cpu")
        transport, socket = await raw_socket()
        stranger = shaker(world)
        hellos = [stranger.hello_datagram(stranger.hello(n)) for n in range(60)]
        for hello in hellos:
            for data in (hello, hello[:-400], hello[:37], hello[:36]):
                sent, heard = len(data), len(b"".join(socket.heard))
                transport.sendto(data, server.address)
                await asyncio.sleep(0.002)
                assert len(b"".join(socket.heard)) - heard <= sent
        for type in range(256):
            data = datagram.HEADER.pack(type, server.overlay("cpu").tag, 1, 1) + bytes(16)
            heard = len(b"".join(socket.heard))
            transport.sendto(data, server.address)
            await asyncio.sleep(0.001)
            assert len(b"".join(socket.heard)) - heard <= len(data)
        await asyncio.sleep(0.05)
        transport.close()
        assert socket.heard and all(data[0] in (datagram.WELCOME, datagram.RESET) for data in socket.heard)
        assert not server.known_addresses()

    run(scenario)


def test_a_flood_of_hellos_must_show_cookies_and_keeps_few_sessions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tight = Limits(Allowance(1_000, 1_000), Allowance(50, 100), Allowance(10, 10), Allowance(0.001, 3))
    monkeypatch.setitem(LIMITS, "local", tight)

    async def scenario(world: Any) -> None:
        server = await world.open()
        transport, socket = await raw_socket()
        stranger = shaker(world)
        for n in range(50):
            transport.sendto(stranger.hello_datagram(stranger.hello(n)), server.address)
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)
        transport.close()
        kinds = Counter(data[0] for data in socket.heard)
        assert kinds == {datagram.WELCOME: 3, datagram.COOKIE: 47} and server.session_count() == 3
        assert all(len(data) < 80 for data in socket.heard if data[0] == datagram.COOKIE)
        # Who really is at its address still gets in.
        honest = await world.open()
        assert (await honest.ping(server.address)).member.public_key == server.signer.public_key

    run(scenario)


def test_a_peer_that_asks_too_much_is_told_to_wait(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tight = Limits(Allowance(50, 100), Allowance(1, 10), Allowance(10, 10), Allowance(100, 100))
    monkeypatch.setitem(LIMITS, "local", tight)

    async def scenario(world: Any) -> None:
        one, two = await world.open(), await world.open()
        two.handle(1, lambda peer, body, reply: reply(b"ok"))
        answers = await asyncio.gather(*(one.ask(two.address, 1, b"") for _ in range(30)), return_exceptions=True)
        busy = [answer for answer in answers if isinstance(answer, PeerBusyError)]
        assert answers.count(b"ok") == 10 and len(busy) == 20 and busy[0].retry_after_ms > 0

    run(scenario)


def test_ten_thousand_garbage_and_mutated_datagrams_are_survived(run: Run) -> None:
    async def scenario(world: Any) -> None:
        server, friend = await world.open(), await world.open()
        server.overlay("cpu").handle(1, lambda contact, body, reply: reply(body))
        await friend.overlay("cpu").join([server.address])
        transport, socket = await raw_socket()
        own = transport.get_extra_info("sockname")
        stranger = shaker(world)
        rng = random.Random(11)
        tags = [server.overlay("cpu").tag, stranger.network_tag]
        valid = [
            stranger.hello_datagram(stranger.hello(1)),
            *(
                datagram.seal(type, rng.choice(tags), rng.getrandbits(64), rng.getrandbits(64), body, key)
                for type in (datagram.HELLO, datagram.WELCOME, datagram.COOKIE, datagram.RESET, datagram.REQUEST)
                for body in (b"", b"\x90", b"\x91\xc4\x10" + bytes(16), rng.randbytes(400))
                for key in (stranger.network_key, b"x" * 32)
            ),
        ]
        biggest = 0
        for n in range(10_000):
            if n % 3 == 0:
                data = rng.randbytes(rng.choice((0, 1, 36, 37, 64, 600, 1_200, 1_201, 9_000)))
            else:
                mutated = bytearray(rng.choice(valid))
                for _ in range(rng.randrange(4)):
                    mutated[rng.randrange(len(mutated))] = rng.randrange(256)
                data = bytes(mutated[: rng.randrange(len(mutated) + 1)] if n % 3 == 1 else mutated)
            heard = len(socket.heard)
            # Straight into the endpoint, so that the kernel drops none of them.
            server._received(data, own)
            if n % 100 == 0:
                await asyncio.sleep(0)
            biggest = max([biggest, *map(len, socket.heard[heard:])])
        await asyncio.sleep(0.1)
        transport.close()
        assert biggest <= 1_200 and server.counters["fault"] == 0
        assert server.session_count() < 250 and server.call_count() == 0 and len(server.sessions.peers) == 1
        assert await friend.overlay("cpu").ask(server.overlay("cpu").contact, 1, b"alive") == b"alive"

    run(scenario)


def test_members_that_send_nonsense_inside_their_session_break_nothing(run: Run) -> None:
    async def scenario(world: Any) -> None:
        server, member = await world.open(), await world.open()
        overlay = server.overlay("cpu")
        await member.overlay("cpu").join([server.address])
        session = member.sessions.peers[server.address].session
        rng = random.Random(12)
        for n in range(2_000):
            kind = rng.choice((-1, -2, -3, -4, -5, -99, 0, 70_000, 2**63))
            body = [
                rng.randbytes(rng.randrange(200)),
                datagram.MAX_BODY_BYTES * b"\x91",
                wire.pack([n, kind, rng.randbytes(rng.choice((0, 19, 20, 22, 300)))]),
            ][n % 3]
            member.send_sealed(rng.choice((datagram.REQUEST, datagram.REPLY)), session, overlay.tag, body)
            if n % 50 == 0:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert server.counters["WireError"] > 300 and len(overlay.records.shelf) == 0
        assert len(await server.overlay("cpu").find(bytes(20))) >= 1

    run(scenario)


def test_lying_answers_fail_the_liar_and_never_the_lookup(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(12, ["cpu"])
        lies = [b"", b"\xff" * 40, bytes(28) + b"\xff", bytes(28) + b"\x15" + bytes(26 * 21), b"\1\x91\x00", b"\1\xc1"]
        for node, lie in zip(nodes[1:7], lies, strict=True):
            node.overlays[node.overlay("cpu").tag].requested = lambda peer, kind, body, reply, lie=lie: reply(lie)
        honest = [nodes[0], *nodes[7:]]
        for node in honest:
            found = await node.overlay("cpu").find(world.rng.randbytes(20))
            assert {each.node_id for each in found} >= {each.overlay("cpu").node_id for each in honest}
            assert await node.overlay("cpu").records.get(world.rng.randbytes(20)) == []
            assert node.counters["hostile-answer"] >= 6

    run(scenario)


def test_contacts_that_others_only_name_enter_no_table(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, liar = await world.open(), await world.open()
        invented = pack_contacts([Contact(bytes([n]) * 20, ("127.0.0.1", 9 + n)) for n in range(20)])
        overlay = liar.overlay("cpu")
        overlay.requested = lambda peer, kind, body, reply: reply(liar.vitals() + invented)
        await one.overlay("cpu").join([liar.address])
        assert [contact.address for contact in one.overlay("cpu").table.by_id.values()] == [liar.address]

    run(scenario)


def test_sessions_are_bounded_and_the_longest_silent_go_first(run: Run) -> None:
    async def scenario(world: Any) -> None:
        server = await world.open(session_limit=8)
        server.handle(1, lambda peer, body, reply: reply(b"ok"))
        others = [await world.open() for _ in range(24)]
        for other in others:
            assert await other.ask(server.address, 1, b"") == b"ok"
        assert len(server.sessions.peers) <= 8 and server.session_count() <= 16
        assert await others[0].ask(server.address, 1, b"") == b"ok"

    run(scenario)


def test_upkeep_drops_expired_members_and_half_open_sessions_and_pings_the_silent(run: Run) -> None:
    async def scenario(world: Any) -> None:
        now = {"ms": world.wall_ms()}
        one = await world.open(now_ms=lambda: now["ms"], liveness_idle_ms=0)
        peers = [await world.open() for _ in range(MAX_PINGS_PER_REVIEW + 3)]
        for peer in peers:
            await one.ping(peer.address)
            one.overlay("cpu").heard(one.peer(peer.address))
        await asyncio.sleep(0.01)
        one._upkeep()
        assert sum(call.kind == PING for call in one.calls.open.values()) == MAX_PINGS_PER_REVIEW
        await asyncio.sleep(0.1)
        now["ms"] += 3_700_000
        one._upkeep()
        assert one.session_count() == 0 and not any(peer.session for peer in one.sessions.peers.values())

    run(scenario)


def test_a_forged_reset_costs_one_handshake_and_no_session(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.open(), await world.open()
        two.handle(1, lambda peer, body, reply: reply(b"ok"))
        await one.ask(two.address, 1, b"")
        session = one.sessions.peers[two.address].session
        for guess in (0, session.send_session):
            for _ in range(50):
                data = datagram.seal(
                    datagram.RESET, one.network_tag, guess, session.counter, b"", one._shaker.network_key
                )
                one._received(data, two.address)
        assert one.counters["unfounded-reset"] == 50 and len(one.sessions.greetings) == 1
        assert await one.ask(two.address, 1, b"") == b"ok"

    run(scenario)


def test_misuse_is_told_at_once(run: Run) -> None:
    async def scenario(world: Any) -> None:
        signer = world.signer()
        with pytest.raises(LocalError, match="another key"):
            await world.open(signer=signer, credential=world.credential_for(world.signer()))
        with pytest.raises(LocalError, match="profile"):
            await world.open(profile="planet")
        closed = Endpoint(
            signer,
            world.credential_for(signer),
            world.member_check,
            network_id=b"n",
            now_ms=world.wall_ms,
            rng=random.Random(1),
        )
        with pytest.raises(LocalError, match="not open"):
            await closed.ping(("127.0.0.1", 1))
        with pytest.raises(LocalError, match="advertise"):
            await closed.open("0.0.0.0", 0)
        with pytest.raises(LocalError, match="profile"):
            await closed.open("127.0.0.1", 0, advertise="8.8.8.8")
        node = await world.open()
        with pytest.raises(LocalError, match="profile"):
            node.ask(("8.8.8.8", 53), 1, b"")
        with pytest.raises(LocalError, match="kind"):
            node.handle(-1, lambda peer, body, reply: None)
        with pytest.raises(LocalError, match="open already"):
            await node.open("127.0.0.1", 0)

    run(scenario)


def test_closing_fails_what_is_open_and_frees_the_port(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one = await world.open()
        transport, _ = await raw_socket()
        waiting = one.ask(transport.get_extra_info("sockname"), 1, b"")
        address = one.address
        await one.close()
        with pytest.raises(LocalError, match="closed"):
            await waiting
        await asyncio.sleep(0)
        transport.close()
        assert (await world.open(port=address[1])).address == address

    run(scenario)


def test_a_renewed_credential_keeps_the_key(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node = await world.open()
        later = world.wall_ms() + 9_000_000
        node.renew(world.credential_for(node.signer, expires_ms=later))
        assert (await (await world.open()).ping(node.address)).member.expires_ms == later
        with pytest.raises(LocalError):
            node.renew(world.credential_for(world.signer()))

    run(scenario)


def test_buckets_refill_and_places_are_bounded() -> None:
    allowance = Allowance(2, 4)
    bucket = Bucket(allowance, 0.0)
    assert [bucket.take(allowance, 0.0) for _ in range(5)] == [True] * 4 + [False]
    assert bucket.take(allowance, 0.5) and not bucket.take(allowance, 0.5)
    places = Places(allowance)
    for place in range(10_000):
        places.take(place, 0.0)
    assert len(places) == 4_096


def test_deadlines_fire_in_order_skip_what_is_done_and_survive_a_failing_one() -> None:
    class Item:
        def __init__(self, name: str) -> None:
            self.name, self.done = name, False
            self.deadline: list[Any] | None = None

    async def scenario() -> None:
        faults: list[Exception] = []
        fired: list[str] = []
        deadlines = Deadlines(asyncio.get_running_loop(), faults.append)

        def expire(item: Item) -> None:
            fired.append(item.name)
            if item.name == "bad":
                raise ValueError(item.name)

        items = [Item(name) for name in ("a", "bad", "skipped", "c", "freed")]
        for item in items:
            deadlines.add(40, item, expire)
        deadlines.add(20, Item("rounded up"), expire)
        items[2].done = True
        freed = items.pop()
        release(freed)
        whether_freed = weakref.ref(freed)
        del freed, item
        assert whether_freed() is None
        await asyncio.sleep(0.2)
        assert fired == ["a", "bad", "c", "rounded up"] and len(faults) == 1
        deadlines.add(10, Item("never"), expire)
        deadlines.close()
        await asyncio.sleep(0.1)
        assert "never" not in fired

    asyncio.run(scenario())


def test_a_peer_smooths_its_round_trip() -> None:
    peer = Peer(("127.0.0.1", 1), 0.0)
    assert peer.soft_timeout_ms == 500
    peer.measured(80.0)
    assert peer.soft_timeout_ms == 240
    for _ in range(100):
        peer.measured(1.0)
    assert peer.soft_timeout_ms == 150


def test_a_socket_knows_whether_the_machine_has_its_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: Any) -> None:
        node = await world.open()
        assert node.has_address
        monkeypatch.setattr("dht.udp.UdpSocket.bound", ("192.0.2.77", 4_000))  # of nobody: RFC 5737
        assert not node.has_address
        await node.close()
        assert node.has_address  # who is closed lacks none

    run(scenario)
