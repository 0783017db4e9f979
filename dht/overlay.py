"""One dimension's DHT, on an endpoint shared with the others: what a node asks of it, and its upkeep.

Decides which contacts are in and what is done regularly. Leaves the way in to `joining`, answers to `serving`,
values under keys to `records`, sessions and time-outs to `endpoint`, choices to the pure cores (`routing`, `lookup`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from .contact import Address, Contact
from .errors import DhtError, LocalError
from .identity import NODE_ID_BYTES, node_id
from .joining import Joining, ignore, ignore_contacts
from .metrics import OverlayMeasures
from .peers import Call, Peer, PeerInfo
from .record import check_key
from .records import Records
from .reply import Reply
from .routing import Bucket, K, Table
from .serving import Handler, Serving, check_kind
from .walk import FIND, Walk, ask_one

if TYPE_CHECKING:
    from .endpoint import Endpoint

Answer = Callable[[bytes | None, DhtError | None], None]

# Maymounkov and Mazieres 2002, section 2.3: a bucket without a lookup in an hour is refreshed.
REFRESH_MS = 3_600_000
NOBODY: frozenset[bytes] = frozenset()
# Who is remembered of those who fell silent: as many as an answer of a lookup has.
MAX_MISSED = K
# Contacts of members that a process has computed: 8 overlays of 16,000 nodes, in some 30 MB; a live one meets hundreds.
CONTACTS_REMEMBERED = 1 << 17


@dataclass(frozen=True, slots=True)
class Survey:
    """What a lookup came to: who answered, who did not, and who was left alone for having been silent before.

    Fewer answers than were asked for are all there are only where nobody was silent.
    """

    found: list[Contact]
    silent: list[Contact]
    lost: list[Contact]


class Overlay:
    """One DHT: `join`, `find`, `ask`, `handle` and `records`. Made by `Endpoint.overlay`."""

    def __init__(self, endpoint: Endpoint, dimension: str, tag: int) -> None:
        self.endpoint = endpoint
        self.dimension = dimension
        self.tag = tag
        # In `Peer.met`, among the endpoint's overlays, of which none is ever taken away; and those before it.
        self._bit = 1 << len(endpoint.overlays)
        self._lower_bits = self._bit - 1
        self.node_id = node_id(dimension, endpoint.member.public_key, endpoint.member.issuer_nonce)
        self._contact: Contact | None = None
        self.table = Table(self.node_id, profile=endpoint.profile)
        self._records: Records | None = None
        self.measures = OverlayMeasures()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._change_told = True
        # Whether this node takes part: until it leaves.
        self.active = True
        # When it is the next far bucket's turn, and which one it is: not everybody begins with the same.
        self._exchange_ms, self._exchange_turn = 0, self.node_id[-1]
        self._missed: dict[bytes, tuple[Contact, float]] = {}
        # Node ids that have no place here, by the word of whoever owns the endpoint.
        self.shunned = NOBODY
        self.joining = Joining(self)
        self.serving = Serving(self)
        # The same without another step.
        self.requested = self.serving.requested

    # -- joining and leaving -------------------------------------------------------------------------

    async def join(self, seeds: Sequence[Address]) -> None:
        """Enter the overlay through any of the seeds (IP addresses); without seeds, begin a new one."""
        self.active = True
        await self.joining.join(seeds)

    async def leave(self) -> None:
        """Say goodbye to the neighbours and forget the overlay; the endpoint's other ones go on. `join` comes back."""
        self.active = False
        await self.joining.leave()
        self.table.flush()
        self._missed.clear()
        if self._records is not None:
            self._records.publishing.clear()

    def goodbye(self, contacts: Iterable[Contact]) -> None:
        """After `leave`: these were asked something since, and may have taken us in again."""
        self.joining.goodbye(contacts)

    def warm_start(self, contacts: Sequence[Contact]) -> None:
        """Fill the table with contacts that are known to be true (a simulator's, never a datagram's)."""
        self.table.fill(contacts)
        now_ms, rng = self.endpoint.now_ms(), self.endpoint.rng
        self.table.touch_all(lambda: now_ms - rng.randrange(REFRESH_MS))

    # -- lookups -------------------------------------------------------------------------------------

    async def find(self, key: bytes, k: int = K, *, disjoint: int = 1) -> list[Contact]:
        """The k live nodes nearest to a key, nearest first; with ourselves, when we are a server."""
        future: asyncio.Future[list[Contact]] = self.endpoint.loop.create_future()
        self.find_then(key, lambda found: None if future.done() else future.set_result(found), k, disjoint=disjoint)
        return await future

    def find_then(
        self, key: bytes, callback: Callable[[list[Contact]], None], k: int = K, *, disjoint: int = 1
    ) -> None:
        """`find` without a coroutine."""
        target = int.from_bytes(check_key(key), "big")
        Walk(self, key, lambda found: callback(self._with_self(found, target, k)), k=k, disjoint=disjoint).begin()

    async def survey(self, key: bytes, k: int = K) -> Survey:
        """`find`, and who may be there besides."""
        future: asyncio.Future[Survey] = self.endpoint.loop.create_future()
        target = int.from_bytes(check_key(key), "big")

        def done(found: list[Contact]) -> None:
            if not future.done():
                future.set_result(Survey(self._with_self(found, target, k), walk.silent, walk.lost))

        walk = Walk(self, key, done, k=k)
        walk.begin()
        return await future

    async def named_by(self, contact: Contact, key: bytes) -> list[Contact] | None:
        """Whom one other node names as nearest to a key, without itself; None where it does not say so in good time."""
        future: asyncio.Future[list[Contact] | None] = self.endpoint.loop.create_future()
        ask_one(self, contact, check_key(key), lambda named: None if future.done() else future.set_result(named))
        return await future

    def known(self, key: bytes, k: int = K) -> list[Contact]:
        """The k nearest of our own table (and ourselves, when we are a server), without asking anybody."""
        target = int.from_bytes(check_key(key), "big")
        return self._with_self(self.table.nearest(target, k), target, k)

    def missed(self, within_s: float) -> list[Contact]:
        """Who fell silent in the last so many seconds, without a goodbye, and was not heard since."""
        since_s = self.endpoint.time() - within_s
        return [contact for contact, lost_s in self._missed.values() if lost_s >= since_s]

    @property
    def records(self) -> Records:
        """Values under keys; made at the first use, since most nodes only send messages to whoever is near a key."""
        if self._records is None:
            self._records = Records(self)
        return self._records

    # -- messages of applications --------------------------------------------------------------------

    def handle(self, kind: int, handler: Handler) -> None:
        """Answer requests of this kind (0 to 65,535) with `handler(contact, body, reply)`, synchronously."""
        self.serving.add(kind, handler)

    def ask(
        self,
        contact: Contact,
        kind: int,
        body: bytes,
        *,
        timeout_ms: int | None = None,
        again_ms: int | None = None,
    ) -> asyncio.Future[bytes]:
        """Ask one node; PeerTimeoutError, PeerRefusedError, PeerBusyError or PeerIdentityError when it fails.

        With `again_ms` the request is sent once more after that long: only where a repetition does no harm.
        """
        future: asyncio.Future[bytes] = self.endpoint.loop.create_future()

        def settle(answer: bytes | None, error: DhtError | None) -> None:
            if not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(answer or b"")

        self.ask_then(contact, kind, body, settle, timeout_ms=timeout_ms, again_ms=again_ms)
        return future

    def ask_then(
        self,
        contact: Contact,
        kind: int,
        body: bytes,
        callback: Answer,
        *,
        timeout_ms: int | None = None,
        again_ms: int | None = None,
        slow: Callable[[], None] | None = None,
    ) -> None:
        """`ask` without a future: `callback(answer, None)` or `callback(None, error)`, once, and later.

        `slow`: see `Calls.begin`; a node is never slow to itself.
        """
        check_kind(kind)

        def answered(call: Call, error: DhtError | None, answer: bytes) -> None:
            callback(None if error is not None else answer, error)

        if contact.node_id == self.node_id:
            self.endpoint.calls.call_self(self.tag, kind, body, answered, timeout_ms)
        else:
            self.endpoint.call(
                contact.address,
                self.tag,
                kind,
                body,
                answered,
                contact=contact,
                timeout_ms=timeout_ms,
                again_ms=again_ms,
                slow=slow,
            )

    # -- what others see -----------------------------------------------------------------------------

    @property
    def contact(self) -> Contact:
        """Ourselves, as others know us."""
        if self._contact is None or self._contact.address != self.endpoint.address:
            self._contact = Contact.unpack(Contact(self.node_id, self.endpoint.address).packed)
        return self._contact

    def peers(self) -> list[PeerInfo]:
        """The contacts in the table, nearest first."""
        now_s = self.endpoint.time()
        infos = []
        for contact in self.table.nearest(self.table.number, len(self.table)):
            peer = self.endpoint.peer(contact.address)
            if peer is None or peer.member is None:
                infos.append(PeerInfo(contact, "", None, None, 0))
            else:
                rtt_ms = peer.rtt_ms if peer.rtt_ms >= 0 else None
                heard_ms_ago = int((now_s - peer.heard_s) * 1_000)
                infos.append(PeerInfo(contact, peer.member.entity, rtt_ms, heard_ms_ago, peer.failures))
        return infos

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call this after the table's live contacts changed; many changes at once make one call."""
        self._listeners = (*self._listeners, callback)

    def off_change(self, callback: Callable[[], None]) -> None:
        """Call this no more."""
        self._listeners = tuple(each for each in self._listeners if each != callback)

    # -- for the endpoint ----------------------------------------------------------------------------

    def contact_of(self, peer: Peer) -> Contact:
        """The peer as a contact of this overlay; its id follows from its credential."""
        contact = self.known_contact(peer)
        if contact is None:
            if peer.member is None:
                raise LocalError("a peer without a handshake has no id")
            contact = _contact(self.dimension, peer.member.public_key, peer.member.issuer_nonce, peer.address)
            met, at = peer.met, self._at(peer)
            peer.met = (met[0] | self._bit, *met[1:at], contact, None, *met[at:])
        return contact

    def known_contact(self, peer: Peer) -> Contact | None:
        """`contact_of`, if anybody needed it before."""
        return peer.met[self._at(peer)] if peer.met[0] & self._bit else None

    def _at(self, peer: Peer) -> int:
        """Where in `Peer.met` its contact here stands, or would."""
        return 2 * (peer.met[0] & self._lower_bits).bit_count() + 1  # type: ignore[no-any-return]

    def heard(self, peer: Peer) -> None:
        """A server took part in this overlay under a session of its own."""
        if not peer.met[0] & self._bit:
            self.contact_of(peer)
        table, met = self.table, peer.met
        at = 2 * (met[0] & self._lower_bits).bit_count() + 1  # `_at` without another step
        contact: Contact = met[at]
        if self._missed:
            self._missed.pop(contact.node_id, None)
        # Each datagram comes by, and most are of peers about whom nothing has changed.
        stamp = met[at + 1]
        if stamp is table.held:
            return
        if stamp is table.absent:
            table.knock(contact)
            return
        known = table.get(contact)
        if known is contact:
            peer.met = (*met[: at + 1], table.held, *met[at + 2 :])
        elif self.active and contact.node_id not in self.shunned:
            if table.add_contact(contact):
                self._changed()
                if known is None and self._records is not None:
                    self._records.publishing.arrived(contact)
            else:
                peer.met = (*met[: at + 1], table.absent, *met[at + 2 :])

    def shun(self, members: Iterable[tuple[bytes, bytes]]) -> None:
        """These members, and no others, have no place in this overlay from now on."""
        self.shunned = frozenset(node_id(self.dimension, key, nonce) for key, nonce in members)
        self.table.changed()
        held = self.table.by_id
        for one in sorted(self.shunned & held.keys()):
            self.drop(held[one])

    def is_neighbour(self, peer: Peer) -> bool:
        """Whether the peer is in the table near ourselves."""
        contact = self.known_contact(peer)
        return contact is not None and self.table.is_near(contact)

    def lost(self, address: Address) -> None:
        """Nobody answers at this address any more."""
        for contact in self.table.at(address):
            self.drop(contact)
            if len(self._missed) >= MAX_MISSED:
                del self._missed[next(iter(self._missed))]
            self._missed[contact.node_id] = contact, self.endpoint.time()

    def drop(self, contact: Contact) -> None:
        """Take a contact out; one that waited for its place is asked whether it is there."""
        before = len(self.table)
        self._missed.pop(contact.node_id, None)
        waiting = self.table.remove_contact(contact)
        if len(self.table) != before:
            self._changed()
            if self._records is not None:
                self._records.publishing.departed(contact)
        if waiting is not None and self.endpoint.is_open:
            self.endpoint.call(waiting.address, self.tag, FIND, self.node_id, ignore, contact=waiting)

    def tick(self, now_ms: int) -> None:
        """What is due now, each kind of it bounded."""
        if not self.active:
            return
        if self._records is not None:
            self._records.shelf.expire(now_ms)
        if not len(self.table):
            self.joining.feel_for_seeds()
            return
        if not self.endpoint.is_client:
            idle, turn = self.table.idle_buckets(now_ms - REFRESH_MS), now_ms >= self._exchange_ms
            far = self.table.far_buckets() if idle or turn else []
            for bucket in [each for each in idle if each not in far][:1]:
                self.find_then(self.random_id(*self.table.range_of(bucket)), ignore_contacts)
            if turn:
                self._exchange(far, now_ms)
        if self._records is not None:
            self._records.upkeep(now_ms)

    def _exchange(self, far: list[Bucket], now_ms: int) -> None:
        """Look for others in the far bucket whose turn it is, each once an hour: that is its refresh, too."""
        first, self._exchange_ms = not self._exchange_ms, now_ms + REFRESH_MS // max(1, len(far))

        def met(found: list[Contact]) -> None:
            if self.active and self.table.exchange(found, self.endpoint.rng):
                self._changed()

        if far and not first:
            self._exchange_turn += 1
            turn = far[self._exchange_turn % len(far)]
            self.find_then(self.random_id(*self.table.range_of(turn)), met)

    def closed(self) -> None:
        """The endpoint goes: no timer may outlive it."""
        self.joining.close()

    def random_id(self, low: int, high: int) -> bytes:
        """Some id of a range."""
        return self.endpoint.rng.randint(low, high).to_bytes(NODE_ID_BYTES, "big")

    # -- helpers -------------------------------------------------------------------------------------

    def _with_self(self, found: list[Contact], target: int, k: int) -> list[Contact]:
        if self.endpoint.is_client or not self.endpoint.is_open or self.node_id in self.shunned:
            return found[:k]
        return sorted([*found, self.contact], key=lambda contact: contact.number ^ target)[:k]

    def _changed(self) -> None:
        if self._listeners and self._change_told and self.endpoint.is_open:
            self._change_told = False
            self.endpoint.loop.call_soon(self._tell_change)

    def _tell_change(self) -> None:
        self._change_told = True
        for listener in self._listeners:
            listener()


@lru_cache(maxsize=CONTACTS_REMEMBERED)
def _contact(dimension: str, public_key: bytes, issuer_nonce: bytes, address: Address) -> Contact:
    """A member's contact; remembered, because all nodes of a simulation meet the same members."""
    return Contact.unpack(Contact(node_id(dimension, public_key, issuer_nonce), address).packed)


__all__ = ["Contact", "Handler", "Overlay", "PeerInfo", "Reply"]
