"""The sweep: what falls due by itself, without anybody asking.

Tails that waited their 72 h settle; reservations whose grace is over end; orders that expired close. Each is one
unit of work of its own. The sweep also keeps XenoCorp's heartbeat: a gap in it is an outage, and postpones the
end of reservations by its length (I9), since servers could not claim meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import insert, select, update

from xenonode.corp import applicants, orderbook, schema
from xenonode.corp.books import Books
from xenonode.corp.claimbook import ClaimBook
from xenonode.corp.leases import CLAIM_GRACE_MS, Outage, deadline_ms
from xenonode.corp.orders import LIVE, OPEN, REPLY_KEPT_MS
from xenonode.model.entity import CLOCK_TOLERANCE_MS

PERIOD_MS = 60_000
OUTAGE_MS = 3 * PERIOD_MS
"""A heartbeat this late means that XenoCorp was away, rather than busy."""
DUE_MAX = 256
"""Things found due in one pass; the next pass finds the rest."""
_OUTAGE, _HEARTBEAT = schema.outage, schema.heartbeat
Step = Callable[[Books, int], None]


def beat(books: Books, now_ms: int) -> None:
    """Note that XenoCorp is here, and an outage when it was last here long ago."""
    seen_ms = books.connection.execute(select(_HEARTBEAT.c.seen_ms)).scalar_one_or_none()
    if seen_ms is None:
        books.connection.execute(insert(_HEARTBEAT).values(id=1, seen_ms=now_ms))
        return
    if now_ms > seen_ms + OUTAGE_MS:
        books.connection.execute(insert(_OUTAGE).values(began_ms=seen_ms, ended_ms=now_ms))
    if now_ms > seen_ms:
        books.connection.execute(update(_HEARTBEAT).values(seen_ms=now_ms))


def forget(books: Books, now_ms: int) -> None:
    """Drop what is of no use any more: replies to requests that are too old to be repeated, old applications."""
    books.forget_replies(now_ms - REPLY_KEPT_MS - 2 * CLOCK_TOLERANCE_MS)
    applicants.forget_old(books, now_ms)


def outages(books: Books) -> list[Outage]:
    """When XenoCorp was away."""
    rows = books.connection.execute(select(_OUTAGE).order_by(_OUTAGE.c.began_ms))
    return [Outage(row.began_ms, row.ended_ms) for row in rows]


def due(books: Books, claims: ClaimBook, now_ms: int) -> list[Step]:
    """What is due now, as units of work; each checks again that it still is."""
    progress, reservation, order = schema.progress, schema.reservation, schema.purchase_order
    execute = books.connection.execute
    tails = select(progress.c.reservation).where(progress.c.tail_due_ms <= now_ms).limit(DUE_MAX)
    steps: list[Step] = [_tail(claims, row.reservation) for row in execute(tails)]
    ending = select(reservation.c.id, reservation.c.made_ms, reservation.c.lease_until_ms).where(
        reservation.c.status == LIVE, reservation.c.lease_until_ms <= now_ms - CLAIM_GRACE_MS
    )
    away = outages(books)
    steps += [
        _end(row.id)
        for row in execute(ending.order_by(reservation.c.lease_until_ms).limit(DUE_MAX))
        if deadline_ms(row.made_ms, row.lease_until_ms, CLAIM_GRACE_MS, away) <= now_ms
    ]
    expired = select(order.c.id).where(order.c.status == OPEN, order.c.expires_ms <= now_ms).limit(DUE_MAX)
    steps += [_expire(row.id) for row in execute(expired)]
    return steps


def _tail(claims: ClaimBook, reservation_id: bytes) -> Step:
    return lambda books, now_ms: claims.settle_tail(books, reservation_id, now_ms)


def _end(reservation_id: bytes) -> Step:
    def step(books: Books, now_ms: int) -> None:
        state, reservation = orderbook.find_reservation(books, reservation_id)
        waits = select(schema.progress.c.tail_due_ms).where(schema.progress.c.reservation == reservation_id)
        open_tail = books.connection.execute(waits).scalar() is not None
        if reservation.status == LIVE and not open_tail:  # an open tail keeps its amount reserved
            orderbook.end(books, state, reservation, now_ms)

    return step


def _expire(order_id: bytes) -> Step:
    def step(books: Books, now_ms: int) -> None:
        state = orderbook.find(books, order_id)
        if state.status == OPEN:
            orderbook.close(books, state, "expired", now_ms)

    return step
