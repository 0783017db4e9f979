"""The claim book: settling claims against the tables, once each.

`claims` judges the evidence and `settling` the sums; here a claim meets what is stored: its earlier settlement, the
usage records seen before (two with one seq prove a fraud), and the reservation's progress. Tails that the
client never signed are captured by `settle_tail`, when `sweep` finds them due.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update

from dht.envelope import envelope_id
from dht.identity import Signer
from xenonode.corp import fraud, orderbook, schema, transfers
from xenonode.corp.books import Books, stored_body
from xenonode.corp.claims import Evidence, Progress, check_continuation, check_standing
from xenonode.corp.errors import RefusedError
from xenonode.corp.orders import OrderState, ReservationState
from xenonode.corp.settling import Decision, decide, fee_delta_nano, tail_limit_nano
from xenonode.model.money import Claim, Settlement
from xenonode.model.session import Agreement, UsageRecord

_RESERVATION, _PROGRESS, _SETTLEMENT, _SEEN = schema.reservation, schema.progress, schema.settlement, schema.usage_seen

_FIND_SETTLEMENT = select(_SETTLEMENT).where(_SETTLEMENT.c.claim == bindparam("wanted"))
_FIND_PROGRESS = select(_PROGRESS).where(_PROGRESS.c.reservation == bindparam("wanted"))
_FIND_SEEN = select(_SEEN).where(_SEEN.c.agreement == bindparam("wanted"), _SEEN.c.seq == bindparam("number"))
_INSERT_SETTLEMENT, _INSERT_PROGRESS, _INSERT_SEEN = insert(_SETTLEMENT), insert(_PROGRESS), insert(_SEEN)
_CAPTURE = (
    update(_RESERVATION).where(_RESERVATION.c.id == bindparam("which")).values(captured_nano=bindparam("sum_nano"))
)


class ClaimBook:
    """Settles claims; `issuing` signs settlements."""

    def __init__(self, issuing: Signer, fee_basis_points: int) -> None:
        self._issuing = issuing
        self._fee_basis_points = fee_basis_points

    def settle(self, books: Books, evidence: Evidence, claim_raw: bytes, now_ms: int) -> bytes | RefusedError:
        """The signed settlement of a claim; the stored one when it came before. A refusal to keep is returned."""
        stored = _settlement(books, evidence.claim_id)
        if stored is not None and stored.server == evidence.server:
            return bytes(stored.raw)
        state, reservation = orderbook.find_reservation(books, evidence.claim.reservation)
        check_standing(evidence, reservation, state.client, state.order, now_ms)
        contradiction = self._contradiction(books, evidence, now_ms)
        if contradiction is not None:
            return contradiction
        row = _progress_row(books, reservation.id)
        progress = None if row is None else _progress(row)
        check_continuation(evidence, progress)
        decision = decide(evidence, progress, reservation, self._fee_basis_points, now_ms)
        released_nano = self._book(books, state, reservation, evidence.claim_id, decision, evidence.cosigned, now_ms)
        _keep_progress(books, evidence, claim_raw, decision, row)
        raw = self._seal(evidence, decision, released_nano, state.order.currency, now_ms)
        values = {"claim": evidence.claim_id, "reservation": reservation.id, "server": evidence.server, "raw": raw}
        books.connection.execute(_INSERT_SETTLEMENT, values)
        return raw

    def settle_tail(self, books: Books, reservation_id: bytes, now_ms: int) -> None:
        """Capture an unsigned tail that waited its time without objection; its claim then has a new settlement."""
        state, reservation = orderbook.find_reservation(books, reservation_id)
        row = _progress_row(books, reservation_id)
        if row is None or row.tail_due_ms is None or row.tail_due_ms > now_ms:
            return
        evidence = _stored_evidence(row, reservation, state)
        target = tail_limit_nano(evidence, row.cosigned_nano, reservation)
        captured = max(0, target - reservation.captured_nano)
        decision = Decision(
            captured_nano=captured,
            fee_nano=fee_delta_nano(reservation.captured_nano, target, self._fee_basis_points) if captured else 0,
            cumulative_nano=reservation.captured_nano + captured,
            cosigned_nano=row.cosigned_nano,
            tail_nano=0,
            tail_due_ms=None,
            ends=evidence.claim.final and evidence.usage.final,
        )
        released_nano = self._book(books, state, reservation, row.claim + b"tail", decision, False, now_ms)
        which = _PROGRESS.c.reservation == reservation_id
        books.connection.execute(update(_PROGRESS).where(which).values(tail_due_ms=None))
        raw = self._seal(evidence, decision, released_nano, state.order.currency, now_ms)
        books.connection.execute(update(_SETTLEMENT).where(_SETTLEMENT.c.claim == row.claim).values(raw=raw))

    def _book(
        self,
        books: Books,
        state: OrderState,
        reservation: ReservationState,
        event: bytes,
        decision: Decision,
        close_order: bool,
        now_ms: int,
    ) -> int:
        """Post what was decided; what came free for the client."""
        held = orderbook.account_of_reservation(state, reservation)
        moved = (decision.captured_nano, decision.fee_nano)
        books.post(transfers.captured(held, reservation.server_entity, f"claim:{event.hex()}", *moved, now_ms))
        books.connection.execute(_CAPTURE, {"which": reservation.id, "sum_nano": decision.cumulative_nano})
        if not decision.ends:
            return 0
        return orderbook.end(books, state, reservation, now_ms, close_order=close_order)

    def _contradiction(self, books: Books, evidence: Evidence, now_ms: int) -> RefusedError | None:
        """Note the usage record; a refusal with a proof kept when another one had its seq."""
        seq, agreement = evidence.usage.seq, evidence.agreement_id
        seen = books.connection.execute(_FIND_SEEN, {"wanted": agreement, "number": seq}).one_or_none()
        if seen is None:
            values = {"agreement": agreement, "seq": seq, "usage": evidence.usage_id, "raw": evidence.usage_raw}
            books.connection.execute(_INSERT_SEEN, values)
            return None
        if seen.usage == evidence.usage_id:
            return None
        fraud.note(books, "equivocation", evidence.server, seen.raw, evidence.usage_raw, now_ms)
        return RefusedError(
            "equivocation",
            f"two different usage records with seq {seq} are signed by this server; both are kept as proof",
            "claim with the record that was made first",
        )

    def _seal(self, evidence: Evidence, decision: Decision, released_nano: int, currency: str, now_ms: int) -> bytes:
        settlement = Settlement(
            claim=evidence.claim_id,
            reservation=evidence.claim.reservation,
            agreement=evidence.agreement_id,
            captured_nano=decision.captured_nano,
            fee_nano=decision.fee_nano,
            cumulative_nano=decision.cumulative_nano,
            released_nano=released_nano,
            currency=currency,
            final=decision.ends,
            settled_ms=now_ms,
        )
        return settlement.seal(self._issuing).raw


def _keep_progress(
    books: Books, evidence: Evidence, claim_raw: bytes, decision: Decision, before: Row[Any] | None
) -> None:
    which = _PROGRESS.c.reservation == evidence.claim.reservation
    if (
        before is not None and evidence.usage.seq < _progress(before).seq
    ):  # signed late: the newest record stays the last
        books.connection.execute(update(_PROGRESS).where(which).values(cosigned_nano=decision.cosigned_nano))
        return
    due_ms = decision.tail_due_ms
    if due_ms is not None and before is not None and before.tail_due_ms is not None:
        due_ms = min(due_ms, before.tail_due_ms)  # claiming again must not postpone what already waits
    values = {
        "claim": evidence.claim_id,
        "claim_raw": claim_raw,
        "cosigned_nano": decision.cosigned_nano,
        "tail_due_ms": due_ms,
    }
    books.connection.execute(delete(_PROGRESS).where(which))
    books.connection.execute(_INSERT_PROGRESS, {"reservation": evidence.claim.reservation, **values})


def _settlement(books: Books, claim_id: bytes) -> Row[Any] | None:
    return books.connection.execute(_FIND_SETTLEMENT, {"wanted": claim_id}).one_or_none()


def _progress_row(books: Books, reservation_id: bytes) -> Row[Any] | None:
    return books.connection.execute(_FIND_PROGRESS, {"wanted": reservation_id}).one_or_none()


def _progress(row: Row[Any]) -> Progress:
    claim = Claim.from_fields(stored_body(row.claim_raw))
    usage = UsageRecord.from_fields(stored_body(claim.usage))
    return Progress(
        agreement_id=usage.agreement,
        usage_id=envelope_id(UsageRecord.TYPE, stored_body(claim.usage)),
        seq=usage.seq,
        usage=usage.usage,
        due_nano=usage.due_nano,
        until_ms=usage.until_ms,
        cosigned_nano=row.cosigned_nano,
    )


def _stored_evidence(row: Row[Any], reservation: ReservationState, state: OrderState) -> Evidence:
    """The evidence of a claim that was examined before it was stored."""
    claim = Claim.from_fields(stored_body(row.claim_raw))
    usage = UsageRecord.from_fields(stored_body(claim.usage))
    return Evidence(
        claim=claim,
        claim_id=row.claim,
        server=reservation.server,
        client=state.client,
        agreement=Agreement.from_fields(stored_body(claim.client_agreement)),
        agreement_id=usage.agreement,
        usage=usage,
        usage_id=envelope_id(UsageRecord.TYPE, stored_body(claim.usage)),
        usage_raw=claim.usage,
        cosigned=False,
        disputed=False,
    )
