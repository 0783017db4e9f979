"""When something is due of itself in a session: usage records, the exposure rule, the end of lease or money, claims.

Decides only; `session_core` acts on it. Source: money.md: no receipt for 3 periods, or more than E used without
one, pauses a session; 15 minutes more stop it; sessions stop before their reservation ends; co-signed sums
settle at once.
"""

from __future__ import annotations

from xenonode.model.resources import NO_USAGE, rate_nano_per_hour
from xenonode.model.session import UsageRecord
from xenonode.server import metering
from xenonode.server.session_events import MakeClaim
from xenonode.server.session_state import (
    CLAIMED_COSIGNED,
    ENDED,
    LIVE,
    NOT_CLAIMED,
    Session,
)

RECEIPT_PERIODS_MAX = 3
EXPOSED_MAX_MS = 15 * 60_000
STOP_MARGIN_MS = 60_000
"""A guest gets 10 s to power off; the rest is for a slow hypervisor and for clocks that differ a little."""
MONEY_MARGIN_MS = 15_000
"""The longest that may pass between the decision to stop and the guest's end: 10 s of grace and 5 s to do it."""
RECORD_GAP_MIN_MS = 1_000
CLAIM_PERIOD_MS = 3_600_000
"""An hour between claims of a running session keeps XenoCorp's ledger small; the exposure rule does not need them."""
TAIL_WAIT_MS = 72 * 3_600_000
"""An uncosigned tail waits this long at XenoCorp; a late receipt settles it at once until then."""


def end_due(session: Session, now_ms: int) -> str | None:
    """Why this session must stop now, if it must."""
    reservation = session.reservation
    margin_ms = min(STOP_MARGIN_MS, max(0, reservation.lease_until_ms - session.agreed_ms) // 10)
    if now_ms >= reservation.lease_until_ms - margin_ms:
        return "the lease is at its end"
    if session.state not in LIVE:
        return None
    rate = rate_nano_per_hour(session.resources, session.agreement.prices)
    if session.due_nano + rate * MONEY_MARGIN_MS // 3_600_000 >= reservation.amount_nano:
        return "the reservation is nearly used up"
    if session.exposed_ms is not None and now_ms - session.exposed_ms >= EXPOSED_MAX_MS:
        return "no receipt came for 15 minutes after the session was paused for want of one"
    return None


def exposed(session: Session, now_ms: int) -> str | None:
    """Why the server must not go on without a receipt, if it must not."""
    agreement = session.agreement
    if session.unsigned_nano > agreement.exposure_nano:
        return f"{session.unsigned_nano} nano-units are used without a receipt, {agreement.exposure_nano} are allowed"
    late_ms = now_ms - session.receipt_ms
    if session.issued and late_ms > RECEIPT_PERIODS_MAX * agreement.receipt_period_ms:
        allowed_s = RECEIPT_PERIODS_MAX * agreement.receipt_period_ms // 1000
        return f"no receipt for {late_ms // 1000} s, {allowed_s} s are allowed"
    return None


def record_due(session: Session, now_ms: int) -> UsageRecord | None:
    """The usage record to sign now, if one is due: each period, and at half the exposure allowed."""
    if session.state in ENDED:
        return None if session.final_signed or never_ran(session) else _record(session, now_ms, final=True)
    if session.state not in LIVE or session.meter is None:
        return None
    last = session.last_issued
    grown = session.due_nano - (0 if last is None else last.due_nano)
    if session.exposed_ms is not None and last is not None and not grown:
        return None  # nothing new to say to somebody who does not answer
    since_ms = now_ms - (session.receipt_ms if last is None else last.until_ms)
    early = 2 * grown >= session.agreement.exposure_nano and since_ms >= RECORD_GAP_MIN_MS
    return _record(session, now_ms, final=False) if early or since_ms >= session.agreement.receipt_period_ms else None


def never_ran(session: Session) -> bool:
    """Whether a session ended before its environment ever answered, so that nothing is due and nothing is signed."""
    return session.state in ENDED and session.start is None and not session.issued


def _record(session: Session, now_ms: int, *, final: bool) -> UsageRecord:
    last = session.last_issued
    used = NO_USAGE if session.meter is None else metering.usage(session.meter)
    return UsageRecord(
        agreement=session.id,
        seq=1 if last is None else last.seq + 1,
        usage=used,
        due_nano=session.due_nano,
        # The clock may have been set back in between; a record's time never is.
        until_ms=now_ms if last is None else max(now_ms, last.until_ms),
        previous=None if last is None else last.id,
        log_head=b"",
        final=final,
    )


def claim_due(session: Session, now_ms: int) -> MakeClaim | None:
    """The claim to make now, if one is due and none is on its way."""
    if session.claim is not None or session.closed:
        return None
    last = session.last_issued
    unclaimed = session.receipt_seq > session.claimed_seq
    if session.state in ENDED and session.final_signed and last is not None and session.ended_ms is not None:
        if session.receipt_seq == last.seq:
            if session.claimed_final != CLAIMED_COSIGNED:
                return MakeClaim(last.raw, session.receipt, last.seq, True)
        elif now_ms - session.ended_ms >= RECEIPT_PERIODS_MAX * session.agreement.receipt_period_ms:
            if unclaimed:
                return _cosigned(session)
            if session.claimed_final == NOT_CLAIMED:
                return MakeClaim(last.raw, None, last.seq, True)
    elif session.state in LIVE and unclaimed and now_ms - session.claimed_ms >= CLAIM_PERIOD_MS:
        return _cosigned(session)
    return None


def _cosigned(session: Session) -> MakeClaim | None:
    if session.receipt_usage is None:
        return None
    return MakeClaim(session.receipt_usage, session.receipt, session.receipt_seq, False)


def is_closed(session: Session, now_ms: int) -> bool:
    """Whether nothing more can happen to this session."""
    if session.state not in ENDED or session.claim is not None or session.claimed_final == NOT_CLAIMED:
        return False
    paid = session.settled_nano >= session.due_nano
    waited = session.ended_ms is not None and now_ms - session.ended_ms >= TAIL_WAIT_MS
    return session.claimed_final == CLAIMED_COSIGNED or paid or waited
