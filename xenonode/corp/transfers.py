"""Transfers: what moves between accounts, and which transfers each event makes.

    external --credit--> client --ring_fence--> order --reserve--> reservation --capture--> server
                            ^                    | ^                    |  `-----fee------> fee
                            `-----release--------' `------return--------'

Ids are deterministic: the same event makes the same transfers, so that a repeat cannot move money twice (I4).
Leaves to `ledger` whether an account holds enough.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from xenonode.corp import accounts
from xenonode.corp.accounts import Account
from xenonode.model.message import INT64_MAX, require

CREDIT, RING_FENCE, RESERVE, CAPTURE, FEE, RETURN, RELEASE = KINDS = (
    "credit",
    "ring_fence",
    "reserve",
    "capture",
    "fee",
    "return",
    "release",
)


@dataclass(frozen=True, slots=True)
class Transfer:
    """An amount that leaves one account and enters another; never changed once posted."""

    id: str
    kind: str
    debit: Account
    credit: Account
    amount_nano: int
    reference: str
    posted_ms: int

    def __post_init__(self) -> None:
        require(self.kind in KINDS, f"transfer kind {self.kind!r} is unknown")
        require(0 < self.amount_nano <= INT64_MAX, f"an amount must be in 1..{INT64_MAX} nano-units")
        require(self.debit.id != self.credit.id, "a transfer needs two accounts, not one twice")
        require(self.debit.currency == self.credit.currency, "a transfer stays within one currency")

    @property
    def currency(self) -> str:
        """The currency of both accounts."""
        return self.debit.currency


def make(
    kind: str, event: str, debit: Account, credit: Account, amount_nano: int, reference: str, now_ms: int
) -> Transfer:
    """The transfer that `event` makes; an event makes at most one of each kind."""
    digest = hashlib.sha256(f"xeno-transfer1|{kind}|{event}".encode()).hexdigest()[:32]
    return Transfer(digest, kind, debit, credit, amount_nano, reference, now_ms)


def credited(entity: str, currency: str, amount_nano: int, event: str, now_ms: int) -> Transfer:
    """Money comes in for a client."""
    source, target = accounts.external(currency), accounts.client(entity, currency)
    return make(CREDIT, event, source, target, amount_nano, event, now_ms)


def ring_fenced(order: Account, amount_nano: int, now_ms: int) -> Transfer:
    """An order is made: its whole amount leaves the client's free money."""
    source = accounts.client(_holder(order), order.currency)
    return make(RING_FENCE, order.id, source, order, amount_nano, order.id, now_ms)


def reserved(order: Account, reservation: Account, amount_nano: int, now_ms: int) -> Transfer:
    """A part of an order is set aside for one server."""
    return make(RESERVE, reservation.id, order, reservation, amount_nano, reservation.id, now_ms)


def captured(
    reservation: Account, server_entity: str, event: str, captured_nano: int, fee_nano: int, now_ms: int
) -> tuple[Transfer, ...]:
    """A claim is settled: `captured_nano` leaves the reservation, `fee_nano` of it to XenoCorp."""
    require(0 <= fee_nano <= captured_nano, "a fee must not be more than what is captured")
    income, own = accounts.server(server_entity, reservation.currency), accounts.fee(reservation.currency)
    moves = ((CAPTURE, income, captured_nano - fee_nano), (FEE, own, fee_nano))
    return tuple(
        make(kind, event, reservation, target, amount, reservation.id, now_ms)
        for kind, target, amount in moves
        if amount
    )


def returned(reservation: Account, order: Account, amount_nano: int, now_ms: int) -> tuple[Transfer, ...]:
    """A reservation ends: its rest goes back to its order."""
    if not amount_nano:
        return ()
    return (make(RETURN, reservation.id, reservation, order, amount_nano, reservation.id, now_ms),)


def released(order: Account, event: str, amount_nano: int, now_ms: int) -> tuple[Transfer, ...]:
    """What no session holds of an order goes back to the client."""
    if not amount_nano:
        return ()
    target = accounts.client(_holder(order), order.currency)
    return (make(RELEASE, f"{order.id}|{event}", order, target, amount_nano, order.id, now_ms),)


def _holder(account: Account) -> str:
    require(account.entity is not None, f"{account.id} is held for nobody")
    return account.entity or ""
