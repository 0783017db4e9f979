"""A session's state machine: an event in; the new session and the effects to bring about out.

Decides every step of `session_state.TRANSITIONS` and what goes with it: the guest's life here, the client's orders in
`session_commands`, the money in `session_bill`, what they share in `session_steps`. Leaves when something is due of
itself to `session_rules`, and doing it to `sessions`. A step never fails half way: it raises, or it returns a whole
new value. The `Save` effect stands before all that others could see, so that nothing is shown that a crash could take
back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypervisor.environment import State as GuestState
from xenonode.server import metering, session_bill, session_commands
from xenonode.server import session_events as ev
from xenonode.server.session_state import ENDED, LIVE, PAUSED, RUNNING, STARTING, STOPPING, Session, after
from xenonode.server.session_steps import Step, amounts, due, metered, stop

LAUNCHES_MAX = 3
"""A launch is tried again only after the server itself restarted; a server that keeps restarting gives up."""
LAST_READING_MAX_MS = 5_000
"""The last reading counts if it follows the one before within five sample periods. A guest that lives on after its
stop was ordered, because the hypervisor or the server was away, does so on the server's account."""


def step(session: Session, event: ev.Event, now_ms: int) -> Step:
    """What `event` makes of `session`, and what to do. Raises LocalError for an event out of its place."""
    return _HANDLERS[type(event)](session, event, now_ms)


def _validated(session: Session, event: ev.Validated, now_ms: int) -> Step:
    session = replace(session, state=after(session.state, "validated"), server_agreement=event.server_agreement)
    body: dict[str, ev.AuditValue] = {
        "client": session.agreement.client,
        "environment": str(session.agreement.environment),
        "image_sha256": session.agreement.image_sha256,
        **amounts(session.resources),
    }
    return session, [ev.Save(), ev.Audit("agreed", body), ev.Advertise(), ev.Launch()]


def _launch_began(session: Session, event: ev.LaunchBegan, now_ms: int) -> Step:
    if session.launches >= LAUNCHES_MAX:
        return stop(session, f"the environment did not start in {LAUNCHES_MAX} tries", failed=True)
    session = replace(session, state=after(session.state, "launch began"), launches=session.launches + 1)
    return session, [ev.Save(), ev.Audit("create", {"launch": session.launches})]


def _booted(session: Session, event: ev.Booted, now_ms: int) -> Step:
    if session.state != STARTING:
        return session, []  # stopped while it booted: the tear-down that is under way removes it
    session = replace(
        session,
        state=after(session.state, "booted"),
        start=event.start,
        meter=metering.begin(event.reading.sample, event.reading.at),
        receipt_ms=now_ms,
        claimed_ms=now_ms,
    )
    return session, [ev.Save(), ev.Audit("start", amounts(session.resources)), ev.Advertise()]


def _relocated(session: Session, event: ev.Relocated, now_ms: int) -> Step:
    if session.state not in LIVE or session.start is None:
        return session, []
    return replace(session, start=event.start), [ev.Save(), ev.Audit("relocated", {})]


def _boot_failed(session: Session, event: ev.BootFailed, now_ms: int) -> Step:
    return stop(session, event.reason, failed=True) if session.state == STARTING else (session, [])


def _sampled(session: Session, event: ev.Sampled, now_ms: int) -> Step:
    if session.state not in LIVE:
        return due(session, now_ms)
    session = metered(session, event.reading)
    if event.reading.sample.state is GuestState.CRASHED:
        return stop(session, "the environment crashed", failed=True)
    if event.reading.sample.state is GuestState.STOPPED:
        return stop(session, "the environment powered itself off")
    return due(session, now_ms)


def _tick(session: Session, event: ev.Tick, now_ms: int) -> Step:
    return due(session, now_ms)


def _vanished(session: Session, event: ev.Vanished, now_ms: int) -> Step:
    return stop(session, "the environment is no longer there", failed=True) if session.state in LIVE else (session, [])


def _stop_ordered(session: Session, event: ev.StopOrdered, now_ms: int) -> Step:
    ordered: list[ev.Effect] = [ev.Audit("operator_stop", {"reason": event.reason})] if event.by_owner else []
    if session.state == STOPPING or session.state in ENDED:
        return session, ordered
    session, effects = stop(session, event.reason)
    return session, [*ordered, *effects]


def _gone(session: Session, event: ev.Gone, now_ms: int) -> Step:
    if session.state != STOPPING:
        return session, []
    if event.reading is not None and session.meter is not None:
        at, last = event.reading.at, session.meter.at
        if at.run == last.run and at.since(last) <= LAST_READING_MAX_MS:
            session = metered(session, event.reading)
    state = after(session.state, "gone after failure" if session.failed else "gone")
    session = replace(session, state=state, ended_ms=now_ms, exposed_ms=None)
    session, effects = due(session, now_ms)
    return session, [ev.Save(), ev.Audit(state, {"reason": session.reason}), ev.Advertise(), *effects]


def _restarted(session: Session, event: ev.Restarted, now_ms: int) -> Step:
    if session.state not in LIVE:
        return due(session, now_ms)
    if event.reading is None:
        return _vanished(session, ev.Vanished(), now_ms)
    # The client could not bring receipts while this server was away: its time starts anew.
    exposed_ms = None if session.exposed_ms is None else now_ms
    session = replace(session, receipt_ms=now_ms, exposed_ms=exposed_ms)
    session, effects = _sampled(session, ev.Sampled(event.reading), now_ms)
    if session.state not in LIVE:
        return session, effects
    guest = event.reading.sample.state
    if session.state == PAUSED and guest is GuestState.RUNNING:
        effects.append(ev.PauseGuest(None))
    if session.state == RUNNING and guest is GuestState.PAUSED:
        effects.append(ev.ResumeGuest(None))
    agreed = session.resources
    differs = event.cpu_ms_per_s not in (None, agreed.cpu_ms_per_s) or event.memory_bytes not in (
        None,
        agreed.memory_bytes,
    )
    if differs and session.state == RUNNING:
        effects.append(ev.ResizeGuest(agreed, None))
    return session, [ev.Save(), ev.Audit("adopted", {}), *(each for each in effects if each != ev.Save())]


_HANDLERS: dict[type, Callable[[Session, Any, int], Step]] = {
    ev.Validated: _validated,
    ev.LaunchBegan: _launch_began,
    ev.Booted: _booted,
    ev.Relocated: _relocated,
    ev.BootFailed: _boot_failed,
    ev.Sampled: _sampled,
    ev.Tick: _tick,
    ev.Vanished: _vanished,
    ev.Commanded: session_commands.commanded,
    ev.Paused: session_commands.paused,
    ev.Resumed: session_commands.resumed,
    ev.Resized: session_commands.resized,
    ev.Amended: session_commands.amended,
    ev.UsageSigned: session_bill.usage_signed,
    ev.Receipted: session_bill.receipted,
    ev.ClaimMade: session_bill.claim_made,
    ev.ClaimSettled: session_bill.claim_settled,
    ev.ClaimRefused: session_bill.claim_refused,
    ev.GaveUp: session_bill.gave_up,
    ev.StopOrdered: _stop_ordered,
    ev.Gone: _gone,
    ev.Restarted: _restarted,
}
