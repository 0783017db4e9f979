"""One UDP socket for all overlays of a node: the driver that moves datagrams, sessions and time-outs.

Decides nothing about overlays: it proves who peers are (`handshake`), keeps their sessions (`sessions`), and
carries requests (`calls`) and replies (`answering`) over the socket (`udp`). Every datagram is bounded, decoded,
authenticated and handled synchronously; whatever is wrong with it is counted in `counters` and dropped, never
raised.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from . import datagram, wire
from .answering import PING, Answering, Handler
from .calls import Callback, Calls, error_of, into
from .contact import Address, admits, may_be_translated
from .contradictions import Contradictions
from .coordinates import Coordinate
from .datagram import (
    HEADER,
    HEADER_BYTES,
    MAC_BYTES,
    MAX_DATAGRAM_BYTES,
    MIN_DATAGRAM_BYTES,
    REPLY,
    REQUEST,
    genuine,
    seal,
)
from .deadlines import Deadlines
from .early import THANKS
from .errors import DhtError, LocalError, PeerIdentityError, RemoteError, WireError
from .handshake import Handshaker, Member
from .identity import ED25519, X25519_EXCHANGE, KeyExchange, Scheme, Signer
from .limits import LIMITS
from .metrics import ROUND_TRIP_MS, Histogram, prometheus_text
from .overlay import Overlay
from .peers import Call, Peer, Session
from .reaching import Reaching
from .remembered import Remembered
from .reply import OK, REFUSED, Pong, Reply
from .reunion import Reunion
from .sessions import SESSION_LIMIT, Sessions
from .udp import UdpSocket
from .vitals import Vitals, unpack_vitals

# libtorrent's figure for a contact that has become questionable.
LIVENESS_IDLE_MS = 900_000
TICK_S = 15.0
# Peers that an overlay may come back through after an outage of everybody.
MAX_REMEMBERED = 64
# They change slowly, and sorting everybody at each tick was a third of what an idle node does.
REMEMBER_EACH_S = 120.0
# Faults that are logged with their trace; a peer that can provoke one must not fill the disk.
MAX_FAULTS_LOGGED = 64

_LOG = logging.getLogger("dht")
_NOBODY: frozenset[tuple[bytes, bytes]] = frozenset()


class Endpoint:
    """A node on the network: `await open(...)`, then `overlay(...)`, `ask`, `handle`, `ping`."""

    def __init__(
        self,
        signer: Signer,
        credential: bytes,
        member_check: Callable[[bytes, int], Member],
        scheme: Scheme = ED25519,
        *,
        network_id: bytes,
        now_ms: Callable[[], int],
        rng: random.Random,
        client: bool = False,
        profile: str = "local",
        exchange: KeyExchange = X25519_EXCHANGE,
        session_limit: int = SESSION_LIMIT,
        liveness_idle_ms: int = LIVENESS_IDLE_MS,
    ) -> None:
        if profile not in LIMITS:
            raise LocalError(f"profile {profile!r} is neither of {sorted(LIMITS)}")
        self.signer = signer
        # A simulator's keyed hashes cost less than remembering them.
        self.scheme: Scheme = Remembered(scheme) if scheme is ED25519 else scheme
        self.network_id = network_id
        self.now_ms = now_ms
        self.rng = rng
        self.is_client = client
        self.profile = profile
        self.member = member_check(credential, now_ms())
        if self.member.public_key != signer.public_key:
            raise LocalError("the credential is of another key than the signer's")
        if not client and not self.member.serves:
            raise LocalError("this credential lets nobody serve: open the endpoint as a client")
        self.counters: Counter[str] = Counter()
        self.contradictions = Contradictions(self.counters, self.fault)
        self.round_trips = Histogram(ROUND_TRIP_MS)
        self.overlays: dict[int, Overlay] = {}
        # Members that have no place in overlays, by key and issuer's nonce.
        self.shunned = _NOBODY
        # Whom we knew before an outage.
        self.remembered: list[Address] = []
        self._remember_s = 0.0
        self._vitals = Vitals(rng)
        self._shaker = Handshaker(
            signer, credential, member_check, scheme, exchange, network_id=network_id, rng=rng, client=client
        )
        self.calls = Calls(self)
        # The same without another step: a lookup asks dozens of times.
        self.call = self.calls.begin
        self.answering = Answering(self, self.network_tag)
        self.reach = Reaching(self)
        self.reunion = Reunion(self)
        self.sessions = Sessions(self, self._shaker, session_limit, liveness_idle_ms)
        self._address: Address | None = None
        self._socket: UdpSocket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # The loop's clock, in seconds; asked several times a datagram, so it is no property.
        self.time: Callable[[], float] = self._no_time
        self._deadlines: Deadlines | None = None
        self._tick_timer: asyncio.TimerHandle | None = None

    # -- opening and closing -------------------------------------------------------------------------

    async def open(self, host: str, port: int, *, advertise: str | None = None) -> None:
        """Bind the socket (port 0 takes any); `advertise` is our address for others when host is a wildcard."""
        if self._socket is not None:
            raise LocalError("the endpoint is open already")
        loop = self._loop = asyncio.get_running_loop()
        self.time = loop.time
        self._deadlines = Deadlines(loop, self.fault)
        self._socket = await UdpSocket.bind(host, port, self._received, self.counters, self.calls.open)
        bound = self._socket.bound
        shown = advertise or bound[0]
        if shown in ("0.0.0.0", "::") and not self.is_client:
            await self.close()
            raise LocalError(f"{shown} is no address that others could reach; say which one to advertise")
        if shown not in ("0.0.0.0", "::") and not self._may_have(shown):
            await self.close()
            raise LocalError(f"{shown} is no address for a network of profile {self.profile!r}")
        self._address = (shown, bound[1])
        self._schedule_tick()

    async def rebind(self, host: str) -> None:
        """Go on at another address of this machine, under the same port: the former one is gone. Raises OSError.

        Sessions are bound to addresses and begin anew; who is near us in each overlay is told by a question from here.
        """
        former = self._socket
        if former is None:
            raise LocalError("the endpoint is not open")
        if not self._may_have(host):
            raise LocalError(f"{host} is no address for a network of profile {self.profile!r}")
        socket = await UdpSocket.bind(host, former.bound[1], self._received, self.counters, self.calls.open)
        if self._socket is not former:
            socket.close()  # closed meanwhile
            return
        self._socket = socket
        former.close()
        self._address = socket.bound
        self.counters["rebound"] += 1
        self.reach.state.forget()
        self.sessions.begin_anew()
        self.announce()

    def _may_have(self, host: str) -> bool:
        """Whether we may be bound to this address: behind a translator that we follow, a private one will do."""
        return admits(host, self.profile) or (self.reach.follows and may_be_translated(host))

    def announce(self) -> None:
        """Our address is another one than it was: ask whoever is near us, in each overlay, something from there."""
        for overlay in self.overlays.values():
            if overlay.active:
                overlay.joining.announce()

    def seen_at(self, host: str) -> None:
        """This is our host for others from now on: a translator's outer address, as they say."""
        self._address = (host, self.address[1])

    async def close(self) -> None:
        """Stop at once: open calls fail, timers end, the socket closes."""
        if self._socket is None:
            return
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for overlay in self.overlays.values():
            overlay.closed()
        socket, self._socket = self._socket, None
        self.calls.close()
        if self._deadlines is not None:
            self._deadlines.close()
        socket.close()
        self.sessions.clear()
        # The loop closes the socket in its next round; the port is free when this returns.
        await asyncio.sleep(0)

    @property
    def address(self) -> Address:
        """Where others reach us."""
        if self._address is None:
            raise LocalError("the endpoint is not open")
        return self._address

    @property
    def own_address(self) -> Address:
        """The address of this machine that the socket is bound to; others may reach us at another one."""
        bound = self.address if self._socket is None else self._socket.bound
        return self.address if bound[0] in ("0.0.0.0", "::") else bound

    def source_host(self, address: Address) -> str:
        """What to bind another socket to that is to reach this address as we would."""
        host = self.own_address[0] if self._socket is None else self._socket.bound[0]
        return host if host not in ("0.0.0.0", "::") else "::" if ":" in address[0] else "0.0.0.0"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the endpoint was opened in."""
        if self._loop is None:
            raise LocalError("the endpoint is not open")
        return self._loop

    @property
    def deadlines(self) -> Deadlines:
        """The time-outs of this endpoint."""
        if self._deadlines is None:
            raise LocalError("the endpoint is not open")
        return self._deadlines

    @property
    def is_open(self) -> bool:
        """Whether datagrams can be sent."""
        return self._socket is not None

    def renew(self, credential: bytes) -> None:
        """Show a newer credential of the same key from the next handshake on."""
        self.member = self._shaker.renew(credential, self.now_ms())

    # -- what a node says and hears ------------------------------------------------------------------

    def overlay(self, dimension: str) -> Overlay:
        """The overlay of one dimension, created at the first call."""
        tag = datagram.overlay_tag(self.network_id, dimension)
        overlay = self.overlays.get(tag)
        if overlay is None:
            if tag == self.network_tag:
                raise LocalError(f"the tag of {dimension!r} is the network's own; choose another name")
            overlay = self.overlays[tag] = Overlay(self, dimension, tag)
            if self.shunned:
                overlay.shun(self.shunned)
        elif overlay.dimension != dimension:
            raise LocalError(f"{dimension!r} and {overlay.dimension!r} have the same tag; choose another name")
        return overlay

    def shun(self, members: Iterable[tuple[bytes, bytes]]) -> None:
        """These members (key and issuer's nonce), and no others, have no place in overlays from now on.

        They may ask; nobody is led to them.
        """
        self.shunned = frozenset(members)
        for overlay in self.overlays.values():
            overlay.shun(self.shunned)

    def handle(self, kind: int, handler: Handler) -> None:
        """Answer node-level requests of this kind (0 to 65,535) with `handler(peer, body, reply)`."""
        self.answering.add(kind, handler)

    def ask(
        self, address: Address, kind: int, body: bytes, *, timeout_ms: int | None = None
    ) -> asyncio.Future[bytes]:
        """Ask whoever answers at `address`, in no overlay."""
        future: asyncio.Future[bytes] = self.loop.create_future()
        self.call(address, self.network_tag, kind, body, into(future), timeout_ms=timeout_ms)
        return future

    async def ping(self, address: Address, *, timeout_ms: int | None = None) -> Pong:
        """Measure the round trip to a peer and learn who it is; a cold peer is greeted first."""
        for _ in range(2):
            warm = self.sessions.peers.get(address)
            was_warm = warm is not None and warm.session is not None
            future: asyncio.Future[tuple[float, Peer, bytes]] = self.loop.create_future()
            self.call(address, self.network_tag, PING, b"", _pong_into(future, self.loop), timeout_ms=timeout_ms)
            rtt_ms, peer, body = await future
            if was_warm:
                break
        coordinate, _ = unpack_vitals(body)
        if peer.member is None:
            raise PeerIdentityError(f"{address} lost its session")
        return Pong(rtt_ms, coordinate, peer.member)

    @property
    def coordinate(self) -> Coordinate:
        """Our place, learned from the round trips that lookups and pings make anyway."""
        return self._vitals.coordinate

    @property
    def network_tag(self) -> int:
        """The tag of what belongs to no overlay."""
        return self._shaker.network_tag

    @property
    def observed_address(self) -> Address | None:
        """Our address as most peers see it; None while too few agree."""
        return self.reach.state.observed

    @property
    def has_address(self) -> bool:
        """Whether this machine still has the address that we are bound to."""
        return self._socket is None or self._socket.has_address

    @property
    def reachability(self) -> str:
        """`direct`, `mapped` (through a translator), `unreachable`, or `unknown` until strangers were heard."""
        return self.reach.verdict()

    @property
    def reachability_advice(self) -> str:
        """What to do about being unreachable."""
        return self.reach.state.advice(self.own_address)

    async def examine_reachability(self, *, serve: bool = False) -> str:
        """Have peers say how they see us and strangers call us; UnreachableError when we mean to `serve` and cannot."""
        verdict = await self.reach.examine()
        if serve:
            self.reach.require()
        return verdict

    def keep_open(self, address: Address) -> None:
        """Keep the path to a peer open through a translator, until the endpoint closes or `reach.let_go`."""
        self.reach.keep_open(address)

    def clock_skew_ms(self) -> int | None:
        """The peers' median clock minus ours; None while fewer than three peers told."""
        return self._vitals.clock_skew_ms()

    def known_addresses(self, most: int = 200) -> list[Address]:
        """Servers that we have contacts of, the latest heard first: the seeds of the next start."""
        levels = [bucket for overlay in self.overlays.values() for bucket in overlay.table.levels]
        there = {contact.address for bucket in levels for contact in bucket.nodes}
        heard = [(-peer.heard_s, address) for address, peer in self.sessions.peers.items() if address in there]
        latest = [address for _, address in heapq.nsmallest(most, heard)]
        if len(latest) < most:
            # A simulator fills tables with those whom nobody has met yet.
            latest += heapq.nsmallest(most - len(latest), there.difference(latest))
        # If everybody is gone just now, those who were there last are the best that is known.
        return latest or self.remembered[:most]

    def metrics(self) -> str:
        """All counters, gauges and histograms as Prometheus text."""
        return prometheus_text(self)

    def peer(self, address: Address) -> Peer | None:
        """What we know of an address we have talked to."""
        return self.sessions.peers.get(address)

    def session_count(self) -> int:
        """Sessions in memory, half-open ones included."""
        return len(self.sessions.by_number)

    def call_count(self) -> int:
        """Calls that wait for a reply."""
        return len(self.calls.open)

    # -- answers --------------------------------------------------------------------------------------

    def vitals(self) -> bytes:
        """Our coordinate and clock, which ride on answers that are short anyway."""
        return self._vitals.pack(self.now_ms())

    def observe(self, call: Call, body: bytes) -> None:
        """Learn from the vitals in an answer to `call`, and from how long it took."""
        if call.resent:
            # Nobody knows which of the two was answered (RFC 6298, Karn's rule).
            return
        peer = call.peer
        rtt_ms = (peer.heard_s - call.sent_s) * 1_000
        peer.measured(rtt_ms)
        self.sessions.pace.measured(rtt_ms)
        self.round_trips.add(rtt_ms)
        self._vitals.observe(peer.address, rtt_ms, body, self.now_ms())

    def check(self, address: Address) -> None:
        """Ping a peer whose silence raised a doubt."""
        self.call(address, self.network_tag, PING, b"", self._checked)

    def respond(self, peer: Peer, tag: int, request_id: int, status: int, body: bytes) -> None:
        """Send a reply, if the peer still has a session."""
        session = peer.session
        if session is None or self._socket is None:
            self.counters["reply-without-session"] += 1
            return
        self.send_sealed(REPLY, session, tag, wire.pack([request_id, status, body]))

    def _no_time(self) -> float:
        raise LocalError("the endpoint is not open")

    def send_sealed(self, type: int, session: Session, tag: int, body: bytes) -> None:
        """Send a datagram of a session, with its next counter and its MAC."""
        counter = session.counter = session.counter + 1
        self.send(seal(type, tag, session.send_session, counter, body, session.send_key), session.peer.address)

    def send(self, data: bytes, address: Address) -> None:
        """Give a datagram to the socket, while there is one."""
        if self._socket is not None:
            self._socket.send(data, address)

    def _checked(self, call: Call, error: DhtError | None, body: bytes) -> None:
        if error is None:
            try:
                self.observe(call, body)
            except WireError:
                self.counters["bad-vitals"] += 1

    # -- datagrams -----------------------------------------------------------------------------------

    def _received(self, data: bytes, address: Any) -> None:
        try:
            self._dispatch(data, address)
        except RemoteError as error:
            self.counters[type(error).__name__] += 1
        except Exception as fault:
            self.fault(fault)

    def _dispatch(self, data: bytes, address: Address) -> None:
        counters = self.counters
        counters["received"] += 1
        if not MIN_DATAGRAM_BYTES <= len(data) <= MAX_DATAGRAM_BYTES:
            counters["bad-length"] += 1
            return
        type, tag, session_id, counter = HEADER.unpack_from(data)
        if type != REQUEST and type != REPLY:
            self.sessions.shaken(type, tag, session_id, counter, data, address)
            return
        session = self.sessions.by_number.get(session_id)
        if session is None or session.peer.address != address:
            if session is not None and self.reach.awaits_knock(address) and self._is_knock(session, counter, data):
                self.reach.knocked()
            else:
                self.sessions.stray(session_id, counter, address)
            return
        if not genuine(data, session.receive_key):
            counters["bad-mac"] += 1
            return
        if not session.admit(counter):
            counters["replayed"] += 1
            return
        peer = session.peer
        if peer.session is not session and session.is_half_open:
            peer = self.sessions.confirm(session)
        peer.heard_s = self.time()
        if peer.failures:
            self.sessions.found(peer)
        fields = wire.unpack_flat(data[HEADER_BYTES:-MAC_BYTES])
        if len(fields) != 3:
            raise WireError("a request or reply has three fields")
        request_id, code, body = fields
        if request_id.__class__ is not int or code.__class__ is not int or body.__class__ is not bytes:
            raise WireError("a request or reply is two integers and bytes")
        if type == REPLY:
            self._replied(peer, tag, request_id, code, body)
        else:
            self.answering.requested(peer, tag, request_id, code, body)

    def _is_knock(self, session: Session, counter: int, data: bytes) -> bool:
        """Whether this is what we asked somebody to send from elsewhere: genuine, new and empty."""
        return len(data) == MIN_DATAGRAM_BYTES and genuine(data, session.receive_key) and session.admit(counter)

    def _replied(self, peer: Peer, tag: int, request_id: int, status: int, body: bytes) -> None:
        call = self.calls.open.get(request_id)
        is_thanks = request_id == THANKS and status == OK
        if not is_thanks and (call is None or call.peer is not peer or call.tag != tag):
            self.counters["late-reply"] += 1
            return
        if not peer.is_client and status != REFUSED:
            overlay = self.overlays.get(tag)
            if overlay is not None:
                overlay.heard(peer)
        if call is not None:
            self.calls.end(call, None if status == OK else error_of(status, body), body)

    def fault(self, fault: Exception) -> None:
        """A defect of ours, met while handling a datagram: told, counted, survived."""
        self.counters["fault"] += 1
        if self.counters["fault"] <= MAX_FAULTS_LOGGED:
            _LOG.error("a handler failed", exc_info=fault)

    # -- upkeep --------------------------------------------------------------------------------------

    def _schedule_tick(self) -> None:
        # The jitter keeps nodes that were started together from working at the same moments.
        self._tick_timer = self.loop.call_later(TICK_S * self.rng.uniform(0.8, 1.2), self._tick)

    def _tick(self) -> None:
        try:
            self._upkeep()
        except Exception as fault:
            self.fault(fault)
        if self.is_open:
            self._schedule_tick()

    def _upkeep(self) -> None:
        now_ms = self.now_ms()
        self.sessions.upkeep()
        if not self.calls.open:
            self.calls.open.clear()  # an emptied dictionary keeps its room
        if self.time() >= self._remember_s:
            self._remember_s = self.time() + REMEMBER_EACH_S
            self.remembered = self.known_addresses(MAX_REMEMBERED)
        self.reach.tick(self.time())
        self.reunion.tick()
        for overlay in self.overlays.values():
            overlay.tick(now_ms)


def _pong_into(future: asyncio.Future[tuple[float, Peer, bytes]], loop: asyncio.AbstractEventLoop) -> Callback:
    def settle(call: Call, error: DhtError | None, body: bytes) -> None:
        if not future.done():
            if error is None:
                future.set_result(((loop.time() - call.sent_s) * 1_000, call.peer, body))
            else:
                future.set_exception(error)

    return settle


__all__ = ["Endpoint", "Handler", "Member", "Peer", "Pong", "Reply"]
