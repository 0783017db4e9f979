"""What a handler answers with: once, now or later.

Decides the forms of an answer (done, refused, busy). Leaves sending to `endpoint`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .coordinates import Coordinate
from .errors import LocalError
from .handshake import Member

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .peers import Peer

OK, REFUSED, BUSY = range(3)
# What is left of 1,163 bytes for an application, with room for positions and lengths.
MAX_BODY_BYTES = 1_100
_MAX_REASON_BYTES = 200


@dataclass(frozen=True, slots=True)
class Pong:
    """A peer's answer to a ping."""

    rtt_ms: float
    coordinate: Coordinate
    member: Member


class Reply:
    """Call it with the answer's bytes, or `refuse(reason)`, or `busy(ms)`; at most one of them, once."""

    __slots__ = ("_endpoint", "_request_id", "_tag", "peer", "used")

    def __init__(self, endpoint: Endpoint, peer: Peer, tag: int, request_id: int) -> None:
        self._endpoint = endpoint
        self._tag = tag
        self._request_id = request_id
        self.peer = peer
        self.used = False

    def __call__(self, body: bytes = b"") -> None:
        if len(body) > MAX_BODY_BYTES:
            raise LocalError(f"a reply of {len(body)} bytes; at most {MAX_BODY_BYTES} fit a datagram")
        self._use(OK, body)

    def refuse(self, reason: str) -> None:
        """Say no, and why; the asker gets PeerRefusedError."""
        self._use(REFUSED, reason.encode()[:_MAX_REASON_BYTES])

    def busy(self, retry_after_ms: int) -> None:
        """Say not now; the asker gets PeerBusyError."""
        self._use(BUSY, retry_after_ms.to_bytes(4, "big"))

    def refuse_unless_used(self, reason: str) -> None:
        """Say no, if nothing was said yet."""
        if not self.used:
            self.refuse(reason)

    @property
    def member(self) -> Member:
        """The proved identity of whoever asked."""
        if self.peer.member is None:
            raise LocalError("a reply to nobody")
        return self.peer.member

    @property
    def is_client(self) -> bool:
        """Whether whoever asked serves nothing itself."""
        return self.peer.is_client

    def _use(self, status: int, body: bytes) -> None:
        if self.used:
            raise LocalError("this request was answered before")
        self.used = True
        self._send(status, body)

    def _send(self, status: int, body: bytes) -> None:
        self._endpoint.respond(self.peer, self._tag, self._request_id, status, body)


class EarlyReply(Reply):
    """The answer to a question that came with a HELLO: kept for the WELCOME, if it is a plain one and comes at once."""

    __slots__ = ("answer",)

    def __init__(self, endpoint: Endpoint, peer: Peer, tag: int) -> None:
        super().__init__(endpoint, peer, tag, 0)
        self.answer = b""

    def _send(self, status: int, body: bytes) -> None:
        if status == OK:
            self.answer = body


class LocalReply(Reply):
    """The answer to a call to ourselves."""

    __slots__ = ()

    def _send(self, status: int, body: bytes) -> None:
        self._endpoint.calls.settle(self._request_id, status, body)
