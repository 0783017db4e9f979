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
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from asyncio_dgram.aio import DatagramServer, Protocol

from . import datagram, wire
from .contact import Address, Contact, admits, group
from .coordinates import Coordinate, Locator
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
from .limits import LIMITS, Bucket, Places
from .overlay import Overlay
from .peers import MAX_SESSIONS_PER_PEER, Call, Greeting, Peer, Session
from .reply import BUSY, MAX_BODY_BYTES, OK, REFUSED, LocalReply, Pong, Reply

Handler = Callable[[Peer, bytes, Reply], None]
Callback = Callable[[Call, DhtError | None, bytes], None]

# network.md, Lookup: hard time-out; also the default of every question.
HARD_TIMEOUT_MS = 2_000
# HELLO is sent again after this, and given up with the hard time-out.
HELLO_RETRY_MS = 500
MAX_HELLOS = 4
# One lost answer is checked by a ping; the second one in a row means lost.
FAILURES_UNTIL_LOST = 2
# Lookups leave a lost address alone for this long, however often others still name it.
LOST_MEMORY_S = 30.0
MAX_LOST = 1_024
# A peer that says it does not know a session is believed at most this often.
RESET_INTERVAL_S = 1.0
# Sessions: 11 overlays x about 130 contacts, doubled; half-open ones live for two hard time-outs.
SESSION_LIMIT = 4_096
MAX_HALF_OPEN = 1_024
HALF_OPEN_S = 4.0
SESSION_IDLE_S = 1_800.0
# Calls that may be open at once: 10,000 lookups a second would need fewer.
MAX_CALLS = 16_384
MAX_WAITING_PER_PEER = 128
# libtorrent's figure for a contact that has become questionable.
LIVENESS_IDLE_MS = 900_000
MAX_PINGS_PER_TICK = 8
TICK_S = 15.0
# Peers whose clocks are compared with ours; the median of 33 bears 16 liars.
MAX_CLOCKS = 33
# What we ask the kernel to hold while the loop is busy; it gives what its own limit allows.
RECEIVE_BUFFER_BYTES = 4 * 2**20

