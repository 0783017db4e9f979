"""Peers and sessions: what one node remembers of the others, whatever overlay they meet in.

Decides what is shared among overlays (address, member, session, liveness, round-trip time), so that one
handshake and one liveness check serve all of them. Leaves moving bytes to `endpoint`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .contact import Address, Contact
from .datagram import ReplayWindow
from .handshake import Member, Outgoing, SessionKeys

if TYPE_CHECKING:
    from .errors import DhtError

# A slow answer frees its slot after three round trips, between these: the cap bounds what one dead peer costs,
# the floor keeps a busy single host from calling its own queue a loss.
MIN_SOFT_TIMEOUT_MS = 150
MAX_SOFT_TIMEOUT_MS = 500
# How long a lookup waits for a slow peer that has answered us before, after its slot was given away: at most, and at
# least in a network of such round trips, where a busy host is not the likeliest reason.
GRACE_MS = 500
MIN_GRACE_MS = 200
WIDE_AREA_MS = 50
MANY_SILENT = 3
# A read overtakes a peer after one and a quarter round trips: above what a wide-area path varies by, and not so soon
# that a busy host asks twice for everything. A stranger is greeted in the same datagram, and has to compute keys.
MIN_HEDGE_MS, HEDGE_SLACK_MS = 50, 10
MIN_COLD_HEDGE_MS, MAX_COLD_HEDGE_MS = 100, 200
# One lost answer is checked by a ping; the second one in a row means lost.
FAILURES_UNTIL_LOST = 2
_NEVER_S = float("-inf")
NOWHERE = (0,)


class Session(ReplayWindow):
    """One agreed pair of keys, and the window of what came under them; half-open until the other side has used it."""

    __slots__ = ("counter", "own_session", "peer", "receive_key", "send_key", "send_session")

    def __init__(self, keys: SessionKeys, peer: Peer) -> None:
        super().__init__()
        self.own_session = keys.own_session
        # Whom it is with; while it is half-open, one that nobody else knows yet.
        self.peer = peer
        self.send_session = keys.peer_session
        self.send_key, self.receive_key = keys.send_key, keys.receive_key
        self.counter = 0

    @property
    def is_half_open(self) -> bool:
        """Whether its peer has not used it yet; one that was forgotten is half-open again, and never asked."""
        return self.peer.session is not self and self.peer.former is not self


class Greeting:
    """A handshake that we began and that is not over."""

    __slots__ = ("attempts", "cookie", "deadline", "done", "early", "outgoing", "peer", "sent_s")

    def __init__(self, peer: Peer, outgoing: Outgoing, early: Call | None) -> None:
        self.peer = peer
        self.outgoing = outgoing
        # The call whose question goes along.
        self.early = early
        self.sent_s = _NEVER_S
        self.attempts = 0
        self.cookie = b""
        self.done = False
        self.deadline: list[Any] | None = None


class Peer:
    """One address and who answers there."""

    __slots__ = (
        "address",
        "calls",
        "doubted",
        "failures",
        "former",
        "greeting",
        "heard_s",
        "is_client",
        "member",
        "met",
        "reset_s",
        "rtt_ms",
        "session",
        "spent_s",
        "tarries_until_s",
        "waiting",
    )

    def __init__(self, address: Address, now_s: float) -> None:
        self.address = address
        self.member: Member | None = None
        self.is_client = False
        self.session: Session | None = None
        # The one before: both ends may begin at the same moment, and both sessions then hold.
        self.former: Session | None = None
        self.greeting: Greeting | None = None
        # Calls that wait for a session; made when the first one does.
        self.waiting: list[Call] | None = None
        # A bit for each overlay that it was met in; then, in the order of these bits, its contact there and the table's
        # word on it (`Table.held`, `Table.absent`), which is good while the table stays so. A tuple, since a node has
        # hundreds, they seldom change, and in a large network most are met in one overlay only.
        self.met: tuple[Any, ...] = NOWHERE
        self.calls = 0
        self.failures = 0
        self.heard_s = now_s
        self.doubted = False
        self.reset_s = _NEVER_S
        self.rtt_ms = -1.0
        self.tarries_until_s = _NEVER_S
        # Until when its allowance of requests is used up.
        self.spent_s = _NEVER_S

    @property
    def is_idle(self) -> bool:
        """Whether nothing of ours waits for it."""
        return not self.calls and self.greeting is None

    @property
    def soft_timeout_ms(self) -> int:
        """How long a lookup leaves one of its slots to this peer."""
        if self.rtt_ms < 0:
            return MAX_SOFT_TIMEOUT_MS
        timeout_ms = int(3 * self.rtt_ms)
        if timeout_ms < MIN_SOFT_TIMEOUT_MS:
            return MIN_SOFT_TIMEOUT_MS
        return timeout_ms if timeout_ms < MAX_SOFT_TIMEOUT_MS else MAX_SOFT_TIMEOUT_MS

    def measured(self, rtt_ms: float) -> None:
        """Take a round trip in (smoothed as in RFC 6298, alpha = 1/8)."""
        self.rtt_ms = rtt_ms if self.rtt_ms < 0 else self.rtt_ms + (rtt_ms - self.rtt_ms) / 8


class Pace:
    """How long round trips take to anybody: what to expect of a peer that was not met yet."""

    __slots__ = ("_deviation_ms", "_mean_ms")

    def __init__(self) -> None:
        self._mean_ms = -1.0
        self._deviation_ms = 0.0

    def measured(self, rtt_ms: float) -> None:
        """Take a round trip in (mean and deviation as in RFC 6298, slower because they are of many peers)."""
        if self._mean_ms < 0:
            self._mean_ms, self._deviation_ms = rtt_ms, rtt_ms / 2
        else:
            self._deviation_ms += (abs(rtt_ms - self._mean_ms) - self._deviation_ms) / 16
            self._mean_ms += (rtt_ms - self._mean_ms) / 32

    def grace_ms(self, peer: Peer, silences: int) -> int:
        """How long a lookup waits for a peer after its slot was given away and the question was sent again.

        Two round trips are enough where ways take longer than a busy host does, and none where `silences` of the
        same lookup say that peers are gone rather than datagrams lost. Where all are near one another, as on one
        host, a queue is a likelier reason than a silent peer.
        """
        if self._mean_ms < WIDE_AREA_MS:
            return GRACE_MS
        if silences >= MANY_SILENT:
            return 0
        return min(GRACE_MS, max(MIN_GRACE_MS, int(2 * peer.rtt_ms)))

    def hedge_ms(self, peer: Peer) -> int:
        """How long a read that asks one peer at a time leaves it to this one before it asks the next as well."""
        if peer.rtt_ms >= 0:
            return max(MIN_HEDGE_MS, HEDGE_SLACK_MS + int(1.25 * peer.rtt_ms))
        if self._mean_ms < 0:
            return MAX_COLD_HEDGE_MS
        return min(MAX_COLD_HEDGE_MS, max(MIN_COLD_HEDGE_MS, int(self._mean_ms + 2 * self._deviation_ms)))

    @property
    def cold_timeout_ms(self) -> int:
        """How long a lookup leaves one of its slots to a stranger: a handshake and a question are two round trips."""
        if self._mean_ms < 0:
            return MAX_SOFT_TIMEOUT_MS
        expected_ms = 2 * (self._mean_ms + 2 * self._deviation_ms)
        return min(MAX_SOFT_TIMEOUT_MS, max(2 * MIN_SOFT_TIMEOUT_MS, int(expected_ms)))


class Call:
    """One request that waits for its reply."""

    __slots__ = (
        "body",
        "callback",
        "contact",
        "deadline",
        "done",
        "early",
        "kind",
        "peer",
        "request_id",
        "resent",
        "sent_s",
        "tag",
    )

    def __init__(
        self,
        request_id: int,
        peer: Peer,
        tag: int,
        kind: int,
        body: bytes,
        callback: Callable[[Call, DhtError | None, bytes], None],
        contact: Contact | None,
        early: bool = False,
    ) -> None:
        self.request_id = request_id
        self.peer = peer
        self.tag = tag
        self.kind = kind
        self.body = body
        self.callback = callback
        self.contact = contact
        # Whether it is a read that may be asked along with a HELLO.
        self.early = early
        self.done = False
        self.deadline: list[Any] | None = None
        self.resent = False
        self.sent_s = -1.0


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What an operator may see of a contact in a routing table."""

    contact: Contact
    entity: str
    rtt_ms: float | None
    heard_ms_ago: int | None
    failures: int
