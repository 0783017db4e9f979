"""A lookup on its way: moves the questions and answers of one `Lookup` through the endpoint.

Decides how long who is asked has and what a bad answer means for the lookup. Leaves whom to ask to `lookup`, and
records to `reading`. No Task: every step runs in a reply's or a time-out's callback, and the
end is told to one callback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .calls import HARD_TIMEOUT_MS
from .contact import Contact, admits, unpack_contacts
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
from .lookup import ALPHA, Lookup
from .peers import GRACE_MS, MAX_SOFT_TIMEOUT_MS, Call, Peer
from .routing import K
from .vitals import VITALS_BYTES

if TYPE_CHECKING:
    from .overlay import Overlay

FIND, PUT, GET, LEAVE, PART, READ, CACHE = -2, -3, -4, -5, -6, -7, -8
# What changes nothing where it is asked, and anybody may know: strangers may ask it along with their HELLO (`early`).
EARLY = frozenset((FIND, GET))
# Who let a lookup wait for all of that gets no grace for this long, unless it answers one in time: a tarpit that
# lives, and so is never lost, may cost each reader one wait and not one a lookup.
TARRY_MEMORY_S = 60.0
# An answer that came by then did not tarry.
PROMPT_S = (MAX_SOFT_TIMEOUT_MS + GRACE_MS) / 1_000


class Walk:
    """The search for the nodes nearest to a key."""

    def __init__(
        self,
        overlay: Overlay,
        key: bytes,
        on_done: Callable[[list[Contact]], None],
        *,
        k: int = K,
        disjoint: int = 1,
        kind: int = FIND,
        body: bytes | None = None,
        seeds: list[Contact] | None = None,
        alpha: int = ALPHA,
    ) -> None:
        target = self._target = int.from_bytes(key, "big")
        self._overlay = overlay
        self._endpoint = overlay.endpoint
        self._k, self._disjoint, self._alpha = k, disjoint, alpha
        self._kind = kind
        self._body = key if body is None else body
        self._on_done = on_done
        self._over = False
        # Who was asked and did not answer, nearest first: known at the end.
        self.silent: list[Contact] = []
        self._lost: dict[bytes, Contact] = {}
        self._began_s = overlay.endpoint.time()
        self._seeds = overlay.table.around(target, max(K, k)) if seeds is None else seeds
        self._lookup: Lookup | None = None
        overlay.table.touch(target, overlay.endpoint.now_ms())

    def begin(self) -> None:
        """Ask the first contacts."""
        self._go_on(self._choice().start())

    def _choice(self) -> Lookup:
        """Who decides whom to ask."""
        if self._lookup is None:
            self._lookup = Lookup(
                self._target,
                self._seeds,
                k=self._k,
                own_id=self._overlay.node_id,
                disjoint=self._disjoint,
                admit=self._admits,
                alpha=self._alpha,
            )
        return self._lookup

    @property
    def lost(self) -> list[Contact]:
        """Who was not asked, having been silent a moment ago, though others still name them."""
        return list(self._lost.values())

    def _go_on(self, contacts: list[Contact]) -> None:
        endpoint = self._endpoint
        while contacts:
            contact = contacts.pop(0)
            try:
                call = endpoint.call(
                    contact.address,
                    self._overlay.tag,
                    self._kind,
                    self._body,
                    self._answered,
                    contact=contact,
                    timed=False,
                    early=self._kind == GET,
                )
            except LocalError:
                # The endpoint is closing, or full of calls: the walk ends with what it has.
                contacts += self._choice().failed(contact, silent=True)
                continue
            if self._alpha < ALPHA:
                endpoint.deadlines.add(endpoint.sessions.pace.hedge_ms(call.peer), call, self._hedge)
            else:
                endpoint.deadlines.add(self._slow_ms(call.peer), call, self._slow)
        if self._lookup is not None and self._lookup.done:
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            took_ms = (self._endpoint.time() - self._began_s) * 1_000
            lookup = self._lookup
            self._overlay.measures.looked_up(took_ms, lookup.asked if lookup is not None else 1)
            found, tell, self._on_done = self._found(), self._on_done, _heard
            if lookup is not None:
                lookup.forget()
            tell(found)

    def _found(self) -> list[Contact]:
        """What the end tells."""
        lookup = self._choice()
        self.silent = lookup.silent()
        return lookup.result()

    def _slow_ms(self, peer: Peer) -> int:
        """How long a peer has one of the lookup's slots: nobody depends on what a client takes for the nearest."""
        sessions = self._endpoint.sessions
        return sessions.patience_ms(peer) if self._endpoint.is_client else sessions.usual_ms(peer)

    def _hedge(self, call: Call) -> None:
        """Where few are asked at a time the next one need not wait for a time-out."""
        hedged_ms = self._endpoint.sessions.pace.hedge_ms(call.peer)
        self._endpoint.deadlines.add(max(1, self._slow_ms(call.peer) - hedged_ms), call, self._slow)
        if call.contact is not None and not self._over:
            self._widen()
            self._go_on(self._choice().slow(call.contact))

    def _widen(self) -> bool:
        """Take in contacts that the lookup did not begin with; whether there were any."""
        return False

    def _slow(self, call: Call) -> None:
        self._endpoint.calls.expire_in(call, HARD_TIMEOUT_MS - MAX_SOFT_TIMEOUT_MS)
        if call.contact is None or self._over:
            return
        grace_ms = self._endpoint.sessions.pace.grace_ms(call.peer, self._choice().silences)
        doubtful = call.peer.failures or call.peer.tarries_until_s > self._endpoint.time()
        if call.peer.session is None or doubtful or not grace_ms:
            self._go_on(self._choice().overdue(call.contact))
        else:
            # It was alive a moment ago, and the nearest must not be missed because the host is busy or a
            # datagram was lost; questions of a lookup may be answered twice.
            self._endpoint.calls.resend(call)
            self._endpoint.deadlines.add(grace_ms, call, self._overdue)
            self._go_on(self._choice().slow(call.contact))

    def _overdue(self, call: Call) -> None:
        call.peer.tarries_until_s = self._endpoint.time() + TARRY_MEMORY_S
        if call.contact is not None and not self._over:
            self._go_on(self._choice().overdue(call.contact))

    def _answered(self, call: Call, error: DhtError | None, body: bytes) -> None:
        contact = call.contact
        if error is None and call.peer.heard_s - call.sent_s <= PROMPT_S:
            call.peer.tarries_until_s = 0.0
        if contact is None or self._over:
            return
        if error is None:
            try:
                contacts = self._read(call, body)
                if not self._over:
                    self._go_on((self._lookup or self._choice()).answered(contact, contacts))
                return
            except RemoteError as bad:
                error = bad
        hostile = isinstance(error, WireError | PeerIdentityError)
        if hostile:
            self._endpoint.counters["hostile-answer"] += 1
        left = isinstance(error, PeerRefusedError) and call.kind == FIND  # whoever takes part answers that
        if isinstance(error, PeerIdentityError) or left:
            self._overlay.drop(contact)
        silent = isinstance(error, PeerTimeoutError | PeerBusyError)
        self._go_on(self._choice().failed(contact, hostile=hostile, silent=silent))

    def _read(self, call: Call, body: bytes) -> list[Contact]:
        self._endpoint.observe(call, body)
        return unpack_contacts(body[VITALS_BYTES:], K)

    def _admits(self, contact: Contact) -> bool:
        endpoint, address = self._endpoint, contact.address
        if not admits(address[0], endpoint.profile) or contact.node_id in self._overlay.shunned:
            return False
        if endpoint.sessions.is_lost(address):
            if len(self._lost) < K:
                self._lost[contact.node_id] = contact
            return False
        return True


def ask_one(overlay: Overlay, contact: Contact, key: bytes, tell: Callable[[list[Contact] | None], None]) -> None:
    """Whom one node names as nearest to a key; None, once, where it does not say so in good time."""
    waiting = True

    def over(named: list[Contact] | None) -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            tell(named)

    def answered(call: Call, error: DhtError | None, body: bytes) -> None:
        named = None
        if error is None:
            try:
                overlay.endpoint.observe(call, body)
                named = unpack_contacts(body[VITALS_BYTES:], K)
            except RemoteError:
                overlay.endpoint.counters["hostile-answer"] += 1
        over(named)

    try:
        overlay.endpoint.call(
            contact.address, overlay.tag, FIND, key, answered, contact=contact, slow=lambda: over(None)
        )  # fmt: skip
    except LocalError:  # the endpoint is closing, or full of calls
        over(None)


def _heard(found: list[Contact]) -> None:
    """Nobody is told twice, and whoever was told need not be kept."""
