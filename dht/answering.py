"""The requests that come in: whether they are heard, and by whom.

Decides the order of allowance, overlay and handler, and what becomes of a handler that fails. Leaves what an
overlay answers to `serving`, and sending to `endpoint`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .contact import Address, pack_address
from .early import Question
from .errors import LocalError, RemoteError, WireError
from .handshake import Member
from .limits import LIMITS
from .peers import Peer
from .reply import BUSY, EarlyReply, Reply
from .walk import EARLY

if TYPE_CHECKING:
    from .endpoint import Endpoint

Handler = Callable[[Peer, bytes, Reply], None]

PING = -1
# A ping with this body is answered with the address that it came from, too.
TELL_ADDRESS = b"\1"
# "Have another node call me", and what the asked one says to that other.
CALL_BACK, CALL = -9, -10
# "Call me yourself, from a port that I never wrote to."
KNOCK = -11


class Answering:
    """What one endpoint answers."""

    def __init__(self, endpoint: Endpoint, network_tag: int) -> None:
        self._endpoint = endpoint
        self._network_tag = network_tag
        self._limits = LIMITS[endpoint.profile]
        self._handlers: dict[int, Handler] = {}

    def add(self, kind: int, handler: Handler) -> None:
        """Answer node-level requests of this kind with this handler."""
        if not 0 <= kind < 65_536:
            raise LocalError("a kind is 0 to 65,535")
        self._handlers[kind] = handler

    def requested(self, peer: Peer, tag: int, request_id: int, kind: int, body: bytes) -> None:
        """One genuine request, if its sender may ask that much."""
        endpoint = self._endpoint
        allowance = self._limits.requests
        spent_s = allowance.take(peer.spent_s, peer.heard_s)
        if spent_s is None:
            endpoint.counters["rate-limited"] += 1
            retry_ms = int(1_000 * allowance.burst / allowance.per_s / 4) + 1
            endpoint.respond(peer, tag, request_id, BUSY, retry_ms.to_bytes(4, "big"))
            return
        peer.spent_s = spent_s
        self.handle(peer, tag, kind, body, Reply(endpoint, peer, tag, request_id))

    def early(self, address: Address, member: Member, question: bytes, room: int) -> bytes:
        """The answer to what a member asks along with its HELLO; nothing for what must be asked in a session.

        Nobody has proved yet that the member is at this address: it counts as a client, whom nobody is led to.
        """
        endpoint = self._endpoint
        try:
            tag, kind, body = Question.unpack(question)
        except WireError:
            endpoint.counters["bad-early-question"] += 1
            return b""
        overlay = endpoint.overlays.get(tag)
        if endpoint.is_client or overlay is None or kind not in EARLY:
            return b""
        peer = Peer(address, endpoint.time())
        peer.member, peer.is_client = member, True
        reply = EarlyReply(endpoint, peer, tag)
        self.handle(peer, tag, kind, body, reply)
        if not 0 < len(reply.answer) <= room:
            return b""
        endpoint.counters["early-answers"] += 1
        return reply.answer

    def handle(self, peer: Peer, tag: int, kind: int, body: bytes, reply: Reply) -> None:
        """Have a request answered; a handler that fails refuses, and never raises."""
        endpoint = self._endpoint
        try:
            if kind == PING:
                overlay = endpoint.overlays.get(tag)
                if tag != self._network_tag and (overlay is None or not overlay.active or endpoint.is_client):
                    reply.refuse("no such overlay here")
                    return
                told = pack_address(peer.address) if body == TELL_ADDRESS else b""
                reply(endpoint.vitals() + told)
                if overlay is not None and not peer.is_client:
                    overlay.heard(peer)
            elif tag == self._network_tag:
                if kind == CALL_BACK:
                    endpoint.reach.pass_on(peer, reply)
                    return
                if kind == KNOCK:
                    endpoint.reach.knock(peer, reply)
                    return
                if kind == CALL:
                    endpoint.reach.call(body, reply)
                    return
                handler = self._handlers.get(kind)
                if handler is None:
                    reply.refuse("nobody answers this kind here")
                else:
                    handler(peer, body, reply)
            else:
                overlay = endpoint.overlays.get(tag)
                if overlay is None or not overlay.active:
                    reply.refuse("no such overlay here")
                else:
                    overlay.requested(peer, kind, body, reply)
        except RemoteError as error:
            endpoint.counters[type(error).__name__] += 1
            reply.refuse_unless_used(str(error))
        except Exception as fault:
            endpoint.fault(fault)
            reply.refuse_unless_used("internal error")
