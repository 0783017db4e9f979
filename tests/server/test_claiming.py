"""Claims of a running session, settlements that prove nothing, and the clock that leases run by."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dht.identity import ED25519
from xenonode.control.errors import BAD_PEER, INTERNAL, ControlError
from xenonode.model.errors import MessageError
from xenonode.model.money import Settlement
from xenonode.server.errors import CorpAnswerError
from xenonode.server.ports import ControlCorp
from xenonode.server.session_state import RUNNING
from xenonode.server.steady import SteadyClock

from .world import CLIENT, ISSUER, STRANGER, World, run_virtually


def test_a_running_session_claims_what_was_signed_once_an_hour_and_nothing_twice() -> None:
    async def scenario() -> None:
        world = World(receipt_period_ms=60_000)
        server = await world.boot()
        id = await server.open_session(lease_ms=4 * 3_600_000)
        await asyncio.sleep(1)
        for _ in range(130):
            await asyncio.sleep(60)
            await server.cosign(id)
        assert server.manager.sessions[id].state == RUNNING
        assert len(world.corp.captures) == 2 and all(each > 0 for each in world.corp.captures)
        await asyncio.sleep(170)  # no receipt since: nothing to claim
        assert len(world.corp.captures) == 2
        await server.manager.close()

    run_virtually(scenario())


def test_a_settlement_of_another_claim_or_by_another_key_settles_nothing() -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        id = await server.open_session()
        await asyncio.sleep(7)
        honest = world.corp.claim
        answers: list[bytes] = []

        async def lying(raw: bytes) -> bytes:
            settlement, _ = Settlement.open(await honest(raw), ED25519)
            forged = settlement.seal(STRANGER).raw
            other = Settlement(**{**_fields(settlement), "claim": b"x" * 16}).seal(ISSUER).raw
            answers.append(forged if len(answers) % 2 else other)
            return answers[-1]

        world.corp.claim = lying  # type: ignore[method-assign]
        await server.command(id, 1, "stop")
        await asyncio.sleep(2)
        await server.cosign(id)
        await asyncio.sleep(20)
        session = server.manager.sessions[id]
        assert len(answers) >= 2 and session.claim is not None and not session.settlements
        world.corp.claim = honest  # type: ignore[method-assign]
        await asyncio.sleep(60)
        session = server.manager.sessions[id]
        assert session.closed and len(session.settlements) == 1 and sum(world.corp.captures) == session.due_nano
        await server.manager.close()

    run_virtually(scenario())


@pytest.mark.parametrize(
    "wrong",
    [MessageError("an answer that nobody can read"), ControlError(INTERNAL, "a fault"), ControlError(BAD_PEER, "")],
)
def test_what_is_answered_wrongly_keeps_nothing_else_from_xenocorp(wrong: Exception) -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        given_up = world.reservation(number=9)
        ids = [await server.open_session(number=number) for number in range(3)]
        await asyncio.sleep(7)
        honest, released = world.corp.claim, world.corp.release

        async def lying(raw: bytes) -> bytes:
            settlement, _ = Settlement.open(await honest(raw), ED25519)
            return settlement.seal(STRANGER if settlement.agreement == ids[0] else ISSUER).raw

        async def garbled(method: str, body: dict[str, Any]) -> dict[str, Any]:
            raise wrong

        world.corp.claim, world.corp.release = lying, ControlCorp(garbled).release  # type: ignore[method-assign]
        server.manager.withdraw(CLIENT.public_key, given_up)
        for id in ids:
            await server.command(id, 1, "stop")
        await asyncio.sleep(2)
        for id in ids:
            await server.cosign(id)
        await asyncio.sleep(10)
        assert [server.manager.sessions[id].closed for id in ids] == [False, True, True]
        assert server.manager.claims_wait_ms == 0, "XenoCorp answers"
        world.corp.claim, world.corp.release = honest, released  # type: ignore[method-assign]
        await asyncio.sleep(60)
        assert server.manager.sessions[ids[0]].closed and len(world.corp.released) == 1
        await server.manager.close()

    run_virtually(scenario())


def test_a_claim_that_is_never_answered_rightly_is_asked_for_ever_less_and_no_other_waits_for_it() -> None:
    async def scenario() -> None:
        world = World(receipt_period_ms=60_000)
        server = await world.boot()
        first = await server.open_session()
        await asyncio.sleep(7)
        honest = world.corp.claim
        tries = 0

        async def failing(raw: bytes) -> bytes:
            nonlocal tries
            settlement = await honest(raw)
            if Settlement.open(settlement, ED25519)[0].agreement == first:
                tries += 1
                raise CorpAnswerError("XenoCorp failed at this one", "try again", INTERNAL)
            return settlement

        world.corp.claim = failing  # type: ignore[method-assign]
        await server.command(first, 1, "stop")
        await asyncio.sleep(2)
        await server.cosign(first)
        await asyncio.sleep(3_000)
        assert 10 < tries < 30
        for number in range(1, 5):
            id = await server.open_session(number=number)
            await asyncio.sleep(20)
            await server.command(id, 1, "stop")
            await asyncio.sleep(2)
            await server.cosign(id)
            await asyncio.sleep(2)
            assert server.manager.sessions[id].closed and server.manager.claims_wait_ms == 0
        world.corp.claim = honest  # type: ignore[method-assign]
        await asyncio.sleep(300)
        assert server.manager.sessions[first].closed
        await server.manager.close()

    run_virtually(scenario())


def _fields(settlement: Settlement) -> dict[str, object]:
    return {name: value for name, value in settlement.to_fields().items() if name != "version"}


def test_the_steady_clock_never_falls_and_follows_the_wall_by_a_tenth() -> None:
    wall, monotonic = [1_000_000], [0.0]
    clock = SteadyClock(lambda: wall[0], lambda: monotonic[0])
    before = clock.now_ms()
    for wall_ms in (5_000_000, 0, 0, 0, 9_000_000_000):
        wall[0], monotonic[0] = wall_ms, monotonic[0] + 10
        now = clock.now_ms()
        assert 9_000 <= now - before <= 11_000
        before = now
    wall[0] = before + 500
    for _ in range(1000):
        wall[0], monotonic[0] = wall[0] + 10, monotonic[0] + 0.01
        assert clock.now_ms() >= before
        before = clock.now_ms()
    assert abs(clock.now_ms() - wall[0]) <= 1
