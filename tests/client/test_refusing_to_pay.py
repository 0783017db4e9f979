"""A client that does not accept a bill is not charged for it, but for what it signed and, after 72 h, at most E."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from xenonode.client.checking import Share
from xenonode.model.resources import NO_RESOURCES
from xenonode.model.session import exposure_limit_nano
from xenonode.server.session_rules import EXPOSED_MAX_MS, TAIL_WAIT_MS

from .world import World, run_virtually


def test_what_a_client_refuses_pauses_then_stops_the_session_and_costs_at_most_the_exposure() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        view = await world.begin()
        told: list[str] = []
        signing = asyncio.create_task(world.sessions.cosign(view.session, tell=told.append))
        await asyncio.sleep(60)
        # From here on the client finds every record too high, as if it had agreed to nothing.
        records = world.sessions._records
        record = records.find(view.session)
        records.keep(replace(record, shares=(Share(0, NO_RESOURCES),)))
        (session,) = world.manager.sessions.values()
        signed_nano = session.receipt_due_nano
        assert signed_nano > 0
        entries = world.manager._audit.length
        await asyncio.sleep(90)
        (session,) = world.manager.sessions.values()
        assert (session.state, session.receipt_due_nano) == ("paused", signed_nano)
        assert "not accepted: more CPU than was agreed" in session.note
        limit_nano = exposure_limit_nano(session.reservation.amount_nano, session.reservation.rate_cap_nano_per_hour)
        assert session.agreement.exposure_nano == limit_nano
        assert world.manager._audit.length - entries < 12  # each refusal is written once, not at every repeat
        await asyncio.sleep(EXPOSED_MAX_MS / 1000 + 60)
        await asyncio.wait_for(signing, 60)
        (session,) = world.manager.sessions.values()
        assert session.state == "stopped" and session.final_signed and world.machine.guests == {}
        assert len(told) == len(set(told)) and "is refused" in told[0]
        await asyncio.sleep(120)
        # Signed or not, nothing beyond what the client accepted has moved yet.
        assert world.state()["captured_nano"] == signed_nano
        (session,) = world.manager.sessions.values()
        assert session.claim is None and not session.closed
        await world.kill()  # the next three days need no server
        world.corp.now_ms += TAIL_WAIT_MS + 60_000
        await world.corp.service.sweep()
        captured_nano = world.state()["captured_nano"]
        assert signed_nano < captured_nano <= min(session.due_nano, signed_nano + limit_nano)
        assert world.state()["reserved_nano"] == 0 and world.corp.audit()["balanced"]

    run_virtually(scenario())
