"""Money messages: purchase order, reservation, claim, settlement, statement.

Source: the poster's "Purchase orders" panel. An order is a commitment: XenoCorp checks the client's credit
and ring-fences the amount when the order is made. A reservation sets part of an order aside for one server.
Amounts are integer nano-units; XenoCorp's ledger makes them accounts (`xenonode.corp`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import ClassVar

from xenonode.model.errors import ModelError
from xenonode.model.message import INT64_MAX, Message, require
from xenonode.model.resources import CURRENCIES, NANO, Prices

ID_BYTES = 16
"""Ids of orders, reservations, agreements and claims are the ids of the envelopes that made them."""
_AMOUNT = re.compile(r"[+-]?[0-9]{1,19}(\.[0-9]+)?\Z")


def parse_amount(text: str) -> tuple[int, str]:
    """'12.50 USD' as (nano-units, currency). Raises ModelError: not positive, too fine, too large, unknown currency."""
    number, _, currency = text.strip().partition(" ")
    currency = currency.strip().upper()
    known = ", ".join(CURRENCIES)
    require(currency in CURRENCIES, f"currency {currency or '(none)'} is not one of {known}; write e.g. '5 USD'")
    require(bool(_AMOUNT.match(number)), f"{number!r} is no amount; write e.g. '12.50 {currency}'")
    try:
        nano = Decimal(number) * NANO
    except DecimalException as error:
        raise ModelError(f"{number!r} is no amount") from error
    require(nano == nano.to_integral_value(), f"{number} has more than nine decimals")
    require(nano > 0, f"an amount must be more than zero, not {number}")
    require(nano <= INT64_MAX, f"{number} is more than an account can hold ({INT64_MAX // NANO} {currency})")
    return int(nano), currency


def format_amount(nano: int, currency: str) -> str:
    """Nano-units as text, exactly, with at least two decimals."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    whole, fraction = divmod(nano, NANO)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits} {currency}"


@dataclass(frozen=True, slots=True)
class PurchaseOrder(Message):
    """A client's commitment to fund sessions, within its constraints."""

    TYPE: ClassVar[str] = "order"
    nonce: bytes
    amount_nano: int
    currency: str
    made_ms: int
    expires_ms: int
    allowed_servers: tuple[bytes, ...]
    price_caps: Prices | None
    rate_cap_nano_per_hour: int | None
    server_cap_nano: int | None
    sessions_max: int

    def __post_init__(self) -> None:
        require(len(self.nonce) == ID_BYTES, "nonce must have 16 bytes")
        require(0 < self.amount_nano <= INT64_MAX, "the amount must be more than zero")
        require(self.currency in CURRENCIES, f"currency {self.currency!r} is not one of {', '.join(CURRENCIES)}")
        require(self.made_ms < self.expires_ms, "an order must not end before it begins")
        require(all(len(key) == 32 for key in self.allowed_servers), "a server is named by its key of 32 bytes")
        same_currency = self.price_caps is None or self.price_caps.currency == self.currency
        require(same_currency, "price caps must be in the order's currency")
        require(1 <= self.sessions_max <= 1000, "sessions at a time must be in 1..1000")


@dataclass(frozen=True, slots=True)
class OrderRelease(Message):
    """A client's wish to end an order: what no session holds goes back to it at once."""

    TYPE: ClassVar[str] = "order_release"
    order: bytes
    made_ms: int


@dataclass(frozen=True, slots=True)
class ReservationRequest(Message):
    """A client asks XenoCorp to set part of an order aside for one server."""

    TYPE: ClassVar[str] = "reservation_request"
    nonce: bytes
    order: bytes
    server: bytes
    amount_nano: int
    rate_cap_nano_per_hour: int
    lease_ms: int
    made_ms: int

    def __post_init__(self) -> None:
        require(len(self.nonce) == ID_BYTES and len(self.order) == ID_BYTES, "ids must have 16 bytes")
        require(len(self.server) == 32, "a server is named by its key of 32 bytes")
        require(0 < self.amount_nano <= INT64_MAX, "the amount must be more than zero")
        require(0 < self.lease_ms <= 366 * 86_400_000, "a lease lasts 1 ms to a year")


@dataclass(frozen=True, slots=True)
class Reservation(Message):
    """XenoCorp's word that this much of an order is set aside for this server."""

    TYPE: ClassVar[str] = "reservation"
    request: bytes
    order: bytes
    client: bytes
    server: bytes
    amount_nano: int
    currency: str
    rate_cap_nano_per_hour: int
    price_caps: Prices | None
    lease_until_ms: int
    claim_grace_ms: int


@dataclass(frozen=True, slots=True)
class ReservationRelease(Message):
    """A server gives up what is set aside for it, e.g. since the session could not start; signed by that server."""

    TYPE: ClassVar[str] = "reservation_release"
    reservation: bytes
    made_ms: int


@dataclass(frozen=True, slots=True)
class Claim(Message):
    """A server's demand for payment: its last usage record and the client's receipt for it, if there is one."""

    TYPE: ClassVar[str] = "claim"
    reservation: bytes
    agreement: bytes
    client_agreement: bytes
    usage: bytes
    receipt: bytes | None
    final: bool


@dataclass(frozen=True, slots=True)
class Settlement(Message):
    """XenoCorp's answer to a claim: what moved now and in all, and what was released to the client."""

    TYPE: ClassVar[str] = "settlement"
    claim: bytes
    reservation: bytes
    agreement: bytes
    captured_nano: int
    fee_nano: int
    cumulative_nano: int
    released_nano: int
    currency: str
    final: bool
    settled_ms: int


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One transfer as an account's holder sees it: positive is in, negative is out."""

    transfer: str
    kind: str
    amount_nano: int
    reference: str
    posted_ms: int


@dataclass(frozen=True, slots=True)
class Statement(Message):
    """What XenoCorp's ledger says of one entity in one currency."""

    TYPE: ClassVar[str] = "statement"
    entity: str
    currency: str
    balance_nano: int
    ringfenced_nano: int
    lines: tuple[StatementLine, ...]
    made_ms: int
