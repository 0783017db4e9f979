"""A whole session's money: real client, real server, real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dht.errors import DhtError
from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.model.errors import ModelError
from xenonode.model.session import Agreement
from xenonode.server import releasing

from .world import SMALL, World, run_virtually


async def turns(until: Callable[[], bool]) -> None:
    """Let the loop turn, without time passing, until something is so."""
    for _ in range(1_000):
        if until():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


def test_a_whole_session_and_everything_agrees() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        view = await world.begin()
        assert view.state == "running"
        signing = asyncio.create_task(world.sessions.cosign(view.session))
        await asyncio.sleep(60)
        await world.sessions.command(view.session, "stop")
        await signing
        ended = await world.sessions.end(view.session)
        assert ended.closed and ended.due_nano > 0
        assert ended.settled_nano == ended.due_nano == world.state()["captured_nano"]
        settlements = await world.sessions.settlements(view.session)
        assert settlements[-1].final and settlements[-1].cumulative_nano == ended.due_nano
        usage = await world.sessions.usage(view.session)
        assert usage is not None and usage.final and usage.due_nano == ended.due_nano
        assert world.balance(world.client) == 100 * 10**9 - ended.due_nano
        assert world.balance(world.server) == ended.due_nano - sum(each.fee_nano for each in settlements)
        assert world.state()["status"] == "closed" and world.corp.audit()["balanced"]
        assert [record.closed for record in world.sessions._records.sessions()] == [True]
        assert world.machine.guests == {}

    run_virtually(scenario())


def test_a_session_that_does_not_boot_gives_its_money_back_at_once() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        world.boot_fails = True
        with pytest.raises(XenoError, match=r"kernel panicked.*are back in the order") as caught:
            await world.begin()
        assert caught.value.code == "not_started"
        state = world.state()
        assert (state["status"], state["reserved_nano"]) == ("open", 0)
        assert state["free_nano"] == state["amount_nano"]
        (record,) = world.sessions._records.sessions()
        assert record.closed
        (session,) = world.manager.sessions.values()
        assert session.closed and session.state == "failed" and not session.issued
        world.boot_fails = False
        assert (await world.begin()).state == "running"
        assert world.corp.audit()["balanced"]

    run_virtually(scenario())


def test_a_refused_agreement_gives_its_money_back_at_once() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        quoted = await world.quote()
        await asyncio.sleep(61)  # the quote is no longer held
        with pytest.raises(XenoError, match=r"no longer held.*are back in the order"):
            await world.begin(quoted=quoted)
        assert world.state()["free_nano"] == world.state()["amount_nano"]
        (record,) = world.sessions._records.sessions()
        assert record.closed and not world.manager.sessions

    run_virtually(scenario())


def test_while_xenocorp_is_away_the_release_waits_and_survives_a_restart() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        world.boot_fails = world.corp_away = True
        with pytest.raises(XenoError, match="as soon as the server reaches XenoCorp"):
            await world.begin()
        await asyncio.sleep(30)
        assert world.state()["reserved_nano"] > 0
        await world.kill()
        await world.boot()
        await asyncio.sleep(30)
        assert world.state()["reserved_nano"] > 0
        world.corp_away = False
        await asyncio.sleep(300)
        assert world.state()["reserved_nano"] == 0
        await world.kill()
        await world.boot()
        assert world.manager._releases.pending() == []

    run_virtually(scenario())


def test_a_given_up_reservation_can_launch_nothing() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        sent: list[dict[str, bytes]] = []

        async def refused_first(key: bytes, address: tuple[str, int], method: str, body: dict[str, bytes]) -> object:
            if method == "session.create":
                sent.append(body)
                body = {**body, "quote": b"junk"}
            return await world.client_to_server(key, address, method, body)

        with pytest.raises(XenoError, match=r"the server refused.*are back in the order"):
            await world.begin(world.client_of(call_server=refused_first))
        for _ in range(2):
            with pytest.raises(ControlError, match="was given up"):
                await world.handle("session.create", **sent[0])
            await world.kill()
            await world.boot()
        assert not world.manager.sessions and not world.machine.guests

    run_virtually(scenario())


def test_an_answer_that_is_lost_is_asked_for_again_and_the_session_is_found() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        quoted = await world.quote()
        world.answers_lost = True
        with pytest.raises(XenoError, match="not known yet"):
            await world.begin(quoted=quoted)
        world.answers_lost = False
        (record,) = world.sessions._records.sessions()
        assert not record.closed and record.reservation
        (view,) = await world.sessions.list_all()
        assert view.state in ("starting", "running")
        (record,) = world.sessions._records.sessions()
        assert not record.reservation
        assert Agreement.open(record.server_agreement, world.corp.trust.scheme)[0].client == world.client.public_key

    run_virtually(scenario())


def test_a_session_that_its_server_never_heard_of_is_withdrawn() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        quoted = await world.quote()
        world.server_away = True
        with pytest.raises(XenoError, match="not known yet"):
            await world.begin(quoted=quoted)
        assert world.state()["reserved_nano"] > 0
        world.server_away = False
        (record,) = world.sessions._records.sessions()
        with pytest.raises(XenoError, match=r"never began.*are back in the order"):
            await world.sessions.cosign(record.id.hex())
        assert world.state()["reserved_nano"] == 0
        assert world.sessions._records.sessions()[0].closed

    run_virtually(scenario())


def test_the_reservation_of_a_running_session_cannot_be_withdrawn_nor_given_up_by_a_second_agreement() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        bodies: list[dict[str, bytes]] = []

        async def listening(key: bytes, address: tuple[str, int], method: str, body: dict[str, bytes]) -> object:
            bodies.extend([body] if method == "session.create" else [])
            return await world.client_to_server(key, address, method, body)

        await world.begin(world.client_of(call_server=listening))
        reservation = bodies[0]["reservation"]
        with pytest.raises(ControlError, match="a session uses this reservation"):
            await world.handle("session.withdraw", reservation=reservation)
        second = {**bodies[0], "agreement": b"junk"}
        with pytest.raises(ControlError):
            await world.handle("session.create", **second)
        await asyncio.sleep(5)
        assert world.state()["reserved_nano"] > 0 and world.manager._releases.pending() == []

    run_virtually(scenario())


def test_given_up_reservations_are_bounded_for_each_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releasing, "KEPT_MAX_A_CLIENT", 2)

    async def scenario() -> None:
        world = World()
        await world.boot()
        world.boot_fails = True
        for _ in range(3):
            with pytest.raises(XenoError, match="kernel panicked"):
                await world.begin(quoted=await world.quote(SMALL))
        await asyncio.sleep(10)
        assert [each["status"] for each in world.state()["reservations"]].count("live") == 1
        assert all(session.closed for session in world.manager.sessions.values())

    run_virtually(scenario())


def test_a_session_stopped_before_it_booted_costs_nothing() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        view = await world.begin()
        assert view.state == "running"  # the simulated guest boots at once: stop another one before its first reading
        quote, raw = await world.quote()
        beginning = asyncio.create_task(world.begin(quoted=(quote, raw)))
        await turns(lambda: len(world.manager.sessions) == 2)
        second = list(world.manager.sessions)[1]
        await world.manager.stop(second, "the owner needs the machine")
        with pytest.raises(XenoError, match=r"owner needs the machine.*are back in the order"):
            await beginning
        assert world.manager.sessions[second].closed and world.manager.sessions[second].due_nano == 0

    run_virtually(scenario())


@pytest.mark.parametrize(
    "wrong",
    [{"authorized_keys": ("two\nlines",)}, {"hostname": "\ud800"}, {"hostname": "a" * 70_000}],
    ids=("a key of two lines", "no text", "too long"),
)
def test_what_cannot_be_agreed_sets_no_money_aside(wrong: dict[str, Any]) -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        with pytest.raises((ModelError, DhtError)):
            await world.begin(**wrong)
        assert world.state()["reserved_nano"] == 0 and world.state()["reservations"] == []

    run_virtually(scenario())


@pytest.mark.parametrize("nonsense", [{"start": 5}, {"start": b"xx"}, {"closed": "no"}, {"command_seq": None}], ids=str)
def test_a_server_that_talks_nonsense_hides_no_other_session(nonsense: dict[str, object]) -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        view = await world.begin()

        async def lying(key: bytes, address: tuple[str, int], method: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = await world.client_to_server(key, address, method, body)
            return {**answer, **nonsense} if method == "session.show" else answer

        client = world.client_of(call_server=lying)
        record = client._records.find(view.session)
        client._records.keep(replace(record, start=b""))  # as if its start had not been seen yet
        (listed,) = await client.list_all()
        assert listed.state == "unreachable" and "cannot be read" in listed.reason
        with pytest.raises(XenoError, match="cannot be read"):
            await client.command(view.session, "pause")

    run_virtually(scenario())
