"""A client, a XenoServer and a XenoCorp joined over their real control handlers, under virtual time; nothing is faked
but the guests, and each party can be away."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from dht.identity import ED25519, Signer
from hypervisor.environment import EnvironmentSpec
from hypervisor.errors import GuestFailedError
from hypervisor.simulated import Load, SimulatedHypervisor, SimulatedMachine
from xenonode.client.records import Records
from xenonode.client.sessions import Sessions
from xenonode.control.errors import UNREACHABLE, ControlError
from xenonode.control.server import Caller
from xenonode.model.advert import Location
from xenonode.model.entity import Address
from xenonode.model.resources import NANO, NO_RESOURCES, Resources
from xenonode.model.session import Quote, QuoteRequest, SessionCommand
from xenonode.server.admission import Admission, Offer, environment_offers
from xenonode.server.advertising import AdvertFacts, Advertiser
from xenonode.server.audit_log import AuditLog
from xenonode.server.journal import Journal
from xenonode.server.ports import ControlCorp
from xenonode.server.quoting import QuoteDesk
from xenonode.server.service import ServerService
from xenonode.server.sessions import SessionManager

from ..corp.world import World as CorpWorld
from ..server.world import LINUX, MACHINE, PRICES, SMALL, SSH_KEY, Files, MemoryDisk, WorldEnv, run_virtually

__all__ = ["SMALL", "JointCorp", "World", "run_virtually"]
CONTROL = Address("127.0.0.1", 7001)
ORDER_NANO = NANO
LEASE_MS = 3_600_000


class JointCorp(CorpWorld):
    """XenoCorp at the virtual loop's time."""

    shift_ms = 0

    @property
    def now_ms(self) -> int:
        return self.shift_ms + int(asyncio.get_running_loop().time() * 1000)

    @now_ms.setter
    def now_ms(self, value: int) -> None:
        self.shift_ms = value - int(asyncio.get_running_loop().time() * 1000)


