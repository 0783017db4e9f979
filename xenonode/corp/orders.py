"""Rules of purchase orders and reservations: what may be made, and what state each is in.

    order:        open --release, expiry, co-signed final claim--> closing --last reservation ends--> closed
    reservation:  live --final claim settled, given up, deadline--> released

A closing order takes no reservation; with none live it is closed at once. Pure: state in, refusal or nothing out.
Source: the poster's "Purchase orders" panel: a commitment to fund sessions, subject to constraints.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenonode.corp.errors import RefusedError
from xenonode.model.entity import CLOCK_TOLERANCE_MS
from xenonode.model.money import PurchaseOrder, ReservationRequest, format_amount
from xenonode.model.resources import NANO

OPEN, CLOSING, CLOSED = ORDER_STATES = ("open", "closing", "closed")
LIVE, RELEASED = RESERVATION_STATES = ("live", "released")
ORDER_MIN_NANO = NANO // 100
"""The least order, a hundredth of a unit: what the smallest session in the catalogue costs in some hours."""
OPEN_MAX = 64
ORDERS_A_DAY_MAX = 256
DAY_MS = 86_400_000
"""An order leaves some 2 kB in the ledger for ever: with these a client that works at it adds half a MB a day."""
REPLY_KEPT_MS = 30 * DAY_MS
"""A repeated request gets the same reply for a month; an older one is refused, so that replies can be forgotten."""
RESERVATIONS_MAX = 1000
"""Most reservations of one order over its life; keeps its state within one control frame's reach."""


@dataclass(frozen=True, slots=True)
class ReservationState:
    """A reservation as the ledger knows it now."""

    id: bytes
    order: bytes
    server: bytes
    server_entity: str
    amount_nano: int
    rate_cap_nano_per_hour: int
    captured_nano: int
    held_nano: int
    made_ms: int
    lease_until_ms: int
    status: str


@dataclass(frozen=True, slots=True)
class OrderState:
    """A purchase order as the ledger knows it now."""

    id: bytes
    client: bytes
    entity: str
    order: PurchaseOrder
    status: str
    free_nano: int
    reservations: tuple[ReservationState, ...]

    @property
    def live(self) -> tuple[ReservationState, ...]:
        """Reservations that still hold money."""
        return tuple(each for each in self.reservations if each.status == LIVE)

    @property
    def reserved_nano(self) -> int:
        """What live reservations hold."""
        return sum(each.held_nano for each in self.live)

    @property
    def captured_nano(self) -> int:
        """What servers and XenoCorp got in all."""
        return sum(each.captured_nano for each in self.reservations)

    @property
    def released_nano(self) -> int:
        """What went back to the client: by I3 all that is neither captured, reserved nor free."""
        return self.order.amount_nano - self.captured_nano - self.reserved_nano - self.free_nano


def check_order(order: PurchaseOrder, credit_nano: int, now_ms: int) -> None:
    """Creditworthiness and dates of a new order. Raises RefusedError."""
    if order.expires_ms <= now_ms:
        raise RefusedError(
            "expired", f"the order ended {(now_ms - order.expires_ms) // 1000} s ago", "make a new order"
        )
    _check_age(order.made_ms, now_ms)
    if order.made_ms > now_ms + CLOCK_TOLERANCE_MS:
        ahead_s = (order.made_ms - now_ms) // 1000
        raise RefusedError("clock", f"the order was made {ahead_s} s in the future", "set the clock right")
    if order.amount_nano > credit_nano:
        wanted, there = format_amount(order.amount_nano, order.currency), format_amount(credit_nano, order.currency)
        raise RefusedError(
            "no_funds",
            f"the order is for {wanted}, and the account has {there}",
            f"order at most {there}, or have the account credited"
            if credit_nano
            else "have the account credited first",
        )
    if order.amount_nano < ORDER_MIN_NANO:
        least = format_amount(ORDER_MIN_NANO, order.currency)
        raise RefusedError("too_small", f"an order is for at least {least}", "order more")


def check_counts(open_count: int, day_count: int) -> None:
    """Whether a client with so many orders may make one more. Raises RefusedError."""
    if open_count >= OPEN_MAX:
        message = f"{OPEN_MAX} of your orders are open, and no client may have more"
        raise RefusedError("too_many", message, "end one with 'xenonode order release'")
    if day_count >= ORDERS_A_DAY_MAX:
        message = f"you made {ORDERS_A_DAY_MAX} orders in a day, and no client may make more"
        raise RefusedError("too_many", message, "use one of those, or wait until tomorrow")


def _check_age(made_ms: int, now_ms: int) -> None:
    if made_ms < now_ms - REPLY_KEPT_MS:
        raise RefusedError("too_old", f"this was signed {(now_ms - made_ms) // DAY_MS} days ago", "sign it anew")


def check_reservation(state: OrderState, request: ReservationRequest, now_ms: int) -> None:
    """Whether an order's state and constraints admit this reservation. Raises RefusedError."""
    order, currency = state.order, state.order.currency
    if state.status != OPEN:
        raise RefusedError("order_ended", f"the order is {state.status}", "make a new order")
    if order.expires_ms <= now_ms:
        raise RefusedError(
            "expired", f"the order ended {(now_ms - order.expires_ms) // 1000} s ago", "make a new order"
        )
    if request.made_ms > now_ms + CLOCK_TOLERANCE_MS:
        raise RefusedError("clock", "the request was made in the future", "set the clock right")
    _check_age(request.made_ms, now_ms)
    if request.server == state.client:
        raise RefusedError("same_party", "a client cannot pay itself", "name the server's key")
    if order.allowed_servers and request.server not in order.allowed_servers:
        raise RefusedError("not_allowed", "the order does not allow this server", "choose a server that it names")
    if len(state.live) >= order.sessions_max:
        raise RefusedError(
            "sessions_max",
            f"the order allows {order.sessions_max} session(s) at a time, and as many are live",
            "stop a session, or make an order for more",
        )
    if len(state.reservations) >= RESERVATIONS_MAX:
        raise RefusedError("too_many", f"the order had {RESERVATIONS_MAX} reservations", "make a new order")
    cap = order.rate_cap_nano_per_hour
    if cap is not None and request.rate_cap_nano_per_hour > cap:
        asked, limit = format_amount(request.rate_cap_nano_per_hour, currency), format_amount(cap, currency)
        raise RefusedError(
            "rate_cap", f"{asked} an hour is above the order's cap of {limit}", "ask for a cheaper session"
        )
    _check_amount(state, request)


def _check_amount(state: OrderState, request: ReservationRequest) -> None:
    currency = state.order.currency
    wanted = format_amount(request.amount_nano, currency)
    if state.order.server_cap_nano is not None:
        mine = (each for each in state.reservations if each.server == request.server)
        there = state.order.server_cap_nano - sum(each.captured_nano + each.held_nano for each in mine)
        if request.amount_nano > there:
            left = format_amount(max(0, there), currency)
            raise RefusedError("server_cap", f"{wanted} is more than the {left} left for this server", "reserve less")
    if request.amount_nano > state.free_nano:
        free = format_amount(state.free_nano, currency)
        raise RefusedError("no_funds", f"the order has {free} free, not {wanted}", f"reserve at most {free}")
