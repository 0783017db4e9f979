"""A read along with the HELLO: one round for a cold peer, for reads only, no longer than its cause, and bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strangers import overheard, raw_socket, shaker

from dht import datagram, early, wire
from dht.answering import PING
from dht.early import THANKS, Question
from dht.errors import PeerIdentityError, PeerTimeoutError, RemoteError, WireError
from dht.handshake import Handshaker
from dht.limits import LIMITS, Allowance, Limits
from dht.record import seal_record
from dht.reply import OK
from dht.walk import CACHE, EARLY, FIND, LEAVE, PART, PUT, READ

Run = Callable[[Callable[[Any], Any]], None]

KEY = bytes(range(20))
BODY = slice(datagram.HEADER_BYTES, -datagram.MAC_BYTES)


@given(st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=600), st.integers(0, 1_000))
def test_a_question_is_in_the_padding_as_it_was_asked_or_not_at_all(
    tag: int, kind: int, body: bytes, room: int
) -> None:
    question = Question(tag, kind, body)
    padded = early.padding(question.packed(), room)
    assert len(padded) == room
    found = early.question_in(padded)
    assert Question.unpack(found) == question if found else room < 3 + len(question.packed())


@given(st.one_of(st.binary(max_size=800), st.none(), st.integers(), st.lists(st.binary())))
def test_any_padding_holds_a_question_or_none(padded: object) -> None:
    question = early.question_in(padded)
    with suppress(WireError):
        Question.unpack(question)
    assert early.question_in(bytes(800)) == b""


@given(st.binary(max_size=64), st.integers(0, 64), st.integers(0, 64))
def test_two_questions_or_two_answers_are_never_bound_alike(whole: bytes, first: int, second: int) -> None:
    one, two = (whole[:first], whole[first:]), (whole[:second], whole[second:])
    assert (early.bound(b"d", *one) == early.bound(b"d", *two)) == (one == two)


def test_a_cold_get_takes_three_datagrams_and_makes_both_known_to_one_another(run: Run) -> None:
    async def scenario(world: Any) -> None:
        asker, server = await world.open(), await world.open()
        overlay, contact = asker.overlay("cpu"), server.overlay("cpu").contact
        asked, _ = overheard(asker)
        answered, _ = overheard(server)
        overlay.warm_start([contact])
        assert await overlay.records.get(KEY) == []
        await asyncio.sleep(0.4)
        assert [data[0] for data in asked] == [datagram.HELLO, datagram.REPLY]
        assert [data[0] for data in answered] == [datagram.WELCOME]
        assert len(answered[0]) <= len(asked[0]) == datagram.MAX_DATAGRAM_BYTES
        assert server.counters["early-answers"] == 1
        assert server.overlay("cpu").table.get(overlay.contact) is not None
        assert server.overlay("cpu").measures.requests["get"] == 1 and asker.peer(server.address).rtt_ms > 0

    run(scenario)


def test_a_cold_get_brings_the_record_and_one_that_is_too_long_is_asked_for_in_the_session(run: Run) -> None:
    async def scenario(world: Any) -> None:
        server = await world.open()
        overlay, expires_ms = server.overlay("cpu"), world.wall_ms() + 60_000
        records = {
            bytes([size % 251]) * 20: seal_record(
                server.signer, "cpu", bytes([size % 251]) * 20, 1, expires_ms, bytes(size)
            )
            for size in (50, 700)
        }
        for key, raw in records.items():
            await overlay.records.put(key, raw, expires_ms, republish=False)
        for number, (key, raw) in enumerate(records.items()):
            asker = await world.open(client=bool(number))
            asker.overlay("cpu").warm_start([overlay.contact])
            assert await asker.overlay("cpu").records.get(key) == [raw]
            assert server.counters["early-answers"] == 1
            assert asker.calls.begun == 1

    run(scenario)


@pytest.mark.parametrize("kind", [PUT, LEAVE, PART, READ, CACHE, PING, 7, -99])
def test_what_is_no_read_is_not_answered_before_the_address_is_proved(run: Run, kind: int) -> None:
    async def scenario(world: Any) -> None:
        server = await world.open()
        overlay = server.overlay("cpu")
        heard: list[bytes] = []
        overlay.handle(7, lambda contact, body, reply: heard.append(body))
        stranger = shaker(world)
        outgoing = stranger.hello(5, Question(overlay.tag, kind, KEY + bytes(80)).packed())
        transport, socket = await raw_socket()
        transport.sendto(stranger.hello_datagram(outgoing), server.address)
        await asyncio.sleep(0.4)
        transport.close()
        (welcome,) = socket.heard
        _, answer = stranger.finish(outgoing, welcome[BODY], world.wall_ms())
        assert answer is None and not heard and not server.counters["early-answers"] and kind not in EARLY

    run(scenario)


def test_whoever_only_greets_is_answered_and_led_nowhere_as_often_as_the_limits_allow(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = Limits(Allowance(0.001, 3), Allowance(50, 100), Allowance(10, 10), Allowance(100, 100))
    monkeypatch.setitem(LIMITS, "local", tight)

    async def scenario(world: Any) -> None:
        server = (await world.grow(3, ["cpu"]))[0]
        overlay = server.overlay("cpu")
        before, stranger = len(overlay.table), shaker(world)
        hello = stranger.hello_datagram(stranger.hello(5, Question(overlay.tag, FIND, KEY).packed()))
        transport, socket = await raw_socket()
        for _ in range(10):
            transport.sendto(hello, server.address)
        await asyncio.sleep(0.4)
        transport.close()
        # The same HELLO again is the same read again, within what HELLOs are allowed.
        assert len(socket.heard) == 3 and all(len(welcome) <= len(hello) for welcome in socket.heard)
        assert server.counters["hello-limited"] == 7 and len(overlay.table) == before
        assert ("127.0.0.1", transport.get_extra_info("sockname")) not in server.sessions.peers

    run(scenario)


def test_under_load_a_cookie_is_asked_for_first_and_the_answer_comes_with_the_welcome(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = Limits(Allowance(1_000, 1_000), Allowance(50, 100), Allowance(10, 10), Allowance(0.001, 0.5))
    monkeypatch.setitem(LIMITS, "local", tight)

    async def scenario(world: Any) -> None:
        asker, server = await world.open(), await world.open()
        asked, _ = overheard(asker)
        asker.overlay("cpu").warm_start([server.overlay("cpu").contact])
        assert await asker.overlay("cpu").records.get(KEY) == []
        assert [data[0] for data in asked][:2] == [datagram.HELLO, datagram.HELLO]
        assert server.counters["early-answers"] == 1

    run(scenario)


def test_a_node_of_before_gives_no_answer_and_is_asked_in_the_session_and_asks_itself_as_before(run: Run) -> None:
    class Former(Handshaker):
        """Looks at no padding, and knows no sixth field."""

        def hello(self, session: int, question: bytes = b"") -> Any:
            return super().hello(session)

        def answer(self, *arguments: Any, **options: Any) -> Any:
            return super().answer(*arguments, **{**options, "read": None})

    async def scenario(world: Any) -> None:
        for old_asks in (False, True):
            asker, server = await world.open(), await world.open()
            (asker if old_asks else server)._shaker.__class__ = Former
            asker.overlay("cpu").warm_start([server.overlay("cpu").contact])
            asked, _ = overheard(asker)
            assert await asker.overlay("cpu").records.get(KEY) == []
            assert [data[0] for data in asked] == [datagram.HELLO, datagram.REQUEST]
            assert server.counters["early-answers"] == 0

    run(scenario)


@pytest.mark.parametrize("what", ["question", "answer", "no answer", "longer"])
def test_whoever_alters_question_or_answer_on_the_way_has_prevented_a_session(run: Run, what: str) -> None:
    async def scenario(world: Any) -> None:
        signer = world.signer()
        one, two = shaker(world), shaker(world, signer=signer)
        outgoing = one.hello(5, Question(1, FIND, KEY).packed())
        hello = wire.unpack(one.hello_datagram(outgoing)[BODY])
        if what == "question":
            hello[5] = early.padding(Question(1, FIND, KEY[::-1]).packed(), len(hello[5]))
        welcome, keys = two.answer(
            5, wire.pack(hello), 6, ("127.0.0.1", 1), world.wall_ms(), demand_cookie=False, read=lambda *_: b"answer"
        )
        fields = wire.unpack(welcome[BODY])
        assert keys is not None and fields[5] == b"answer"
        fields[5:] = {"answer": [b"Answer"], "no answer": [], "longer": [b"answer", b""]}.get(what, fields[5:])
        with pytest.raises((PeerIdentityError, RemoteError)):
            one.finish(outgoing, wire.pack(fields), world.wall_ms())
        plain = one.hello(5)
        with pytest.raises(RemoteError):
            one.finish(plain, wire.pack([*fields[:5], b"answer"]), world.wall_ms())

    run(scenario)


def test_an_answer_from_another_node_than_the_one_that_was_asked_counts_for_nothing(run: Run) -> None:
    async def scenario(world: Any) -> None:
        asker, server, other = await world.open(), await world.open(), await world.open()
        overlay = asker.overlay("cpu")
        wrong = type(overlay.contact)(other.overlay("cpu").node_id, server.address)
        server.overlay("cpu")
        outcome = asyncio.get_running_loop().create_future()
        asker.call(
            server.address,
            overlay.tag,
            FIND,
            KEY,
            lambda call, error, body: outcome.set_result(error),
            contact=wrong,
            early=True,
        )
        assert isinstance(await outcome, PeerIdentityError) and server.counters["early-answers"] == 1
        assert not len(overlay.table)

    run(scenario)


def test_a_garbled_question_is_counted_and_greeted_all_the_same(run: Run) -> None:
    async def scenario(world: Any) -> None:
        server = await world.open()
        stranger = shaker(world)
        transport, socket = await raw_socket()
        for number, question in enumerate(
            (b"\xc1", wire.pack([1]), wire.pack([1, b"", b""]), b"\x93\x01\x02", wire.pack([-1, FIND, KEY]))
        ):
            transport.sendto(stranger.hello_datagram(stranger.hello(number, question)), server.address)
        await asyncio.sleep(0.4)
        transport.close()
        assert len(socket.heard) == 5 and server.counters["bad-early-question"] == 4

    run(scenario)


def test_thanks_for_nothing_change_nothing(run: Run) -> None:
    async def scenario(world: Any) -> None:
        node, other = await world.grow(2, ["cpu"])
        client = await world.open(client=True)
        await client.ping(node.address)
        before = len(node.overlay("cpu").table)
        for who in (other, client):
            for tag in (node.overlay("cpu").tag, node.network_tag, 1):
                who.respond(who.peer(node.address), tag, THANKS, OK, b"anything")
        await asyncio.sleep(0.4)
        assert len(node.overlay("cpu").table) == before and not node.counters["late-reply"]
        with pytest.raises(PeerTimeoutError):
            await node.ask(("127.0.0.1", 9), 1, b"", timeout_ms=100)

    run(scenario)