class World:
    """One of each. `corp_away`, `server_away`: calls do not arrive. `answers_lost`: they do, the answers do not."""

    def __init__(self, corp: CorpWorld | None = None, *, receipt_period_ms: int = 5_000) -> None:
        self.corp = corp = corp or JointCorp()
        self.client, self.server = corp.member("alice", "client"), corp.member("bob", "server")
        corp.credit(self.client, 100 * NANO)
        self.order = corp.ordered(self.client, ORDER_NANO)
        self.receipt_period_ms = receipt_period_ms
        self.corp_away = self.server_away = self.answers_lost = False
        self.machine = SimulatedMachine(now_ms=self.now_ms, rng=random.Random(1), cpus=4, load=self.load)
        self.files, self.client_disk = Files(), MemoryDisk(Files())
        self.boot_fails = False
        self.sessions = self.client_of()
        self.manager: SessionManager

    def now_ms(self) -> int:
        return self.corp.now_ms

    def load(self, spec: EnvironmentSpec, rng: random.Random) -> Load:
        return Load(1000, 1_000_000, 1_000_000)

    def client_of(self, **calls: Any) -> Sessions:
        """The client's part; `calls` replace the ways to XenoCorp and to the server."""
        ways: dict[str, Any] = {"call_corp": self.client_to_corp, "call_server": self.client_to_server, **calls}
        return Sessions(self.client, WorldEnv(self.now_ms, 5), self.corp.trust, Records(self.client_disk), **ways)

    async def boot(self, call_corp: Any = None) -> None:
        """Start the server on what its disk holds."""
        self.env = WorldEnv(self.now_ms, 7)
        disk = MemoryDisk(self.files)
        capabilities = self.machine.capabilities
        offer = Offer(MACHINE, NO_RESOURCES, 4, PRICES, environment_offers(capabilities, lambda id: id.encode() * 6))
        admission = Admission(offer, capabilities)
        self.journal, audit = Journal(disk), AuditLog(disk, self.server, ED25519)
        facts = AdvertFacts("GB", "eu-west", CONTROL, CONTROL, (), self.now_ms(), 1, 60_000)
        self.advertiser = advertiser = Advertiser(self.server, self.journal, admission, facts)
        self.manager = SessionManager(
            env=self.env,
            signer=self.server,
            trust=self.corp.trust,
            hypervisor=Failing(self),
            admission=admission,
            journal=self.journal,
            audit=audit,
            corp=ControlCorp(call_corp or self.server_to_corp),
            changed=advertiser.changed,
        )
        desk = QuoteDesk(self.server, ED25519, admission, audit, lambda: advertiser.current, self.now_ms)
        advertiser.issue(self.now_ms(), Location(1, 2, 3, 4), b"credential")
        own_key = self.server.public_key
        self.service = ServerService(self.manager, desk, admission, audit, lambda: advertiser.current, tuple, own_key)
        self.handlers = self.service.handlers()
        await self.manager.start()

    async def kill(self) -> None:
        """End the server as kill -9 does; `boot` starts the next one."""
        for task in self.env.running:
            task.cancel()
        await asyncio.gather(*self.env.running, return_exceptions=True)

    async def server_to_corp(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.corp_away:
            raise ControlError(UNREACHABLE, "XenoCorp is away", "wait")
        return await self.corp.ask(self.server, method, **body)

    async def client_to_corp(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self.corp.ask(self.client, method, **body)

    async def handle(self, method: str, **body: Any) -> dict[str, Any]:
        """Call a method of the server as the client."""
        return await self.handlers[method](Caller(self.client.public_key, ("127.0.0.1", 1), "1-1"), body)

    async def client_to_server(
        self, key: bytes, address: tuple[str, int], method: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        assert key == self.server.public_key
        if self.server_away:
            raise ControlError(UNREACHABLE, "nobody answers", "wait")
        answer = await self.handle(method, **body)
        if self.answers_lost:
            raise ControlError(UNREACHABLE, "the connection was lost", "wait")
        return answer

    async def quote(self, resources: Resources = SMALL, call: Any = None) -> tuple[Quote, bytes]:
        call = call or self.client_to_server
        nonce = self.corp.nonce()
        request = QuoteRequest(nonce, self.server.public_key, resources, LINUX, LEASE_MS, self.now_ms())
        raw = (await call(self.server.public_key, CONTROL.pair, "quote", {"request": request.seal(self.client).raw}))[
            "quote"
        ]
        return Quote.open(raw, ED25519)[0], raw

    async def begin(self, sessions: Sessions | None = None, *, quoted: Any = None, **changes: Any) -> Any:
        """Order to running session, as a client does it."""
        quote, raw = quoted or await self.quote()
        named: dict[str, Any] = {
            "lease_ms": LEASE_MS,
            "authorized_keys": (SSH_KEY,),
            "hostname": "guest",
            "receipt_period_ms": self.receipt_period_ms,
            **changes,
        }
        sessions = sessions or self.sessions
        return await sessions.create(self.order, quote, raw, self.server.public_key, CONTROL, **named)

    def command(self, id: bytes, seq: int, action: str) -> bytes:
        return SessionCommand(id, seq, action, None, self.now_ms()).seal(self.client).raw

    def state(self) -> dict[str, Any]:
        """The order as XenoCorp has it."""
        return self.corp.do(self.client, "order.show", order=self.order)

    def balance(self, signer: Signer) -> int:
        return self.corp.statement(signer).balance_nano


class Failing(SimulatedHypervisor):
    """Guests do not boot while the world says so."""

    def __init__(self, world: World) -> None:
        super().__init__(world.machine)
        self._world = world

    async def create(self, spec: EnvironmentSpec) -> Any:
        if self._world.boot_fails:
            raise GuestFailedError("the guest's kernel panicked", "look at its console")
        return await super().create(spec)
