"""Settling: how much a claim moves now, how much waits, and whether the session is over.

Co-signed sums settle at once. What the client did not sign waits 72 h and never exceeds the exposure E beyond
what it did sign. A final claim that leaves nothing waiting ends the reservation at once, an unsigned one when
its tail has settled; only a co-signed one ends the order too (I9). Everything is cumulative, so that it does
not matter how often a server claims.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenonode.corp.claims import Evidence, Progress
from xenonode.corp.leases import TAIL_WAIT_MS
from xenonode.corp.orders import ReservationState
from xenonode.model.session import exposure_limit_nano

BASIS_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Decision:
    """What to book: `captured_nano` leaves the reservation now, of it `fee_nano` is XenoCorp's."""

    captured_nano: int
    fee_nano: int
    cumulative_nano: int
    cosigned_nano: int
    tail_nano: int
    tail_due_ms: int | None
    ends: bool


def decide(
    evidence: Evidence, progress: Progress | None, reservation: ReservationState, fee_basis_points: int, now_ms: int
) -> Decision:
    """What a checked claim books. Never more than the reservation, however much is due."""
    due = evidence.usage.due_nano
    signed_before = progress.cosigned_nano if progress else 0
    cosigned = max(due, signed_before) if evidence.cosigned else signed_before
    target = max(reservation.captured_nano, min(cosigned, reservation.amount_nano))
    tail = 0
    if not evidence.cosigned and not evidence.disputed:
        tail = max(0, tail_limit_nano(evidence, cosigned, reservation) - target)
    newest = progress is None or evidence.usage.seq >= progress.seq
    final = newest and evidence.claim.final and evidence.usage.final
    return Decision(
        captured_nano=target - reservation.captured_nano,
        fee_nano=fee_delta_nano(reservation.captured_nano, target, fee_basis_points),
        cumulative_nano=target,
        cosigned_nano=cosigned,
        tail_nano=tail,
        tail_due_ms=now_ms + TAIL_WAIT_MS if tail else None,
        ends=final and not evidence.disputed and not tail,
    )


def tail_limit_nano(evidence: Evidence, cosigned_nano: int, reservation: ReservationState) -> int:
    """The most that may ever be captured while the client has signed no more than `cosigned_nano`."""
    limit_nano = exposure_limit_nano(reservation.amount_nano, reservation.rate_cap_nano_per_hour)
    exposure = min(evidence.agreement.exposure_nano, limit_nano)
    return min(evidence.usage.due_nano, cosigned_nano + max(0, exposure), reservation.amount_nano)


def fee_delta_nano(captured_before_nano: int, captured_nano: int, fee_basis_points: int) -> int:
    """XenoCorp's share of a step, rounded down once on the cumulative sum, so that it does not depend on the steps."""
    return captured_nano * fee_basis_points // BASIS_POINTS - captured_before_nano * fee_basis_points // BASIS_POINTS
