"""SessionManager with the simulated hypervisor: a session's whole life, exposure, XenoCorp away, crash points."""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import replace

import pytest

from dht.identity import ED25519
from hypervisor.adapter import Running
from hypervisor.environment import State as GuestState
from hypervisor.environment import Usage
from hypervisor.errors import HypervisorError
from xenonode.model.resources import Prices, Resources, due_nano
from xenonode.model.session import Amendment, Start, UsageRecord
from xenonode.server.audit_log import CHECKPOINTS_NAME, NAME, split_checkpoints, verify
from xenonode.server.errors import RefusedError
from xenonode.server.launching import guest_name
from xenonode.server.session_state import FAILED, PAUSED, RUNNING, STOPPED

from .world import (
    CLIENT,
    GIB,
    SERVER,
    SMALL,
    STRANGER,
    Crashed,
    Room,
    Server,
    World,
    agreement_for,
    run_virtually,
)


async def until(server: Server, id: bytes, *states: str) -> None:
    for _ in range(600):
        if server.manager.sessions[id].state in states:
            return
        await asyncio.sleep(1)
    raise AssertionError(f"the session is {server.manager.sessions[id].state}, not one of {states}")


async def running() -> tuple[World, Server, bytes]:
    """A server with one session, whose guest runs."""
    world = World()
    server = await world.boot()
    id = await server.open_session()
    await until(server, id, RUNNING)
    return world, server, id


def test_a_session_runs_is_resized_paused_stopped_and_paid_for_exactly_once() -> None:
    async def scenario() -> None:
        world, server, id = await running()
        session = server.manager.sessions[id]
        start, _ = Start.open(session.start or b"", ED25519, signed_by=SERVER.public_key)
        assert start.ssh_host_key.startswith("ssh-ed25519 ")
        assert server.admission.available.cpu_ms_per_s == 4000 - 250

        for _ in range(6):
            await asyncio.sleep(5)
            await server.cosign(id)
        bigger = Resources(500, GIB, SMALL.disk_bytes, SMALL.net_bit_per_s)
        amendment, _ = Amendment.open(await server.command(id, 1, "resize", bigger), ED25519)
        assert amendment.resources == bigger
        assert server.admission.available.cpu_ms_per_s == 4000 - 500
        amendment, _ = Amendment.open(await server.command(id, 2, "pause"), ED25519)
        assert amendment.state == PAUSED
        used = server.manager.sessions[id].due_nano
        await asyncio.sleep(5)
        await server.cosign(id)
        assert server.manager.sessions[id].due_nano > used, "memory and disk are held while the client pauses"
        await server.command(id, 3, "resume")
        await asyncio.sleep(5)
        await server.command(id, 4, "stop")
        await until(server, id, STOPPED)
        await asyncio.sleep(2)
        record = await server.cosign(id)
        await asyncio.sleep(2)

        assert record is not None and record.final
        assert world.corp.cumulative == {id: record.due_nano} and sum(world.corp.captures) == record.due_nano > 0
        assert server.manager.sessions[id].closed and server.manager.sessions[id].settled_nano == record.due_nano
        assert server.admission.available.cpu_ms_per_s == 4000
        assert not world.machine.guests
        checkpoints = split_checkpoints(world.files.content[CHECKPOINTS_NAME])
        heads = [record.log_head]
        assert verify(world.files.content[NAME], SERVER.public_key, checkpoints, ED25519, heads=heads).sound
        await server.manager.close()

    run_virtually(scenario())


def test_nothing_goes_on_without_receipts_and_a_receipt_wakes_the_session() -> None:
    async def scenario() -> None:
        world, server, id = await running()
        await asyncio.sleep(17)
        session = server.manager.sessions[id]
        assert session.state == PAUSED and session.exposed_ms is not None
        (guest,) = world.machine.guests.values()
        assert guest.state is GuestState.PAUSED
        due = session.due_nano
        await asyncio.sleep(60)
        assert server.manager.sessions[id].due_nano == due, "nobody pays for what the server took away"
        with pytest.raises(RefusedError, match="receipts are missing"):
            await server.command(id, 1, "resume")
        await server.cosign(id)
        assert server.manager.sessions[id].state == RUNNING
        await asyncio.sleep(15 * 60 + 40)
        session = server.manager.sessions[id]
        assert session.state == STOPPED and "no receipt" in session.reason
        assert session.unsigned_nano <= session.agreement.exposure_nano
        await server.manager.close()

    run_virtually(scenario())


