"""What a client can do, on one configuration: register, order, search, quote, lease, log in, account.

A light query peer: it opens its UDP socket and joins an overlay only when a search needs them, keeps no listening
state, and starts in well under a second. Raises XenoError (and ControlError, which carries the same three fields).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from dht import wire
from dht.contact import Contact
from dht.contradictions import Contradiction
from dht.errors import RemoteError
from dht.routing import K
from dht.tracing import Hop, trace
from summaries.idset import IdSet
from xenonode import membership
from xenonode.client.finding import Finding, understood
from xenonode.client.opening import Progress
from xenonode.client.operator import Operator
from xenonode.client.records import Records, SessionView
from xenonode.client.saved import Saved, SavedSearch
from xenonode.client.sessions import Sessions
from xenonode.client.ssh import LoginKey, own_key, ssh_argv
from xenonode.config import ClientConfig, CorpConfig
from xenonode.control.client import connect
from xenonode.control.errors import ControlError
from xenonode.control.pool import ConnectionPool
from xenonode.corp import founding
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.home import AUTHORITY, OPERATOR_CERTIFICATE, Home, LiveHome
from xenonode.known_peers import known_peers, remember_peers
from xenonode.membership import AWAY, Membership, corp_away, read_network
from xenonode.model.advert import OfferedEnvironment, VerifiedAdvert, verify_advert
from xenonode.model.entity import Address, Credential, Registration
from xenonode.model.errors import ModelError
from xenonode.model.money import OrderRelease, PurchaseOrder, Settlement, Statement, parse_amount
from xenonode.model.resources import Prices, Resources
from xenonode.model.session import RECEIPT_PERIOD_MS, Quote, QuoteRequest, Refusal, UsageRecord
from xenonode.peer import EXTENSIONS_FILE, Peer
from xenonode.search.looking import members_of
from xenonode.search.searching import SearchAnswer

LOGGER = logging.getLogger("xenonode.client")
REPORTS_MAX = 16
"""Proofs of contradictions that one client brings to XenoCorp: servers, who meet all adverts, bring more."""
ORDER_LIFE_MS = 86_400_000
PLACES_FILE = "places"
"""In the client's state: where hosts that are no members are, as servers measured it within the last hour."""
SHUNNED_FILE = "shunned"
"""In the client's state: whom XenoCorp had all members shun, when it was last asked."""


@dataclass(frozen=True, slots=True)
class SignedQuote:
    """A server's quote with its signature, and where the server is."""

    quote: Quote
    raw: bytes
    server: bytes
    control: Address
    lease_ms: int


@dataclass(frozen=True, slots=True)
class ShownAdvert:
    """What a server shows of itself, and in which dimensions, by its own word, searches may not find it yet."""

    advert: VerifiedAdvert
    pending: tuple[str, ...]

    @classmethod
    def of(cls, advert: VerifiedAdvert, pending: object) -> Self:
        """From an answer, whose sender may be of an earlier version and say nothing. Raises XenoError."""
        names = [] if pending is None else pending
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise XenoError("the server's answer has no list of dimensions", "take another server", "bad_peer")
        return cls(advert, tuple(names))


