"""One UDP socket for all overlays of a node: the driver that moves datagrams, sessions and time-outs.

Decides nothing about overlays: it proves who peers are (`handshake`), keeps their sessions (`peers`), and
carries requests and replies. Every datagram is bounded, decoded, authenticated and handled synchronously;
whatever is wrong with it is counted in `counters` and dropped, never raised. A request is a `Call` with a
callback: no Task, no timer of its own. asyncio-dgram opens and owns the socket; its receive queue, which
has no bound, is replaced by one that hands over at once, and its error queue by a counter, because an ICMP
error says nothing that a time-out does not.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket as sockets
from collections import Counter
from collections.abc import Callable
from typing import Any

from asyncio_dgram.aio import DatagramServer, Protocol

from . import datagram, wire
from .contact import Address, Contact, admits
from .coordinates import Coordinate
from .deadlines import Deadlines
from .errors import (
    DhtError,
    LocalError,
    PeerBusyError,
    PeerIdentityError,
    PeerRefusedError,
    PeerTimeoutError,
    RemoteError,
    WireError,
)
from .handshake import Handshaker, Member
from .identity import ED25519, X25519_EXCHANGE, KeyExchange, Scheme, Signer
from .limits import LIMITS, Bucket
from .overlay import Overlay
from .peers import Call, Peer, Session
from .reply import BUSY, MAX_BODY_BYTES, OK, REFUSED, LocalReply, Pong, Reply
from .sessions import SESSION_LIMIT, Sessions
from .vitals import Vitals, unpack_vitals

Handler = Callable[[Peer, bytes, Reply], None]
Callback = Callable[[Call, DhtError | None, bytes], None]

# Hard time-out: the default of every question, four times the longest soft one.
HARD_TIMEOUT_MS = 2_000
# Calls that may be open at once: 10,000 lookups a second would need fewer.
MAX_CALLS = 16_384
MAX_WAITING_PER_PEER = 128
# libtorrent's figure for a contact that has become questionable.
LIVENESS_IDLE_MS = 900_000
TICK_S = 15.0
# What we ask the kernel to hold while the loop is busy; it gives what its own limit allows.
RECEIVE_BUFFER_BYTES = 4 * 2**20

# Faults that are logged with their trace; a peer that can provoke one must not fill the disk.
MAX_FAULTS_LOGGED = 64

PING = -1
_LOG = logging.getLogger("dht")


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
        self.scheme = scheme
        self.network_id = network_id
        self.now_ms = now_ms
        self.rng = rng
        self.is_client = client
        self.profile = profile
        self.member = member_check(credential, now_ms())
        if self.member.public_key != signer.public_key:
            raise LocalError("the credential is of another key than the signer's")
        self.counters: Counter[str] = Counter()
        self.overlays: dict[int, Overlay] = {}
        self._vitals = Vitals(rng)
        self._limits = LIMITS[profile]
        self._shaker = Handshaker(
            signer, credential, member_check, scheme, exchange, network_id=network_id, rng=rng, client=client
        )
        self._network_tag = self._shaker.network_tag
        self._handlers: dict[int, Handler] = {}
        self.sessions = Sessions(self, self._shaker, session_limit, liveness_idle_ms)
        self._calls: dict[int, Call] = {}
        self._next_request = 1
        self._address: Address | None = None
        self._stream: Any = None
        self._transport: Any = None
        self._drained: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadlines: Deadlines | None = None
        self._tick_timer: asyncio.TimerHandle | None = None

    # -- opening and closing -------------------------------------------------------------------------

    async def open(self, host: str, port: int, *, advertise: str | None = None) -> None:
        """Bind the socket (port 0 takes any); `advertise` is our address for others when host is a wildcard."""
        if self._stream is not None:
            raise LocalError("the endpoint is open already")
        loop = self._loop = asyncio.get_running_loop()
        drained = self._drained = asyncio.Event()
        self._deadlines = Deadlines(loop, self._fault)
        inbox: Any = _Inbox(self._received)
        errors: Any = _Errors(self.counters)
        transport: Any
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Protocol(inbox, errors, drained), local_addr=(host, port)
        )
        self._transport = transport
        self._stream = DatagramServer(transport, inbox, errors, drained)
        raw = transport.get_extra_info("socket")
        if raw is not None and hasattr(raw, "setsockopt"):
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        bound = self._stream.sockname
        shown = advertise or bound[0]
        if shown in ("0.0.0.0", "::") and not self.is_client:
            await self.close()
            raise LocalError(f"{shown} is no address that others could reach; say which one to advertise")
        if shown not in ("0.0.0.0", "::") and not admits(shown, self.profile):
            await self.close()
            raise LocalError(f"{shown} is no address for a network of profile {self.profile!r}")
        self._address = (shown, bound[1])
        self._schedule_tick()

    async def close(self) -> None:
        """Stop at once: open calls fail, timers end, the socket closes."""
        if self._stream is None:
            return
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for overlay in self.overlays.values():
            overlay.closed()
        stream, self._stream, self._transport = self._stream, None, None
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            self._finish(call, LocalError("the endpoint was closed"), b"")
        if self._deadlines is not None:
            self._deadlines.close()
        stream.close()
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
        return self._stream is not None

    def renew(self, credential: bytes) -> None:
        """Show a newer credential of the same key from the next handshake on."""
        self.member = self._shaker.renew(credential, self.now_ms())

    # -- what a node says and hears ------------------------------------------------------------------

    def overlay(self, dimension: str) -> Overlay:
        """The overlay of one dimension, created at the first call."""
        tag = datagram.overlay_tag(self.network_id, dimension)
        overlay = self.overlays.get(tag)
        if overlay is None:
            if tag == self._network_tag:
                raise LocalError(f"the tag of {dimension!r} is the network's own; choose another name")
            overlay = self.overlays[tag] = Overlay(self, dimension, tag)
        elif overlay.dimension != dimension:
            raise LocalError(f"{dimension!r} and {overlay.dimension!r} have the same tag; choose another name")
        return overlay

    def handle(self, kind: int, handler: Handler) -> None:
        """Answer node-level requests of this kind (0 to 65,535) with `handler(peer, body, reply)`."""
        if not 0 <= kind < 65_536:
            raise LocalError("a kind is 0 to 65,535")
        self._handlers[kind] = handler

    def ask(
        self, address: Address, kind: int, body: bytes, *, timeout_ms: int | None = None
    ) -> asyncio.Future[bytes]:
        """Ask whoever answers at `address`, in no overlay."""
        future: asyncio.Future[bytes] = self.loop.create_future()
        self.call(address, self._network_tag, kind, body, into(future), timeout_ms=timeout_ms)
        return future

    async def ping(self, address: Address, *, timeout_ms: int | None = None) -> Pong:
        """Measure the round trip to a peer and learn who it is; a cold peer is greeted first."""
        for _ in range(2):
            warm = self.sessions.peers.get(address)
            was_warm = warm is not None and warm.session is not None
            future: asyncio.Future[tuple[float, Peer, bytes]] = self.loop.create_future()
            self.call(address, self._network_tag, PING, b"", _pong_into(future, self.loop), timeout_ms=timeout_ms)
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

    def clock_skew_ms(self) -> int | None:
        """The peers' median clock minus ours; None while fewer than three peers told."""
        return self._vitals.clock_skew_ms()

    def known_addresses(self, most: int = 200) -> list[Address]:
        """Servers that we have contacts of, the latest heard first: the seeds of the next start."""
        peers = self.sessions.peers
        heard = {
            contact.address: peers[contact.address].heard_s if contact.address in peers else 0.0
            for overlay in self.overlays.values()
            for contact in overlay.table.by_id.values()
        }
        return sorted(heard, key=lambda address: (-heard[address], address))[:most]

    def peer(self, address: Address) -> Peer | None:
        """What we know of an address we have talked to."""
        return self.sessions.peers.get(address)

    def session_count(self) -> int:
        """Sessions in memory, half-open ones included."""
        return len(self.sessions.by_number)

    def call_count(self) -> int:
        """Calls that wait for a reply."""
        return len(self._calls)

    # -- calls ---------------------------------------------------------------------------------------

    def call(
        self,
        address: Address,
        tag: int,
        kind: int,
        body: bytes,
        callback: Callback,
        *,
        contact: Contact | None = None,
        timeout_ms: int | None = None,
        again_ms: int | None = None,
    ) -> Call:
        """Send a request; `callback(call, error, body)` comes exactly once, and never from within this.

        `again_ms`: send it once more after that long, for requests that may be carried out twice.
        """
        if self._stream is None:
            raise LocalError("the endpoint is not open")
        if len(body) > MAX_BODY_BYTES:
            raise LocalError(f"a request of {len(body)} bytes; at most {MAX_BODY_BYTES} fit a datagram")
        if len(self._calls) >= MAX_CALLS:
            raise LocalError(f"{MAX_CALLS} calls are open; wait for some")
        peer = self.sessions.peers.get(address) or self.sessions.peer_at(address)
        request_id = self._next_request
        self._next_request = request_id + 1
        call = Call(request_id, peer, tag, kind, body, callback, contact)
        self._calls[request_id] = call
        peer.calls += 1
        self.deadlines.add(timeout_ms or HARD_TIMEOUT_MS, call, self._expired)
        if again_ms is not None:
            self.deadlines.add(again_ms, call, self.resend)
        if peer.session is not None:
            self._transmit(call)
        else:
            if len(peer.waiting) >= MAX_WAITING_PER_PEER:
                self.loop.call_soon(self.end, call, PeerTimeoutError(f"too many calls wait for {address}"), b"")
            else:
                peer.waiting.append(call)
            self.sessions.greet(peer)
        return call

    def resend(self, call: Call) -> None:
        """Send an open request once more, unless that was done or it was never sent."""
        if not call.done and not call.resent and call.sent_s >= 0:
            call.resent = True
            self._transmit(call)

    def call_self(self, tag: int, kind: int, body: bytes, callback: Callback, timeout_ms: int | None) -> None:
        """A call to one of our own handlers, with the same rules and no datagram."""
        peer = Peer(self.address, self.loop.time())
        peer.member = self.member
        request_id = self._next_request
        self._next_request = request_id + 1
        call = self._calls[request_id] = Call(request_id, peer, tag, kind, body, callback, None)
        self.deadlines.add(timeout_ms or HARD_TIMEOUT_MS, call, self._expired)
        reply = LocalReply(self, peer, tag, request_id)
        self.loop.call_soon(self._handle, peer, tag, kind, body, reply)

    def settle(self, request_id: int, status: int, body: bytes) -> None:
        """A reply has come (for replies to ourselves: directly)."""
        call = self._calls.get(request_id)
        if call is not None:
            self.end(call, _error_of(status, body), body)

    def vitals(self) -> bytes:
        """Our coordinate and clock, which ride on answers that are short anyway."""
        return self._vitals.pack(self.now_ms())

    def observe(self, call: Call, body: bytes) -> None:
        """Learn from the vitals in an answer to `call`, and from how long it took."""
        if call.resent:
            # Nobody knows which of the two was answered (RFC 6298, Karn's rule).
            return
        rtt_ms = (self.loop.time() - call.sent_s) * 1_000
        call.peer.measured(rtt_ms)
        self._vitals.observe(call.peer.address, rtt_ms, body, self.now_ms())

    def check(self, address: Address) -> None:
        """Ping a peer whose silence raised a doubt."""
        self.call(address, self._network_tag, PING, b"", self._checked)

    def respond(self, peer: Peer, tag: int, request_id: int, status: int, body: bytes) -> None:
        """Send a reply, if the peer still has a session."""
        session = peer.session
        if session is None or self._transport is None:
            self.counters["reply-without-session"] += 1
            return
        self._send_sealed(datagram.REPLY, session, tag, wire.pack([request_id, status, body]))

    def _transmit(self, call: Call) -> None:
        peer = call.peer
        session = peer.session
        if session is None:
            return
        expected = call.contact
        if expected is not None:
            actual = peer.contacts.get(call.tag)
            if actual is None:
                actual = self.overlays[call.tag].contact_of(peer)
            if actual.node_id != expected.node_id:
                error = PeerIdentityError(f"another node answers at {peer.address}")
                self.loop.call_soon(self.end, call, error, b"")
                return
        call.sent_s = self.loop.time()
        body = wire.pack([call.request_id, call.kind, call.body])
        self._send_sealed(datagram.REQUEST, session, call.tag, body)

    def transmit_waiting(self, peer: Peer) -> None:
        """A session stands: send what waited for it, and once more what a lost session carried in vain."""
        waiting, peer.waiting = peer.waiting, []
        for call in waiting:
            self._transmit(call)
        if peer.doubted:
            peer.doubted = False
            for call in list(self._calls.values()):
                if call.peer is peer and call.sent_s >= 0 and call not in waiting:
                    call.resent = True
                    self._transmit(call)

    def _send_sealed(self, type: int, session: Session, tag: int, body: bytes) -> None:
        counter = session.counter = session.counter + 1
        self.send(datagram.seal(type, tag, session.send_session, counter, body, session.send_key), session.address)

    def send(self, data: bytes, address: Address) -> None:
        """Give a datagram to the socket; what it cannot take now is dropped and counted."""
        if self._transport is None:
            return
        if self._drained is not None and not self._drained.is_set():
            self.counters["send-buffer-full"] += 1
            return
        self.counters["sent"] += 1
        try:
            self._transport.sendto(data, address)
        except OSError:
            self.counters["send-failed"] += 1

    def end(self, call: Call, error: DhtError | None, body: bytes) -> None:
        """A call is over, unless it was before."""
        if self._calls.pop(call.request_id, None) is not None:
            self._finish(call, error, body)

    def _finish(self, call: Call, error: DhtError | None, body: bytes) -> None:
        call.done = True
        call.peer.calls -= 1
        try:
            call.callback(call, error, body)
        except Exception as fault:
            self._fault(fault)

    def _expired(self, call: Call) -> None:
        peer = call.peer
        if call in peer.waiting:
            peer.waiting.remove(call)
        elif peer.session is not None and peer.heard_s < call.sent_s:
            self.sessions.failed(peer, 1)
        self.end(call, PeerTimeoutError(f"no answer from {peer.address[0]}:{peer.address[1]}"), b"")

    def _checked(self, call: Call, error: DhtError | None, body: bytes) -> None:
        if error is None:
            try:
                self.observe(call, body)
            except WireError:
                self.counters["bad-vitals"] += 1

    # -- datagrams -----------------------------------------------------------------------------------

    def _received(self, data: bytes, address: Any) -> None:
        try:
            self._dispatch(data, address if len(address) == 2 else (address[0], address[1]))
        except RemoteError as error:
            self.counters[type(error).__name__] += 1
        except Exception as fault:
            self._fault(fault)

    def _dispatch(self, data: bytes, address: Address) -> None:
        counters = self.counters
        counters["received"] += 1
        if not datagram.MIN_DATAGRAM_BYTES <= len(data) <= datagram.MAX_DATAGRAM_BYTES:
            counters["bad-length"] += 1
            return
        type, tag, session_id, counter = datagram.HEADER.unpack_from(data)
        if type != datagram.REQUEST and type != datagram.REPLY:
            self.sessions.shaken(type, tag, session_id, counter, data, address)
            return
        session = self.sessions.by_number.get(session_id)
        if session is None or session.address != address:
            self.sessions.stray(session_id, counter, address)
            return
        if not datagram.genuine(data, session.receive_key):
            counters["bad-mac"] += 1
            return
        if not session.window.admit(counter):
            counters["replayed"] += 1
            return
        peer = session.peer or self.sessions.confirm(session)
        self.sessions.heard(peer)
        fields = wire.unpack(data[datagram.HEADER_BYTES : -datagram.MAC_BYTES])
        if len(fields) != 3:
            raise WireError("a request or reply has three fields")
        request_id, code, body = fields
        if request_id.__class__ is not int or code.__class__ is not int or body.__class__ is not bytes:
            raise WireError("a request or reply is two integers and bytes")
        if type == datagram.REPLY:
            self._replied(peer, tag, request_id, code, body)
        else:
            self._requested(peer, tag, request_id, code, body)

    def _replied(self, peer: Peer, tag: int, request_id: int, status: int, body: bytes) -> None:
        call = self._calls.get(request_id)
        if call is None or call.peer is not peer or call.tag != tag:
            self.counters["late-reply"] += 1
            return
        if not peer.is_client and status != REFUSED:
            overlay = self.overlays.get(tag)
            if overlay is not None:
                overlay.heard(peer)
        self.end(call, _error_of(status, body), body)

    def _requested(self, peer: Peer, tag: int, request_id: int, kind: int, body: bytes) -> None:
        allowance = self._limits.requests
        bucket = peer.allowance
        if bucket is None:
            bucket = peer.allowance = Bucket(allowance, self.loop.time())
        if not bucket.take(allowance, self.loop.time()):
            self.counters["rate-limited"] += 1
            retry_ms = int(1_000 * allowance.burst / allowance.per_s / 4) + 1
            self.respond(peer, tag, request_id, BUSY, retry_ms.to_bytes(4, "big"))
            return
        self._handle(peer, tag, kind, body, Reply(self, peer, tag, request_id))

    def _handle(self, peer: Peer, tag: int, kind: int, body: bytes, reply: Reply) -> None:
        try:
            if kind == PING:
                overlay = self.overlays.get(tag)
                if tag != self._network_tag and (overlay is None or self.is_client):
                    reply.refuse("no such overlay here")
                    return
                reply(self.vitals())
                if overlay is not None and not peer.is_client:
                    overlay.heard(peer)
            elif tag == self._network_tag:
                handler = self._handlers.get(kind)
                if handler is None:
                    reply.refuse("nobody answers this kind here")
                else:
                    handler(peer, body, reply)
            else:
                overlay = self.overlays.get(tag)
                if overlay is None:
                    reply.refuse("no such overlay here")
                else:
                    overlay.requested(peer, kind, body, reply)
        except RemoteError as error:
            self.counters[type(error).__name__] += 1
            reply.refuse_unless_used(str(error))
        except Exception as fault:
            self._fault(fault)
            reply.refuse_unless_used("internal error")

    def _fault(self, fault: Exception) -> None:
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
            self._fault(fault)
        if self.is_open:
            self._schedule_tick()

    def _upkeep(self) -> None:
        now_ms = self.now_ms()
        self.sessions.upkeep()
        for overlay in self.overlays.values():
            overlay.tick(now_ms)


