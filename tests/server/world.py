"""A small world for the server's tests: virtual time, a disk and a hypervisor that can die, a client, a XenoCorp.

`Room.operations` counts everything that a server does to the outside; `Room.crash_at` kills it at one of them, before
or after it took effect. Guests live on, and so does what the disk had made durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dht.identity import ED25519, Scheme, Signer
from hypervisor.adapter import Hypervisor
from hypervisor.simulated import SimulatedHypervisor, SimulatedMachine
from xenonode.env import Tasks
from xenonode.model.advert import Location, OfferedEnvironment
from xenonode.model.entity import Address, Issuer, Network, Trust
from xenonode.model.money import Claim, Reservation, ReservationRelease, Settlement
from xenonode.model.resources import NO_RESOURCES, Prices, Resources, due_nano, rate_nano_per_hour
from xenonode.model.session import (
    Agreement,
    Quote,
    QuoteRequest,
    Receipt,
    SessionCommand,
    UsageRecord,
    exposure_limit_nano,
)
from xenonode.server.admission import Admission, Offer, environment_offers
from xenonode.server.advertising import AdvertFacts, Advertiser
from xenonode.server.audit_log import AuditLog
from xenonode.server.errors import CorpAwayError
from xenonode.server.journal import Journal
from xenonode.server.quoting import QuoteDesk
from xenonode.server.sessions import SessionManager

GIB = 2**30
EPOCH_MS = 1_800_000_000_000
LINUX = OfferedEnvironment("os", "linux", "6.1")
PRICES = Prices("USD", 100_000_000, 10_000_000, 1_000_000, 20_000_000)
MACHINE = Resources(4000, 8 * GIB, 100 * GIB, 100_000_000)
SMALL = Resources(250, GIB // 2, GIB, 1_000_000)
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ9pX6h0c2XrJkJ9zYt3Yw8m3y5b3y5b3y5b3y5b3y5 me"
LOCATION = Location(1, 2, 3, 4)

CORP, ISSUER, SERVER, CLIENT, STRANGER = (ED25519.generate(bytes([each]) * 32) for each in range(1, 6))


def make_trust() -> Trust:
    """A network whose issuing key is ISSUER."""
    issuer = Issuer(ISSUER.public_key, 0, EPOCH_MS * 2).seal(CORP).raw
    address = Address("127.0.0.1", 7000)
    network = Network(
        b"n" * 16, "local", CORP.public_key, CORP.public_key, address, (address,), (issuer,), b"s" * 32, EPOCH_MS
    )
    return Trust(network, ED25519)


TRUST = make_trust()


class Crashed(Exception):
    """The server's process is dead."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer instead of waiting for it."""

    _virtual_s = 0.0

    def time(self) -> float:
        return self._virtual_s

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled:
            self._virtual_s = max(self._virtual_s, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


def run_virtually(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


class WorldEnv:
    """The Env of one incarnation of the server."""

    scheme: Scheme = ED25519

    def __init__(self, now_ms: Callable[[], int], seed: int) -> None:
        self.now_ms, self._rng, self._tasks = now_ms, random.Random(seed), Tasks()
        self.running: list[asyncio.Task[Any]] = []

    def rng(self, purpose: str) -> random.Random:
        return self._rng

    def seed(self, purpose: str) -> bytes:
        return self._rng.randbytes(32)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self.running.append(task)
        return task


@dataclass
class Files:
    """What is durable."""

    content: dict[str, bytes] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    full: str = ""
    """Files with this in their names cannot grow."""
    cramped: bool = False
    """What is there can still grow a little, but has no room for another file beside it."""
    refused: int = 0


class MemoryDisk:
    """A disk that keeps promises, takes nothing while it is full, and tears a write where its room crashes in it."""

    def __init__(self, files: Files, room: Room | None = None) -> None:
        self.files, self.room = files, room

    def _need_space(self, name: str) -> None:
        if self.files.full and self.files.full in name:
            self._refuse()

    def _refuse(self) -> NoReturn:
        self.files.refused += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, name: str) -> bytes:
        return self.files.content.get(name, b"")

    def append(self, name: str, data: bytes) -> None:
        self._need_space(name)
        before = self.read(name)
        if self.room is not None and self.room.dies():
            kept = self.room.rng.randrange(len(data) + 1)
            self.files.content[name] = before + data[:kept]
            self.room.die()
        self.files.content[name] = before + data

    def replace(self, name: str, data: bytes) -> None:
        self._need_space(name)
        if self.files.cramped:
            self._refuse()
        if self.room is not None and self.room.dies():
            self.room.die()
        self.files.content[name] = data

    def names(self) -> list[str]:
        return sorted(self.files.content)

    def remove(self, name: str) -> None:
        self.files.content.pop(name, None)

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        free = name not in self.files.held
        assert free or not wait, "nobody would ever let go"
        self.files.held.add(name)
        try:
            yield free
        finally:
            if free:
                self.files.held.discard(name)


class Room:
    """Where one incarnation of the server runs, and where it may die."""

    def __init__(self, crash_at: int | None = None, seed: int = 0) -> None:
        self.crash_at, self.operations, self.dead = crash_at, 0, False
        self.rng = random.Random(seed)

    def dies(self) -> bool:
        if self.dead:
            raise Crashed
        self.operations += 1
        return self.operations == self.crash_at

    def die(self) -> None:
        self.dead = True
        raise Crashed


class MortalHypervisor:
    """A hypervisor as a mortal server sees it: a crash comes before a call, or after it took effect."""

    def __init__(self, inner: Hypervisor, room: Room) -> None:
        self._inner, self._room = inner, room

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: Any, **named: Any) -> Any:
            if self._room.dies():
                if self._room.rng.random() < 0.5:
                    await method(*args, **named)
                self._room.die()
            return await method(*args, **named)

        return call


