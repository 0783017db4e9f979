"""The same conversations over both transports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import control_worlds as worlds
import pytest
from control_worlds import World

from xenonode.control.client import connect
from xenonode.control.errors import ControlError
from xenonode.control.frames import join
from xenonode.control.pool import ConnectionPool
from xenonode.control.server import Caller, Handler, Limits, Server, serve

Play = Callable[[worlds.Scenario], None]
both_transports = pytest.mark.parametrize("play", worlds.BOTH)


async def echo(caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    return {"body": body, "key": caller.public_key}


async def slow(caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(body["delay_ms"] / 1_000)
    return {"number": body["number"]}


async def refuse(caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    raise ControlError("no_funds", "Your order is spent.", "Top it up with: xenonode order top-up")


async def fail(caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("secret detail")


async def unsendable(caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    return {"pi": 3.14}


HANDLERS: dict[str, Handler] = {"echo": echo, "slow": slow, "refuse": refuse, "fail": fail, "unsendable": unsendable}


@asynccontextmanager
async def serving(world: World, **options: Any) -> AsyncIterator[Server]:
    server = await serve("127.0.0.1", 0, HANDLERS, transport=world.transport("server"), **options)
    try:
        yield server
    finally:
        await server.close(grace_ms=100)


@asynccontextmanager
async def conversation(world: World, name: str | None = "client", **options: Any) -> AsyncIterator[tuple[Any, Server]]:
    async with serving(world, **options) as server:
        connection = await connect(*server.address, world.key("server"), transport=world.transport(name))
        try:
            yield connection, server
        finally:
            await connection.close()


async def refusal_of(awaitable: Any) -> ControlError:
    with pytest.raises(ControlError) as caught:
        await awaitable
    assert caught.value.message
    return caught.value


@both_transports
def test_what_an_answer_lacks_is_told_as_the_peers_fault(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world) as (connection, _):
            answer = await connection.call("echo", {})
            assert answer["body"] == {} and answer.get("amendment") is None
            with pytest.raises(ControlError, match="answered echo without 'amendment'") as caught:
                answer["amendment"]
            assert caught.value.code == "bad_peer" and caught.value.next_step

    play(scenario)


@both_transports
def test_a_request_is_answered_and_both_ends_know_each_other(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world) as (connection, _):
            reply = await connection.call("echo", {"n": 1, "raw": b"\0" * 100_000})
            assert reply == {"body": {"n": 1, "raw": b"\0" * 100_000}, "key": world.key("client")}
            assert connection.peer_key == world.key("server")

    play(scenario)


@both_transports
def test_a_server_with_another_key_is_refused(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with serving(world) as server:
            dialling = connect(*server.address, world.key("somebody else"), transport=world.transport("client"))
            assert (await refusal_of(dialling)).code == "wrong_key"

    play(scenario)


@both_transports
def test_anonymous_callers_reach_only_the_methods_open_to_them(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world, None, anonymous={"echo"}) as (connection, _):
            assert (await connection.call("echo", {}))["key"] is None
            assert (await refusal_of(connection.call("refuse", {}))).code == "certificate_required"
        async with serving(world) as server:
            dialling = connect(*server.address, world.key("server"), transport=world.transport(None))
            assert (await refusal_of(dialling)).code == "certificate_required"

    play(scenario)


@both_transports
def test_many_calls_share_a_connection_and_each_gets_its_own_reply(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world) as (connection, server):
            calls = [
                connection.call("slow", {"delay_ms": 50 - number, "number": number}) for number in range(50)
            ]  # more than may be in flight
            replies = await asyncio.gather(*calls)
            assert [reply["number"] for reply in replies] == list(range(50))
            assert server.statistics.connections == 1

    play(scenario)


@both_transports
def test_a_refusal_travels_whole_and_a_failure_without_its_details(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world) as (connection, server):
            refusal = await refusal_of(connection.call("refuse", {}))
            assert (refusal.code, refusal.message) == ("no_funds", "Your order is spent.")
            assert refusal.next_step == "Top it up with: xenonode order top-up"
            failure = await refusal_of(connection.call("fail", {}))
            assert failure.code == "internal"
            assert "secret" not in failure.message + failure.next_step
            assert "request 1-1" in failure.message
            assert (await refusal_of(connection.call("unsendable", {}))).code == "internal"
            assert (await refusal_of(connection.call("nonsense", {}))).code == "unknown_method"
            assert server.statistics.failures == 2
            assert await connection.call("echo", {})

    play(scenario)
    assert any("1-1" in record.getMessage() and record.exc_info for record in caplog.records)


@both_transports
def test_a_call_without_an_answer_times_out_and_the_connection_goes_on(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world) as (connection, _):
            late = connection.call("slow", {"delay_ms": 400, "number": 1}, timeout_ms=100)
            assert (await refusal_of(late)).code == "timeout"
            await asyncio.sleep(0.5)  # its reply comes, and nobody waits for it
            assert await connection.call("echo", {})

    play(scenario)


@both_transports
def test_a_server_that_vanishes_mid_call_gives_unreachable_with_a_next_step(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world) as (connection, server):
            call = asyncio.ensure_future(connection.call("slow", {"delay_ms": 10_000, "number": 1}))
            await asyncio.sleep(0.1)
            await server.close(grace_ms=1)
            refusal = await refusal_of(call)
            assert refusal.code == "unreachable"
            assert "same ids" in refusal.next_step
            assert (await refusal_of(connection.call("echo", {}))).code == "unreachable"
            dialling = connect(*connection._stream.peer_address, None, transport=world.transport("client"))
            assert (await refusal_of(dialling)).code == "unreachable"

    play(scenario)


@both_transports
def test_closing_lets_what_was_begun_end(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world) as (connection, server):
            call = asyncio.ensure_future(connection.call("slow", {"delay_ms": 200, "number": 7}))
            await asyncio.sleep(0.05)
            await server.close(grace_ms=5_000)
            assert (await call)["number"] == 7

    play(scenario)


async def settle(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to pass")


@both_transports
@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",  # a frame of 4 GiB
        b"\0\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        join({"id": 1}),
        join({"id": 1, "method": "echo", "body": {}})[:-1],  # cut short, then the end
        b"\0\0\0\x01\xc1",
    ],
)
def test_garbage_closes_the_connection_is_counted_and_harms_nobody_else(play: Play, garbage: bytes) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world) as (other, server):
            connection = await connect(*server.address, world.key("server"), transport=world.transport("client"))
            connection._stream._writer.write(garbage)
            if garbage.startswith(b"\0\0\0\x1e") or len(garbage) > 20:
                connection._stream.close()
            await settle(lambda: server.statistics.garbage == 1)
            await settle(lambda: not connection.open)
            await connection.close()
            assert await other.call("echo", {})

    play(scenario)


@both_transports
def test_a_frame_that_drips_is_cut_off_in_its_own_time(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world, limits=Limits(frame_ms=300)) as (connection, server):
            for byte in join({"id": 1, "method": "echo", "body": {"x": bytes(100)}}):
                connection._stream._writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
                if not connection.open:
                    break
            assert server.statistics.slow == 1
            assert server.statistics.requests == 0

    play(scenario)


@both_transports
def test_an_idle_connection_is_closed_unless_an_answer_is_due(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world, limits=Limits(idle_ms=100)) as (connection, _):
            assert await connection.call("slow", {"delay_ms": 350, "number": 1})
            await settle(lambda: not connection.open)

    play(scenario)


@both_transports
def test_connections_beyond_the_limit_are_told_that_the_server_is_busy(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with conversation(world, limits=Limits(connections=1)) as (connection, server):
            dialling = connect(*server.address, world.key("server"), transport=world.transport("client"))
            assert (await refusal_of(dialling)).code == "busy"
            assert await connection.call("echo", {})

    play(scenario)


@both_transports
def test_the_pool_shares_reopens_and_bounds_connections(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with serving(world) as first, serving(world) as second:
            pool = ConnectionPool(world.transport("client"), max_connections=1)
            key = world.key("server")
            await asyncio.gather(*(pool.call(first.address, key, "echo", {}) for _ in range(5)))
            assert first.statistics.connections == 1
            await pool.call(second.address, key, "echo", {})  # closes the idle one
            await pool.call(first.address, key, "echo", {})
            assert (first.statistics.connections, second.statistics.connections, len(pool)) == (2, 1, 1)
            waiting = asyncio.ensure_future(pool.call(first.address, key, "slow", {"delay_ms": 200, "number": 1}))
            await asyncio.sleep(0.05)
            assert (await refusal_of(pool.call(second.address, key, "echo", {}))).code == "busy"
            await waiting
            await pool.close()
            assert len(pool) == 0

    play(scenario)


@both_transports
def test_the_pool_asks_nothing_twice_for_being_late_and_doubts_the_connection(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with serving(world) as server:
            pool = ConnectionPool(world.transport("client"))
            key = world.key("server")
            await pool.call(server.address, key, "echo", {})
            before = server.statistics.requests
            going = asyncio.ensure_future(pool.call(server.address, key, "slow", {"delay_ms": 400, "number": 1}))
            await asyncio.sleep(0.05)
            late = pool.call(server.address, key, "slow", {"delay_ms": 400, "number": 2}, timeout_ms=50)
            assert (await refusal_of(late)).code == "timeout"
            assert server.statistics.requests == before + 2 and len(pool) == 0
            await going  # what was asked over it before still comes, and then it is closed
            await asyncio.sleep(0.1)
            await pool.call(server.address, key, "echo", {})
            assert server.statistics.connections == 2
            await pool.close()

    play(scenario)


@both_transports
def test_to_hang_up_ends_connections_and_nobodys_call_that_still_connects(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with serving(world) as server:
            pool = ConnectionPool(world.transport("client"))
            key = world.key("server")
            connecting = asyncio.ensure_future(pool.call(server.address, key, "echo", {"number": 1}))
            await asyncio.sleep(0)
            await pool.hang_up()
            assert (await connecting)["body"] == {"number": 1}
            await pool.hang_up()
            assert len(pool) == 0
            await pool.call(server.address, key, "echo", {})
            await pool.close()

    play(scenario)
