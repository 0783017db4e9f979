"""Configuration to a running node: the one place where the parts are joined.

`CorpNode` is XenoCorp, `ServerNode` a XenoServer; both are servers of every dimension's overlay. Leaves every
decision to the parts. A start that fails half-way undoes what it began, and so does `close`; guests live on.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from dht.contradictions import Contradiction
from dht.envelope import Envelope
from dht.errors import RemoteError
from dht.identity import Signer
from dht.metrics import republish_alarm
from dht.reachability import UNREACHABLE
from hypervisor import remote
from hypervisor.adapter import Hypervisor
from hypervisor.forwarded import ForwardedHypervisor
from xenonode import membership
from xenonode.config import CorpConfig, ServerConfig
from xenonode.control.errors import ControlError
from xenonode.control.pool import ConnectionPool
from xenonode.control.server import Caller, Server, serve
from xenonode.control.stream import Transport
from xenonode.control.tls import Authority, issue, make_authority
from xenonode.corp import founding
from xenonode.corp.database import open_database
from xenonode.corp.errors import RefusedError
from xenonode.corp.founding import Founded
from xenonode.corp.members import Certify
from xenonode.corp.service import CorpService
from xenonode.corp.store import Store
from xenonode.corp.terms import Terms
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.first_schema import first_schema
from xenonode.growing import SchemaDesk
from xenonode.home import AUTHORITY, OPERATOR_CERTIFICATE, Home, LiveHome
from xenonode.known_peers import known_peers, remember_peers
from xenonode.membership import Membership, Papers, check
from xenonode.model.advert import Location
from xenonode.model.entity import Address, Registration
from xenonode.model.resources import NO_RESOURCES
from xenonode.model.schema import PublishedSchema
from xenonode.peer import EXTENSIONS_FILE, Peer, describe_holdings
from xenonode.search.kinds import ADVERT
from xenonode.search.measuring import in_microseconds
from xenonode.search.publishing import Publisher
from xenonode.server.admission import Admission, Offer, environment_offers
from xenonode.server.advertising import AdvertFacts, Advertiser
from xenonode.server.audit_log import AuditLog
from xenonode.server.journal import Journal
from xenonode.server.ports import ControlCorp
from xenonode.server.quoting import QuoteDesk
from xenonode.server.service import ANONYMOUS, ServerService
from xenonode.server.sessions import SessionManager

LOGGER = logging.getLogger("xenonode.node")
REPORTS_MAX = 256
"""Contradictions that one node brings to XenoCorp while it runs: XenoCorp keeps 16 of each liar's."""
CORP_ANONYMOUS = ("info", "register")
PUBLISH_CHECK_S = 1.0
PUBLISH_AGAIN_S = 5.0
REACHED_LOOKS, REACHED_AGAIN_S = 3, 5.0
"""Where many servers start together, those who were to call have often met this one just before: then nobody strange
comes, and one look would refuse a server that all can reach (found by a simulated seed)."""
FAREWELL_S = 5.0
"""A server that stops withdraws its advert, but does not wait long for holders that do not answer."""
REMEMBER_PEERS_S = 30.0
ADDRESS_LOOK_S = 30.0
REACHABLE_LOOK_S = 1_800.0
"""How often strangers are asked to call again while nothing seems to have changed: some twenty datagrams."""
REJOIN_S = 5.0
"""A join itself takes some twenty seconds to give up, so this adds little traffic to an absent network."""
FORWARDED_PORTS = "ports.json"
"""Which port of the control address leads to which guest. With a control address on loopback all clients are on this
machine, and reach guests where they are."""
EMBED = "embed"
EMBED_URI = "qemu:///embed"


