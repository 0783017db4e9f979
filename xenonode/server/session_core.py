"""A session's state machine: an event in; the new session and the effects to bring about out.

Decides every step of `session_state.TRANSITIONS` and what goes with it. Leaves when something is due of itself to
`session_rules`, and doing it to `sessions`. A step never fails half way: it raises, or it returns a whole new value.
The `Save` effect stands before all that others could see, so that nothing is shown that a crash could take back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypervisor.environment import State as GuestState
from xenonode.model.resources import Resources, rate_nano_per_hour
from xenonode.server import metering
from xenonode.server import session_events as ev
from xenonode.server.session_rules import claim_due, end_due, exposed, is_closed, never_ran, record_due
from xenonode.server.session_state import (
    CLAIMED_COSIGNED,
    CLAIMED_UNSIGNED,
    ENDED,
    ISSUED_KEPT,
    LIVE,
    PAUSED,
    RUNNING,
    SETTLEMENTS_KEPT,
    STARTING,
    STOPPING,
    Issued,
    PendingClaim,
    Session,
    after,
)

LAUNCHES_MAX = 3
"""A launch is tried again only after the server itself restarted; a server that keeps restarting gives up."""
LAST_READING_MAX_MS = 5_000
"""The last reading counts if it follows the one before within five sample periods. A guest that lives on after its
stop was ordered, because the hypervisor or the server was away, does so on the server's account."""
_Step = tuple[Session, list[ev.Effect]]


def step(session: Session, event: ev.Event, now_ms: int) -> _Step:
    """What `event` makes of `session`, and what to do. Raises LocalError for an event out of its place."""
    return _HANDLERS[type(event)](session, event, now_ms)


def _validated(session: Session, event: ev.Validated, now_ms: int) -> _Step:
    session = replace(session, state=after(session.state, "validated"), server_agreement=event.server_agreement)
    body: dict[str, ev.AuditValue] = {
        "client": session.agreement.client,
        "environment": str(session.agreement.environment),
        "image_sha256": session.agreement.image_sha256,
        **_amounts(session.resources),
    }
    return session, [ev.Save(), ev.Audit("agreed", body), ev.Advertise(), ev.Launch()]


def _launch_began(session: Session, event: ev.LaunchBegan, now_ms: int) -> _Step:
    if session.launches >= LAUNCHES_MAX:
        return _stop(session, f"the environment did not start in {LAUNCHES_MAX} tries", failed=True)
    session = replace(session, state=after(session.state, "launch began"), launches=session.launches + 1)
    return session, [ev.Save(), ev.Audit("create", {"launch": session.launches})]


def _booted(session: Session, event: ev.Booted, now_ms: int) -> _Step:
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
    return session, [ev.Save(), ev.Audit("start", _amounts(session.resources)), ev.Advertise()]


def _boot_failed(session: Session, event: ev.BootFailed, now_ms: int) -> _Step:
    return _stop(session, event.reason, failed=True) if session.state == STARTING else (session, [])


def _sampled(session: Session, event: ev.Sampled, now_ms: int) -> _Step:
    if session.state not in LIVE:
        return _due(session, now_ms)
    session = _metered(session, event.reading)
    if event.reading.sample.state is GuestState.CRASHED:
        return _stop(session, "the environment crashed", failed=True)
    if event.reading.sample.state is GuestState.STOPPED:
        return _stop(session, "the environment powered itself off")
    return _due(session, now_ms)


def _tick(session: Session, event: ev.Tick, now_ms: int) -> _Step:
    return _due(session, now_ms)


def _vanished(session: Session, event: ev.Vanished, now_ms: int) -> _Step:
    return _stop(session, "the environment is no longer there", failed=True) if session.state in LIVE else (session, [])


