"""A XenoCorp with parties around it, for tests: real keys and messages, and a clock to set."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dht.identity import ED25519, Signer
from xenonode.config import CorpConfig
from xenonode.corp.database import MEMORY, open_database
from xenonode.corp.founding import corp_keys, found
from xenonode.corp.service import CorpService
from xenonode.corp.store import Store
from xenonode.corp.terms import Terms
from xenonode.corp.transfers import Transfer
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.entity import Address, Network, Registration, Trust
from xenonode.model.money import (
    Claim,
    OrderRelease,
    PurchaseOrder,
    Reservation,
    ReservationRelease,
    ReservationRequest,
    Settlement,
    Statement,
)
from xenonode.model.resources import GIB, NANO, Prices, Resources, Usage, due_nano
from xenonode.model.session import Agreement, Receipt, UsageRecord

START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
DEFAULT_TERMS = Terms()
PRICES = Prices("USD", NANO, NANO // 10, NANO // 100, NANO // 10)
SHARE = Resources(500, GIB // 4, GIB, 8_000_000)


def seed(name: str) -> bytes:
    """32 bytes that depend on the name only."""
    return hashlib.sha256(name.encode()).digest()


@dataclass(frozen=True)
class Asker:
    """Stands for a connection that proved a key."""

    public_key: bytes | None
    address: tuple[str, int] = ("127.0.0.1", 1)


class World:
    """One XenoCorp at a settable time; `do` calls its control methods as a signer."""

    def __init__(
        self,
        ledger: str | Path = MEMORY,
        *,
        threaded: bool = False,
        terms: Terms = DEFAULT_TERMS,
        name: str = "w",
        start_ms: int = START_MS,
        **service: Any,
    ) -> None:
        self.now_ms = start_ms
        self.posted: list[Transfer] = []
        self.root, self.keys = corp_keys(ED25519, lambda purpose: seed(name + purpose))
        config = CorpConfig(folder=Path("unused"), udp=Address("127.0.0.1", 4001), control=Address("127.0.0.1", 4002))
        self.network = found(self.root, self.keys, config, b"schema", start_ms)
        self.trust = Trust(Network.open(self.network, ED25519)[0], ED25519)
        self.store = Store(open_database(ledger), threaded=threaded, on_transfer=self.posted.append)
        self.service = CorpService(
            self.keys,
            self.network,
            b"schema",
            self.store,
            scheme=ED25519,
            now_ms=lambda: self.now_ms,
            rng=random.Random(1),
            terms=terms,
            **service,
        )
        self.service.dimensions = lambda: ("cores", "price.cpu")
        self._counter = 0

    async def ask(self, signer: Signer | None, method: str, **body: Any) -> dict[str, Any]:
        """One control method, as it is asked over a connection."""
        return await self.service.handlers[method](Asker(signer.public_key if signer else None), body)

    def do(self, signer: Signer | None, method: str, **body: Any) -> dict[str, Any]:
        """`ask`, outside of a loop: an inline ledger never waits, so the answer is there at the first step."""
        asking = self.ask(signer, method, **body)
        try:
            asking.send(None)
        except StopIteration as answered:
            return dict(answered.value)
        raise AssertionError("an inline ledger waited")

    def nonce(self) -> bytes:
        """16 bytes that no message had yet."""
        self._counter += 1
        return self._counter.to_bytes(16, "big")

    def registration(self, name: str, role: str, /, **changes: Any) -> Registration:
        """A registration of somebody called `name`."""
        network_id = self.trust.network.network_id
        made = Registration(role, name, "GB", f"{name}@example.org", "passport 1", network_id, self.now_ms)
        return dataclasses.replace(made, **changes)

    def member(self, name: str, role: str) -> Signer:
        """A registered key."""
        signer = ED25519.generate(seed(name))
        self.do(None, "register", registration=self.registration(name, role).seal(signer).raw)
        return signer

    def entity(self, signer: Signer) -> str:
        """The pseudonym of a registered key."""
        raw = self.do(None, "member", key=signer.public_key)["credential"]
        return self.trust.credential(raw, self.now_ms).entity

    def credit(self, signer: Signer, amount_nano: int, currency: str = "USD") -> int:
        """Credit a client; its balance."""
        entity, nonce = self.entity(signer), self.nonce()
        operator = self.keys.operator
        reply = self.do(operator, "credit", entity=entity, amount_nano=amount_nano, currency=currency, nonce=nonce)
        return int(reply["balance_nano"])

    def order(self, amount_nano: int = 5 * NANO, **changes: Any) -> PurchaseOrder:
        """An order with no constraints but those in `changes`."""
        made = PurchaseOrder(
            nonce=self.nonce(),
            amount_nano=amount_nano,
            currency="USD",
            made_ms=self.now_ms,
            expires_ms=self.now_ms + 24 * HOUR_MS,
            allowed_servers=(),
            price_caps=None,
            rate_cap_nano_per_hour=None,
            server_cap_nano=None,
            sessions_max=8,
        )
        return dataclasses.replace(made, **changes)

    def ordered(self, client: Signer, amount_nano: int = 5 * NANO, **changes: Any) -> bytes:
        """The id of a new order."""
        reply = self.do(client, "order.create", order=self.order(amount_nano, **changes).seal(client).raw)
        return bytes(reply["order"])

    def request(self, order: bytes, server: Signer, amount_nano: int = 2 * NANO, **changes: Any) -> ReservationRequest:
        """A request for a reservation."""
        made = ReservationRequest(self.nonce(), order, server.public_key, amount_nano, 10 * NANO, HOUR_MS, self.now_ms)
        return dataclasses.replace(made, **changes)

    def reserved(
        self, client: Signer, order: bytes, server: Signer, amount_nano: int = 2 * NANO, **changes: Any
    ) -> bytes:
        """The id of a new reservation."""
        request = self.request(order, server, amount_nano, **changes).seal(client).raw
        raw = self.do(client, "reserve", request=request)["reservation"]
        _, envelope = Reservation.open(raw, ED25519)
        self.trust.issued(envelope, self.now_ms)
        return envelope.id

    def session(self, client: Signer, server: Signer, reservation: bytes, **changes: Any) -> Meter:
        """A session that can be metered and claimed for."""
        return Meter(self, client, server, reservation, **changes)

    def give_up(self, server: Signer, reservation: bytes) -> None:
        """The server lets a reservation go."""
        wish = ReservationRelease(reservation, self.now_ms).seal(server).raw
        self.do(server, "reservation.release", release=wish)

    def release(self, client: Signer, order: bytes) -> dict[str, Any]:
        """The client ends an order."""
        return self.do(client, "order.release", release=OrderRelease(order, self.now_ms).seal(client).raw)

    def sweep(self) -> int:
        """What falls due by itself."""
        return asyncio.run(self.service.sweep())

    def statement(self, signer: Signer, currency: str = "USD") -> Statement:
        """A member's statement, its signature checked."""
        made, envelope = Statement.open(self.do(signer, "statement", currency=currency)["statement"], ED25519)
        self.trust.issued(envelope, self.now_ms)
        return made

    def audit(self) -> dict[str, Any]:
        """The ledger's audit."""
        return self.do(self.keys.operator, "ledger.audit")


