"""Control methods of money: credit, orders, reservations, claims, statements.

Messages are opened and checked here, before they queue for the ledger. Crediting is the operator's; a client and a
server see and move what is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

from xenonode.corp import claims, members, orderbook, statements
from xenonode.corp.books import Books
from xenonode.corp.claimbook import ClaimBook
from xenonode.corp.credit import Credit
from xenonode.corp.desk import Desk, kept, proved_key, same_key
from xenonode.corp.requests import Body, Caller, Method, octets, order_reply, whole, words
from xenonode.model.money import Claim, OrderRelease, PurchaseOrder, ReservationRelease, ReservationRequest

LISTED_MAX = 50
"""Orders in one list: with 20 reservations each, about 200 kB, well within a control frame."""


class MoneyMethods:
    """Answers for the books."""

    def __init__(self, desk: Desk, claim_book: ClaimBook) -> None:
        self._desk = desk
        self._claims = claim_book

    @property
    def methods(self) -> Mapping[str, Method]:
        """Each method by name."""
        return {
            "credit": self._credit,
            "order.create": self._order_create,
            "order.show": self._order_show,
            "order.list": self._order_list,
            "order.release": self._order_release,
            "reserve": self._reserve,
            "reservation.release": self._reservation_release,
            "claim": self._claim,
            "statement": self._statement,
        }

    async def _credit(self, caller: Caller, body: Body) -> Body:
        self._desk.operator_only(caller)
        credit = Credit(
            words(body, "entity"), whole(body, "amount_nano"), words(body, "currency"), octets(body, "nonce")
        )
        limit_nano = self._desk.terms.max_balance_nano
        return {"balance_nano": await self._desk.at_now(lambda books, now_ms: credit.book(books, limit_nano, now_ms))}

    async def _order_create(self, caller: Caller, body: Body) -> Body:
        order, envelope = PurchaseOrder.open(octets(body, "order"), self._desk.scheme)
        same_key(caller, envelope)
        state = await self._desk.at_now(lambda books, now_ms: orderbook.create(books, order, envelope, now_ms))
        return order_reply(state, envelope.raw)

    async def _order_show(self, caller: Caller, body: Body) -> Body:
        key, order_id = proved_key(caller), octets(body, "order")

        def show(books: Books) -> Body:
            state = orderbook.find(books, order_id, client=key)
            return order_reply(state, orderbook.raw_order(books, order_id))

        return await self._desk.store.run(show)

    async def _order_list(self, caller: Caller, body: Body) -> Body:
        key = proved_key(caller)

        def listed(books: Books) -> Body:
            states = orderbook.listed(books, client=key, newest=LISTED_MAX)
            raws = [orderbook.raw_order(books, state.id) for state in states]
            replies = [order_reply(state, raw, all_reservations=False) for state, raw in zip(states, raws)]
            return {"orders": replies}

        return await self._desk.store.run(listed)

    async def _order_release(self, caller: Caller, body: Body) -> Body:
        wish, envelope = OrderRelease.open(octets(body, "release"), self._desk.scheme)
        same_key(caller, envelope)
        return await self._desk.at_now(
            lambda books, now_ms: _shown(books, orderbook.release(books, wish, envelope, now_ms).id)
        )

    async def _reserve(self, caller: Caller, body: Body) -> Body:
        request, envelope = ReservationRequest.open(octets(body, "request"), self._desk.scheme)
        same_key(caller, envelope)
        issuing = self._desk.keys.issuing
        return {
            "reservation": await self._desk.at_now(
                lambda books, now_ms: orderbook.reserve(books, request, envelope, issuing, now_ms)
            )
        }

    async def _reservation_release(self, caller: Caller, body: Body) -> Body:
        wish, envelope = ReservationRelease.open(octets(body, "release"), self._desk.scheme)
        same_key(caller, envelope)
        await self._desk.at_now(lambda books, now_ms: orderbook.give_up(books, wish, envelope, now_ms))
        return {}

    async def _claim(self, caller: Caller, body: Body) -> Body:
        raw = octets(body, "claim")
        claim, envelope = Claim.open(raw, self._desk.scheme)
        same_key(caller, envelope)
        evidence = claims.examine(claim, envelope, self._desk.scheme)
        settled = await self._desk.at_now(lambda books, now_ms: self._claims.settle(books, evidence, raw, now_ms))
        return {"settlement": kept(settled)}

    async def _statement(self, caller: Caller, body: Body) -> Body:
        key, currency = proved_key(caller), words(body, "currency")
        made = await self._desk.at_now(
            lambda books, now_ms: statements.statement(books, members.need(books, key), currency, now_ms)
        )
        return {"statement": made.seal(self._desk.keys.issuing).raw}


def _shown(books: Books, order_id: bytes) -> Body:
    return order_reply(orderbook.find(books, order_id), orderbook.raw_order(books, order_id))
