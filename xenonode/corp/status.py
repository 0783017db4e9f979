"""How much there is: counts for `status`, each from an index or a small table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from xenonode.corp import schema
from xenonode.corp.books import Books
from xenonode.corp.orders import LIVE, OPEN


def counts(books: Books) -> dict[str, Any]:
    """Members by role, transfers ever booked, open orders and live reservations."""
    member, order, reservation = schema.member, schema.purchase_order, schema.reservation
    execute = books.connection.execute
    roles = execute(select(member.c.role, func.count()).group_by(member.c.role).order_by(member.c.role))
    live = select(func.count()).select_from(reservation).where(reservation.c.status == LIVE)
    opened = select(func.count()).select_from(order).where(order.c.status == OPEN)
    return {
        "members": {row[0]: row[1] for row in roles},
        "transfers": execute(select(func.max(schema.transfer.c.sequence))).scalar() or 0,
        "orders_open": execute(opened).scalar_one(),
        "reservations_live": execute(live).scalar_one(),
    }
