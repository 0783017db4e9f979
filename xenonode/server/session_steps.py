"""What several happenings have in common: metering, stopping, and what time alone brings about.

Pure, as the rest of the core: a session in; the new session and the effects to bring about out.
"""

from __future__ import annotations

from dataclasses import replace

from xenonode.model.resources import Resources
from xenonode.server import metering
from xenonode.server import session_events as ev
from xenonode.server.session_rules import claim_due, end_due, exposed, is_closed, never_ran, record_due
from xenonode.server.session_state import ENDED, LIVE, PAUSED, RUNNING, STOPPING, Session, after

Step = tuple[Session, list[ev.Effect]]


def due(session: Session, now_ms: int) -> Step:
    """What time alone brings about."""
    if session.state == STOPPING:
        return session, [ev.TearDown()]
    if session.state not in ENDED:
        reason = end_due(session, now_ms)
        if reason is not None:
            return stop(session, reason)
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


def stop(session: Session, reason: str, *, failed: bool = False) -> Step:
    """Ordered to end; the guest is torn down next."""
    session = replace(session, state=after(session.state, "stop"), reason=reason, failed=failed)
    return session, [ev.Save(), ev.Audit("stop", {"reason": reason}), ev.TearDown()]


def metered(session: Session, reading: ev.Reading | None) -> Session:
    """The session with a reading counted, within what its client can owe."""
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


def amounts(resources: Resources) -> dict[str, ev.AuditValue]:
    """Resources as the audit log names them."""
    names = ("cpu_ms_per_s", "memory_bytes", "disk_bytes", "net_bit_per_s")
    return dict(zip(names, resources.amounts))