def _commanded(session: Session, event: ev.Commanded, now_ms: int) -> _Step:
    command, order = event.command, ev.Order(event.id, event.command.seq)
    if command.seq <= session.command_seq:
        if event.id == session.command:
            return session, []  # a repeat: the amendment is there
        next_step = f"number it {session.command_seq + 1}"
        return session, [ev.Refuse("old_command", f"command {command.seq} is not new", next_step)]
    if command.action == "stop":
        if session.state == STOPPING or session.state in ENDED:
            return session, [ev.SignAmendment(order)]
        session, effects = _stop(session, "the client stopped it")
        return session, [*effects[:-1], ev.SignAmendment(order), effects[-1]]
    if session.state not in LIVE:
        return session, [ev.Refuse("state", f"the session is {session.state}", "only a running session can do this")]
    if command.action == "pause":
        if session.state == RUNNING:
            return session, [ev.PauseGuest(order)]
        return replace(session, paused_by_client=True), [ev.Save(), ev.SignAmendment(order)]
    if command.action == "resume":
        if session.exposed_ms is not None:
            last = session.last_issued
            next_step = f"send a receipt for usage record {0 if last is None else last.seq}"
            return session, [ev.Refuse("receipt_missing", "paused because receipts are missing", next_step)]
        return session, [ev.ResumeGuest(order) if session.state == PAUSED else ev.SignAmendment(order)]
    return session, [_resize(session, command.resources or session.resources, order)]


def _resize(session: Session, wanted: Resources, order: ev.Order) -> ev.Effect:
    now = session.resources
    if session.state != RUNNING:
        return ev.Refuse("state", "a paused session cannot be resized", "resume it first")
    if (wanted.disk_bytes, wanted.net_bit_per_s) != (now.disk_bytes, now.net_bit_per_s):
        return ev.Refuse("fixed", "disk and network stay as agreed", "resize CPU and memory only")
    rate, cap = rate_nano_per_hour(wanted, session.agreement.prices), session.reservation.rate_cap_nano_per_hour
    if rate > cap:
        return ev.Refuse("rate_cap", f"{rate} nano-units an hour are above the reservation's {cap}", "ask for less")
    return ev.ResizeGuest(wanted, order)


def _paused(session: Session, event: ev.Paused, now_ms: int) -> _Step:
    if session.state not in LIVE:
        return session, []
    session = _metered(session, event.reading)
    if session.state == RUNNING:
        session = replace(session, state=after(session.state, "paused"))
    by_client = session.paused_by_client or event.order is not None
    audit = ev.Audit("pause", {"by": "client" if event.order else "server", "reason": session.reason})
    return replace(session, paused_by_client=by_client), [ev.Save(), audit, *_amendment(event.order)]


def _resumed(session: Session, event: ev.Resumed, now_ms: int) -> _Step:
    if session.state not in LIVE:
        return session, []
    session = _metered(session, event.reading)
    if session.state == PAUSED:
        session = replace(session, state=after(session.state, "resumed"))
    session = replace(session, paused_by_client=False, reason="")
    audit = ev.Audit("resume", {"by": "client" if event.order else "server"})
    return session, [ev.Save(), audit, *_amendment(event.order)]


def _resized(session: Session, event: ev.Resized, now_ms: int) -> _Step:
    if session.state not in LIVE:
        return session, []
    session = replace(_metered(session, event.reading), resources=event.resources)
    return session, [
        ev.Save(),
        ev.Audit("resize", _amounts(event.resources)),
        *_amendment(event.order),
        ev.Advertise(),
    ]


def _amended(session: Session, event: ev.Amended, now_ms: int) -> _Step:
    order = event.order
    return replace(session, command=order.id, command_seq=order.seq, amendment=event.amendment), [ev.Save()]


def _usage_signed(session: Session, event: ev.UsageSigned, now_ms: int) -> _Step:
    record = event.record
    issued = Issued(event.id, record.seq, record.due_nano, record.until_ms, event.raw)
    kept = (*session.issued, issued)[-ISSUED_KEPT:]
    return replace(session, issued=kept, final_signed=record.final), [ev.Save()]