class Client:
    """See the module."""

    def __init__(
        self, config: ClientConfig, env: Env, home: Home, network: bytes, login_key: LoginKey = own_key
    ) -> None:
        self._config, self._env, self._home, self._network = config, env, home, network
        self._login_key = login_key
        self._trust = read_network(network, env.scheme, str(config.network))
        self.records = Records(home.disk)
        self._membership: Membership | None = None
        self._pool: ConnectionPool | None = None
        self._renew_again_ms = 0
        self._peer: Peer | None = None
        self._reports = 0
        self.saved = Saved(home.disk)
        self.finding = Finding(self.records, self.saved, self._joined)
        self.sessions = Sessions(home.signer, env, self._trust, self.records, self._call_corp, self._call_server)

    @classmethod
    async def open(cls, config: ClientConfig, env: Env) -> Self:
        """A client on its configured folder; nothing is sent yet. Raises XenoError."""
        try:
            network = config.network.read_bytes()
        except OSError as error:
            raise XenoError(
                f"network file {config.network} cannot be read: {error.strerror}",
                "get it from XenoCorp ('xenonode corp init' makes it), and set network = \"...\"",
                "network",
            ) from error
        return cls(config, env, LiveHome(config.folder, exclusive=False), network)

    @staticmethod
    async def open_operator(config: CorpConfig, env: Env) -> Operator:
        """XenoCorp's operator, on XenoCorp's own machine. Raises XenoError."""
        founded = founding.load(config.folder)
        trust = read_network(founded.network, env.scheme, str(config.folder / founding.NETWORK_FILE))
        home = LiveHome(config.folder, exclusive=False, signer=founded.keys.operator)
        certificate, authority = home.disk.read(OPERATOR_CERTIFICATE), home.disk.read(AUTHORITY)
        if not certificate:
            message = "XenoCorp has not run in this folder yet"
            raise XenoError(message, "start it: xenonode corp serve", "not_running")
        return await Operator.open(env, trust.network, home.transport(certificate, [authority]))

    async def close(self) -> None:
        """Hang up; sessions go on."""
        if self._peer is not None:
            remember_peers(self._home, self._peer)
            await self._peer.close()
        if self._pool is not None:
            await self._pool.close()
        self._home.leave()

    # -- who we are --------------------------------------------------------------------------------------

    async def register(self) -> Credential:
        """Register with XenoCorp, or fetch the grant again."""
        lacking = [name for name in ("legal_name", "country", "email", "proof_reference") if not self._identity(name)]
        if lacking:
            settings = ", ".join(f"owner.{name}" for name in lacking)
            raise XenoError(f"not known yet: {settings}", "write them into the configuration, or use --set", "identity")
        self._accept(await membership.register(self._home, self._env, self._trust, self._registration))
        return self._member().credential

    def _identity(self, name: str) -> str:
        return str(getattr(self._config, name)).strip()

    def _registration(self, network_id: bytes, now_ms: int) -> Registration:
        config = self._config
        try:
            return Registration(
                "client", config.legal_name, config.country, config.email, config.proof_reference, network_id, now_ms
            )
        except ModelError as error:
            raise XenoError(str(error), "correct the [owner] part of the configuration", "identity") from error

    def _member(self) -> Membership:
        """Our checked papers. Raises XenoError where there are none, or they have expired."""
        if self._membership is None:
            papers = membership.stored(self._home)
            if papers is None:
                raise XenoError("this client is not registered yet", "run: xenonode register", "not_registered")
            try:
                key, scheme = self._home.signer.public_key, self._env.scheme
                self._accept(membership.check(papers, key, scheme, self._env.now_ms()))
            except RemoteError as error:
                raise XenoError(str(error), "run: xenonode register", "credential") from error
        assert self._membership is not None
        return self._membership

    def _accept(self, held: Membership) -> None:
        self._membership = held
        self._transport = self._home.transport(held.papers.certificate, [held.papers.authority])
        self._pool = ConnectionPool(self._transport)

    async def _stay_member(self) -> ConnectionPool:
        """Fresh papers once half of their life is over, since an agent may run for weeks; the way to others."""
        held, now_ms = self._member(), self._env.now_ms()
        pool = self._pool
        assert pool is not None  # made together with the membership
        if held.half_spent(now_ms) and now_ms >= self._renew_again_ms:
            self._renew_again_ms = now_ms + int(membership.RENEW_CHECK_S * 1000)
            corp = held.network
            call = partial(pool.call, corp.corp_control.pair, corp.corp_key)
            try:
                held = await membership.refresh(self._home, self._env, held, call, self._registration)
            except (ControlError, XenoError) as error:
                LOGGER.warning("the credential could not be renewed, and is tried again: %s", error)
            else:
                self._membership = held
                self._home.renew(self._transport, held.papers.certificate)
                if self._peer is not None:
                    self._peer.endpoint.renew(held.papers.credential)
        return pool

    # -- money -------------------------------------------------------------------------------------------

    async def order_create(
        self,
        amount: str,
        *,
        expires_in_ms: int = ORDER_LIFE_MS,
        allowed_servers: tuple[bytes, ...] = (),
        price_caps: Prices | None = None,
        rate_cap: int | None = None,
        server_cap: int | None = None,
        sessions_max: int = 8,
    ) -> dict[str, Any]:
        """Commit money to sessions: XenoCorp checks the credit and ring-fences it. The order's state."""
        now_ms = self._env.now_ms()
        try:
            nano, currency = parse_amount(amount)
            nonce = self._env.rng("client.nonce").randbytes(16)
            order = PurchaseOrder(
                nonce, nano, currency, now_ms, now_ms + expires_in_ms, allowed_servers, price_caps, rate_cap,
                server_cap, sessions_max,
            )  # fmt: skip
        except ModelError as error:
            raise XenoError(str(error), "write an amount and its currency, e.g. '5 USD'", "bad_order") from error
        return _state(await self._call_corp("order.create", {"order": order.seal(self._home.signer).raw}))

    async def order_show(self, order: str) -> dict[str, Any]:
        """What became of an order's money."""
        await self.sessions.recover()
        return _state(await self._call_corp("order.show", {"order": await self._order_id(order)}))

    async def order_list(self) -> list[dict[str, Any]]:
        """This client's orders, the newest first."""
        await self.sessions.recover()
        return [_state(each) for each in (await self._call_corp("order.list", {}))["orders"]]

    async def order_release(self, order: str) -> dict[str, Any]:
        """End an order: what no session holds comes back at once."""
        await self.sessions.recover()
        release = OrderRelease(await self._order_id(order), self._env.now_ms()).seal(self._home.signer)
        return _state(await self._call_corp("order.release", {"release": release.raw}))

    async def statement(self, currency: str) -> Statement:
        """This client's account, as XenoCorp signs it."""
        raw = (await self._call_corp("statement", {"currency": currency}))["statement"]
        found, envelope = Statement.open(raw, self._trust.scheme)
        self._trust.issued(envelope, self._env.now_ms())
        return found

    async def _order_id(self, text: str) -> bytes:
        """An order by its whole id, or by its first digits."""
        wanted = text.strip().lower()
        if len(wanted) == 32 and all(letter in "0123456789abcdef" for letter in wanted):
            return bytes.fromhex(wanted)
        found = [
            str(each["order"]) for each in await self.order_list() if wanted and str(each["order"]).startswith(wanted)
        ]
        if len(found) != 1:
            message = f"{len(found) or 'no'} orders begin with {text!r}"
            raise XenoError(message, "see yours with 'xenonode order list'", "unknown_order")
        return bytes.fromhex(found[0])

    # -- finding servers ---------------------------------------------------------------------------------

    async def search(
        self,
        text: str,
        *,
        strict: bool = True,
        doubting: bool = False,
        currency: str = "USD",
        explain: bool = False,
        exclude: Sequence[str] = (),
        within: Sequence[str] = (),
    ) -> SearchAnswer:
        """Servers that match, best first; every one's own signed advert was checked. `explain`: and why it is so.

        `exclude` and `within` name saved sets: servers of none of the first, and of all of the second.
        """
        query = understood(text, currency)
        without, only = self.saved.union(exclude), self.saved.intersection(within)
        peer = await self._joined()
        answer = await peer.searcher.search(
            query, strict=strict, doubting=doubting, explain=explain, exclude=without, within=only
        )
        self.records.keep_found([each.advert for each in answer.servers])
        return answer

    def save_search(self, name: str, text: str, answer: SearchAnswer) -> SavedSearch:
        """Keep a query and which servers it found."""
        servers = IdSet(each.advert.row_id for each in answer.servers)
        return self.saved.keep(name, text, servers, answer.complete, self._env.now_ms())

    def combine_saved(self, name: str, operation: str, first: str, second: str) -> SavedSearch:
        """Keep the union, intersection or difference of two saved sets."""
        servers, complete = self.saved.combine(operation, first, second)
        return self.saved.keep(name, "", servers, complete, self._env.now_ms())

    async def advert(self, server: str) -> VerifiedAdvert:
        """A server's own current advert, by the first digits of its key or by HOST:PORT of its control connection."""
        return (await self.shown_advert(server)).advert

    async def shown_advert(self, server: str) -> ShownAdvert:
        """The same, and where searches may not find it yet."""
        place = Address.parse(server)
        key, address = self.records.found(server) if place is None else (None, place.pair)
        member = self._member()
        transport = self._home.transport(member.papers.certificate, [member.papers.authority])
        connection = await connect(*address, key, transport=transport)
        try:
            answer = await connection.call("advert", {})
            found = verify_advert(answer["advert"], self._trust, self._env.now_ms())
            if found.server_key != connection.peer_key:
                raise XenoError("the server showed another server's advert", "do not use this server", "bad_peer")
        except RemoteError as error:
            raise XenoError(f"the server's advert does not hold: {error}", "take another server", "advert") from error
        finally:
            await connection.close()
        self.records.keep_found([found])
        return ShownAdvert.of(found, answer.get("pending"))

    def peers(self) -> list[dict[str, object]]:
        """Servers that this client has met in the overlays."""
        if self._peer is None:
            return []
        rows: list[dict[str, object]] = []
        for overlay in self._peer.overlays():
            for info in overlay.peers():
                host, port = info.contact.address
                rtt = None if info.rtt_ms is None else round(info.rtt_ms, 2)
                rows.append(
                    {
                        "dimension": overlay.dimension,
                        "address": f"{host}:{port}",
                        "entity": info.entity,
                        "rtt_ms": rtt,
                        "node_id": info.contact.node_id.hex(),
                    }
                )
        return rows

    async def meet_peers(self) -> list[dict[str, object]]:
        """Join the overlays of all dimensions, and list whom that meets."""
        peer = await self._joined()
        for dimension in peer.schema.dimensions:
            await peer.placement(dimension.name)
        return self.peers()

    async def lookup(self, key: bytes, dimension: str = "") -> tuple[list[Hop], list[Contact]]:
        """Look up who is nearest to a key in one dimension's overlay: every question on the way, and what was found."""
        peer = await self._joined()
        names = [each.name for each in peer.schema.dimensions]
        if (dimension or names[0]) not in names:
            raise XenoError(f"there is no dimension {dimension!r}", f"take one of {', '.join(names)}", "bad_request")
        placement = await peer.placement(dimension or names[0])
        return await trace(placement.overlay, key, K)

    async def metrics(self, server: str = "") -> dict[str, Any]:
        """What a node (XenoCorp's by default) counts and measures: Prometheus text, and an alarm if there is one."""
        if not server:
            return await self._call_corp("metrics", {})
        found = await self.advert(server)
        return await self._call_server(found.server_key, found.advert.control.pair, "metrics", {})

    def _contradicted(self, proof: Contradiction) -> None:
        """A server signed two adverts with one number: XenoCorp keeps the proof, if it can be reached."""
        if self._reports < REPORTS_MAX:
            self._reports += 1
            LOGGER.warning("server %s contradicts itself in advert %d", proof.owner.hex(), proof.seq)
            self._env.spawn(self._report(proof), "report a contradiction")

    async def _report(self, proof: Contradiction) -> None:
        try:
            await self._call_corp("fraud.report", {"first": proof.first, "second": proof.second})
        except (XenoError, ControlError) as error:
            LOGGER.warning("the proof against %s was not taken: %s", proof.owner.hex(), error)

    async def _learn_whom_to_shun(self, peer: Peer) -> None:
        """Take over whom XenoCorp found to hide adverts; until it is reached, what it said when it last was."""
        raw = self._home.disk.read(SHUNNED_FILE)
        with contextlib.suppress(RemoteError):  # what is damaged is learnt anew
            peer.endpoint.shun(members_of({"shunned": wire.unpack(raw or b"\x90")}))
        try:
            members = members_of(await self._call_corp("holders.shunned", {}))
            peer.endpoint.shun(members)
            packed = wire.pack([list(one) for one in members])
            if packed != raw:
                self._home.disk.replace(SHUNNED_FILE, packed)
        except (XenoError, ControlError, OSError) as error:
            LOGGER.info("XenoCorp did not tell whom to shun, or it cannot be kept: %s", error)

    async def _joined(self) -> Peer:
        if self._peer is None:
            held = self._member()
            peer = Peer(self._env, self._home.signer, held.papers.credential, held.trust, held.published, client=True)
            peer.endpoint.contradictions.listen(self._contradicted)
            udp = self._config.udp
            await peer.start(("0.0.0.0", 0) if udp is None else udp.pair, known_peers(self._home))
            now_ms = self._env.now_ms()
            peer.growth.restore(self._home.disk.read(EXTENSIONS_FILE), now_ms)
            peer.on_growth = lambda: self._home.disk.replace(EXTENSIONS_FILE, peer.growth.stored())
            landmarks = peer.searcher.landmarks
            landmarks.restore(self._home.disk.read(PLACES_FILE))
            landmarks.on_change = lambda: self._home.disk.replace(PLACES_FILE, landmarks.stored())
            await peer.ask_for_news()
            self._peer = peer
            self._env.spawn(self._learn_whom_to_shun(peer), "whom to shun")
        return self._peer

    # -- sessions ----------------------------------------------------------------------------------------

    async def quote(
        self, server: bytes, resources: Resources, environment: OfferedEnvironment, lease_ms: int
    ) -> SignedQuote | Refusal:
        """Ask a server that was found whether it would host this: a quote held for a minute, or its reasons."""
        _, address = self.records.found(server.hex())
        nonce = self._env.rng("client.nonce").randbytes(16)
        try:
            request = QuoteRequest(nonce, server, resources, environment, lease_ms, self._env.now_ms())
        except ModelError as error:
            raise XenoError(str(error), "ask for more", "bad_request") from error
        sealed = request.seal(self._home.signer)
        answer = await self._call_server(server, address, "quote", {"request": sealed.raw})
        scheme = self._trust.scheme
        if "refusal" in answer:
            return Refusal.open(answer["refusal"], scheme, signed_by=server)[0]
        quote, _ = Quote.open(answer["quote"], scheme, signed_by=server)
        if quote.request != sealed.id or quote.resources != resources or quote.environment != environment:
            raise XenoError("the server quoted something else than was asked", "do not use this server", "bad_peer")
        return SignedQuote(quote, answer["quote"], server, Address(*address), lease_ms)

    async def decline(self, quote: SignedQuote) -> None:
        """Give back what a server holds for a quote that will not be used."""
        await self.sessions.decline(quote.server, quote.control, quote.raw)

    async def session_create(
        self,
        order: str,
        quote: SignedQuote,
        *,
        authorized_keys: Sequence[str] = (),
        hostname: str = "xenonode",
        receipt_period_ms: int = RECEIPT_PERIOD_MS,
        progress: Progress = lambda text: None,
    ) -> SessionView:
        """Reserve, sign, launch; returns when one can log in. Our own ssh key is always among those that may."""
        await self.sessions.recover()
        keys = dict.fromkeys([self._login_key(self.ssh_key, self._env), *authorized_keys])
        try:
            return await self.sessions.create(
                await self._order_id(order),
                quote.quote,
                quote.raw,
                quote.server,
                quote.control,
                lease_ms=quote.lease_ms,
                authorized_keys=tuple(keys),
                hostname=hostname,
                receipt_period_ms=receipt_period_ms,
                progress=progress,
            )
        except ModelError as error:
            raise XenoError(str(error), "correct the request", "bad_request") from error

    async def session_list(self) -> list[SessionView]:
        """This client's sessions on all servers."""
        await self.sessions.recover()
        return await self.sessions.list_all()

    async def session_show(self, id: str) -> SessionView:
        """One session now."""
        return await self.sessions.show(id)

    async def session_resize(self, id: str, resources: Resources) -> SessionView:
        """Give a running session other shares, at the agreed prices."""
        return await self.sessions.command(id, "resize", resources)

    async def session_pause(self, id: str) -> SessionView:
        """Stop its CPU; its memory stays and is billed."""
        return await self.sessions.command(id, "pause")

    async def session_resume(self, id: str) -> SessionView:
        """Let it go on."""
        return await self.sessions.command(id, "resume")

    async def session_stop(self, id: str, progress: Progress = lambda text: None) -> SessionView:
        """End it: final usage, receipt, settlement; the order's rest comes back."""
        return await self.sessions.end(id, progress)

    async def session_console(self, id: str) -> str:
        """What it wrote to its console."""
        return await self.sessions.console(id)

    async def ssh_command(self, id: str) -> list[str]:
        """The command that logs in, trusting only the host key in the signed start record."""
        start = await self.sessions.start_record(id)
        record = self.records.find(id)
        return ssh_argv(start, self.ssh_key, self._config.folder / f"known_hosts-{record.id.hex()}")

    async def cosign(self, id: str, *, until_final: bool = True, tell: Progress = lambda text: None) -> None:
        """Check and sign usage until the session's final record."""
        await self.sessions.cosign(id, tell)

    async def usage(self, id: str) -> UsageRecord | None:
        """The last usage record that the server signed; None before the first."""
        return await self.sessions.usage(id)

    async def settlements(self, id: str) -> list[Settlement]:
        """What XenoCorp settled for a session, as it signed it."""
        return await self.sessions.settlements(id)

    async def server_status(self, server: bytes) -> dict[str, Any]:
        """What a server that was found says of itself."""
        _, address = self.records.found(server.hex())
        return await self._call_server(server, address, "status", {})

    @property
    def ssh_key(self) -> Path:
        """The private ssh key of this client; a plain name is taken to be in its folder."""
        return self._config.folder / self._config.ssh_key

    # -- the rest ----------------------------------------------------------------------------------------

    async def status(self) -> dict[str, object]:
        """Who we are, of which network, and what is open."""
        held = membership.stored(self._home)
        network = self._trust.network
        found: dict[str, object] = {
            "role": "client",
            "folder": str(self._config.folder),
            "key": self._home.signer.public_key.hex(),
            "registered": held is not None,
            "network": network.network_id.hex(),
            "profile": network.profile,
            "xenocorp": str(network.corp_control),
            "sessions": len([record for record in self.records.sessions() if not record.closed]),
        }
        if held is not None:
            credential = self._member().credential
            found |= {"entity": credential.entity, "credential_expires_ms": credential.expires_ms}
            try:
                found["xenocorp_status"] = await self._call_corp("status", {})
            except ControlError as error:
                if error.code not in AWAY:
                    raise
                found["xenocorp_status"] = error.message  # the rest is known without it
        return found

    async def _call_corp(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        network = self._trust.network
        try:
            return await self._call_server(network.corp_key, network.corp_control.pair, method, body)
        except ControlError as error:
            raise corp_away(error, network) from error

    async def _call_server(
        self, key: bytes, address: tuple[str, int], method: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        pool = await self._stay_member()
        return await pool.call(address, key, method, body)


def _state(answer: dict[str, Any]) -> dict[str, Any]:
    """An order's state with ids as text, for people and JSON."""
    reservations = [
        {name: value.hex() if isinstance(value, bytes) else value for name, value in each.items()}
        for each in answer.get("reservations", [])
    ]
    plain = {name: value for name, value in answer.items() if name != "raw"}
    return {**plain, "order": answer["order"].hex(), "reservations": reservations}