PING = -1
VITALS = struct.Struct(">iiiiIQ")
_VITALS_HEAD = struct.Struct(">iiiiI")
# After the first round trips one in so many is enough to keep a coordinate: a busy lookup should not pay for all.
OBSERVE_ALL = 64
OBSERVE_EACH = 8
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
        self._locator = Locator(rng)
        self._vitals_head = _VITALS_HEAD.pack(*self._locator.coordinate.to_fields())
        self._liveness_idle_s = liveness_idle_ms / 1_000
        self._session_limit = session_limit
        self._limits = LIMITS[profile]
        self._hellos = Places(self._limits.hellos)
        self._strays = Places(self._limits.strays)
        self._free_hellos = Bucket(self._limits.free_hellos, 0.0)
        self._shaker = Handshaker(
            signer, credential, member_check, scheme, exchange, network_id=network_id, rng=rng, client=client
        )
        self._network_tag = self._shaker.network_tag
        self._handlers: dict[int, Handler] = {}
        self._peers: dict[Address, Peer] = {}
        self._sessions: dict[int, Session] = {}
        self._half_open: OrderedDict[int, Session] = OrderedDict()
        self._greetings: dict[int, Greeting] = {}
        self._calls: dict[int, Call] = {}
        self._lost: OrderedDict[Address, float] = OrderedDict()
        self._clocks: OrderedDict[Address, int] = OrderedDict()
        self._next_request = 1
        self._observations = 0
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
        self._sessions.clear()
        self._half_open.clear()
        self._greetings.clear()
        self._peers.clear()
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
            warm = self._peers.get(address)
            was_warm = warm is not None and warm.session is not None
            future: asyncio.Future[tuple[float, Peer, bytes]] = self.loop.create_future()
            self.call(address, self._network_tag, PING, b"", _pong_into(future, self.loop), timeout_ms=timeout_ms)
            rtt_ms, peer, body = await future
            if was_warm:
                break
        coordinate, _ = _open_vitals(body)
        if peer.member is None:
            raise PeerIdentityError(f"{address} lost its session")
        return Pong(rtt_ms, coordinate, peer.member)

    @property
    def coordinate(self) -> Coordinate:
        """Our place, learned from the round trips that lookups and pings make anyway."""
        return self._locator.coordinate

    def clock_skew_ms(self) -> int | None:
        """The peers' median clock minus ours; None while fewer than three peers told."""
        if len(self._clocks) < 3:
            return None
        return sorted(self._clocks.values())[len(self._clocks) // 2]

    def known_addresses(self, most: int = 200) -> list[Address]:
        """Servers that we have contacts of, the latest heard first: the seeds of the next start."""
        heard = {
            contact.address: self._peers[contact.address].heard_s if contact.address in self._peers else 0.0
            for overlay in self.overlays.values()
            for contact in overlay.table.by_id.values()
        }
        return sorted(heard, key=lambda address: (-heard[address], address))[:most]

    def peer(self, address: Address) -> Peer | None:
        """What we know of an address we have talked to."""
        return self._peers.get(address)

    def session_count(self) -> int:
        """Sessions in memory, half-open ones included."""
        return len(self._sessions)

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
    ) -> Call:
        """Send a request; `callback(call, error, body)` comes exactly once, and never from within this."""
        if self._stream is None:
            raise LocalError("the endpoint is not open")
        if len(body) > MAX_BODY_BYTES:
            raise LocalError(f"a request of {len(body)} bytes; at most {MAX_BODY_BYTES} fit a datagram")
        if len(self._calls) >= MAX_CALLS:
            raise LocalError(f"{MAX_CALLS} calls are open; wait for some")
        peer = self._peers.get(address) or self._add_peer(address)
        request_id = self._next_request
        self._next_request = request_id + 1
        call = Call(request_id, peer, tag, kind, body, callback, contact)
        self._calls[request_id] = call
        peer.calls += 1
        self.deadlines.add(timeout_ms or HARD_TIMEOUT_MS, call, self._expired)
        if peer.session is not None:
            self._transmit(call)
        else:
            if len(peer.waiting) >= MAX_WAITING_PER_PEER:
                self.loop.call_soon(self._end, call, PeerTimeoutError(f"too many calls wait for {address}"), b"")
            else:
                peer.waiting.append(call)
            if peer.greeting is None:
                self._greet(peer)
        return call

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
            self._end(call, _error_of(status, body), body)

    def vitals(self) -> bytes:
        """Our coordinate and clock, which ride on answers that are short anyway."""
        return self._vitals_head + self.now_ms().to_bytes(8, "big")

    def observe(self, call: Call, body: bytes) -> None:
        """Learn from the vitals in an answer to `call`, and from how long it took."""
        rtt_ms = (self.loop.time() - call.sent_s) * 1_000
        peer = call.peer
        peer.measured(rtt_ms)
        self._observations += 1
        if self._observations > OBSERVE_ALL and self._observations % OBSERVE_EACH:
            return
        coordinate, clock_ms = _open_vitals(body)
        self._locator.observe(peer.address, rtt_ms, coordinate)
        self._vitals_head = _VITALS_HEAD.pack(*self._locator.coordinate.to_fields())
        self._clocks.pop(peer.address, None)
        self._clocks[peer.address] = clock_ms - self.now_ms() + int(rtt_ms / 2)
        if len(self._clocks) > MAX_CLOCKS:
            self._clocks.popitem(last=False)

    def check(self, address: Address) -> None:
        """Ping a peer whose silence raised a doubt."""
        self.call(address, self._network_tag, PING, b"", self._checked)

    def is_lost(self, address: Address) -> bool:
        """Whether this address was found silent a moment ago."""
        until_s = self._lost.get(address) if self._lost else None
        if until_s is None:
            return False
        if until_s > self.loop.time():
            return True
        del self._lost[address]
        return False

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
                self.loop.call_soon(self._end, call, error, b"")
                return
        call.sent_s = self.loop.time()
        body = wire.pack([call.request_id, call.kind, call.body])
        self._send_sealed(datagram.REQUEST, session, call.tag, body)

    def _send_sealed(self, type: int, session: Session, tag: int, body: bytes) -> None:
        counter = session.counter = session.counter + 1
        self._send(datagram.seal(type, tag, session.send_session, counter, body, session.send_key), session.address)

    def _send(self, data: bytes, address: Address) -> None:
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

    def _end(self, call: Call, error: DhtError | None, body: bytes) -> None:
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
            self._failed(peer, 1)
        self._end(call, PeerTimeoutError(f"no answer from {peer.address[0]}:{peer.address[1]}"), b"")

    def _failed(self, peer: Peer, weight: int) -> None:
        peer.failures += weight
        if peer.failures >= FAILURES_UNTIL_LOST:
            self._lost[peer.address] = self.loop.time() + LOST_MEMORY_S
            if len(self._lost) > MAX_LOST:
                self._lost.popitem(last=False)
            for overlay in self.overlays.values():
                overlay.lost(peer.address)
            if peer.failures < 2 * FAILURES_UNTIL_LOST:
                self.counters["peers-lost"] += 1
        elif not peer.is_client:
            self.check(peer.address)

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
            self._greeted(type, tag, session_id, counter, data, address)
            return
        session = self._sessions.get(session_id)
        if session is None or session.address != address:
            self._stray(session_id, counter, address)
            return
        if not datagram.genuine(data, session.receive_key):
            counters["bad-mac"] += 1
            return
        if not session.window.admit(counter):
            counters["replayed"] += 1
            return
        peer = session.peer or self._confirm(session)
        peer.heard_s = self.loop.time()
        if peer.failures:
            peer.failures = 0
            self._lost.pop(address, None)
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
        self._end(call, _error_of(status, body), body)

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
        _LOG.error("a handler failed", exc_info=fault)

    # -- handshakes ----------------------------------------------------------------------------------

    def _greet(self, peer: Peer) -> None:
        outgoing = self._shaker.hello(self.rng.getrandbits(64))
        greeting = peer.greeting = Greeting(peer, outgoing)
        self._greetings[outgoing.session] = greeting
        self._send_hello(greeting)

    def _send_hello(self, greeting: Greeting) -> None:
        greeting.attempts += 1
        self._send(self._shaker.hello_datagram(greeting.outgoing, greeting.cookie), greeting.peer.address)
        self.deadlines.add(HELLO_RETRY_MS, greeting, self._unanswered)

    def _unanswered(self, greeting: Greeting) -> None:
        if greeting.attempts < MAX_HELLOS:
            self._send_hello(greeting)
            return
        peer = greeting.peer
        address = peer.address
        self._drop_greeting(greeting)
        error = PeerTimeoutError(f"nobody answers at {address[0]}:{address[1]}")
        waiting, peer.waiting = peer.waiting, []
        self._failed(peer, FAILURES_UNTIL_LOST)
        for call in waiting:
            self._end(call, error, b"")
        if peer.session is None and not peer.waiting and peer.greeting is None:
            self._peers.pop(address, None)

    def _drop_greeting(self, greeting: Greeting) -> None:
        greeting.done = True
        greeting.peer.greeting = None
        self._greetings.pop(greeting.outgoing.session, None)

    def _greeted(self, type: int, tag: int, session: int, counter: int, data: bytes, address: Address) -> None:
        counters = self.counters
        if tag != self._network_tag or not datagram.genuine(data, self._shaker.network_key):
            counters["foreign"] += 1
            return
        body = data[datagram.HEADER_BYTES : -datagram.MAC_BYTES]
        if type == datagram.HELLO:
            self._hello(session, body, len(data), address)
        elif type == datagram.RESET:
            self._reset(session, counter, address)
        elif type == datagram.WELCOME or type == datagram.COOKIE:
            greeting = self._greetings.get(session)
            if greeting is None or greeting.peer.address != address:
                counters["unasked-welcome"] += 1
            elif type == datagram.COOKIE:
                if not greeting.cookie:
                    greeting.cookie = self._shaker.cookie_in(body)
                    self._send(self._shaker.hello_datagram(greeting.outgoing, greeting.cookie), address)
            else:
                keys = self._shaker.finish(greeting.outgoing, body, self.now_ms())
                self._drop_greeting(greeting)
                self._establish(greeting.peer, Session(keys, address, self.loop.time()))
        else:
            counters["unknown-type"] += 1

    def _hello(self, session: int, body: bytes, size: int, address: Address) -> None:
        now_s = self.loop.time()
        if not admits(address[0], self.profile):
            self.counters["address-not-admitted"] += 1
            return
        if size != datagram.MAX_DATAGRAM_BYTES:
            # Only a full datagram pays for the WELCOME it draws.
            self.counters["short-hello"] += 1
            return
        if not self._hellos.take(group(address, self.profile), now_s):
            self.counters["hello-limited"] += 1
            return
        demand = not self._free_hellos.take(self._limits.free_hellos, now_s)
        own_session = self.rng.getrandbits(64)
        data, keys = self._shaker.answer(session, body, own_session, address, self.now_ms(), demand_cookie=demand)
        if keys is not None:
            half_open = Session(keys, address, now_s)
            self._sessions[own_session] = self._half_open[own_session] = half_open
            if len(self._half_open) > MAX_HALF_OPEN:
                oldest, _ = self._half_open.popitem(last=False)
                self._sessions.pop(oldest, None)
                self.counters["half-open-dropped"] += 1
        self._send(data, address)

    def _confirm(self, session: Session) -> Peer:
        """The first genuine datagram of a half-open session: its address is now proved."""
        self._half_open.pop(session.keys.own_session, None)
        peer = self._peers.get(session.address) or self._add_peer(session.address)
        self._establish(peer, session)
        return peer

    def _establish(self, peer: Peer, session: Session) -> None:
        keys = session.keys
        if peer.member is not None and (
            peer.member.public_key != keys.member.public_key or peer.member.issuer_nonce != keys.member.issuer_nonce
        ):
            self._replace(peer)
        peer.member = keys.member
        peer.is_client = keys.is_client
        peer.heard_s = self.loop.time()
        peer.failures = 0
        self._lost.pop(peer.address, None)
        session.peer = peer
        peer.session = session
        peer.sessions.append(session)
        if len(peer.sessions) > MAX_SESSIONS_PER_PEER:
            oldest = peer.sessions.pop(0)
            self._sessions.pop(oldest.keys.own_session, None)
        self._sessions[keys.own_session] = session
        waiting, peer.waiting = peer.waiting, []
        for call in waiting:
            self._transmit(call)
        if peer.doubted:
            self._resend(peer)

    def _replace(self, peer: Peer) -> None:
        """Another member answers at this address: what we knew of the former one is void."""
        self.counters["peers-replaced"] += 1
        for overlay in self.overlays.values():
            overlay.lost(peer.address)
        peer.contacts.clear()
        for session in peer.sessions:
            self._sessions.pop(session.keys.own_session, None)
        peer.sessions.clear()
        peer.rtt_ms = -1.0
        self._locator.forget(peer.address)

    def _stray(self, session: int, counter: int, address: Address) -> None:
        """A datagram of a session we do not have, after a restart perhaps: say so in fewer bytes, not often."""
        self.counters["unknown-session"] += 1
        if self._strays.take(group(address, self.profile), self.loop.time()):
            key = self._shaker.network_key
            self._send(datagram.seal(datagram.RESET, self._network_tag, session, counter, b"", key), address)

    def _reset(self, session_id: int, counter: int, address: Address) -> None:
        """A peer may not know our session any more. Nobody signed that: greet again, and keep what we have."""
        now_s = self.loop.time()
        peer = self._peers.get(address)
        session = peer.session if peer is not None else None
        if (
            peer is None
            or session is None
            or session.send_session != session_id
            or not session.counter - datagram.REPLAY_WINDOW < counter <= session.counter
        ):
            self.counters["unfounded-reset"] += 1
        elif peer.greeting is None and now_s - peer.reset_s >= RESET_INTERVAL_S:
            peer.reset_s = now_s
            peer.doubted = True
            self._greet(peer)

    def _resend(self, peer: Peer) -> None:
        """After a reset: what the former session carried in vain goes out once more."""
        peer.doubted = False
        for call in list(self._calls.values()):
            if call.peer is peer and not call.resent and call.sent_s >= 0 and not call.done:
                call.resent = True
                self._transmit(call)

    # -- upkeep --------------------------------------------------------------------------------------

    def _add_peer(self, address: Address) -> Peer:
        if not admits(address[0], self.profile):
            raise LocalError(f"{address[0]} is no address for a network of profile {self.profile!r}")
        if len(self._peers) >= self._session_limit:
            idle = sorted(
                (peer.heard_s, peer.address) for peer in self._peers.values() if not peer.calls and not peer.greeting
            )
            for _, idle_address in idle[: self._session_limit // 8 + 1]:
                self._drop_peer(self._peers[idle_address])
                self.counters["sessions-evicted"] += 1
        peer = self._peers[address] = Peer(address, self.loop.time())
        return peer

    def _drop_peer(self, peer: Peer) -> None:
        for session in peer.sessions:
            self._sessions.pop(session.keys.own_session, None)
        peer.sessions.clear()
        peer.session = None
        self._peers.pop(peer.address, None)

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
        now_s, now_ms = self.loop.time(), self.now_ms()
        while self._half_open and next(iter(self._half_open.values())).opened_s < now_s - HALF_OPEN_S:
            own_session, _ = self._half_open.popitem(last=False)
            self._sessions.pop(own_session, None)
        doubtful: list[tuple[float, Address]] = []
        for peer in list(self._peers.values()):
            if peer.calls or peer.greeting is not None:
                continue
            if peer.member is None or peer.member.expires_ms <= now_ms or peer.heard_s < now_s - SESSION_IDLE_S:
                self._drop_peer(peer)
            elif not peer.is_client and peer.heard_s < now_s - self._liveness_idle_s:
                doubtful.append((peer.heard_s, peer.address))
        doubtful.sort()
        for _, address in doubtful[:MAX_PINGS_PER_TICK]:
            self.check(address)
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


def _open_vitals(body: bytes) -> tuple[Coordinate, int]:
    try:
        *fields, clock_ms = VITALS.unpack_from(body)
        return Coordinate.from_fields(fields), clock_ms
    except (struct.error, ValueError):
        raise WireError("an answer without vitals") from None


def _error_of(status: int, body: bytes) -> DhtError | None:
    if status == OK:
        return None
    if status == BUSY:
        return PeerBusyError(int.from_bytes(body[:4], "big"))
    return PeerRefusedError(body[:200].decode(errors="replace"))


__all__ = ["Endpoint", "Handler", "Member", "Peer", "Pong", "Reply"]
