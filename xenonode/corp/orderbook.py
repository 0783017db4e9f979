"""The order book: orders and reservations in the database, and the work that makes, reserves and ends them.

Rules are in `orders`, transfers in `transfers`; here they meet the tables. Every function runs inside one
transaction of the store, so that an order and its ring-fence, a reservation and its hold, exist together or not.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, func, insert, select, update

from dht.envelope import Envelope
from dht.identity import Signer
from xenonode.corp import accounts, members, orders, schema, transfers
from xenonode.corp.books import Books, stored_body
from xenonode.corp.errors import RefusedError
from xenonode.corp.leases import CLAIM_GRACE_MS
from xenonode.corp.orders import CLOSED, CLOSING, LIVE, OPEN, RELEASED, OrderState, ReservationState
from xenonode.model.money import OrderRelease, PurchaseOrder, Reservation, ReservationRelease, ReservationRequest

_ORDER, _RESERVATION = schema.purchase_order, schema.reservation
_FIND = select(_ORDER).where(_ORDER.c.id == bindparam("wanted"))
_FIND_RESERVATION = select(_RESERVATION.c.purchase_order).where(_RESERVATION.c.id == bindparam("wanted"))
_RESERVATIONS = (
    select(_RESERVATION)
    .where(_RESERVATION.c.purchase_order == bindparam("wanted"))
    .order_by(_RESERVATION.c.made_ms, _RESERVATION.c.id)
)


def create(books: Books, order: PurchaseOrder, envelope: Envelope, now_ms: int) -> OrderState:
    """Check credit and ring-fence the money. The same order again gives its present state. Raises RefusedError.

    Who opens and ends orders without end would make the ledger grow for nothing: there is a least amount, and so
    many orders of one client may be open at once, and may be made in a day.
    """
    client = members.need(books, envelope.key, "client")
    request = f"order:{envelope.key.hex()}:{order.nonce.hex()}"
    if books.answered(request, envelope.id) is not None:
        return find(books, envelope.id)
    there = books.connection.execute(select(_ORDER.c.client).where(_ORDER.c.id == envelope.id)).scalar()
    if there == envelope.key:  # its reply was forgotten since
        return find(books, envelope.id)
    if there is not None:
        raise RefusedError("other_body", "another client's order has this id", "use a fresh nonce")
    credit_nano = books.balance(accounts.client(client.entity, order.currency)).nano
    orders.check_order(order, credit_nano, now_ms)
    mine = select(func.count()).select_from(_ORDER).where(_ORDER.c.client == envelope.key)
    open_count = books.connection.execute(mine.where(_ORDER.c.status != CLOSED)).scalar_one()
    day_count = books.connection.execute(mine.where(_ORDER.c.made_ms > now_ms - orders.DAY_MS)).scalar_one()
    orders.check_counts(open_count, day_count)
    account = accounts.order(envelope.id, client.entity, order.currency)
    books.connection.execute(
        insert(_ORDER).values(
            id=envelope.id,
            client=envelope.key,
            entity=client.entity,
            raw=envelope.raw,
            status=OPEN,
            expires_ms=order.expires_ms,
            made_ms=now_ms,
        )
    )
    books.post([transfers.ring_fenced(account, order.amount_nano, now_ms)])
    books.answer(request, envelope.id, envelope.id, now_ms)
    return find(books, envelope.id)


def reserve(books: Books, request: ReservationRequest, envelope: Envelope, issuing: Signer, now_ms: int) -> bytes:
    """Set part of an order aside for one server; the signed reservation. Raises RefusedError."""
    repeat = f"reserve:{envelope.key.hex()}:{request.nonce.hex()}"
    stored = books.answered(repeat, envelope.id)
    if stored is not None:
        return stored
    state = find(books, request.order, client=envelope.key)
    orders.check_reservation(state, request, now_ms)
    server = members.need(books, request.server, "server")
    lease_until_ms = min(now_ms + request.lease_ms, state.order.expires_ms)
    sealed = Reservation(
        request=envelope.id,
        order=state.id,
        client=state.client,
        server=request.server,
        amount_nano=request.amount_nano,
        currency=state.order.currency,
        rate_cap_nano_per_hour=request.rate_cap_nano_per_hour,
        price_caps=state.order.price_caps,
        lease_until_ms=lease_until_ms,
        claim_grace_ms=CLAIM_GRACE_MS,
    ).seal(issuing)
    held = accounts.reservation(sealed.id, state.entity, state.order.currency)
    books.connection.execute(
        insert(_RESERVATION).values(
            id=sealed.id,
            purchase_order=state.id,
            server=request.server,
            server_entity=server.entity,
            raw=sealed.raw,
            amount_nano=request.amount_nano,
            rate_cap_nano_per_hour=request.rate_cap_nano_per_hour,
            captured_nano=0,
            made_ms=now_ms,
            lease_until_ms=lease_until_ms,
            status=LIVE,
        )
    )
    books.post([transfers.reserved(account_of(state), held, request.amount_nano, now_ms)])
    books.answer(repeat, envelope.id, sealed.raw, now_ms)
    return sealed.raw


def release(books: Books, wish: OrderRelease, envelope: Envelope, now_ms: int) -> OrderState:
    """End an order at its client's wish: what no session holds goes back at once. Raises RefusedError."""
    state = find(books, wish.order, client=envelope.key)
    close(books, state, envelope.id.hex(), now_ms)
    return find(books, wish.order)