class FakeCorp:
    """XenoCorp's side of claims, with its checks: each session is charged once, and never beyond its reservation."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms, self.away = now_ms, False
        self.settled: dict[bytes, bytes] = {}
        self.cumulative: dict[bytes, int] = {}
        self.captures: list[int] = []
        self.released: list[bytes] = []
        self.final: set[bytes] = set()

    async def claim(self, raw: bytes) -> bytes:
        if self.away:
            raise CorpAwayError("XenoCorp is away")
        claim, envelope = Claim.open(raw, ED25519)
        if envelope.id in self.settled:
            return self.settled[envelope.id]
        agreement, agreed = Agreement.open(claim.agreement, ED25519, signed_by=envelope.key)
        _, own = Agreement.open(claim.client_agreement, ED25519, signed_by=agreement.client)
        assert own.id == agreed.id and claim.reservation == agreement.reservation
        usage, used = UsageRecord.open(claim.usage, ED25519, signed_by=envelope.key)
        assert usage.agreement == agreed.id and usage.due_nano == due_nano(usage.usage, agreement.prices)
        before = self.cumulative.get(agreed.id, 0)
        now = before
        if claim.receipt is not None:
            receipt, _ = Receipt.open(claim.receipt, ED25519, signed_by=agreement.client)
            assert receipt.usage == used.id and receipt.seq == usage.seq and receipt.accepted
            now = usage.due_nano
        assert now >= before, "a claim for less than what was settled"
        assert agreed.id not in self.final, "a claim after the final one"
        ends = claim.final and usage.final and (claim.receipt is not None or now == usage.due_nano)
        if ends:
            self.final.add(agreed.id)
        self.cumulative[agreed.id] = now
        self.captures.append(now - before)
        settlement = Settlement(
            envelope.id, claim.reservation, agreed.id, now - before, 0, now, 0, "USD", ends, self.now_ms()
        )
        self.settled[envelope.id] = settlement.seal(ISSUER).raw
        return self.settled[envelope.id]

    async def release(self, raw: bytes) -> None:
        if self.away:
            raise CorpAwayError("XenoCorp is away")
        wish, _ = ReservationRelease.open(raw, ED25519, signed_by=SERVER.public_key)
        self.released.append(wish.reservation)


class MortalCorp:
    """XenoCorp as a mortal server sees it."""

    def __init__(self, inner: FakeCorp, room: Room) -> None:
        self._inner, self._room = inner, room

    async def claim(self, raw: bytes) -> bytes:
        if self._room.dies():
            if self._room.rng.random() < 0.5:
                await self._inner.claim(raw)
            self._room.die()
        return await self._inner.claim(raw)

    async def release(self, raw: bytes) -> None:
        if self._room.dies():
            if self._room.rng.random() < 0.5:
                await self._inner.release(raw)
            self._room.die()
        await self._inner.release(raw)


class World:
    """One machine, one XenoCorp, one disk; servers come and go."""

    def __init__(
        self, *, prices: Prices = PRICES, machine: Resources = MACHINE, receipt_period_ms: int = 5_000
    ) -> None:
        loop = asyncio.get_running_loop()
        self.skew_ms = 0
        self.true_ms = lambda: EPOCH_MS + int(loop.time() * 1000)
        self.now_ms = lambda: self.true_ms() + self.skew_ms
        self.machine = SimulatedMachine(now_ms=self.true_ms, rng=random.Random(1), cpus=4)
        self.files, self.corp = Files(), FakeCorp(self.now_ms)
        self.prices, self.offered, self.receipt_period_ms = prices, machine, receipt_period_ms
        self.changes = 0

    async def boot(self, room: Room | None = None) -> Server:
        return await Server.boot(self, room or Room())

    def reservation(
        self, amount_nano: int = 10**9, rate_cap: int = 10**10, lease_ms: int = 3_600_000, number: int = 0
    ) -> bytes:
        return (
            Reservation(
                bytes([number]) * 16,
                b"o" * 16,
                CLIENT.public_key,
                SERVER.public_key,
                amount_nano,
                "USD",
                rate_cap,
                None,
                self.true_ms() + lease_ms,
                86_400_000,
            )
            .seal(ISSUER)
            .raw
        )


class Server:
    """One incarnation of the server."""

    def __init__(self, world: World, room: Room) -> None:
        self.world, self.room = world, room
        self.env = WorldEnv(world.now_ms, room.operations + 7)

    @classmethod
    async def boot(cls, world: World, room: Room) -> Server:
        self = cls(world, room)
        disk = MemoryDisk(world.files, room)
        hypervisor: Any = MortalHypervisor(SimulatedHypervisor(world.machine), room)
        capabilities = world.machine.capabilities
        offer = Offer(
            world.offered, NO_RESOURCES, 4, world.prices, environment_offers(capabilities, lambda id: id.encode() * 6)
        )
        self.admission = Admission(offer, capabilities)
        self.journal, self.audit = Journal(disk), AuditLog(disk, SERVER, ED25519)
        address = Address("127.0.0.1", 7001)
        facts = AdvertFacts("GB", "eu-west", address, address, (), EPOCH_MS, 1, 60_000)
        self.advertiser = Advertiser(SERVER, self.journal, self.admission, facts)
        self.manager = SessionManager(
            env=self.env,
            signer=SERVER,
            trust=TRUST,
            hypervisor=hypervisor,
            admission=self.admission,
            journal=self.journal,
            audit=self.audit,
            corp=MortalCorp(world.corp, room),
            changed=self.advertiser.changed,
        )
        advertiser = self.advertiser
        self.desk = QuoteDesk(SERVER, ED25519, self.admission, self.audit, lambda: advertiser.current, world.now_ms)
        advertiser.issue(world.now_ms(), LOCATION, b"credential")
        await self.manager.start()
        return self

    async def kill(self) -> None:
        """As kill -9: nothing that this incarnation still tries has an effect."""
        self.room.dead = True
        for task in self.env.running:
            task.cancel()
        await asyncio.gather(*self.env.running, return_exceptions=True)

    def quote(self, resources: Resources = SMALL, *, client: Signer = CLIENT, nonce: int = 0) -> Any:
        request = QuoteRequest(
            bytes([nonce]) * 16, SERVER.public_key, resources, LINUX, 600_000, self.world.now_ms()
        ).seal(client)
        return self.desk.quote(client.public_key, request.raw)

    async def open_session(self, resources: Resources = SMALL, *, number: int = 0, **reserved: int) -> bytes:
        """Quote, reserve and agree; the new session's id."""
        quote = self.quote(resources, nonce=number).quote
        assert quote is not None
        reservation = self.world.reservation(number=number, **reserved)
        agreement = agreement_for(quote, reservation, self.world.now_ms(), self.world.receipt_period_ms)
        session = await self.manager.create(CLIENT.public_key, agreement.seal(CLIENT).raw, reservation, quote)
        return session.id

    async def command(self, id: bytes, seq: int, action: str, resources: Resources | None = None) -> bytes:
        command = SessionCommand(id, seq, action, resources, self.world.now_ms()).seal(CLIENT)
        return await self.manager.command(CLIENT.public_key, command.raw)

    async def cosign(self, id: bytes) -> UsageRecord | None:
        """What a client's agent does: check the newest usage record and sign for it."""
        last = self.manager.sessions[id].last_issued
        if last is None:
            return None
        record, envelope = UsageRecord.open(last.raw, ED25519, signed_by=SERVER.public_key)
        receipt = Receipt(id, envelope.id, record.seq, True, "", self.world.now_ms()).seal(CLIENT)
        await self.manager.receipt(CLIENT.public_key, receipt.raw)
        return record


def agreement_for(quote_raw: bytes, reservation_raw: bytes, now_ms: int, period_ms: int = 5_000) -> Agreement:
    """The agreement that a careful client signs."""
    quote, quote_envelope = Quote.open(quote_raw, ED25519)
    reservation, reservation_envelope = Reservation.open(reservation_raw, ED25519)
    assert rate_nano_per_hour(quote.resources, quote.prices) <= reservation.rate_cap_nano_per_hour
    return Agreement(
        client=CLIENT.public_key,
        server=SERVER.public_key,
        reservation=reservation_envelope.id,
        quote=quote_envelope.id,
        advert=quote.advert,
        advert_seq=quote.advert_seq,
        resources=quote.resources,
        environment=quote.environment,
        image_sha256=quote.image_sha256,
        prices=quote.prices,
        receipt_period_ms=period_ms,
        exposure_nano=exposure_limit_nano(reservation.amount_nano, reservation.rate_cap_nano_per_hour),
        audit_policy="standard",
        authorized_keys=(SSH_KEY,),
        hostname="guest",
        made_ms=now_ms,
    )