def _receipted(session: Session, event: ev.Receipted, now_ms: int) -> _Step:
    receipt = event.receipt
    issued = next((each for each in session.issued if each.id == receipt.usage and each.seq == receipt.seq), None)
    if receipt.seq <= session.receipt_seq:
        return session, []
    if issued is None:
        return session, [
            ev.Refuse("unknown_usage", f"usage record {receipt.seq} is not at hand", "fetch and sign the newest one")
        ]
    if not receipt.accepted:
        note = f"usage record {receipt.seq} not accepted: {receipt.reason[:200]}"
        if note == session.note:
            return session, []  # said before
        session = replace(session, note=note)
        return session, [ev.Save(), ev.Audit("receipt_denied", {"seq": receipt.seq, "reason": receipt.reason[:200]})]
    session = replace(
        session,
        receipt=event.raw,
        receipt_usage=issued.raw,
        receipt_seq=issued.seq,
        receipt_due_nano=issued.due_nano,
        receipt_ms=now_ms,
    )
    effects: list[ev.Effect] = [ev.Save()]
    if session.exposed_ms is not None and exposed(session, now_ms) is None:
        session = replace(session, exposed_ms=None, reason="")
        if session.state == PAUSED and not session.paused_by_client:
            effects.append(ev.ResumeGuest(None))
    session, more = _due(session, now_ms)
    return session, [*effects, *(each for each in more if each not in effects)]


def _claim_made(session: Session, event: ev.ClaimMade, now_ms: int) -> _Step:
    plan = event.plan
    claim = PendingClaim(event.id, event.raw, plan.seq, plan.receipt is not None, plan.final)
    return replace(session, claim=claim, claimed_ms=now_ms), [ev.Save()]


def _claim_settled(session: Session, event: ev.ClaimSettled, now_ms: int) -> _Step:
    settlement = event.settlement
    session = replace(
        _answered(session),
        settled_nano=max(session.settled_nano, settlement.cumulative_nano),
        settlements=(*session.settlements, event.raw)[-SETTLEMENTS_KEPT:],
    )
    session = replace(session, closed=is_closed(session, now_ms))
    body: dict[str, ev.AuditValue] = {
        "captured_nano": settlement.captured_nano,
        "cumulative_nano": settlement.cumulative_nano,
    }
    return session, [ev.Save(), ev.Audit("settled", body)]


def _claim_refused(session: Session, event: ev.ClaimRefused, now_ms: int) -> _Step:
    session = replace(_answered(session), note=f"claim refused: {event.reason[:200]}")
    session = replace(session, closed=is_closed(session, now_ms))
    return session, [ev.Save(), ev.Audit("claim_refused", {"reason": event.reason[:200]})]


def _gave_up(session: Session, event: ev.GaveUp, now_ms: int) -> _Step:
    return replace(session, closed=True), [ev.Save()]


def _answered(session: Session) -> Session:
    """The session whose pending claim got its one answer, so that it is never made again."""
    claim = session.claim
    if claim is None:
        return session
    final = session.claimed_final
    if claim.final:
        final = max(final, CLAIMED_COSIGNED if claim.cosigned else CLAIMED_UNSIGNED)
    claimed_seq = max(session.claimed_seq, claim.seq) if claim.cosigned else session.claimed_seq
    return replace(session, claim=None, claimed_seq=claimed_seq, claimed_final=final)


def _stop_ordered(session: Session, event: ev.StopOrdered, now_ms: int) -> _Step:
    if session.state == STOPPING or session.state in ENDED:
        return session, []
    return _stop(session, event.reason)


def _gone(session: Session, event: ev.Gone, now_ms: int) -> _Step:
    if session.state != STOPPING:
        return session, []
    if event.reading is not None and session.meter is not None:
        at, last = event.reading.at, session.meter.at
        if at.run == last.run and at.since(last) <= LAST_READING_MAX_MS:
            session = _metered(session, event.reading)
    state = after(session.state, "gone after failure" if session.failed else "gone")
    session = replace(session, state=state, ended_ms=now_ms, exposed_ms=None)
    session, effects = _due(session, now_ms)
    return session, [ev.Save(), ev.Audit(state, {"reason": session.reason}), ev.Advertise(), *effects]