def give_up(books: Books, wish: ReservationRelease, envelope: Envelope, now_ms: int) -> OrderState:
    """A server lets go of its reservation. Raises RefusedError when it is another's."""
    state, reservation = find_reservation(books, wish.reservation)
    if reservation.server != envelope.key:
        raise RefusedError("not_yours", "the reservation names another server", "release your own reservations only")
    if reservation.status == LIVE:
        end(books, state, reservation, now_ms)
    return find(books, state.id)


def end(
    books: Books, state: OrderState, reservation: ReservationState, now_ms: int, *, close_order: bool = False
) -> int:
    """End a live reservation: its rest goes to the order, on to the client if that ends too. What came free."""
    held = account_of_reservation(state, reservation)
    rest_nano = books.balance(held).nano
    books.post(transfers.returned(held, account_of(state), rest_nano, now_ms))
    books.connection.execute(update(_RESERVATION).where(_RESERVATION.c.id == reservation.id).values(status=RELEASED))
    now = find(books, state.id)
    if now.status == CLOSING or (close_order and not now.live):
        return close(books, now, reservation.id.hex(), now_ms)
    return rest_nano


def close(books: Books, state: OrderState, event: str, now_ms: int) -> int:
    """Release what no session holds; the order is closed, or closing while sessions hold some. What came free."""
    if state.status == CLOSED:
        return 0
    books.post(transfers.released(account_of(state), event, state.free_nano, now_ms))
    status = CLOSING if state.live else CLOSED
    books.connection.execute(update(_ORDER).where(_ORDER.c.id == state.id).values(status=status))
    return state.free_nano


def find(books: Books, order_id: bytes, *, client: bytes | None = None) -> OrderState:
    """An order as it stands. Raises RefusedError when there is none, or it is not this client's."""
    row = books.connection.execute(_FIND, {"wanted": order_id}).one_or_none()
    if row is None or (client is not None and row.client != client):
        raise RefusedError("unknown_order", f"you have no order {order_id.hex()}", "list your orders")
    return _state(books, row)


def find_reservation(books: Books, reservation_id: bytes) -> tuple[OrderState, ReservationState]:
    """A reservation and its order. Raises RefusedError when there is none."""
    row = books.connection.execute(_FIND_RESERVATION, {"wanted": reservation_id}).one_or_none()
    if row is None:
        raise RefusedError("unknown_reservation", f"there is no reservation {reservation_id.hex()}", "check the id")
    state = find(books, row.purchase_order)
    return state, next(each for each in state.reservations if each.id == reservation_id)


def listed(books: Books, *, client: bytes | None = None, newest: int | None = None) -> list[OrderState]:
    """Orders of one client, or of all, newest first."""
    query = select(_ORDER).order_by(_ORDER.c.made_ms.desc(), _ORDER.c.id).limit(newest)
    if client is not None:
        query = query.where(_ORDER.c.client == client)
    return [_state(books, row) for row in books.connection.execute(query).all()]


def raw_order(books: Books, order_id: bytes) -> bytes:
    """The client's signed order."""
    return bytes(books.connection.execute(select(_ORDER.c.raw).where(_ORDER.c.id == order_id)).scalar_one())


def account_of(state: OrderState) -> accounts.Account:
    """The account that holds an order's free part."""
    return accounts.order(state.id, state.entity, state.order.currency)


def account_of_reservation(state: OrderState, reservation: ReservationState) -> accounts.Account:
    """The account that holds a reservation's rest."""
    return accounts.reservation(reservation.id, state.entity, state.order.currency)


def _state(books: Books, row: Row[Any]) -> OrderState:
    order = PurchaseOrder.from_fields(stored_body(row.raw))
    rows = books.connection.execute(_RESERVATIONS, {"wanted": row.id}).all()
    found = tuple(
        ReservationState(
            id=each.id,
            order=row.id,
            server=each.server,
            server_entity=each.server_entity,
            amount_nano=each.amount_nano,
            rate_cap_nano_per_hour=each.rate_cap_nano_per_hour,
            captured_nano=each.captured_nano,
            held_nano=each.amount_nano - each.captured_nano if each.status == LIVE else 0,
            made_ms=each.made_ms,
            lease_until_ms=each.lease_until_ms,
            status=each.status,
        )
        for each in rows
    )
    free_nano = books.balance(accounts.order(row.id, row.entity, order.currency)).nano
    return OrderState(row.id, row.client, row.entity, order, row.status, free_nano, found)