def test_unsigned_use_pauses_at_the_exposure_however_short_the_time() -> None:
    async def scenario() -> None:
        world = World(prices=Prices("USD", 10**10, 0, 0, 0), receipt_period_ms=60_000)
        server = await world.boot()
        id = await server.open_session(amount_nano=10**9)  # E = 5e7: 72 s of a quarter of a CPU
        await until(server, id, RUNNING)
        for _ in range(100):
            await asyncio.sleep(1)
        session = server.manager.sessions[id]
        per_second = 10**10 // 3600 // 4
        assert session.state == PAUSED
        assert session.unsigned_nano <= session.agreement.exposure_nano + 2 * per_second
        await server.manager.close()

    run_virtually(scenario())


def test_a_session_stops_before_its_lease_and_before_its_money_ends() -> None:
    async def scenario() -> None:
        world = World(prices=Prices("USD", 10**10, 0, 0, 0))
        server = await world.boot()
        short = await server.open_session(number=1, lease_ms=100_000)
        poor = await server.open_session(number=2, amount_nano=10**8)  # 144 s of a quarter of a CPU
        for _ in range(140):
            await asyncio.sleep(1)
            for id in (short, poor):
                await server.cosign(id)
        one, other = (server.manager.sessions[id] for id in (short, poor))
        assert one.state == STOPPED and "lease" in one.reason
        assert one.ended_ms is not None and one.ended_ms < one.reservation.lease_until_ms
        assert other.state == STOPPED and "used up" in other.reason
        assert 9 * 10**7 * 9 // 10 < other.due_nano <= other.reservation.amount_nano
        await server.manager.close()

    run_virtually(scenario())


def test_claims_wait_for_xenocorp_and_settle_once_even_over_a_restart() -> None:
    async def scenario() -> None:
        world = World()
        world.corp.away = True
        server = await world.boot()
        id = await server.open_session()
        await until(server, id, RUNNING)
        await asyncio.sleep(6)
        await server.command(id, 1, "stop")
        await until(server, id, STOPPED)
        record = await server.cosign(id)
        await asyncio.sleep(60)
        assert server.manager.sessions[id].claim is not None and server.manager.claims_wait_ms > 1_000
        await server.kill()
        server = await world.boot()
        await asyncio.sleep(30)
        world.corp.away = False
        await asyncio.sleep(400)
        assert record is not None and world.corp.captures == [record.due_nano]
        assert server.manager.sessions[id].closed
        await server.manager.close()

    run_virtually(scenario())


def test_without_a_last_receipt_the_signed_part_is_claimed_and_the_tail_left_open() -> None:
    async def scenario() -> None:
        world, server, id = await running()
        await asyncio.sleep(7)
        signed = await server.cosign(id)
        await asyncio.sleep(3)
        await server.command(id, 1, "stop")
        await asyncio.sleep(30)
        session = server.manager.sessions[id]
        assert signed is not None and world.corp.cumulative[id] == signed.due_nano < session.due_nano
        assert not session.closed
        late = await server.cosign(id)
        await asyncio.sleep(3)
        assert late is not None and world.corp.cumulative[id] == late.due_nano == session.due_nano
        assert server.manager.sessions[id].closed
        await server.manager.close()

    run_virtually(scenario())


def test_a_guest_that_crashes_powers_off_or_vanishes_ends_its_session() -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        ids = [await server.open_session(number=each) for each in range(3)]
        for id in ids:
            await until(server, id, RUNNING)
        names = ["xs-" + id.hex() for id in ids]
        world.machine.crash("owner", names[0])
        world.machine.power_off("owner", names[1])
        del world.machine.guests["owner", names[2]]
        await asyncio.sleep(8)
        assert [server.manager.sessions[id].state for id in ids] == [FAILED, STOPPED, FAILED]
        assert all(server.manager.sessions[id].final_signed for id in ids)
        await server.manager.close()

    run_virtually(scenario())


