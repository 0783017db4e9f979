"""XenoCorp's control methods: who may ask what, and what each answers.

Messages are opened and checked here, before they queue for the ledger; rules and books decide; nothing is answered
before the store says that it is durable (I8). Registering is open to everybody, the rest to the key that a
connection proved; crediting, erasing and reading proofs to the operator's key. Leaves connections to `control`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable, Mapping
from typing import TypeVar

from dht.envelope import Envelope
from dht.identity import Scheme
from xenonode.corp import claims, fraud, members, orderbook, statements, status, sweep
from xenonode.corp.books import Books
from xenonode.corp.claimbook import ClaimBook
from xenonode.corp.credit import Credit
from xenonode.corp.errors import RefusedError
from xenonode.corp.founding import CorpKeys
from xenonode.corp.members import Certify, Member, Registry
from xenonode.corp.requests import (
    Body,
    Caller,
    Handler,
    audit_reply,
    fraud_reply,
    grant_reply,
    guarded,
    identity_reply,
    octets,
    order_reply,
    whole,
    words,
)
from xenonode.corp.store import Store
from xenonode.corp.terms import Terms
from xenonode.corp.vault import Vault
from xenonode.model.entity import CLOCK_TOLERANCE_MS, Network, Registration, Trust
from xenonode.model.money import Claim, OrderRelease, PurchaseOrder, ReservationRelease, ReservationRequest

T = TypeVar("T")
LISTED_MAX = 50
"""Orders in one list."""


class CorpService:
    """One XenoCorp. `handlers` go to a control server; `run` keeps what falls due by itself."""

    def __init__(
        self,
        keys: CorpKeys,
        network: bytes,
        schema: bytes,
        store: Store,
        *,
        scheme: Scheme,
        now_ms: Callable[[], int],
        rng: random.Random,
        terms: Terms,
        certify: Certify | None = None,
        authority_pem: bytes = b"",
    ) -> None:
        self._keys = keys
        self._network_raw = network
        self._network, _ = Network.open(network, scheme)
        self._issuing_until_ms = Trust(self._network, scheme).until_ms(keys.issuing.public_key)
        self._schema = schema
        self._store = store
        self._scheme = scheme
        self._now_ms = now_ms
        self._terms = terms
        self._authority_pem = authority_pem
        self._registry = Registry(keys.issuing, Vault(keys.vault), rng, terms, certify)
        self._claims = ClaimBook(keys.issuing, terms.fee_basis_points)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Every control method by name."""
        methods = {
            "info": self._info,
            "status": self._status,
            "register": self._register,
            "renew": self._renew,
            "member": self._member,
            "member.reveal": self._reveal,
            "member.erase": self._erase,
            "credit": self._credit,
            "order.create": self._order_create,
            "order.show": self._order_show,
            "order.list": self._order_list,
            "order.release": self._order_release,
            "reserve": self._reserve,
            "reservation.release": self._reservation_release,
            "claim": self._claim,
            "statement": self._statement,
            "ledger.audit": self._audit,
            "fraud.list": self._fraud_list,
        }
        return {name: guarded(method) for name, method in methods.items()}

    async def enrol(self, key: bytes) -> Member:
        """Membership of XenoCorp's own node or operator key. Raises RefusedError for another key."""
        if key not in (self._keys.node.public_key, self._keys.operator.public_key):
            raise RefusedError("not_own", "this is none of XenoCorp's own keys", "register it instead")
        return await self._at_now(lambda books, now_ms: self._registry.enrol(books, key, now_ms))

    async def sweep(self) -> int:
        """Settle, end and close what is due now; how many things that was."""
        now_ms = self._now_ms()
        await self._store.run(lambda books: sweep.beat(books, now_ms))
        steps = await self._store.run(lambda books: sweep.due(books, self._claims, now_ms))
        for step in steps:
            await self._store.run(functools.partial(_run, step, now_ms))
        return len(steps)

    async def run(self) -> None:
        """Sweep once a minute until cancelled. A ledger that cannot be written now is tried again at the next."""
        while True:
            with contextlib.suppress(RefusedError):  # nothing was lost: what is due stays due
                await self.sweep()
            await asyncio.sleep(sweep.PERIOD_MS / 1000)

    async def _info(self, caller: Caller, body: Body) -> Body:
        return {**self._papers(), "time_ms": self._now_ms()}

    async def _status(self, caller: Caller, body: Body) -> Body:
        counts = await self._store.run(status.counts)
        return {**counts, "role": "corp", "time_ms": self._now_ms(), "issuing_until_ms": self._issuing_until_ms}

    async def _register(self, caller: Caller, body: Body) -> Body:
        registration, envelope = Registration.open(octets(body, "registration"), self._scheme)
        _same_key(caller, envelope, optional=True)
        if registration.network_id != self._network.network_id:
            raise RefusedError("other_network", "the registration is for another network", "use this network's file")
        if registration.role == "corp":
            raise RefusedError("role", "XenoCorp's own keys are made by its operator", "register as client or server")
        if registration.requested_ms > self._now_ms() + CLOCK_TOLERANCE_MS:
            raise RefusedError("clock", "the registration was made in the future", "set the clock right")
        member = await self._at_now(
            lambda books, now_ms: self._registry.register(books, registration, envelope.key, now_ms)
        )
        return {**grant_reply(_kept(member)), **self._papers()}

    async def _renew(self, caller: Caller, body: Body) -> Body:
        key = _key(caller)
        member = await self._at_now(lambda books, now_ms: self._registry.renew(books, key, now_ms))
        return {**grant_reply(member), "authority": self._authority_pem}

    async def _member(self, caller: Caller, body: Body) -> Body:
        key = octets(body, "key")
        return {"credential": (await self._store.run(lambda books: members.need(books, key))).credential}

    async def _reveal(self, caller: Caller, body: Body) -> Body:
        self._operator_only(caller)
        entity = words(body, "entity")
        return identity_reply(await self._store.run(lambda books: self._registry.reveal(books, entity)))

    async def _erase(self, caller: Caller, body: Body) -> Body:
        self._operator_only(caller)
        entity = words(body, "entity")
        await self._store.run(lambda books: self._registry.erase(books, entity))
        return {}

    async def _credit(self, caller: Caller, body: Body) -> Body:
        self._operator_only(caller)
        credit = Credit(
            words(body, "entity"), whole(body, "amount_nano"), words(body, "currency"), octets(body, "nonce")
        )
        limit_nano = self._terms.max_balance_nano
        return {"balance_nano": await self._at_now(lambda books, now_ms: credit.book(books, limit_nano, now_ms))}

    async def _order_create(self, caller: Caller, body: Body) -> Body:
        order, envelope = PurchaseOrder.open(octets(body, "order"), self._scheme)
        _same_key(caller, envelope)
        state = await self._at_now(lambda books, now_ms: orderbook.create(books, order, envelope, now_ms))
        return order_reply(state, envelope.raw)

    async def _order_show(self, caller: Caller, body: Body) -> Body:
        key, order_id = _key(caller), octets(body, "order")

        def show(books: Books) -> Body:
            state = orderbook.find(books, order_id, client=key)
            return order_reply(state, orderbook.raw_order(books, order_id))

        return await self._store.run(show)

    async def _order_list(self, caller: Caller, body: Body) -> Body:
        key = _key(caller)

        def listed(books: Books) -> Body:
            states = orderbook.listed(books, client=key, newest=LISTED_MAX)
            raws = [orderbook.raw_order(books, state.id) for state in states]
            replies = [order_reply(state, raw, all_reservations=False) for state, raw in zip(states, raws)]
            return {"orders": replies}

        return await self._store.run(listed)

    async def _order_release(self, caller: Caller, body: Body) -> Body:
        wish, envelope = OrderRelease.open(octets(body, "release"), self._scheme)
        _same_key(caller, envelope)
        return await self._at_now(
            lambda books, now_ms: _shown(books, orderbook.release(books, wish, envelope, now_ms).id)
        )

    async def _reserve(self, caller: Caller, body: Body) -> Body:
        request, envelope = ReservationRequest.open(octets(body, "request"), self._scheme)
        _same_key(caller, envelope)
        issuing = self._keys.issuing
        return {
            "reservation": await self._at_now(
                lambda books, now_ms: orderbook.reserve(books, request, envelope, issuing, now_ms)
            )
        }

    async def _reservation_release(self, caller: Caller, body: Body) -> Body:
        wish, envelope = ReservationRelease.open(octets(body, "release"), self._scheme)
        _same_key(caller, envelope)
        await self._at_now(lambda books, now_ms: orderbook.give_up(books, wish, envelope, now_ms))
        return {}

    async def _claim(self, caller: Caller, body: Body) -> Body:
        raw = octets(body, "claim")
        claim, envelope = Claim.open(raw, self._scheme)
        _same_key(caller, envelope)
        evidence = claims.examine(claim, envelope, self._scheme)
        settled = await self._at_now(lambda books, now_ms: self._claims.settle(books, evidence, raw, now_ms))
        return {"settlement": _kept(settled)}

    async def _statement(self, caller: Caller, body: Body) -> Body:
        key, currency = _key(caller), words(body, "currency")
        made = await self._at_now(
            lambda books, now_ms: statements.statement(books, members.need(books, key), currency, now_ms)
        )
        return {"statement": made.seal(self._keys.issuing).raw}

    async def _audit(self, caller: Caller, body: Body) -> Body:
        if self._network.profile != "local":  # on a local network everybody may see for himself that it balances
            self._operator_only(caller)
        return audit_reply(await self._store.run(statements.audit_books))

    async def _fraud_list(self, caller: Caller, body: Body) -> Body:
        self._operator_only(caller)
        return {"proofs": [fraud_reply(proof) for proof in await self._store.run(fraud.proofs)]}

    async def _at_now(self, work: Callable[[Books, int], T]) -> T:
        now_ms = self._now_ms()
        return await self._store.run(lambda books: work(books, now_ms))

    def _operator_only(self, caller: Caller) -> None:
        if caller.public_key != self._keys.operator.public_key:
            raise RefusedError("not_operator", "only XenoCorp's operator may do this", "use the operator's key")

    def _papers(self) -> Body:
        return {"network": self._network_raw, "schema": self._schema, "authority": self._authority_pem}


def _shown(books: Books, order_id: bytes) -> Body:
    return order_reply(orderbook.find(books, order_id), orderbook.raw_order(books, order_id))


def _key(caller: Caller) -> bytes:
    if caller.public_key is None:
        raise RefusedError(
            "not_identified", "this needs a connection that proves a key", "connect with your certificate"
        )
    return caller.public_key


def _same_key(caller: Caller, envelope: Envelope, *, optional: bool = False) -> None:
    """A message is taken from its signer's own connection only, so that nobody replays another's."""
    if optional and caller.public_key is None:
        return
    if _key(caller) != envelope.key:
        raise RefusedError(
            "not_yours", f"the {envelope.type} is signed by another key than the connection's", "sign it"
        )


def _run(step: sweep.Step, now_ms: int, books: Books) -> None:
    step(books, now_ms)


def _kept(result: T | RefusedError) -> T:
    """Raise a refusal that had to be stored; give anything else back."""
    if isinstance(result, RefusedError):
        raise result
    return result
