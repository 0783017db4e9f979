"""XenoCorp as a service: every control method by name, and what falls due by itself.

Rules and books decide; nothing is answered before the store says that it is durable (I8). Registering is open to
everybody, the rest to the key that a connection proved. Leaves connections to `control`, wiring to `node`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable, Mapping, Sequence

from dht.identity import Scheme
from dht.limits import Allowance, Places
from xenonode.corp import fraud, statements, status, sweep
from xenonode.corp.books import Books
from xenonode.corp.claimbook import ClaimBook
from xenonode.corp.desk import Desk, proved_key
from xenonode.corp.errors import RefusedError
from xenonode.corp.founding import CorpKeys
from xenonode.corp.holder_methods import Dimensions, HolderMethods, Shun
from xenonode.corp.member_methods import MemberMethods
from xenonode.corp.members import Certify, Member, Registry, need
from xenonode.corp.money_methods import MoneyMethods
from xenonode.corp.requests import Body, Caller, Handler, Method, audit_reply, fraud_reply, guarded, octets
from xenonode.corp.store import Store
from xenonode.corp.terms import Terms
from xenonode.corp.vault import Vault
from xenonode.model.entity import Network, Trust

AUDITS = Allowance(1 / 60, 10)
"""Audits for one member of a local network: each reads the whole ledger, while everybody else's requests wait."""


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
        opened, _ = Network.open(network, scheme)
        self._desk = Desk(keys, opened, network, schema, authority_pem, store, scheme, now_ms, terms)
        self._issuing_until_ms = Trust(opened, scheme).until_ms(keys.issuing.public_key)
        self._registry = Registry(keys.issuing, Vault(keys.vault), rng, terms, certify)
        self._claims = ClaimBook(keys.issuing, terms.fee_basis_points)
        self._audits = Places(AUDITS)
        self.shun: Shun = _nobody_is_told
        """Called with whom all members shun from now on; XenoCorp's node is a member, too."""
        self.dimensions: Dimensions = frozenset
        """The schema's by now: XenoCorp's node knows how it has grown."""
        self.holders = HolderMethods(self._desk, lambda members: self.shun(members), lambda: self.dimensions())

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Every control method by name."""
        own: dict[str, Method] = {
            "info": self._info,
            "status": self._status,
            "ledger.audit": self._audit,
            "fraud.list": self._fraud_list,
            "fraud.report": self._fraud_report,
        }
        money = MoneyMethods(self._desk, self._claims)
        others = (MemberMethods(self._desk, self._registry), money, self.holders)
        for each in others:
            own.update(each.methods)
        return {name: guarded(method) for name, method in own.items()}

    async def enrol(self, key: bytes) -> Member:
        """Membership of XenoCorp's own node or operator key. Raises RefusedError for another key."""
        if key not in (self._desk.keys.node.public_key, self._desk.keys.operator.public_key):
            raise RefusedError("not_own", "this is none of XenoCorp's own keys", "register it instead")
        return await self._desk.at_now(lambda books, now_ms: self._registry.enrol(books, key, now_ms))

    async def sweep(self) -> int:
        """Settle, end and close what is due now; how many things that was."""
        now_ms = self._desk.now_ms()
        await self._desk.store.run(lambda books: sweep.beat(books, now_ms))
        await self._desk.store.run(lambda books: sweep.forget(books, now_ms))
        steps = await self._desk.store.run(lambda books: sweep.due(books, self._claims, now_ms))
        for step in steps:
            await self._desk.store.run(functools.partial(_run, step, now_ms))
        return len(steps)

    async def run(self) -> None:
        """Sweep once a minute until cancelled. A ledger that cannot be written now is tried again at the next."""
        while True:
            with contextlib.suppress(RefusedError):  # nothing was lost: what is due stays due
                await self.sweep()
            await asyncio.sleep(sweep.PERIOD_MS / 1000)

    async def _info(self, caller: Caller, body: Body) -> Body:
        return {**self._desk.papers, "time_ms": self._desk.now_ms()}

    async def _status(self, caller: Caller, body: Body) -> Body:
        counts = await self._desk.store.run(status.counts)
        return {**counts, "role": "corp", "time_ms": self._desk.now_ms(), "issuing_until_ms": self._issuing_until_ms}

    async def _audit(self, caller: Caller, body: Body) -> Body:
        key = proved_key(caller)
        if self._desk.network.profile != "local":  # on a local network everybody may see for himself that it balances
            self._desk.operator_only(caller)
        if key != self._desk.keys.operator.public_key and not self._audits.take(key, self._desk.now_ms() / 1000):
            raise RefusedError("busy", "you had the ledger audited a moment ago", "ask again in a minute")
        return audit_reply(await self._desk.store.run(statements.audit_books))

    async def _fraud_list(self, caller: Caller, body: Body) -> Body:
        self._desk.operator_only(caller)
        return {"proofs": [fraud_reply(proof) for proof in await self._desk.store.run(fraud.proofs)]}

    async def _fraud_report(self, caller: Caller, body: Body) -> Body:
        """From any member: two signed things that contradict one another prove it whoever brings them."""
        proved_key(caller)
        await self.note_equivocation(octets(body, "first"), octets(body, "second"))
        return {}

    async def note_equivocation(self, first: bytes, second: bytes) -> None:
        """Keep the proof that somebody signed two records with one sequence number. Raises RefusedError."""
        suspect = fraud.equivocator(first, second, self._desk.scheme)
        one, other = sorted((first, second))
        work = functools.partial(_note, suspect, one, other, self._desk.now_ms())
        await self._desk.store.run(work)


def _nobody_is_told(members: Sequence[tuple[bytes, bytes]]) -> None:
    """Where no node runs beside the service."""


def _note(suspect: bytes, first: bytes, second: bytes, now_ms: int, books: Books) -> None:
    need(books, suspect)  # keys that nobody registered cost nothing, and could fill the ledger
    fraud.note_bounded(books, "equivocation", suspect, first, second, now_ms)


def _run(step: sweep.Step, now_ms: int, books: Books) -> None:
    step(books, now_ms)
