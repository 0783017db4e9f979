"""A XenoServer as a running node: it advertises, quotes, hosts sessions through its hypervisor, meters and claims."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from random import Random
from typing import Any, Self

from dht.contradictions import Contradiction
from dht.envelope import Envelope
from dht.errors import RemoteError
from dht.reachability import UNREACHABLE
from dht.udp import has_host
from hypervisor import remote
from hypervisor.adapter import Capabilities, Hypervisor
from hypervisor.forwarded import ForwardedHypervisor
from xenonode import membership
from xenonode.config import ServerConfig
from xenonode.control.errors import ControlError
from xenonode.control.pool import ConnectionPool
from xenonode.dimension_desk import DimensionDesk
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.home import CONTROL_FILE, Home, LiveHome
from xenonode.known_peers import known_peers
from xenonode.membership import Membership
from xenonode.model.advert import Location
from xenonode.model.entity import Address, Registration
from xenonode.model.resources import NO_RESOURCES
from xenonode.node import Node
from xenonode.peer import describe_holdings
from xenonode.roaming import own_host
from xenonode.search.kinds import ADVERT
from xenonode.search.looking import look, members_of
from xenonode.search.measuring import in_microseconds
from xenonode.search.publishing import Publisher
from xenonode.server.admission import Admission, Offer, environment_offers
from xenonode.server.advertising import RETRY_MS, AdvertFacts, Advertiser
from xenonode.server.audit_log import AuditLog
from xenonode.server.disk import kept
from xenonode.server.journal import Journal
from xenonode.server.ports import ControlCorp
from xenonode.server.quoting import QuoteDesk
from xenonode.server.service import ANONYMOUS, ServerService
from xenonode.server.sessions import SessionManager
from xenonode.store.values import Desk, Uploads, dimension, publish

LOGGER = logging.getLogger("xenonode.node")
PUBLISH_CHECK_S = 1.0
REACHED_LOOKS, REACHED_AGAIN_S = 3, 5.0
"""Where many servers start together, those who were to call have often met this one just before: then nobody strange
comes, and one look would refuse a server that all can reach (found by a simulated seed)."""
HIDDEN_LOOK_S = 2.0
"""Between the looks of a server that looks everywhere."""
REPUBLISHED_LOOKS = 30
"""Seconds that a publication may take before it is looked at all the same: its tries end within half a minute."""
TOLD_A_PERIOD = 5
"""How often a server asks XenoCorp whom to shun: what only those had is missed for so long at most."""
FAREWELL_S = 5.0
"""A server that stops withdraws its advert, but does not wait long for holders that do not answer."""
REJOIN_S = 5.0
"""A join itself takes some twenty seconds to give up, so this adds little traffic to an absent network."""
FORWARDED_PORTS = "ports.json"
"""Which port of the control address leads to which guest. With a control address on loopback all clients are on this
machine, and reach guests where they are."""
LEFT_FILE = "left"
"""In the state: dimensions that the owner took this server out of, one a line."""
EMBED = "embed"
EMBED_URI = "qemu:///embed"


class ServerNode(Node):
    """A XenoServer: advertises, quotes, hosts sessions, meters, claims."""

    role = "server"
    config: ServerConfig
    _hypervisor: Hypervisor

    @classmethod
    async def start(cls, config: ServerConfig, env: Env) -> Self:
        """Serve from the configured folder through the configured hypervisor. Raises XenoError."""
        try:
            network = config.network.read_bytes()
        except OSError as error:
            raise XenoError(
                f"network file {config.network} cannot be read: {error.strerror}",
                "copy it from XenoCorp's folder, where 'xenonode corp init' put it, and set network = \"...\"",
                "network",
            ) from error
        home = LiveHome(config.folder)
        try:
            uri = EMBED_URI if config.hypervisor == EMBED else config.hypervisor
            root = config.folder / "hypervisor"
            hypervisor: Hypervisor = await remote.connect(uri, root=root, cache=config.images)
            if not ip_address(config.control.host).is_loopback:
                ports = root / FORWARDED_PORTS
                hypervisor = ForwardedHypervisor(hypervisor, config.control.host, ports, seen_at=config.host)
        except BaseException:
            home.leave()
            raise
        return await cls.run(config, env, home, network, hypervisor)

    @classmethod
    async def run(cls, config: ServerConfig, env: Env, home: Home, network: bytes, hypervisor: Hypervisor) -> Self:
        """Serve from these parts, which end with the node."""
        node = cls(env, home)
        node.config, node._hypervisor = config, hypervisor
        node._ending.callback(home.leave)
        node._ending.push_async_callback(hypervisor.aclose)
        try:
            await node._start(config, network, hypervisor)
        except BaseException:
            await node.close()
            raise
        return node

    async def _start(self, config: ServerConfig, network: bytes, hypervisor: Hypervisor) -> None:
        env, home, signer = self.env, self.home, self.home.signer
        started_ms = env.now_ms()
        capabilities = await hypervisor.probe()
        self.held = held = await membership.enter(home, env, network, partial(registration, config))
        self._transport = home.transport(held.papers.certificate, [held.papers.authority])
        self._pool = ConnectionPool(self._transport)
        self._ending.push_async_callback(self._pool.close)

        self.admission = Admission(_offer(config, capabilities), capabilities)
        journal, audit = Journal(home.disk), AuditLog(home.disk, signer, env.scheme)
        if config.follows:
            config = await self._where_now(config, held)
            await self._open(held, config.udp, mobile=self)
        else:
            await self._open(held, config.udp, config.advertise)
        self.peer.stay_out(_names(home.disk.read(LEFT_FILE)))
        facts = AdvertFacts(
            config.country,
            config.region,
            Address(*self.peer.endpoint.address),
            config.shown_control,
            config.features,
            started_ms,
            held.published.epoch,
            config.advert_period_ms,
        )
        self._advert_period_s = config.advert_period_ms / 1_000
        self._convicted = asyncio.Event()
        self.advertiser = Advertiser(signer, journal, self.admission, facts)
        await self._host(hypervisor, journal, audit)
        await self._answer(config, audit)
        await self._appear()
        staying = membership.stay(home, env, held, self._call_corp, partial(registration, config), self._renewed)
        self._ending.callback(env.spawn(staying, "renew credential").cancel)

    async def _host(self, hypervisor: Hypervisor, journal: Journal, audit: AuditLog) -> None:
        """Look after sessions, with those that an earlier run left."""
        self.sessions = SessionManager(
            env=self.env,
            signer=self.home.signer,
            trust=self.held.trust,
            hypervisor=hypervisor,
            admission=self.admission,
            journal=journal,
            audit=audit,
            corp=ControlCorp(self._call_corp),
            changed=self.advertiser.changed,
        )
        await self.sessions.start()
        self._ending.push_async_callback(self.sessions.close)

    async def _answer(self, config: ServerConfig, audit: AuditLog) -> None:
        """Serve control connections, and searches that probe this server."""
        env, peer, key = self.env, self.peer, self.home.signer.public_key
        quotes = QuoteDesk(self.home.signer, env.scheme, self.admission, audit, self._advert, env.now_ms)
        self.publisher = Publisher(peer.schema, peer.adverts, peer.asker, env, peer.tries)
        service = ServerService(self.sessions, quotes, self.admission, audit, self._advert, self._pending, key)
        self._desk = Desk(config.shown_control, env.now_ms)
        uploads, dimensions = Uploads(key, self._publish_value), DimensionDesk(peer, key, self._note_left)
        handlers = {**service.handlers(), **self._desk.handlers(), **uploads.handlers(), **dimensions.handlers()}
        await self._serve(config.control, self._transport, handlers, ANONYMOUS)
        if config.follows:
            self._note_control()
        peer.endpoint.handle(ADVERT, self.show_advert)

    async def _appear(self) -> None:
        """Join the overlays and advertise. With guests to look after, an absent network is no reason not to start."""
        try:
            await self._join()
        except XenoError as error:
            if all(session.closed for session in self.sessions.sessions.values()):
                raise
            LOGGER.warning("sessions go on without a network: %s", error)
            self._ending.callback(self.env.spawn(self._appear_later(), "join").cancel)
            return
        await self._publish()
        self._ending.push_async_callback(self._withdraw)
        self._ending.callback(self.env.spawn(self._stay_published(), "publish").cancel)
        self._ending.callback(self.env.spawn(self._stay_shown(), "look for the own advert").cancel)
        self._ending.callback(self.env.spawn(self._stay_told(), "whom to shun").cancel)

    async def _check_reachable(self) -> None:
        for _ in range(REACHED_LOOKS):
            if await self.roaming.look(LOGGER) != UNREACHABLE:
                return
            await asyncio.sleep(REACHED_AGAIN_S)
        if self.peer.endpoint.reachability == UNREACHABLE:
            next_step = "then start this server again; 'xenonode doctor' looks at the rest"
            raise XenoError(self.peer.endpoint.reachability_advice, next_step, "unreachable")

    # -- going on elsewhere ------------------------------------------------------------------------------

    async def _where_now(self, config: ServerConfig, held: Membership) -> ServerConfig:
        """The same at the address that this machine has, where it has not, or no longer, the configured one."""
        udp, control = config.udp, config.control
        if ip_address(udp.host).is_loopback or await has_host(udp.host):
            return config
        towards = [seed.pair for seed in held.network.seeds] + known_peers(self.home)
        host = await own_host(towards, held.network.profile)
        if host is None:
            return config
        if not await has_host(control.host):
            control = Address(host, control.port)
            if isinstance(self._hypervisor, ForwardedHypervisor):
                await self._hypervisor.move(host)
        return replace(config, udp=Address(host, udp.port), control=control)

    async def move(self, host: str) -> None:
        """Serve at this address of this machine from now on: the former one is gone."""
        serving, port = self.control.address
        if not await has_host(serving):
            # In such an order that whatever fails is done again at the next try.
            if isinstance(self._hypervisor, ForwardedHypervisor):
                await self._hypervisor.move(host)
            await self.control.open(host, port)
            self._note_control()
        self.env.spawn(self._pool.hang_up(), "hang up what was connected from the former address")
        await self.peer.rebind(host)
        self.seen(host)

    def seen(self, host: str) -> None:
        """Tell others this address: in the advert, and where large values are; clients, where guests are."""
        listening = Address(*self.control.address)
        # Who has given control, and so guests, another address of this machine has them there still.
        beside = listening.host == self.peer.endpoint.own_address[0] or ip_address(listening.host).is_unspecified
        control = self.config.advertise_control or (Address(host, listening.port) if beside else listening)
        self._desk.control = control
        if beside and isinstance(self._hypervisor, ForwardedHypervisor):
            self._hypervisor.show(host)
        self.advertiser.moved(Address(*self.peer.endpoint.address), control)
        self.sessions.relocate()
        self.env.spawn(self._publish_values_again(), "say where values are")

    def _note_left(self, dimensions: list[str]) -> None:
        with kept():
            self.home.disk.replace(LEFT_FILE, "\n".join(dimensions).encode())

    def _note_control(self) -> None:
        """For the owner's commands, which find the configured address otherwise."""
        with kept():
            self.home.disk.replace(CONTROL_FILE, str(Address(*self.control.address)).encode())

    async def _appear_later(self) -> None:
        await asyncio.sleep(REJOIN_S)
        await self._appear()

    def status(self) -> dict[str, object]:
        """What `xenonode status` shows."""
        capabilities = self.admission.capabilities
        return {
            **self._status(),
            "entity": self.held.credential.entity,
            "key": self.home.signer.public_key.hex(),
            "hypervisor": capabilities.uri,
            "virtualisation": capabilities.virtualisation,
            "notices": list(capabilities.notices),
            "holdings": describe_holdings(self.peer),
        }

    # -- advertising -------------------------------------------------------------------------------------

    def _advert(self) -> Envelope | None:
        return self.advertiser.current

    def _pending(self) -> tuple[str, ...]:
        return self.publisher.pending(self.advertiser.seq)

    def show_advert(self, peer: object, body: bytes, reply: Any) -> None:
        """Answer a search that probes this server."""
        advert = self.advertiser.current
        if advert is None:
            reply.busy(1_000)
        else:
            reply(advert.raw)

    async def _publish(self, *, gone: bool = False) -> None:
        credential = self.held.papers.credential
        envelope = self.advertiser.issue(self.env.now_ms(), self.location(), credential, gone=gone)
        outcome = await self.publisher.publish(envelope.raw)
        if outcome.pending:
            LOGGER.warning("advert %d is not durable yet in %s", outcome.seq, ", ".join(outcome.pending))
        else:
            self.advertiser.acknowledged()

    async def _publish_value(self, name: str, value: bytes, life_ms: int) -> int:
        overlay = (await self.peer.placement(dimension(self.peer.schema))).overlay
        now_ms = self.env.now_ms()
        return await publish(overlay, name, value, now_ms=now_ms, life_ms=life_ms, desk=self._desk)

    async def _publish_values_again(self) -> None:
        """What this node gives out itself is elsewhere now, and records say where."""
        for name, value, until_ms in self._desk.named():
            left_ms = until_ms - self.env.now_ms()
            try:
                if left_ms > 0:
                    await self._publish_value(name, value, left_ms)
            except XenoError as error:
                LOGGER.warning("readers of the value %r are still led to the former address: %s", name, error)

    async def _stay_published(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_CHECK_S)
            due = self.advertiser.due(self.env.now_ms(), self.location())
            if due or self.publisher.schema is not self.peer.schema:
                self.publisher.schema = self.peer.schema
                try:
                    await self._publish()
                except (RemoteError, XenoError, OSError) as error:
                    # A clock that is wrong for a while, a disk that is full: neither may end advertising for good.
                    LOGGER.warning("the advert cannot be renewed, and will be tried again: %s", error)
                    await asyncio.sleep(RETRY_MS / 1_000)

    async def _stay_shown(self) -> None:
        """Once a period, look in one dimension whether holders show the advert; where one hides it, or somebody was
        convicted, in all: liars lie everywhere, and are convicted the sooner."""
        rng = self.env.rng("canary")
        while True:
            if not await self._convicted_within(self._advert_period_s * rng.uniform(0.5, 1.5)):
                names = self._shown()
                if not names or await self._shown_in(rng.choice(names), rng):
                    continue
            for name in self._shown():
                await asyncio.sleep(HIDDEN_LOOK_S)
                if self._convicted.is_set():
                    break
                await self._shown_in(name, rng)

    def _shown(self) -> list[str]:
        """Dimensions in which every search must find the advert, and in which holders can be looked at as others do."""
        return sorted(set(self.publisher.standing) - set(self.peer.left))

    async def _convicted_within(self, wait_s: float) -> bool:
        """Whether somebody is newly shunned; then only after others have what only those had, lest they be accused."""
        try:
            async with asyncio.timeout(wait_s):
                await self._convicted.wait()
        except TimeoutError:
            return False
        self._convicted.clear()
        before = self.advertiser.seq
        for _ in range(REPUBLISHED_LOOKS):
            await asyncio.sleep(PUBLISH_CHECK_S)
            if all(one.point.seq > before for one in self.publisher.standing.values()):
                break
        return True

    async def _shown_in(self, name: str, rng: Random) -> bool:
        """Look, and tell XenoCorp what was seen. Whether nobody hides it."""
        peer, standing = self.peer, self.publisher.standing.get(name)
        if standing is None:
            return True
        try:
            seen = await look(peer, peer.asker, peer.endpoint, name, standing, rng, peer.root_groups)
            told = [[key, shows] for key, shows in sorted(seen.items())]
            self._shun(await self._call_corp("holders.testify", {"dimension": name, "seen": told}))
        except (XenoError, ControlError) as error:
            LOGGER.info("holders were not looked at, or XenoCorp was not told: %s", error)
            return True
        return all(seen.values())

    async def _stay_told(self) -> None:
        """Ask XenoCorp whom to shun, several times a period: what only they had should not be missed for one."""
        while True:
            await asyncio.sleep(self._advert_period_s / TOLD_A_PERIOD)
            try:
                self._shun(await self._call_corp("holders.shunned", {}))
            except (XenoError, ControlError) as error:
                LOGGER.info("XenoCorp did not tell whom to shun: %s", error)

    def _shun(self, answer: dict[str, Any]) -> None:
        """Leave them alone; where that is news, what only they had is put into other hands."""
        before = self.peer.endpoint.shunned
        self.peer.shun(members_of(answer))
        if self.peer.endpoint.shunned - before:
            self.advertiser.changed()
            self._convicted.set()

    def location(self) -> Location:
        """Where it finds itself: its network coordinate."""
        return Location(*in_microseconds(self.peer.endpoint.coordinate))

    async def _withdraw(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._publish(gone=True)
        except (TimeoutError, RemoteError, XenoError) as error:
            LOGGER.warning("the advert could not be withdrawn and will expire: %s", error)

    # -- XenoCorp ----------------------------------------------------------------------------------------

    async def _bring(self, proof: Contradiction) -> None:
        await self._call_corp("fraud.report", {"first": proof.first, "second": proof.second})

    async def _call_corp(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        network = self.held.network
        return await self._pool.call(network.corp_control.pair, network.corp_key, method, body)

    def _renewed(self, held: Membership) -> None:
        self.held = held
        self.peer.renew(held.papers.credential)
        self.home.renew(self._transport, held.papers.certificate)


def registration(config: ServerConfig, network_id: bytes, now_ms: int) -> Registration:
    """Who a server's owner is, from its configuration."""
    return Registration(
        "server", config.legal_name, config.country, config.email, config.proof_reference, network_id, now_ms
    )


def _offer(config: ServerConfig, capabilities: Capabilities) -> Offer:
    return Offer(
        machine=config.share,
        kept=NO_RESOURCES,
        cores=config.cores,
        prices=config.prices,
        environments=environment_offers(capabilities, image_hash),
        receipt_period_min_ms=config.receipt_period_ms,
    )


def _names(stored: bytes) -> list[str]:
    return stored.decode("ascii", "replace").split()


def image_hash(image_id: str) -> bytes:
    """What an agreement names an image by: the hash of its id, which itself ends in the hash of its parts."""
    return hashlib.sha256(image_id.encode()).digest()
