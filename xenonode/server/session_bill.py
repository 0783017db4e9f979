"""A session's bill: usage records signed, receipts taken in, claims made and answered, an unused reservation given up.

When each is due is decided by `session_rules`.
"""

from __future__ import annotations

from dataclasses import replace

from xenonode.server import session_events as ev
from xenonode.server.session_rules import exposed, is_closed
from xenonode.server.session_state import (
    CLAIMED_COSIGNED,
    CLAIMED_UNSIGNED,
    ISSUED_KEPT,
    PAUSED,
    SETTLEMENTS_KEPT,
    Issued,
    PendingClaim,
    Session,
)
from xenonode.server.session_steps import Step, due


def usage_signed(session: Session, event: ev.UsageSigned, now_ms: int) -> Step:
    """A usage record is signed, and may be shown once it is durable."""
    record = event.record
    issued = Issued(event.id, record.seq, record.due_nano, record.until_ms, event.raw)
    kept = (*session.issued, issued)[-ISSUED_KEPT:]
    return replace(session, issued=kept, final_signed=record.final), [ev.Save()]


def receipted(session: Session, event: ev.Receipted, now_ms: int) -> Step:
    """The client's word on a usage record; what it accepts lifts an exposure pause."""
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
    session, more = due(session, now_ms)
    return session, [*effects, *(each for each in more if each not in effects)]


def claim_made(session: Session, event: ev.ClaimMade, now_ms: int) -> Step:
    """A claim is signed, and is sent until it is answered."""
    plan = event.plan
    claim = PendingClaim(event.id, event.raw, plan.seq, plan.receipt is not None, plan.final)
    return replace(session, claim=claim, claimed_ms=now_ms), [ev.Save()]


def claim_settled(session: Session, event: ev.ClaimSettled, now_ms: int) -> Step:
    """XenoCorp paid what it found due."""
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


def claim_refused(session: Session, event: ev.ClaimRefused, now_ms: int) -> Step:
    """XenoCorp refused for good; the claim is not made again."""
    session = replace(_answered(session), note=f"claim refused: {event.reason[:200]}")
    session = replace(session, closed=is_closed(session, now_ms))
    return session, [ev.Save(), ev.Audit("claim_refused", {"reason": event.reason[:200]})]


def gave_up(session: Session, event: ev.GaveUp, now_ms: int) -> Step:
    """The reservation is on its way back: nothing more can happen."""
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