class Node:
    """What XenoCorp and XenoServers share: a peer, a control server, and an orderly end."""

    role: str

    def __init__(self, env: Env, home: Home) -> None:
        self.env, self.home = env, home
        self.peer: Peer
        self.control: Server
        self._ending = AsyncExitStack()
        self._reports = 0

    async def close(self) -> None:
        """Stop in order. Guests go on running."""
        await self._ending.aclose()

    async def _open(self, held: Membership, udp: Address) -> None:
        peer = self.peer = Peer(
            self.env, self.home.signer, held.papers.credential, held.trust, held.published, client=False
        )
        self._ending.push_async_callback(peer.close)
        peer.growth.restore(self.home.disk.read(EXTENSIONS_FILE), self.env.now_ms())
        peer.on_growth = self._grown
        peer.endpoint.contradictions.listen(self._contradicted)
        await peer.open(udp.pair, known_peers(self.home))

    def _grown(self) -> None:
        """The schema has a new dimension: remember it for the next start."""
        self.home.disk.replace(EXTENSIONS_FILE, self.peer.growth.stored())

    def _contradicted(self, proof: Contradiction) -> None:
        """Somebody signed two records with one sequence number: XenoCorp keeps the proof."""
        if self._reports < REPORTS_MAX:
            self._reports += 1
            LOGGER.warning("key %s contradicts itself in record %d", proof.owner.hex(), proof.seq)
            self.env.spawn(self._report(proof), "report a contradiction")

    async def _report(self, proof: Contradiction) -> None:
        """Bring a proof to XenoCorp; one that it does not want is dropped."""
        try:
            await self._bring(proof)
        except (ControlError, RefusedError) as error:
            LOGGER.warning("the proof against %s was not taken: %s", proof.owner.hex(), error)

    async def _bring(self, proof: Contradiction) -> None:
        """Hand a proof to XenoCorp, as each role can."""

    async def _join(self) -> None:
        await self._check_reachable()
        await self.peer.join()
        self._ending.callback(remember_peers, self.home, self.peer)
        self._ending.callback(self.env.spawn(self._stay_in_touch(), "remember peers").cancel)
        self._ending.callback(self.env.spawn(self._stay_reachable(), "look whether others reach us").cancel)

    async def _check_reachable(self) -> None:
        """Raise XenoError where others cannot reach this node, as far as a role may not be so.

        Before it joins: in a small network there are no strangers left afterwards.
        """
        await self._reached()

    async def _reached(self) -> str:
        """Whether others reach this node, told where they do not; on loopback nobody is asked."""
        endpoint = self.peer.endpoint
        if ip_address(endpoint.address[0]).is_loopback:
            return endpoint.reachability
        if not self.peer.overlays():
            await self.peer.meet_seeds()
        verdict = await endpoint.examine_reachability()
        if verdict == UNREACHABLE:
            LOGGER.warning("%s", endpoint.reachability_advice)
        return verdict

    def _reachability(self) -> str:
        endpoint = self.peer.endpoint
        return "this machine only" if ip_address(endpoint.address[0]).is_loopback else endpoint.reachability

    async def _stay_reachable(self) -> None:
        """Look again now and then, and soon after others see this node elsewhere than before."""
        seen, looked_s = self.peer.endpoint.observed_address, asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(ADDRESS_LOOK_S)
            now, now_s = self.peer.endpoint.observed_address, asyncio.get_running_loop().time()
            moved = now is not None and now != seen
            if moved or now_s >= looked_s + REACHABLE_LOOK_S:
                if moved and seen is not None:
                    LOGGER.warning("others see this node at %s now, and no longer at %s", now, seen)
                seen, looked_s = now or seen, now_s
                await self._reached()

    async def _stay_in_touch(self) -> None:
        """A seed that came back from a crash without these addresses would begin a network of its own."""
        while True:
            await asyncio.sleep(REMEMBER_PEERS_S)
            remember_peers(self.home, self.peer)

    async def _serve(self, address: Address, transport: Transport, handlers: Any, anonymous: tuple[str, ...]) -> None:
        methods = {**handlers, "metrics": self._metrics}
        try:
            self.control = await serve(*address.pair, methods, transport=transport, anonymous=anonymous)
        except OSError as error:
            raise XenoError(
                f"control port {address} cannot be opened: {error.strerror}",
                "another program may use it: stop it, or set another control = \"...\" in the configuration",
                "port_in_use",
            ) from error
        self._ending.push_async_callback(self.control.close)

    async def _metrics(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        """For any member: counts and times of this node's network, which name nobody."""
        endpoint = self.peer.endpoint
        return {"text": endpoint.metrics(), "alarm": republish_alarm(endpoint)}

    def _status(self) -> dict[str, object]:
        return {
            "republish_alarm": republish_alarm(self.peer.endpoint),
            "role": self.role,
            "udp": "{}:{}".format(*self.peer.endpoint.address),
            "reachability": self._reachability(),
            "control": "{}:{}".format(*self.control.address),
            "dimensions": len(self.peer.holdings),
        }


class CorpNode(Node):
    """XenoCorp: the trusted third party, and a peer like any other."""

    role = "corp"

    @classmethod
    async def found(cls, config: CorpConfig, env: Env) -> Path:
        """Make keys, ledger and network file in the configured folder; return the network file's path."""
        path = config.folder / founding.NETWORK_FILE
        if not path.exists():
            founding.initialise(config.folder, config, lambda signer: make_schema(config, signer, env), env.now_ms())
        return path

    @classmethod
    async def start(cls, config: CorpConfig, env: Env) -> Self:
        """Serve from the configured folder. Raises XenoError."""
        founded = founding.load(config.folder)
        home = LiveHome(config.folder, signer=founded.keys.node)
        try:
            store = Store(open_database(founded.ledger), threaded=True)
        except BaseException:
            home.leave()
            raise
        seed = founding.authority_seed(founded.keys.issuing)
        authority = make_authority(seed, name=config.public_name, now_ms=env.now_ms())
        return await cls.run(config, env, home, founded, store, partial(certify, authority), authority.certificate_pem)

    @classmethod
    async def run(
        cls,
        config: CorpConfig,
        env: Env,
        home: Home,
        founded: Founded,
        store: Store,
        certify: Certify,
        authority_pem: bytes,
    ) -> Self:
        """Serve from these parts, which end with the node. `certify` makes what members show on connections."""
        node = cls(env, home)
        node._ending.callback(home.leave)
        node._ending.push_async_callback(store.close)
        try:
            await node._start(config, founded, store, certify, authority_pem)
        except BaseException:
            await node.close()
            raise
        return node

    async def _start(
        self, config: CorpConfig, founded: Founded, store: Store, certify: Certify, authority_pem: bytes
    ) -> None:
        env, keys = self.env, founded.keys
        self.service = CorpService(
            keys,
            founded.network,
            founded.schema,
            store,
            scheme=env.scheme,
            now_ms=env.now_ms,
            rng=env.rng("corp"),
            terms=Terms.of(config),
            certify=certify,
            authority_pem=authority_pem,
        )
        own = await self.service.enrol(keys.node.public_key)
        self._authority, self._operator = authority_pem, keys.operator.public_key
        await self._admit_operator()
        papers = Papers(founded.network, own.credential, own.certificate, authority_pem, founded.schema)
        held = check(papers, keys.node.public_key, env.scheme, env.now_ms())
        transport = self.home.transport(papers.certificate, [papers.authority])
        await self._open(held, config.udp)
        await self._join()
        desk = SchemaDesk(self.peer, keys.issuing, keys.operator.public_key)
        handlers = {**self.service.handlers, **desk.handlers}
        await self._serve(config.control, transport, handlers, CORP_ANONYMOUS)
        sweeping = env.spawn(self.service.run(), "corp sweep")
        renewing = env.spawn(self._stay_member(transport, own.credential), "renew own credential")
        self._ending.callback(sweeping.cancel)
        self._ending.callback(renewing.cancel)

    async def _bring(self, proof: Contradiction) -> None:
        await self.service.note_equivocation(proof.first, proof.second)

    async def _admit_operator(self) -> None:
        """Leave in the folder what the operator's commands need to connect; a new certificate at every half-life."""
        operator = await self.service.enrol(self._operator)
        if self.home.disk.read(OPERATOR_CERTIFICATE) != operator.certificate:
            self.home.disk.replace(AUTHORITY, self._authority)
            self.home.disk.replace(OPERATOR_CERTIFICATE, operator.certificate)

    async def _stay_member(self, transport: Transport, credential: bytes) -> None:
        while True:
            await asyncio.sleep(membership.RENEW_CHECK_S)
            await self._admit_operator()
            own = await self.service.enrol(self.home.signer.public_key)
            if own.credential != credential:
                credential = own.credential
                self.peer.endpoint.renew(own.credential)
                self.home.renew(transport, own.certificate)

    def status(self) -> dict[str, object]:
        """What `xenonode status` shows."""
        return self._status()


class ServerNode(Node):
    """A XenoServer: advertises, quotes, hosts sessions, meters, claims."""

    role = "server"

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
                hypervisor = ForwardedHypervisor(hypervisor, config.control.host, root / FORWARDED_PORTS)
        except BaseException:
            home.leave()
            raise
        return await cls.run(config, env, home, network, hypervisor)

    @classmethod
    async def run(cls, config: ServerConfig, env: Env, home: Home, network: bytes, hypervisor: Hypervisor) -> Self:
        """Serve from these parts, which end with the node."""
        node = cls(env, home)
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
        self._transport = transport = home.transport(held.papers.certificate, [held.papers.authority])
        self._pool = ConnectionPool(transport)
        self._ending.push_async_callback(self._pool.close)

        offer = Offer(
            machine=config.share,
            kept=NO_RESOURCES,
            cores=config.cores,
            prices=config.prices,
            environments=environment_offers(capabilities, image_hash),
            receipt_period_min_ms=config.receipt_period_ms,
        )
        self.admission = admission = Admission(offer, capabilities)
        journal, audit = Journal(home.disk), AuditLog(home.disk, signer, env.scheme)
        await self._open(held, config.udp)
        facts = AdvertFacts(
            config.country,
            config.region,
            Address(*self.peer.endpoint.address),
            config.control,
            config.features,
            started_ms,
            held.published.epoch,
            config.advert_period_ms,
        )
        self.advertiser = advertiser = Advertiser(signer, journal, admission, facts)
        self.sessions = manager = SessionManager(
            env=env,
            signer=signer,
            trust=held.trust,
            hypervisor=hypervisor,
            admission=admission,
            journal=journal,
            audit=audit,
            corp=ControlCorp(self._call_corp),
            changed=advertiser.changed,
        )
        await manager.start()
        self._ending.push_async_callback(manager.close)
        desk = QuoteDesk(signer, env.scheme, admission, audit, self._advert, env.now_ms)
        service = ServerService(manager, desk, admission, audit, self._advert, signer.public_key)
        await self._serve(config.control, transport, service.handlers(), ANONYMOUS)
        self.publisher = Publisher(self.peer.schema, self.peer.adverts, self.peer.asker, env)
        self.peer.endpoint.handle(ADVERT, self._show_advert)
        await self._appear()
        staying = membership.stay(home, env, held, self._call_corp, partial(registration, config), self._renewed)
        self._ending.callback(env.spawn(staying, "renew credential").cancel)

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

    async def _check_reachable(self) -> None:
        for _ in range(REACHED_LOOKS):
            if await self._reached() != UNREACHABLE:
                return
            await asyncio.sleep(REACHED_AGAIN_S)
        if self.peer.endpoint.reachability == UNREACHABLE:
            next_step = "then start this server again; 'xenonode doctor' looks at the rest"
            raise XenoError(self.peer.endpoint.reachability_advice, next_step, "unreachable")

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

    def _show_advert(self, peer: object, body: bytes, reply: Any) -> None:
        advert = self.advertiser.current
        if advert is None:
            reply.busy(1_000)
        else:
            reply(advert.raw)

    async def _publish(self, *, gone: bool = False) -> None:
        credential = self.held.papers.credential
        envelope = self.advertiser.issue(self.env.now_ms(), self._location(), credential, gone=gone)
        outcome = await self.publisher.publish(envelope.raw)
        if outcome.pending:
            LOGGER.warning("advert %d is not durable yet in %s", outcome.seq, ", ".join(outcome.pending))

    async def _stay_published(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_CHECK_S)
            due = self.advertiser.due(self.env.now_ms(), self._location())
            if due or self.publisher.schema is not self.peer.schema:
                self.publisher.schema = self.peer.schema
                try:
                    await self._publish()
                except (RemoteError, XenoError, OSError) as error:
                    # A clock that is wrong for a while, a disk that is full: neither may end advertising for good.
                    LOGGER.warning("the advert cannot be renewed, and will be tried again: %s", error)
                    await asyncio.sleep(PUBLISH_AGAIN_S)

    def _location(self) -> Location:
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
        self.peer.endpoint.renew(held.papers.credential)
        self.home.renew(self._transport, held.papers.certificate)


def certify(authority: Authority, key: bytes, entity: str, role: str, not_before_ms: int, expires_ms: int) -> bytes:
    """A member's X.509 certificate, which lives exactly as long as its credential."""
    return issue(authority, key, name=entity, now_ms=not_before_ms, lifetime_ms=expires_ms - not_before_ms)


def registration(config: ServerConfig, network_id: bytes, now_ms: int) -> Registration:
    """Who a server's owner is, from its configuration."""
    return Registration(
        "server", config.legal_name, config.country, config.email, config.proof_reference, network_id, now_ms
    )


def image_hash(image_id: str) -> bytes:
    """What an agreement names an image by: the hash of its id, which itself ends in the hash of its parts."""
    return hashlib.sha256(image_id.encode()).digest()


def make_schema(config: CorpConfig, signer: Signer, env: Env) -> bytes:
    """The first schema of a network: its breakpoints are those of the real catalogue's machines and prices."""
    return PublishedSchema.of(first_schema(), config.leaf_capacity, env.now_ms()).seal(signer).raw
