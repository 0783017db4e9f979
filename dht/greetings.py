"""The handshakes that we begin: HELLO until somebody answers, or nobody does.

Decides when a HELLO is sent again and given up, which question goes along with it, and what becomes of its answer.
Leaves what the messages say to `handshake`, and who is a peer to `sessions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import datagram
from .contact import Address, address_text
from .early import THANKS, Question
from .errors import PeerTimeoutError
from .handshake import Handshaker
from .peers import FAILURES_UNTIL_LOST, Greeting, Peer
from .reply import OK

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .sessions import Sessions

# HELLO is sent again after this, and given up with the hard time-out.
HELLO_RETRY_MS = 500
MAX_HELLOS = 4


class Greetings:
    """All handshakes of one endpoint that it began and that are not over."""

    def __init__(self, sessions: Sessions, endpoint: Endpoint, shaker: Handshaker) -> None:
        self._sessions = sessions
        self._endpoint = endpoint
        self._shaker = shaker
        # By the number that we gave the session.
        self._open: dict[int, Greeting] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, peer: Peer) -> None:
        """Greet a peer, with the first question that waits for it and may go along."""
        early = next((call for call in peer.waiting or () if call.early), None)
        question = Question(early.tag, early.kind, early.body).packed() if early is not None else b""
        outgoing = self._shaker.hello(self._endpoint.rng.getrandbits(64), question)
        greeting = peer.greeting = Greeting(peer, outgoing, early)
        self._open[outgoing.session] = greeting
        self._send_hello(greeting)

    def answered(self, type: int, session: int, body: bytes, address: Address) -> None:
        """A WELCOME or a COOKIE."""
        greeting = self._open.get(session)
        if greeting is None or greeting.peer.address != address:
            self._endpoint.counters["unasked-welcome"] += 1
        elif type == datagram.WELCOME:
            self._welcomed(greeting, body)
        elif not greeting.cookie:
            greeting.cookie = self._shaker.cookie_in(body)
            self._endpoint.send(self._shaker.hello_datagram(greeting.outgoing, greeting.cookie), address)

    def clear(self) -> None:
        """Forget all of them."""
        self._open.clear()

    def _send_hello(self, greeting: Greeting) -> None:
        greeting.attempts += 1
        greeting.sent_s = self._endpoint.time()
        self._endpoint.send(self._shaker.hello_datagram(greeting.outgoing, greeting.cookie), greeting.peer.address)
        self._endpoint.deadlines.add(HELLO_RETRY_MS, greeting, self._unanswered)

    def _unanswered(self, greeting: Greeting) -> None:
        if greeting.attempts < MAX_HELLOS:
            self._send_hello(greeting)
            return
        peer = greeting.peer
        self._end(greeting)
        waiting, peer.waiting = peer.waiting or (), None
        self._sessions.failed(peer, FAILURES_UNTIL_LOST)
        silence = PeerTimeoutError(f"nobody answers at {address_text(peer.address)}")
        for call in waiting:
            self._endpoint.calls.end(call, silence, b"")
        if peer.session is None and peer.is_idle:
            self._sessions.drop(peer)

    def _end(self, greeting: Greeting) -> None:
        greeting.done = True
        greeting.peer.greeting = None
        self._open.pop(greeting.outgoing.session, None)

    def _welcomed(self, greeting: Greeting, body: bytes) -> None:
        endpoint, peer, early = self._endpoint, greeting.peer, greeting.early
        arrived_s = endpoint.time()
        keys, answer = self._shaker.finish(greeting.outgoing, body, endpoint.now_ms())
        self._end(greeting)
        answered = early if answer is not None and peer.waiting and early in peer.waiting else None
        if answered is not None and peer.waiting:
            peer.waiting.remove(answered)
        session = self._sessions.establish(peer, keys)
        if answered is not None and answer is not None:
            # What we have computed is no part of the way, and who was greeted twice may have answered either.
            answered.sent_s = peer.heard_s - (arrived_s - greeting.sent_s)
            answered.resent = greeting.attempts > 1 or bool(greeting.cookie)
            endpoint.calls.answered_early(answered, answer)
        if not session.counter and peer.session is session:
            # Unused, it would stay half-open there: nothing else is to be asked, or both sides began at once.
            if answered is not None:
                endpoint.respond(peer, answered.tag, THANKS, OK, b"")
            else:
                endpoint.check(peer.address)
