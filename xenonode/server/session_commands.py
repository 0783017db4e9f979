"""What a client commands, and what becomes of it: pause, resume, resize, stop.

A command is numbered, so that a replay is harmless; its amendment is signed once it took effect, never before.
"""

from __future__ import annotations

from dataclasses import replace

from xenonode.model.resources import Resources, rate_nano_per_hour
from xenonode.server import session_events as ev
from xenonode.server.session_state import ENDED, LIVE, PAUSED, RUNNING, STOPPING, Session, after
from xenonode.server.session_steps import Step, amounts, metered, stop


def commanded(session: Session, event: ev.Commanded, now_ms: int) -> Step:
    """The command itself: refused, answered at once, or handed to the hypervisor."""
    command, order = event.command, ev.Order(event.id, event.command.seq)
    if command.seq <= session.command_seq:
        if event.id == session.command:
            return session, []  # a repeat: the amendment is there
        next_step = f"number it {session.command_seq + 1}"
        return session, [ev.Refuse("old_command", f"command {command.seq} is not new", next_step)]
    if command.action == "stop":
        if session.state == STOPPING or session.state in ENDED:
            return session, [ev.SignAmendment(order)]
        session, effects = stop(session, "the client stopped it")
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


def paused(session: Session, event: ev.Paused, now_ms: int) -> Step:
    """The guest stands still."""
    if session.state not in LIVE:
        return session, []
    session = metered(session, event.reading)
    if session.state == RUNNING:
        session = replace(session, state=after(session.state, "paused"))
    by_client = session.paused_by_client or event.order is not None
    audit = ev.Audit("pause", {"by": "client" if event.order else "server", "reason": session.reason})
    return replace(session, paused_by_client=by_client), [ev.Save(), audit, *_amendment(event.order)]


def resumed(session: Session, event: ev.Resumed, now_ms: int) -> Step:
    """The guest runs again."""
    if session.state not in LIVE:
        return session, []
    session = metered(session, event.reading)
    if session.state == PAUSED:
        session = replace(session, state=after(session.state, "resumed"))
    session = replace(session, paused_by_client=False, reason="")
    audit = ev.Audit("resume", {"by": "client" if event.order else "server"})
    return session, [ev.Save(), audit, *_amendment(event.order)]


def resized(session: Session, event: ev.Resized, now_ms: int) -> Step:
    """The guest has other shares now."""
    if session.state not in LIVE:
        return session, []
    session = replace(metered(session, event.reading), resources=event.resources)
    return session, [
        ev.Save(),
        ev.Audit("resize", amounts(event.resources)),
        *_amendment(event.order),
        ev.Advertise(),
    ]


def amended(session: Session, event: ev.Amended, now_ms: int) -> Step:
    """The amendment is signed."""
    order = event.order
    return replace(session, command=order.id, command_seq=order.seq, amendment=event.amendment), [ev.Save()]


def _amendment(order: ev.Order | None) -> list[ev.Effect]:
    return [] if order is None else [ev.SignAmendment(order)]