def _restarted(session: Session, event: ev.Restarted, now_ms: int) -> _Step:
    if session.state not in LIVE:
        return _due(session, now_ms)
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


def _due(session: Session, now_ms: int) -> _Step:
    """What time alone brings about."""
    if session.state == STOPPING:
        return session, [ev.TearDown()]
    if session.state not in ENDED:
        reason = end_due(session, now_ms)
        if reason is not None:
            return _stop(session, reason)
        if session.state not in LIVE:
            return session, [ev.Launch()]
    effects: list[ev.Effect] = []
    if session.state in LIVE:
        why = exposed(session, now_ms)
        if why is not None and session.exposed_ms is None:
            session = replace(session, exposed_ms=now_ms, reason=why)
            effects += [ev.Save(), ev.Audit("exposed", {"reason": why})]
        if session.exposed_ms is not None and session.state == RUNNING:
            effects.append(ev.PauseGuest(None))
        elif session.state == PAUSED and session.exposed_ms is None and not session.paused_by_client:
            effects.append(ev.ResumeGuest(None))
    record = record_due(session, now_ms)
    if record is not None:
        effects.append(ev.SignUsage(record))
    if never_ran(session) and not session.closed:
        effects.append(ev.GiveUp())
    claim = claim_due(session, now_ms)
    if claim is not None:
        effects.append(claim)
    if not session.closed and is_closed(session, now_ms):
        session = replace(session, closed=True)
        effects.append(ev.Save())
    return session, effects


def _stop(session: Session, reason: str, *, failed: bool = False) -> _Step:
    session = replace(session, state=after(session.state, "stop"), reason=reason, failed=failed)
    return session, [ev.Save(), ev.Audit("stop", {"reason": reason}), ev.TearDown()]


def _metered(session: Session, reading: ev.Reading | None) -> Session:
    if reading is None or session.meter is None:
        return session
    # A server that took the environment away does not charge for holding it.
    held = session.exposed_ms is None or session.state == RUNNING
    meter = metering.advance(session.meter, reading.sample, reading.at, session.resources, held=held)
    advanced = replace(session, meter=meter)
    if advanced.due_nano > session.reservation.amount_nano:
        # Only a long stretch without readings comes this far. The server let it run, so it bears what it cost.
        return replace(session, meter=metering.skip(session.meter, reading.sample, reading.at))
    return advanced


def _amendment(order: ev.Order | None) -> list[ev.Effect]:
    return [] if order is None else [ev.SignAmendment(order)]


def _amounts(resources: Resources) -> dict[str, ev.AuditValue]:
    names = ("cpu_ms_per_s", "memory_bytes", "disk_bytes", "net_bit_per_s")
    return dict(zip(names, resources.amounts))


_HANDLERS: dict[type, Callable[[Session, Any, int], _Step]] = {
    ev.Validated: _validated,
    ev.LaunchBegan: _launch_began,
    ev.Booted: _booted,
    ev.BootFailed: _boot_failed,
    ev.Sampled: _sampled,
    ev.Tick: _tick,
    ev.Vanished: _vanished,
    ev.Commanded: _commanded,
    ev.Paused: _paused,
    ev.Resumed: _resumed,
    ev.Resized: _resized,
    ev.Amended: _amended,
    ev.UsageSigned: _usage_signed,
    ev.Receipted: _receipted,
    ev.ClaimMade: _claim_made,
    ev.ClaimSettled: _claim_settled,
    ev.ClaimRefused: _claim_refused,
    ev.GaveUp: _gave_up,
    ev.StopOrdered: _stop_ordered,
    ev.Gone: _gone,
    ev.Restarted: _restarted,
}