class _Inbox:
    """In the place of asyncio-dgram's receive queue: hands over at once, so that nothing can pile up."""

    __slots__ = ("_deliver",)

    def __init__(self, deliver: Callable[[bytes, Any], None]) -> None:
        self._deliver = deliver

    def put_nowait(self, item: tuple[bytes | None, Any]) -> None:
        data, address = item
        if data is not None:
            self._deliver(data, address)


class _Errors:
    """In the place of asyncio-dgram's error queue: counts what ICMP says."""

    __slots__ = ("_counters",)

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters

    def put_nowait(self, error: Exception) -> None:
        self._counters["socket-error"] += 1

    def get_nowait(self) -> Exception:
        raise asyncio.QueueEmpty


def into(future: asyncio.Future[bytes]) -> Callback:
    """A callback that gives a call's outcome to a future that may have been cancelled."""

    def settle(call: Call, error: DhtError | None, body: bytes) -> None:
        if not future.done():
            if error is None:
                future.set_result(body)
            else:
                future.set_exception(error)

    return settle


def _pong_into(future: asyncio.Future[tuple[float, Peer, bytes]], loop: asyncio.AbstractEventLoop) -> Callback:
    def settle(call: Call, error: DhtError | None, body: bytes) -> None:
        if not future.done():
            if error is None:
                future.set_result(((loop.time() - call.sent_s) * 1_000, call.peer, body))
            else:
                future.set_exception(error)

    return settle


def _error_of(status: int, body: bytes) -> DhtError | None:
    if status == OK:
        return None
    if status == BUSY:
        return PeerBusyError(int.from_bytes(body[:4], "big"))
    return PeerRefusedError(body[:200].decode(errors="replace"))


__all__ = ["Endpoint", "Handler", "Member", "Peer", "Pong", "Reply"]