class Meter:
    """A session's evidence: agreement, usage chain, receipts, claims."""

    def __init__(self, world: World, client: Signer, server: Signer, reservation: bytes, **changes: Any) -> None:
        self.world, self.client, self.server = world, client, server
        agreement = Agreement(
            client=client.public_key,
            server=server.public_key,
            reservation=reservation,
            quote=bytes(16),
            advert=bytes(16),
            advert_seq=1,
            resources=SHARE,
            environment=OfferedEnvironment("os", "linux", "6.1"),
            image_sha256=bytes(32),
            prices=PRICES,
            receipt_period_ms=60_000,
            exposure_nano=NANO,
            audit_policy="standard",
            authorized_keys=("ssh-ed25519 AAAA test",),
            hostname="guest",
            made_ms=world.now_ms,
        )
        self.agreement = dataclasses.replace(agreement, **changes)
        self.reservation = reservation
        self.client_sealed = self.agreement.seal(client)
        self.server_sealed = self.agreement.seal(server)
        self.seq = 0
        self.last: bytes | None = None

    def usage(self, cpu_hours_milli: int, *, final: bool = False, **changes: Any) -> bytes:
        """The next usage record, with so many thousandths of a CPU-hour used since the start."""
        used = Usage(cpu_hours_milli * 3_600_000_000, 0, 0, 0, 0, 0, 0)
        self.seq += 1
        record = UsageRecord(
            agreement=self.client_sealed.id,
            seq=self.seq,
            usage=used,
            due_nano=due_nano(used, PRICES),
            until_ms=self.world.now_ms,
            previous=self.last,
            log_head=bytes(32),
            final=final,
        )
        sealed = dataclasses.replace(record, **changes).seal(self.server)
        self.last = sealed.id
        return sealed.raw

    def receipt(self, usage: bytes, /, **changes: Any) -> bytes:
        """The client's word for a usage record."""
        record, sealed = UsageRecord.open(usage, ED25519)
        made = Receipt(self.client_sealed.id, sealed.id, record.seq, True, "", self.world.now_ms)
        return dataclasses.replace(made, **changes).seal(self.client).raw

    def claim(self, usage: bytes, receipt: bytes | None, /, *, final: bool = False, **changes: Any) -> bytes:
        """A claim for a usage record."""
        made = Claim(self.reservation, self.server_sealed.raw, self.client_sealed.raw, usage, receipt, final)
        return dataclasses.replace(made, **changes).seal(self.server).raw

    def settle(self, claim: bytes) -> Settlement:
        """What XenoCorp answers, its signature checked."""
        raw = self.world.do(self.server, "claim", claim=claim)["settlement"]
        made, envelope = Settlement.open(raw, ED25519)
        self.world.trust.issued(envelope, self.world.now_ms)
        return made

    def cosigned(self, cpu_hours_milli: int, *, final: bool = False) -> Settlement:
        """Meter, co-sign and claim."""
        usage = self.usage(cpu_hours_milli, final=final)
        return self.settle(self.claim(usage, self.receipt(usage), final=final))

    def unsigned(self, cpu_hours_milli: int, *, final: bool = False) -> Settlement:
        """Meter and claim without the client."""
        return self.settle(self.claim(self.usage(cpu_hours_milli, final=final), None, final=final))
