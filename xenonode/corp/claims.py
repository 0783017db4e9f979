"""Claims: is what a server shows evidence of what it is owed?

Decides, without any state, whether the signatures and contents of a claim's parts belong together: usage by
the server, receipt by the client for exactly that usage, one agreement signed by both. Then, against what
XenoCorp knows, whether they belong to this reservation and continue what was claimed before (I5, I6, I7).
Leaves the sums to `settling`. Source: the poster's "Deploy" panel (account, associate, claim payments).
"""

from __future__ import annotations

from dataclasses import dataclass

from dht.envelope import Envelope
from dht.identity import Scheme
from xenonode.corp.errors import RefusedError
from xenonode.corp.orders import LIVE, ReservationState
from xenonode.model.entity import CLOCK_TOLERANCE_MS
from xenonode.model.money import Claim, PurchaseOrder
from xenonode.model.resources import Usage, due_nano, rate_nano_per_hour
from xenonode.model.session import Agreement, Receipt, UsageRecord

_PRICED = ("CPU", "memory", "disk", "network")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A claim whose parts fit together; `cosigned` where the client accepted this very usage."""

    claim: Claim
    claim_id: bytes
    server: bytes
    client: bytes
    agreement: Agreement
    agreement_id: bytes
    usage: UsageRecord
    usage_id: bytes
    usage_raw: bytes
    cosigned: bool
    disputed: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """What was claimed for a reservation so far: the last usage record, and how much of it the client signed."""

    agreement_id: bytes
    usage_id: bytes
    seq: int
    usage: Usage
    due_nano: int
    until_ms: int
    cosigned_nano: int


def examine(claim: Claim, envelope: Envelope, scheme: Scheme) -> Evidence:
    """Check an opened claim's signatures, and that its parts belong together. Raises RemoteError or RefusedError."""
    agreement, sealed = Agreement.open(claim.client_agreement, scheme)
    _, theirs = Agreement.open(claim.agreement, scheme, signed_by=envelope.key)
    if theirs.id != sealed.id:
        raise _evidence("client and server signed different agreements")
    if sealed.key != agreement.client or agreement.server != envelope.key:
        raise _evidence("the agreement is not signed by the parties that it names")
    if agreement.reservation != claim.reservation:
        raise _evidence("the agreement names another reservation")
    usage, used = UsageRecord.open(claim.usage, scheme, signed_by=envelope.key)
    if usage.agreement != sealed.id:
        raise _evidence("the usage record is of another agreement")
    due = due_nano(usage.usage, agreement.prices)
    if usage.due_nano != due:
        raise _evidence(
            f"the usage record says {usage.due_nano} nano-units are due; its counters and prices make {due}"
        )
    accepted = _accepted(claim, agreement, sealed, used, scheme)
    return Evidence(
        claim=claim,
        claim_id=envelope.id,
        server=envelope.key,
        client=sealed.key,
        agreement=agreement,
        agreement_id=sealed.id,
        usage=usage,
        usage_id=used.id,
        usage_raw=used.raw,
        cosigned=accepted is True,
        disputed=accepted is False,
    )


def _accepted(claim: Claim, agreement: Agreement, sealed: Envelope, used: Envelope, scheme: Scheme) -> bool | None:
    if claim.receipt is None:
        return None
    receipt, _ = Receipt.open(claim.receipt, scheme, signed_by=agreement.client)
    if receipt.agreement != sealed.id:
        raise _evidence("the receipt is of another agreement")
    if receipt.usage != used.id or receipt.seq != used.seq:
        raise _evidence("the receipt is for another usage record")
    return receipt.accepted


def check_standing(
    evidence: Evidence, reservation: ReservationState, client: bytes, order: PurchaseOrder, now_ms: int
) -> None:
    """Whether the evidence belongs to this reservation, and the reservation still holds. Raises RefusedError."""
    if evidence.server != reservation.server:
        raise RefusedError("not_yours", "the reservation names another server", "claim from your own reservations only")
    if evidence.client != client:
        raise _evidence("the agreement is with another client than the reservation")
    if reservation.status != LIVE:
        raise RefusedError(
            "released", "the reservation ended and its rest was released", "claim before a lease's grace ends"
        )
    agreement, caps = evidence.agreement, order.price_caps
    if agreement.prices.currency != order.currency:
        raise _evidence(f"the agreement is in {agreement.prices.currency}, the order in {order.currency}")
    if caps is not None:
        for name, price, cap in zip(_PRICED, agreement.prices.amounts, caps.amounts):
            if price > cap:
                raise _evidence(f"the agreed price of {name} is above the order's cap")
    if rate_nano_per_hour(agreement.resources, agreement.prices) > reservation.rate_cap_nano_per_hour:
        raise _evidence("the agreed resources can cost more an hour than the reservation's rate cap")
    if evidence.usage.until_ms > now_ms + CLOCK_TOLERANCE_MS:
        raise RefusedError("clock", "the usage record ends in the future", "set the clock right")


def check_continuation(evidence: Evidence, progress: Progress | None) -> None:
    """Whether the usage record fits what was claimed before: after it, or earlier, signed late. Raises RefusedError."""
    if progress is None:
        return
    usage = evidence.usage
    if evidence.agreement_id != progress.agreement_id:
        raise _evidence("another agreement already claims from this reservation")
    if usage.seq < progress.seq:
        if not evidence.cosigned:
            message = f"seq {usage.seq} is below {progress.seq}, claimed before, and not co-signed"
            raise RefusedError("stale", message, "claim the newest usage record")
        _check_order(usage.usage, usage.due_nano, usage.until_ms, progress.usage, progress.due_nano, progress.until_ms)
        return
    if usage.seq == progress.seq + 1 and usage.previous != progress.usage_id:
        raise _evidence("the usage record does not name the one before: the chain forks")
    _check_order(progress.usage, progress.due_nano, progress.until_ms, usage.usage, usage.due_nano, usage.until_ms)


def _check_order(early: Usage, early_due: int, early_ms: int, late: Usage, late_due: int, late_ms: int) -> None:
    """No counter may fall from the earlier record to the later one (I5)."""
    fallen = list(late.fell_below(early))
    fallen += ["due_nano"] if late_due < early_due else []
    fallen += ["until_ms"] if late_ms < early_ms else []
    if fallen:
        raise _evidence(f"counters fall between this and the last claim: {', '.join(fallen)}")


def _evidence(message: str) -> RefusedError:
    return RefusedError("bad_evidence", message, "claim with the records of this session as both parties signed them")
