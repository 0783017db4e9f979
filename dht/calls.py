"""The questions that wait for a reply: sent, sent again, answered, given up.

Decides when a question is sent, to whom it may not be sent, and what ends it. Leaves sessions to `sessions` and
bytes to `endpoint`. A question is a `Call` with a callback: no Task, no timer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import datagram, wire
from .contact import Address, Contact, address_text
from .deadlines import release
from .errors import DhtError, LocalError, PeerBusyError, PeerIdentityError, PeerRefusedError, PeerTimeoutError
from .peers import Call, Peer
from .reply import BUSY, MAX_BODY_BYTES, OK, LocalReply

if TYPE_CHECKING:
    from .endpoint import Endpoint

Callback = Callable[[Call, DhtError | None, bytes], None]

# Hard time-out: the default of every question, four times the longest soft one.
HARD_TIMEOUT_MS = 2_000
# Calls that may be open at once: 10,000 lookups a second would need fewer.
MAX_CALLS = 16_384
MAX_WAITING_PER_PEER = 128


class Calls:
    """All open questions of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.open: dict[int, Call] = {}
        self._endpoint = endpoint
        self._next_request = 1

    @property
    def begun(self) -> int:
        """Questions since the start, whatever became of them."""
        return self._next_request - 1

    def begin(
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
        timed: bool = True,
        early: bool = False,
        slow: Callable[[], None] | None = None,
    ) -> Call:
        """Send a request; `callback(call, error, body)` comes exactly once, and never from within this.

        `again_ms`: send it once more after that long, for requests that may be carried out twice. `early`: a read
        that may be asked along with the greeting of a stranger. Who says
        `timed=False` has a shorter time-out of its own, and calls `expire_in` when that is over. `slow` is called, at
        most once, when an answer from there would usually have come: who can ask somebody else as well need not wait.
        """
        endpoint = self._endpoint
        if not endpoint.is_open:
            raise LocalError("the endpoint is not open")
        if len(body) > MAX_BODY_BYTES:
            raise LocalError(f"a request of {len(body)} bytes; at most {MAX_BODY_BYTES} fit a datagram")
        if len(self.open) >= MAX_CALLS:
            raise LocalError(f"{MAX_CALLS} calls are open; wait for some")
        peer = endpoint.sessions.peers.get(address) or endpoint.sessions.peer_at(address)
        request_id = self._next_request
        self._next_request = request_id + 1
        call = Call(request_id, peer, tag, kind, body, callback, contact, early)
        self.open[request_id] = call
        peer.calls += 1
        if slow is not None:
            patience_ms, tell = endpoint.sessions.patience_ms(peer), slow

            def waited(call: Call) -> None:
                self.expire_in(call, max(1, (timeout_ms or HARD_TIMEOUT_MS) - patience_ms))
                tell()

            endpoint.deadlines.add(patience_ms, call, waited)
        elif timed:
            endpoint.deadlines.add(timeout_ms or HARD_TIMEOUT_MS, call, self._expired)
        if again_ms is not None:
            endpoint.deadlines.add(again_ms, call, self.resend)
        if peer.session is not None:
            self.transmit(call)
        else:
            if peer.waiting is None:
                peer.waiting = []
            if len(peer.waiting) >= MAX_WAITING_PER_PEER:
                busy = PeerTimeoutError(f"too many calls wait for {address_text(address)}")
                endpoint.loop.call_soon(self.end, call, busy, b"")
            else:
                peer.waiting.append(call)
            endpoint.sessions.greet(peer)
        return call

    def expire_in(self, call: Call, duration_ms: int) -> None:
        """Give a call up after so long."""
        self._endpoint.deadlines.add(duration_ms, call, self._expired)

    def resend(self, call: Call) -> None:
        """Send an open request once more, unless that was done or it was never sent."""
        if not call.done and not call.resent and call.sent_s >= 0:
            call.resent = True
            self.transmit(call)

    def call_self(self, tag: int, kind: int, body: bytes, callback: Callback, timeout_ms: int | None) -> None:
        """A call to one of our own handlers, with the same rules and no datagram."""
        peer = Peer(self._endpoint.address, self._endpoint.time())
        peer.member = self._endpoint.member
        request_id = self._next_request
        self._next_request = request_id + 1
        call = self.open[request_id] = Call(request_id, peer, tag, kind, body, callback, None)
        self._endpoint.deadlines.add(timeout_ms or HARD_TIMEOUT_MS, call, self._expired)
        reply = LocalReply(self._endpoint, peer, tag, request_id)
        self._endpoint.loop.call_soon(self._endpoint.answering.handle, peer, tag, kind, body, reply)

    def settle(self, request_id: int, status: int, body: bytes) -> None:
        """A reply has come (for replies to ourselves: directly)."""
        call = self.open.get(request_id)
        if call is not None:
            self.end(call, error_of(status, body), body)

    def transmit(self, call: Call) -> None:
        """Send a request under the peer's session, unless somebody else answers there."""
        session = call.peer.session
        if session is None:
            return
        error = self._other(call)
        if error is not None:
            self._endpoint.loop.call_soon(self.end, call, error, b"")
            return
        call.sent_s = self._endpoint.time()
        body = wire.pack([call.request_id, call.kind, call.body])
        self._endpoint.send_sealed(datagram.REQUEST, session, call.tag, body)

    def _other(self, call: Call) -> PeerIdentityError | None:
        """What is wrong with whoever answers at the address of a call, if it is not who was meant."""
        peer, expected = call.peer, call.contact
        if peer.is_client and call.tag != self._endpoint.network_tag:
            # Whatever a client says of an overlay counts for nothing, so it is not asked.
            return PeerIdentityError(f"a client answers at {address_text(peer.address)}, and clients serve nothing")
        if expected is not None:
            overlay = self._endpoint.overlays[call.tag]
            actual = overlay.known_contact(peer) or overlay.contact_of(peer)
            if actual is not expected and actual.node_id != expected.node_id:
                return PeerIdentityError(f"another node answers at {address_text(peer.address)}")
        return None

    def answered_early(self, call: Call, answer: bytes) -> None:
        """A WELCOME has brought the answer to what its HELLO asked."""
        error = self._other(call)
        overlay = self._endpoint.overlays.get(call.tag)
        if error is None and overlay is not None:
            overlay.heard(call.peer)
        self.end(call, error, answer if error is None else b"")

    def transmit_waiting(self, peer: Peer) -> None:
        """A session stands: send what waited for it, and once more what a lost session carried in vain."""
        waiting, peer.waiting = peer.waiting or (), None
        for call in waiting:
            self.transmit(call)
        if peer.doubted:
            peer.doubted = False
            for call in list(self.open.values()):
                if call.peer is peer and call.sent_s >= 0 and call not in waiting:
                    call.resent = True
                    self.transmit(call)

    def end(self, call: Call, error: DhtError | None, body: bytes) -> None:
        """A call is over, unless it was before."""
        if self.open.pop(call.request_id, None) is None:
            return
        call.done = True
        release(call)
        call.peer.calls -= 1
        try:
            call.callback(call, error, body)
        except Exception as fault:
            self._endpoint.fault(fault)

    def _expired(self, call: Call) -> None:
        peer = call.peer
        if peer.waiting and call in peer.waiting:
            peer.waiting.remove(call)
        elif peer.session is not None and peer.heard_s < call.sent_s:
            self._endpoint.sessions.failed(peer, 1)
        self.end(call, PeerTimeoutError(f"no answer from {address_text(peer.address)}"), b"")

    def close(self) -> None:
        """Every open call fails."""
        for call in list(self.open.values()):
            self.end(call, LocalError("the endpoint was closed"), b"")


def into(future: asyncio.Future[bytes]) -> Callback:
    """A callback that gives a call's outcome to a future that may have been cancelled."""

    def settle(call: Call, error: DhtError | None, body: bytes) -> None:
        if not future.done():
            if error is None:
                future.set_result(body)
            else:
                future.set_exception(error)

    return settle


def error_of(status: int, body: bytes) -> DhtError | None:
    """What a reply that is not OK means to whoever asked."""
    if status == OK:
        return None
    if status == BUSY:
        return PeerBusyError(int.from_bytes(body[:4], "big"))
    return PeerRefusedError(body[:200].decode(errors="replace"))
