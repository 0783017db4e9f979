"""Reading requests and writing replies: control bodies to values and back, for `service`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from dht.errors import DhtError
from xenonode.control.errors import ControlError
from xenonode.corp.applicants import Applicant
from xenonode.corp.audit import AuditReport
from xenonode.corp.errors import RefusedError
from xenonode.corp.fraud import FraudProof
from xenonode.corp.members import Member
from xenonode.corp.orders import LIVE, OrderState, ReservationState
from xenonode.errors import XenoError
from xenonode.model.entity import Registration
from xenonode.model.errors import ModelError

SHOWN_MAX = 20
"""Reservations of one order in a list; `order.show` gives all."""
FAULTS_SHOWN_MAX = 50


class Caller(Protocol):
    """Who asks: the key that the connection proved, if it proved one, and from where."""

    @property
    def public_key(self) -> bytes | None: ...

    @property
    def address(self) -> tuple[str, int]: ...


Body = dict[str, Any]
Method = Callable[[Caller, Body], Awaitable[Body]]
Handler = Callable[[Any, Body], Awaitable[Body]]
"""What a control server calls; its own caller has the key that `Caller` asks for."""


def guarded(handler: Method) -> Handler:
    """The handler with its refusals as ControlError; anything else is a fault of ours and goes through."""

    async def guard(caller: Caller, body: Body) -> Body:
        try:
            return await handler(caller, body)
        except XenoError as error:
            raise ControlError(error.code, error.message, error.next_step) from error
        except (ModelError, DhtError) as error:
            raise ControlError(
                "bad_message", str(error), "make the message anew, with this version's client"
            ) from error

    return guard


def octets(body: Mapping[str, Any], name: str) -> bytes:
    """A field that must be bytes. Raises RefusedError."""
    value = body.get(name)
    if not isinstance(value, bytes):
        raise RefusedError("bad_request", f"the request needs {name}, as bytes", "send it")
    return value


def words(body: Mapping[str, Any], name: str) -> str:
    """A field that must be text. Raises RefusedError."""
    value = body.get(name)
    if not isinstance(value, str):
        raise RefusedError("bad_request", f"the request needs {name}, as text", "send it")
    return value


def whole(body: Mapping[str, Any], name: str) -> int:
    """A field that must be an integer. Raises RefusedError."""
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RefusedError("bad_request", f"the request needs {name}, as an integer", "send it")
    return value


def order_reply(state: OrderState, raw: bytes, *, all_reservations: bool = True) -> Body:
    """An order's state as it travels."""
    shown = state.reservations
    if not all_reservations:
        shown = (state.live + tuple(each for each in state.reservations if each.status != LIVE)[::-1])[:SHOWN_MAX]
    return {
        "order": state.id,
        "raw": raw,
        "currency": state.order.currency,
        "amount_nano": state.order.amount_nano,
        "free_nano": state.free_nano,
        "reserved_nano": state.reserved_nano,
        "captured_nano": state.captured_nano,
        "released_nano": state.released_nano,
        "expires_ms": state.order.expires_ms,
        "status": state.status,
        "reservations": [_reservation_reply(each) for each in shown],
    }


def _reservation_reply(state: ReservationState) -> Body:
    return {
        "reservation": state.id,
        "server": state.server,
        "amount_nano": state.amount_nano,
        "captured_nano": state.captured_nano,
        "held_nano": state.held_nano,
        "lease_until_ms": state.lease_until_ms,
        "status": state.status,
    }


def grant_reply(member: Member) -> Body:
    """A membership as it travels."""
    return {"entity": member.entity, "credential": member.credential, "certificate": member.certificate}


def identity_reply(registration: Registration) -> Body:
    """Who an entity is, as it travels to the operator."""
    return {
        "role": registration.role,
        "legal_name": registration.legal_name,
        "country": registration.country,
        "email": registration.email,
        "proof_reference": registration.proof_reference,
    }


def applicant_reply(applicant: Applicant) -> Body:
    """An applicant as it travels to the operator."""
    return {
        "key": applicant.key,
        "place": applicant.place,
        "asked_ms": applicant.asked_ms,
        **identity_reply(applicant.registration),
    }


def audit_reply(report: AuditReport) -> Body:
    """An audit as it travels."""
    return {
        "balanced": report.balanced,
        "debits_nano": {name: report.debits_nano[name] for name in sorted(report.debits_nano)},
        "credits_nano": {name: report.credits_nano[name] for name in sorted(report.credits_nano)},
        "accounts": report.accounts,
        "transfers": report.transfers,
        "orders": report.orders,
        "faults": list(report.faults[:FAULTS_SHOWN_MAX]),
    }


def fraud_reply(proof: FraudProof) -> Body:
    """A fraud proof as it travels."""
    return {
        "suspect": proof.suspect,
        "kind": proof.kind,
        "first": proof.first,
        "second": proof.second,
        "noted_ms": proof.noted_ms,
    }
