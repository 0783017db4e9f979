"""The chart of accounts: who can hold money at XenoCorp.

A hold is an account like any other: a purchase order and a reservation have one each, so that double entry
itself forbids spending twice. The external account stands for the world that money comes from; it alone may
be below zero (I2). Source: the poster's "Purchase orders" panel (ring-fencing).
"""

from __future__ import annotations

from dataclasses import dataclass

from xenonode.model.message import require
from xenonode.model.resources import CURRENCIES

EXTERNAL, CLIENT, ORDER, RESERVATION, SERVER, FEE = KINDS = (
    "external",
    "client",
    "order",
    "reservation",
    "server",
    "fee",
)


@dataclass(frozen=True, slots=True)
class Account:
    """One account: of one kind, in one currency, held for one entity (none: XenoCorp's own)."""

    id: str
    kind: str
    currency: str
    entity: str | None

    def __post_init__(self) -> None:
        require(self.kind in KINDS, f"account kind {self.kind!r} is unknown")
        require(self.currency in CURRENCIES, f"currency {self.currency!r} is not one of {', '.join(CURRENCIES)}")
        require(0 < len(self.id) <= 80, "an account's id has 1 to 80 characters")


@dataclass(frozen=True, slots=True)
class Balance:
    """What was posted to an account in all."""

    account: Account
    debits_nano: int
    credits_nano: int

    @property
    def nano(self) -> int:
        """What the account holds."""
        return self.credits_nano - self.debits_nano


def external(currency: str) -> Account:
    """Where money comes from, and goes to."""
    return Account(f"external:{currency}", EXTERNAL, currency, None)


def fee(currency: str) -> Account:
    """XenoCorp's own income."""
    return Account(f"fee:{currency}", FEE, currency, None)


def client(entity: str, currency: str) -> Account:
    """A client's free money."""
    return Account(f"client:{entity}:{currency}", CLIENT, currency, entity)


def server(entity: str, currency: str) -> Account:
    """A server's income."""
    return Account(f"server:{entity}:{currency}", SERVER, currency, entity)


def order(order_id: bytes, entity: str, currency: str) -> Account:
    """A client's money that a purchase order ring-fences, and that no reservation holds."""
    return Account(f"order:{order_id.hex()}", ORDER, currency, entity)


def reservation(reservation_id: bytes, entity: str, currency: str) -> Account:
    """A part of an order that is set aside for one server; still the client's (`entity`) until captured."""
    return Account(f"reservation:{reservation_id.hex()}", RESERVATION, currency, entity)