def test_a_guest_that_nothing_explains_is_destroyed_after_it_was_logged() -> None:
    async def scenario() -> None:
        world, server, _ = await running()
        await server.kill()
        del world.files.content["sessions.journal"]
        server = await world.boot()
        assert not world.machine.guests
        assert b"orphan_destroyed" in world.files.content[NAME]
        await server.manager.close()

    run_virtually(scenario())


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What an operator was told of, without its reasons; never in the form of a traceback."""
    assert not any(record.exc_info for record in caplog.records)
    return [record.getMessage().split(" (")[0] for record in caplog.records if record.levelno >= logging.WARNING]


def test_bad_agreements_are_refused_with_every_reason_and_leave_nothing_behind() -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        quote = server.quote().quote
        assert quote is not None
        reservation = world.reservation(number=9, rate_cap=1, amount_nano=5)
        good = world.reservation(number=1)
        free = Prices("USD", 0, 0, 0, 0)
        bad = replace(agreement_for(quote, good, world.now_ms()), prices=free, exposure_nano=10**12)
        with pytest.raises(RefusedError) as refusal:
            await server.manager.create(CLIENT.public_key, bad.seal(CLIENT).raw, reservation, quote)
        for reason in ("prices is not what was quoted", "another reservation", "exposure"):
            assert reason in refusal.value.message
        assert not server.manager.sessions and server.admission.available.cpu_ms_per_s == 4000
        assert server.admission.free(world.now_ms()).cpu_ms_per_s == 4000, "nor does the quote hold anything any more"
        quote = server.quote(nonce=4).quote
        assert quote is not None
        agreement = agreement_for(quote, good, world.now_ms()).seal(CLIENT).raw
        session = await server.manager.create(CLIENT.public_key, agreement, good, quote)
        again = await server.manager.create(CLIENT.public_key, agreement, good, quote)
        assert again.id == session.id, "a repeat is the same session"
        with pytest.raises(RefusedError, match="no such session"):
            server.manager.session(STRANGER.public_key, session.id)
        second = server.quote(nonce=5).quote
        assert second is not None
        twice = agreement_for(second, good, world.now_ms()).seal(CLIENT).raw
        with pytest.raises(RefusedError, match="pays for another session"):
            await server.manager.create(CLIENT.public_key, twice, good, second)
        await server.manager.close()

    run_virtually(scenario())


def test_a_clock_that_jumps_by_an_hour_or_ten_years_stops_and_charges_nothing() -> None:
    async def scenario() -> None:
        world, server, id = await running()
        for skew_ms in (-3_600_000, 3_600_000, 315_360_000_000, 0):
            world.skew_ms = skew_ms
            for _ in range(10):
                await asyncio.sleep(1)
                await server.cosign(id)
        session = server.manager.sessions[id]
        assert session.state == RUNNING
        assert session.meter is not None and session.meter.disk_byte_s <= 41 * SMALL.disk_bytes
        await server.manager.close()

    run_virtually(scenario())


async def life(world: World, crash_at: int | None, seed: int) -> tuple[int, int]:
    """A whole session with one crash; (operations until the end, what was due)."""
    room = Room(crash_at, seed)
    seen: dict[int, bytes] = {}
    id: bytes | None = None
    server: Server | None = None
    stop_ms = world.true_ms() + 25_000
    resized = False
    operations = 0
    quote = reservation = agreement = None
    for _ in range(400):
        try:
            if server is None:
                server = await Server.boot(world, room)
            if agreement is None or (id is None and server.admission.repeated(b"", world.now_ms()) is None):
                quote = server.quote(nonce=len(seen) + operations % 200).quote
                assert quote is not None
                reservation = reservation or world.reservation()
                agreement = agreement_for(quote, reservation, world.now_ms()).seal(CLIENT).raw
            if id is None or id not in server.manager.sessions:
                assert quote is not None and reservation is not None
                id = (await server.manager.create(CLIENT.public_key, agreement, reservation, quote)).id
            record = await server.cosign(id)
            if record is not None:
                raw = record.seal(SERVER).raw
                assert seen.setdefault(record.seq, raw) == raw, "two records with one number"
            session = server.manager.sessions[id]
            if session.state == RUNNING and not resized:
                await server.command(id, 1, "resize", Resources(500, GIB, SMALL.disk_bytes, SMALL.net_bit_per_s))
                resized = True
            if session.state == RUNNING and world.true_ms() >= stop_ms:
                await server.command(id, 2, "stop")
            if session.closed:
                break
        except Crashed:
            pass
        if room.dead and server is not None:
            await server.kill()
        if room.dead:
            operations += room.operations
            room, server = Room(None, seed), None
        await asyncio.sleep(1)
    assert id is not None and server is not None and server.manager.sessions[id].closed
    session = server.manager.sessions[id]
    assert session.state == STOPPED, session.reason
    numbers = sorted(seen)
    records = [UsageRecord.open(seen[number], ED25519)[0] for number in numbers]
    for earlier, later in itertools.pairwise(records):
        assert not later.usage.fell_below(earlier.usage)
    last = records[-1]
    assert last.final and last.due_nano == due_nano(last.usage, world.prices)
    assert sum(world.corp.captures) == last.due_nano and world.corp.cumulative == {id: last.due_nano}
    assert not world.machine.guests, "a guest is left behind"
    assert server.admission.available.cpu_ms_per_s == 4000
    checkpoints = split_checkpoints(world.files.content[CHECKPOINTS_NAME])
    heads = [record.log_head for record in records]
    assert verify(world.files.content[NAME], SERVER.public_key, checkpoints, ED25519, heads=heads).sound
    await server.manager.close()
    return operations + room.operations, last.usage.cpu_ns or 0


def test_a_crash_at_any_point_finds_the_guest_again_and_charges_once() -> None:
    async def scenario(crash_at: int | None, seed: int) -> tuple[int, int]:
        return await life(World(), crash_at, seed)

    operations, cpu_ns = run_virtually(scenario(None, 0))
    assert operations > 60
    for seed in range(20):
        crash_at = 1 + seed * operations // 20
        _, crashed_cpu_ns = run_virtually(scenario(crash_at, seed))
        assert 0.5 * cpu_ns < crashed_cpu_ns < 1.5 * cpu_ns, f"crash at {crash_at}"


def test_a_server_that_moved_says_anew_where_its_guests_are() -> None:
    async def scenario() -> None:
        _, server, id = await running()
        before = server.manager.sessions[id].start
        server.manager.relocate()
        await asyncio.sleep(1)
        assert server.manager.sessions[id].start == before  # nothing is said twice
        inner = server.manager._guests._hypervisor
        reconcile = inner.reconcile

        async def elsewhere() -> list[Running]:
            found = await reconcile()
            return [replace(each, handle=replace(each.handle, ssh_host="192.0.2.9", ssh_port=20_007)) for each in found]

        inner.reconcile = elsewhere  # type: ignore[method-assign]
        server.manager.relocate()
        await asyncio.sleep(1)
        told, _ = Start.open(server.manager.sessions[id].start or b"", ED25519, signed_by=SERVER.public_key)
        first, _ = Start.open(before or b"", ED25519, signed_by=SERVER.public_key)
        assert (told.ssh_host, told.ssh_port) == ("192.0.2.9", 20_007)
        assert replace(told, ssh_host=first.ssh_host, ssh_port=first.ssh_port) == first

    run_virtually(scenario())


def test_clients_are_told_where_their_guests_are_once_the_hypervisor_answers_and_the_disk_has_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        world, server, id = await running()
        ids = [id, await server.open_session(number=1)]
        await until(server, ids[1], RUNNING)
        inner = server.manager._guests._hypervisor
        reconcile, away = inner.reconcile, True

        async def elsewhere() -> list[Running]:
            if away:
                raise HypervisorError("it does not answer", "look at it")
            found = await reconcile()
            return [replace(each, handle=replace(each.handle, ssh_host="192.0.2.9", ssh_port=20_007)) for each in found]

        def hosts() -> list[str]:
            starts = [server.manager.sessions[each].start or b"" for each in ids]
            return [Start.open(start, ED25519)[0].ssh_host for start in starts]

        inner.reconcile = elsewhere  # type: ignore[method-assign]
        server.manager.relocate()
        await asyncio.sleep(3)
        (once,) = told(caplog)
        assert once.startswith("clients are not told yet where guests are reached now: it does not answer")
        away, world.files.full = False, "."
        await asyncio.sleep(3)
        assert "192.0.2.9" not in hosts()
        world.files.full = ""
        await asyncio.sleep(2)
        assert hosts() == 2 * ["192.0.2.9"]
        length = server.audit.length
        await asyncio.sleep(2)
        assert server.audit.length == length, "nothing is said twice"
        await server.manager.close()

    run_virtually(scenario())


@pytest.mark.parametrize("fails", [HypervisorError("it does not answer", "look at it"), OSError("no room for its log")])
def test_guests_are_metered_and_sessions_end_while_the_hypervisor_does_not_say_where_guests_are(
    fails: Exception,
) -> None:
    async def scenario() -> None:
        _, server, _ = await running()
        id = await server.open_session(number=1, lease_ms=300_000)
        await until(server, id, RUNNING)
        inner = server.manager._guests._hypervisor

        async def slow() -> list[Running]:
            await asyncio.sleep(120)
            raise fails

        inner.reconcile = slow  # type: ignore[method-assign]
        for _ in range(2):
            server.manager.relocate()
        await server.cosign(id)
        asked = [task for task in server.env.running if task.get_name() == "say where guests are"]
        assert len(asked) == 1
        for _ in range(150):
            meter = server.manager.sessions[id].meter
            await asyncio.sleep(2)
            await server.cosign(id)
            after = server.manager.sessions[id]
            assert after.meter != meter or after.state == STOPPED
        assert after.ended_ms is not None and after.ended_ms < after.reservation.lease_until_ms
        assert not asked[0].done(), "and it is asked again"
        await server.manager.close()
        assert asked[0].done()

    run_virtually(scenario())


def test_a_hypervisor_that_cannot_be_started_for_a_while_does_not_end_metering() -> None:
    async def scenario() -> None:
        _, server, id = await running()
        inner = server.manager._guests._hypervisor
        usage = inner.usage

        async def no_process(names: list[str]) -> dict[str, Usage]:
            raise OSError("too many open files")

        inner.usage = no_process  # type: ignore[assignment,method-assign]
        await asyncio.sleep(3)
        inner.usage = usage  # type: ignore[method-assign]
        meter = server.manager.sessions[id].meter
        await asyncio.sleep(2)
        assert server.manager.sessions[id].meter != meter
        await server.manager.close()

    run_virtually(scenario())


def test_a_session_that_is_forgotten_before_its_client_is_told_where_it_is_makes_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        caplog.set_level(logging.INFO, "xenonode.server.sessions")
        _, server, id = await running()
        manager = server.manager
        found = {
            name: replace(each, handle=replace(each.handle, ssh_host="192.0.2.9", ssh_port=20_007))
            for name, each in (await manager._guests.found()).items()
        }
        before = dict(manager.sessions)
        manager._relocation._sessions = lambda: before
        manager._forget(id)
        assert not await manager._relocation.tell(found)
        assert told(caplog) == [] and "closed and forgotten" in caplog.text
        await manager.close()

    run_virtually(scenario())


def test_a_guest_whose_place_makes_no_sense_keeps_no_other_client_from_being_told() -> None:
    async def scenario() -> None:
        _, server, first = await running()
        id = await server.open_session(number=1)
        await until(server, id, RUNNING)
        found = await server.manager._guests.found()
        hosts = {guest_name(first): "nowhere", guest_name(id): "192.0.2.9"}
        assert await server.manager._relocation.tell(
            {
                name: replace(each, handle=replace(each.handle, ssh_host=hosts[name], ssh_port=20_007))
                for name, each in found.items()
            }
        )
        starts = [server.manager.sessions[each].start or b"" for each in (first, id)]
        told_hosts = [Start.open(start, ED25519)[0].ssh_host for start in starts]
        assert told_hosts[1] == "192.0.2.9" and told_hosts[0] not in ("nowhere", "192.0.2.9")
        await server.manager.close()

    run_virtually(scenario())


def test_receipts_more_often_than_the_owner_allows_are_refused() -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        server.admission.offer = replace(server.admission.offer, receipt_period_min_ms=5_001)
        with pytest.raises(RefusedError, match="every 5001 ms"):
            await server.open_session()
        await server.manager.close()

    run_virtually(scenario())
