"""A server whose disk takes no writes: what it says, what it does all the same, and what is left once there is room."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht.identity import ED25519
from xenonode.control.errors import ControlError
from xenonode.model.session import QuoteRequest, Receipt
from xenonode.server import journal as journals
from xenonode.server.audit_log import CHECKPOINTS_NAME, NAME, entries, split_checkpoints, verify
from xenonode.server.errors import NotKeptError, RefusedError
from xenonode.server.session_state import AGREED, FAILED, RUNNING, STARTING, STOPPED

from .test_service import Member
from .test_sessions import running, told, until
from .world import CLIENT, LINUX, MACHINE, SERVER, SMALL, MemoryDisk, Server, World, agreement_for, run_virtually

UNKEPT, KEPT_AGAIN = "sessions cannot be written down", "sessions are written down again"


def test_a_full_disk_is_told_of_once_and_its_sessions_are_metered_again_when_there_is_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        world, server, id = await running()
        before = server.manager.sessions[id].due_nano
        world.files.full = "."
        await asyncio.sleep(6)
        assert told(caplog) == [UNKEPT]
        with pytest.raises(NotKeptError, match="takes no writes"):
            await server.command(id, 1, "pause")
        world.files.full = ""
        await asyncio.sleep(6)
        await server.cosign(id)
        assert server.manager.sessions[id].due_nano > before
        assert told(caplog) == [UNKEPT, KEPT_AGAIN]
        await server.manager.close()

    run_virtually(scenario())


@pytest.mark.parametrize("full", [".", "journal", "checkpoints"])
def test_a_session_that_ends_while_the_disk_is_full_ends_and_is_paid_for_once_when_there_is_room(
    full: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        world, server, id = await running()
        await asyncio.sleep(5)
        await server.cosign(id)
        await server.command(id, 1, "stop")
        world.files.full = full  # before its guest is gone, and so before it is settled
        await asyncio.sleep(100)
        signs = full == "checkpoints"  # only their time is due, and later will do
        assert (server.manager.sessions[id].state in (STOPPED, FAILED)) is signs
        world.files.full = ""
        await until(server, id, STOPPED)
        await asyncio.sleep(2)
        await server.cosign(id)
        world.files.full = full  # XenoCorp's answer cannot be kept
        await asyncio.sleep(10)
        world.files.full = ""
        await asyncio.sleep(400)
        assert server.manager.sessions[id].closed and len(world.corp.final) == 1
        assert sum(world.corp.captures) == world.corp.cumulative[next(iter(world.corp.final))]
        assert told(caplog) == ([] if signs else 2 * [UNKEPT, KEPT_AGAIN])
        assert audited_once(world)
        await server.manager.close()

    run_virtually(scenario())


def audited_once(world: World) -> bool:
    """Whether the audit log is sound, and says nothing twice that was only decided twice."""
    audited = [(entry["kind"], entry["session"], entry["body"]) for entry in entries(world.files.content[NAME])]
    return sound(world) and all(audited.count(each) == 1 for each in audited)


def sound(world: World) -> bool:
    """Whether the audit log is whole, and what its checkpoints sign."""
    content = world.files.content
    checkpoints = split_checkpoints(content.get(CHECKPOINTS_NAME, b""))
    return verify(content.get(NAME, b""), SERVER.public_key, checkpoints, ED25519, heads=[]).sound


def test_a_session_stands_where_the_journal_has_room_for_it_and_none_to_be_written_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(journals, "COMPACT_MIN_BYTES", 1)
        monkeypatch.setattr(journals, "COMPACT_FACTOR", 0)
        world = World()
        server = await world.boot()
        world.files.cramped = True
        id = await server.open_session()
        assert world.files.refused and id in server.manager.sessions and not server.journal.spent
        await until(server, id, RUNNING)
        await server.kill()
        server = await world.boot()
        assert server.manager.sessions[id].state == RUNNING
        await server.command(id, 1, "stop")
        await until(server, id, STOPPED)
        await server.manager.close()

    run_virtually(scenario())


@pytest.mark.parametrize(("full", "agreed"), [(".", 2), ("journal", 8)])
def test_sessions_that_never_were_leave_nothing_but_an_agreement_audited_and_the_next_full_disk_is_told_of_too(
    full: str, agreed: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        for round in (1, 2):
            for number in range(3):
                quote = server.quote(nonce=10 * round + number).quote
                assert quote is not None
                reservation = world.reservation(number=10 * round + number)
                agreement = agreement_for(quote, reservation, world.now_ms()).seal(CLIENT).raw
                world.files.full = full
                with pytest.raises(NotKeptError):
                    await server.manager.create(CLIENT.public_key, agreement, reservation, quote)
                world.files.full = ""
            manager = server.manager
            assert len(manager.sessions) == round - 1 and set(manager._locks) == set(manager.sessions)
            assert not manager._keeper._unkept and not manager._keeper._audited
            assert told(caplog) == [UNKEPT, KEPT_AGAIN] * (round - 1) + [UNKEPT]
            await server.open_session(number=round)
            assert told(caplog) == [UNKEPT, KEPT_AGAIN] * round
        kinds = [entry["kind"] for entry in entries(world.files.content[NAME])]
        assert kinds.count("agreed") == agreed and sound(world)
        await server.kill()
        server = await world.boot()
        assert len(server.manager.sessions) == 2
        await server.manager.close()

    run_virtually(scenario())


def test_everything_that_needs_the_disk_is_refused_by_name_and_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        world, server, id = await running()
        member, other = Member(server, CLIENT), world.reservation(number=7)
        quote = server.quote(nonce=5).quote
        assert quote is not None
        agreement = agreement_for(quote, other, world.now_ms()).seal(CLIENT).raw
        small, much = (
            QuoteRequest(bytes(16), SERVER.public_key, each, LINUX, 600_000, world.now_ms()).seal(CLIENT).raw
            for each in (SMALL, MACHINE)
        )
        asked: list[tuple[str, dict[str, Any]]] = [
            ("quote", {"request": small}),
            ("quote", {"request": much}),
            ("session.create", {"agreement": agreement, "reservation": other, "quote": quote}),
            ("session.create", {"agreement": agreement, "reservation": other, "quote": quote}),  # no longer held
            ("session.withdraw", {"reservation": other}),
            ("session.console", {"session": id.hex()}),
        ]
        world.files.full = "."
        for method, body in asked:
            with pytest.raises(ControlError, match="disk takes no writes") as refused:
                await member.call(method, **body)
            assert refused.value.code == "disk"
        assert told(caplog) == [UNKEPT]
        await server.kill()
        with pytest.raises(NotKeptError):
            await world.boot()
        world.files.full = ""
        server = await world.boot()
        assert list(server.manager.sessions) == [id] and not server.journal.spent
        await server.manager.close()

    run_virtually(scenario())


@pytest.mark.parametrize("full", [".", "journal"])
def test_an_operator_stops_a_session_at_once_and_its_end_is_written_down_when_there_is_room(
    full: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        world, server, id = await running()
        owner, client = Member(server, SERVER), Member(server, CLIENT)
        await asyncio.sleep(3)
        world.files.full = full
        with pytest.raises(ControlError, match="is being removed") as refused:
            await owner.call("owner.stop", session=id.hex(), reason="it fills the disk")
        assert refused.value.code == "disk"
        await asyncio.sleep(30)
        assert not world.machine.guests, "it may be what fills the disk"
        due = server.manager.sessions[id].due_nano
        world.files.full = ""
        await until(server, id, STOPPED)
        await asyncio.sleep(2)
        session = server.manager.sessions[id]
        assert session.reason == "it fills the disk" and session.due_nano == due
        assert (await client.call("session.show", session=id))["reason"] == "it fills the disk"
        kinds = [entry["kind"] for entry in entries(world.files.content[NAME])]
        assert kinds[-3:] == ["operator_stop", "stop", "stopped"] and audited_once(world)
        assert told(caplog) == [UNKEPT, KEPT_AGAIN]
        await server.manager.close()

    run_virtually(scenario())


@pytest.mark.parametrize("state", [AGREED, STARTING])
def test_an_operator_is_told_to_stop_a_session_that_had_not_started_again_after_a_restart(state: str) -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()

        async def never(hypervisor: Any, spec: Any) -> Any:
            await asyncio.Event().wait()

        server.manager._guests._start_guest = never
        id = await server.open_session()
        if state == STARTING:
            await asyncio.sleep(2)
        assert server.manager.sessions[id].state == state
        world.files.full = "."
        with pytest.raises(ControlError, match="if the server restarts before that, stop it again"):
            await Member(server, SERVER).call("owner.stop", session=id.hex(), reason="sold")
        await asyncio.sleep(10)
        assert not world.machine.guests and server.manager.sessions[id].state == state
        await server.kill()
        world.files.full = ""
        server = await world.boot()
        await until(server, id, RUNNING)
        await Member(server, SERVER).call("owner.stop", session=id.hex(), reason="sold")
        await until(server, id, STOPPED)
        assert server.manager.sessions[id].reason == "sold" and not world.machine.guests
        await server.manager.close()

    run_virtually(scenario())


def test_a_closed_session_is_forgotten_with_its_reservation_spent_however_the_disk_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(journals, "CLOSED_MAX", 1)
        world = World()
        server = await world.boot()
        manager = server.manager

        async def live(number: int) -> bytes:
            id = await server.open_session(number=number)
            await until(server, id, RUNNING)
            await asyncio.sleep(6)
            await server.command(id, 1, "stop")
            await until(server, id, STOPPED)
            await asyncio.sleep(2)
            await server.cosign(id)
            await asyncio.sleep(2)
            assert manager.sessions[id].closed
            return id

        first = await live(1)
        paid, last = manager.sessions[first].agreement.reservation, manager.sessions[first].last_issued
        assert last is not None
        receipt = Receipt(first, last.id, last.seq, True, "", world.now_ms()).seal(CLIENT).raw
        async with manager._locks[first]:
            late = asyncio.create_task(manager.receipt(CLIENT.public_key, receipt))
            second = await live(2)
        with pytest.raises(RefusedError, match="forgotten"):
            await late
        assert first not in manager.sessions and first not in manager._locks
        put = server.journal.put

        def put_last(session: Any) -> None:
            put(session)
            world.files.full = "." if session.closed else ""

        monkeypatch.setattr(server.journal, "put", put_last)
        third = await live(3)
        assert second in manager.sessions, "there was no room to forget it"
        world.files.full = ""
        await server.kill()
        server = await world.boot()
        assert {second, third} == set(server.manager.sessions) and set(server.journal.spent) == {paid}
        await server.manager.close()

    run_virtually(scenario())


STATES = ["", "", ".", "journal", "audit.log", "checkpoints"]
ACTS = ["create", "cosign", "client stops", "owner stops", "client pauses", "restart", "wait"]


@settings(max_examples=30, deadline=None)
@given(
    acts=st.lists(
        st.tuples(st.sampled_from(ACTS), st.sampled_from(STATES), st.booleans(), st.integers(0, 20)), max_size=20
    )
)
def test_whatever_the_disk_refuses_sessions_stand_or_never_were_and_each_is_paid_for_once(
    acts: list[tuple[str, str, bool, int]],
) -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        agreed: list[bytes] = []

        async def act(what: str, number: int) -> None:
            nonlocal server
            newest = agreed[-1] if agreed else b""
            if what == "create" and len(agreed) < 4:
                agreed.append(await server.open_session(number=number))
            elif what == "cosign":
                await cosign_all(server)
            elif what == "client stops" and agreed:
                await server.command(newest, server.manager.sessions[newest].command_seq + 1, "stop")
            elif what == "client pauses" and agreed:
                await server.command(newest, server.manager.sessions[newest].command_seq + 1, "pause")
            elif what == "owner stops" and agreed:
                await server.manager.stop(newest, "sold")
            elif what == "restart":
                await server.kill()
                world.files.full = ""
                server = await world.boot()

        with pytest.MonkeyPatch.context() as least:
            least.setattr(journals, "COMPACT_MIN_BYTES", 1_000)
            least.setattr(journals, "COMPACT_FACTOR", 1)
            for number, (what, full, cramped, wait_s) in enumerate(acts):
                world.files.full, world.files.cramped = full, cramped
                with contextlib.suppress(RefusedError):
                    await act(what, number)
                for found in (server.manager.sessions, journals.Journal(MemoryDisk(world.files)).sessions):
                    assert list(found) == agreed, "what was refused is there, or what was agreed is not"
                await asyncio.sleep(wait_s)
            world.files.full = ""
            for id in agreed:
                await server.manager.stop(id, "the end")
            for _ in range(100):
                await asyncio.sleep(10)
                await cosign_all(server)
        sessions = server.manager.sessions
        assert all(session.closed for session in sessions.values()) and not world.machine.guests
        due = {id: session.due_nano for id, session in sessions.items() if session.due_nano}
        assert {id: each for id, each in world.corp.cumulative.items() if each} == due
        assert sum(world.corp.captures) == sum(due.values())
        assert not {sessions[id].agreement.reservation for id in due} & set(world.corp.released)
        assert sound(world)
        await server.manager.close()

    run_virtually(scenario())


async def cosign_all(server: Server) -> None:
    for id in server.manager.sessions:
        await server.cosign(id)
