"""One dimension's DHT: its handlers, lookups, records and upkeep, on an endpoint shared with the others.

Decides what a node answers in this overlay, where records go and when they are stored again. Leaves
sessions and time-outs to `endpoint`, choices to the pure cores (`routing`, `lookup`, `shelf`, `record`).
A contact enters the table only by a genuine message under a session that it helped to agree on from its
own address; clients never do.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import wire
from .contact import Address, Contact, pack_contacts
from .errors import DhtError, JoinError, LocalError, RemoteError
from .identity import NODE_ID_BYTES, node_id
from .peers import Call, Peer, PeerInfo
from .record import Record, check_key, open_record
from .reply import MAX_BODY_BYTES, Reply
from .routing import K, Table
from .shelf import KNOWN, STORED, Shelf
from .walk import FIND, GET, LEAVE, PUT, ReadingWalk, Walk

if TYPE_CHECKING:
    from .endpoint import Endpoint

Handler = Callable[[Contact, bytes, Reply], None]
Answer = Callable[[bytes | None, DhtError | None], None]

# A store that is not acknowledged by then is sent once more; the same record twice is one record.
PUT_AGAIN_MS = 700
# Route with k = 20, store at 8: enough that a fifth of the holders may go between two stores.
REPLICAS = 8
# A network that starts all at once needs a few seconds until its seeds answer.
JOIN_ATTEMPTS = 6
JOIN_BACKOFF_S = 0.5
MAX_JOIN_BACKOFF_S = 4.0
# Nodes that join at the same moment cannot know one another: look again a little later.
SETTLE_S = (1.0, 5.0, 20.0)
# Maymounkov and Mazieres 2002, section 2.3: a bucket without a lookup in an hour is refreshed.
REFRESH_MS = 3_600_000
# A holder stores a record again when nobody else did for this long.
REPAIR_MS = 3_600_000
MAX_REPAIRS_PER_TICK = 4
# Records that this node publishes and stores again at half of their remaining life.
MAX_PUBLICATIONS = 4_096
MAX_REPUBLISH_PER_TICK = 16
MIN_REPUBLISH_MS = 30_000
_GET_LENGTH = NODE_ID_BYTES + 2


@dataclass(slots=True)
class _Publication:
    raw: bytes
    expires_ms: int
    due_ms: int


class Overlay:
    """One DHT: `join`, `find`, `put`, `get`, `ask` and `handle`. Made by `Endpoint.overlay`."""

    def __init__(self, endpoint: Endpoint, dimension: str, tag: int) -> None:
        self.endpoint = endpoint
        self.dimension = dimension
        self.tag = tag
        self.node_id = node_id(dimension, endpoint.member.public_key, endpoint.member.issuer_nonce)
        self.table = Table(self.node_id, profile=endpoint.profile)
        self.shelf = Shelf()
        self._handlers: dict[int, Handler] = {}
        self._listeners: list[Callable[[], None]] = []
        self._change_told = True
        self._seeds: list[Address] = []
        self._publications: OrderedDict[tuple[bytes, bytes], _Publication] = OrderedDict()
        self._stored_ms: OrderedDict[bytes, int] = OrderedDict()
        self._settling: list[asyncio.TimerHandle] = []

    # -- joining and leaving -------------------------------------------------------------------------

    async def join(self, seeds: Sequence[Address]) -> None:
        """Enter the overlay through any of the seeds (IP addresses); without seeds, begin a new one."""
        self._seeds = [seed for seed in dict.fromkeys((host, port) for host, port in seeds) if seed != self._address()]
        if not self._seeds:
            return
        backoff_s = JOIN_BACKOFF_S
        for attempt in range(JOIN_ATTEMPTS):
            if attempt:
                await asyncio.sleep(backoff_s * self.endpoint.rng.uniform(0.8, 1.2))
                backoff_s = min(2 * backoff_s, MAX_JOIN_BACKOFF_S)
            answers = await asyncio.gather(*map(self._ask_seed, self._seeds), return_exceptions=True)
            if not all(isinstance(answer, BaseException) for answer in answers):
                break
        else:
            tried = "; ".join(
                f"{host}:{port}: {answer}" for (host, port), answer in zip(self._seeds, answers, strict=True)
            )
            raise JoinError(f"no seed of {self.dimension!r} let us in ({tried}); is one of them running?")
        await self.find(self.node_id)
        own_bucket = self.table.index_of(self.table.node.long_id)
        distant = [bucket.range for index, bucket in enumerate(self.table.buckets) if index != own_bucket]
        await asyncio.gather(*(self.find(self._random_id(low, high)) for low, high in distant))
        loop = self.endpoint.loop
        self._settling = [
            loop.call_later(delay_s * self.endpoint.rng.uniform(0.7, 1.3), self._settle) for delay_s in SETTLE_S
        ]

    async def leave(self) -> None:
        """Say goodbye to the neighbours, so that they need no time-out, and forget the overlay."""
        for contact in self.table.nearest(self.table.node.long_id, K):
            self.endpoint.call(contact.address, self.tag, LEAVE, b"", _ignore, contact=contact, timeout_ms=500)
        self.closed()
        self.table.flush()
        self._publications.clear()
        self._seeds = []
        await asyncio.sleep(0)

    def warm_start(self, contacts: Sequence[Contact]) -> None:
        """Fill the table with contacts that are known to be true (a simulator's, never a datagram's)."""
        for contact in contacts:
            self.table.add_contact(contact)
        for bucket in self.table.buckets:
            bucket.used_ms = self.endpoint.now_ms() - self.endpoint.rng.randrange(REFRESH_MS)

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

    def known(self, key: bytes, k: int = K) -> list[Contact]:
        """The k nearest of our own table (and ourselves, when we are a server), without asking anybody."""
        target = int.from_bytes(check_key(key), "big")
        return self._with_self(self.table.nearest(target, k), target, k)

    # -- records -------------------------------------------------------------------------------------

    async def put(self, key: bytes, envelope_raw: bytes, expires_ms: int, *, republish: bool = True) -> int:
        """Store a signed record at the nodes nearest to a key; how many of them (we too) hold it now.

        `record.seal_record` makes plain values; any envelope with integer `seq` and `expires_ms` will do.
        It is stored again at half of its remaining life, until it expires or a newer one takes its place.
        """
        now_ms = self.endpoint.now_ms()
        try:
            record = open_record(envelope_raw, self.endpoint.scheme, self.dimension, check_key(key), now_ms)
        except RemoteError as error:
            raise LocalError(f"this record cannot be stored: {error}") from None
        if record.expires_ms != expires_ms:
            raise LocalError("the expiry that is asked for is not the one that is signed")
        if republish:
            self._publish(key, record)
        future: asyncio.Future[int] = self.endpoint.loop.create_future()
        self._store(key, record, lambda count: None if future.done() else future.set_result(count))
        return await future

    def unpublish(self, key: bytes, owner: bytes | None = None) -> None:
        """Stop storing our record under this key again; the copies out there run out."""
        self._publications.pop((key, owner or self.endpoint.signer.public_key), None)

    async def get(self, key: bytes, *, holders: int = 1, disjoint: int = 1) -> list[bytes]:
        """The records under a key, the newest of each owner, as `holders` of the nodes near it hold them."""
        future: asyncio.Future[list[Record]] = self.endpoint.loop.create_future()
        walk = ReadingWalk(
            self,
            check_key(key),
            lambda records: None if future.done() else future.set_result(records),
            holders=holders,
            disjoint=disjoint,
        )
        own = self.shelf.get(key, self.endpoint.now_ms())
        if own and holders <= 1:
            return [record.raw for record in own]
        for record in own:
            walk.add(record)
        walk.begin()
        return [record.raw for record in await future]

    # -- messages of applications --------------------------------------------------------------------

    def handle(self, kind: int, handler: Handler) -> None:
        """Answer requests of this kind (0 to 65,535) with `handler(contact, body, reply)`, synchronously."""
        _check_kind(kind)
        self._handlers[kind] = handler

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
    ) -> None:
        """`ask` without a future: `callback(answer, None)` or `callback(None, error)`, once, and later."""
        _check_kind(kind)

        def answered(call: Call, error: DhtError | None, answer: bytes) -> None:
            callback(None if error is not None else answer, error)

        if contact.node_id == self.node_id:
            self.endpoint.call_self(self.tag, kind, body, answered, timeout_ms)
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
            )

    # -- what others see -----------------------------------------------------------------------------

    @property
    def contact(self) -> Contact:
        """Ourselves, as others know us."""
        return Contact.unpack(Contact(self.node_id, self.endpoint.address).packed)

    def peers(self) -> list[PeerInfo]:
        """The contacts in the table, nearest first."""
        now_s = self.endpoint.loop.time()
        infos = []
        for contact in self.table.nearest(self.table.node.long_id, len(self.table)):
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
        self._listeners.append(callback)

    # -- for the endpoint ----------------------------------------------------------------------------

    def contact_of(self, peer: Peer) -> Contact:
        """The peer as a contact of this overlay; its id follows from its credential."""
        contact = peer.contacts.get(self.tag)
        if contact is None:
            if peer.member is None:
                raise LocalError("a peer without a handshake has no id")
            own_id = node_id(self.dimension, peer.member.public_key, peer.member.issuer_nonce)
            contact = peer.contacts[self.tag] = Contact.unpack(Contact(own_id, peer.address).packed)
        return contact

    def heard(self, peer: Peer) -> None:
        """A server took part in this overlay under a session of its own."""
        contact = peer.contacts.get(self.tag) or self.contact_of(peer)
        if self.table.by_id.get(contact.node_id) is not contact and self.table.add_contact(contact):
            self._changed()

    def lost(self, address: Address) -> None:
        """Nobody answers at this address any more."""
        for contact in self.table.at(address):
            self.drop(contact)

    def drop(self, contact: Contact) -> None:
        """Take a contact out; one that waited for its place is asked whether it is there."""
        before = len(self.table)
        waiting = self.table.remove_contact(contact)
        if len(self.table) != before:
            self._changed()
        if waiting is not None and self.endpoint.is_open:
            self.endpoint.call(waiting.address, self.tag, FIND, self.node_id, _ignore, contact=waiting)

    def requested(self, peer: Peer, kind: int, body: bytes, reply: Reply) -> None:
        """One genuine request of this overlay."""
        if kind >= 0:
            handler = self._handlers.get(kind)
            if handler is None:
                reply.refuse("nobody answers this kind here")
            else:
                handler(self.contact_of(peer), body, reply)
        elif self.endpoint.is_client:
            reply.refuse("a client serves nothing")
        elif kind == FIND:
            self._answer_find(peer, body, reply)
        elif kind == GET:
            self._answer_get(peer, body, reply)
        elif kind == PUT:
            self._answer_put(body, reply)
        elif kind == LEAVE:
            reply()
            self.drop(self.contact_of(peer))
            return
        else:
            reply.refuse("unknown request")
        if not peer.is_client and peer.member is not self.endpoint.member:
            self.heard(peer)

    def tick(self, now_ms: int) -> None:
        """What is due now, each kind of it bounded."""
        self.shelf.expire(now_ms)
        if not len(self.table):
            for seed in self._seeds:
                self._feel_for(seed)
            return
        if not self.endpoint.is_client:
            for bucket in self.table.idle_buckets(now_ms - REFRESH_MS)[:1]:
                self.find_then(self._random_id(*bucket.range), _ignore_contacts)
            self._repair(now_ms)
        due = [item for item in self._publications.items() if item[1].due_ms <= now_ms]
        for (key, owner), publication in due[:MAX_REPUBLISH_PER_TICK]:
            if publication.expires_ms <= now_ms + 1_000:
                del self._publications[key, owner]
                continue
            publication.due_ms = self._due_ms(publication.expires_ms, now_ms)
            self._store_raw(key, publication.raw, now_ms)

    def closed(self) -> None:
        """The endpoint goes: no timer may outlive it."""
        for timer in self._settling:
            timer.cancel()
        self._settling = []

    # -- helpers -------------------------------------------------------------------------------------

    def _answer_find(self, peer: Peer, body: bytes, reply: Reply) -> None:
        if len(body) != NODE_ID_BYTES:
            reply.refuse("a key is 20 bytes")
            return
        reply(self.endpoint.vitals() + self._packed_nearest(peer, body))

    def _answer_get(self, peer: Peer, body: bytes, reply: Reply) -> None:
        if len(body) != _GET_LENGTH:
            reply.refuse("a key is 20 bytes, and a position 2")
            return
        key, position = body[:NODE_ID_BYTES], int.from_bytes(body[NODE_ID_BYTES:], "big")
        held = self.shelf.get(key, self.endpoint.now_ms())[position:]
        if not held:
            reply(b"\0" + self.endpoint.vitals() + self._packed_nearest(peer, key))
            return
        page: list[bytes] = []
        room = MAX_BODY_BYTES - 16
        for record in held:
            room -= len(record.raw) + 3
            if room < 0:
                break
            page.append(record.raw)
        following = position + len(page) if len(page) < len(held) else 0
        reply(b"\1" + wire.pack([following, *page]))

    def _answer_put(self, body: bytes, reply: Reply) -> None:
        if len(body) <= NODE_ID_BYTES:
            reply.refuse("a key and a record are needed")
            return
        key, now_ms = body[:NODE_ID_BYTES], self.endpoint.now_ms()
        record = open_record(body[NODE_ID_BYTES:], self.endpoint.scheme, self.dimension, key, now_ms)
        outcome = self.shelf.put(key, record, now_ms)
        if outcome in (STORED, KNOWN):
            self._note_stored(key, now_ms)
            reply()
        elif outcome.startswith("rate"):
            reply.busy(60_000)
        else:
            reply.refuse(outcome)

    def _packed_nearest(self, peer: Peer, key: bytes) -> bytes:
        target = int.from_bytes(key, "big")
        asker = peer.contacts.get(self.tag)
        found = self.table.nearest(target, K)
        if asker is not None and found and asker.number ^ target <= found[-1].number ^ target:
            # Nobody needs to be told of itself.
            found = [contact for contact in self.table.nearest(target, K + 1) if contact is not asker][:K]
        return pack_contacts(found)

    def _with_self(self, found: list[Contact], target: int, k: int) -> list[Contact]:
        if self.endpoint.is_client or not self.endpoint.is_open:
            return found[:k]
        return sorted([*found, self.contact], key=lambda contact: contact.number ^ target)[:k]

    def _publish(self, key: bytes, record: Record) -> None:
        name = (key, record.owner)
        if name not in self._publications and len(self._publications) >= MAX_PUBLICATIONS:
            raise LocalError(f"{MAX_PUBLICATIONS} records are published already; unpublish some")
        due_ms = self._due_ms(record.expires_ms, self.endpoint.now_ms())
        self._publications[name] = _Publication(record.raw, record.expires_ms, due_ms)

    def _due_ms(self, expires_ms: int, now_ms: int) -> int:
        left_ms = expires_ms - now_ms
        return now_ms + max(MIN_REPUBLISH_MS, int(left_ms * self.endpoint.rng.uniform(0.4, 0.5)))

    def _store_raw(self, key: bytes, raw: bytes, now_ms: int) -> None:
        try:
            record = open_record(raw, self.endpoint.scheme, self.dimension, key, now_ms)
        except RemoteError:
            return
        self._store(key, record, _ignore_count)

    def _store(self, key: bytes, record: Record, on_done: Callable[[int], None]) -> None:
        def found(contacts: list[Contact]) -> None:
            nearest = contacts[:REPLICAS]
            remote = [contact for contact in nearest if contact.node_id != self.node_id]
            count, left = 0, len(remote)
            if len(remote) < len(nearest):
                now_ms = self.endpoint.now_ms()
                if self.shelf.put(key, record, now_ms, limited=False) in (STORED, KNOWN):
                    self._note_stored(key, now_ms)
                    count += 1

            def acknowledged(call: Call, error: DhtError | None, body: bytes) -> None:
                nonlocal count, left
                count += error is None
                left -= 1
                if not left:
                    on_done(count)

            if not remote or not self.endpoint.is_open:
                on_done(count)
                return
            body = key + record.raw
            for contact in remote:
                self.endpoint.call(
                    contact.address, self.tag, PUT, body, acknowledged, contact=contact, again_ms=PUT_AGAIN_MS
                )

        self.find_then(key, found)

    def _note_stored(self, key: bytes, now_ms: int) -> None:
        self._stored_ms.pop(key, None)
        self._stored_ms[key] = now_ms

    def _repair(self, now_ms: int) -> None:
        """Store again what nobody stored for an hour, if we are among the nearest to it."""
        repaired = 0
        while self._stored_ms and repaired < MAX_REPAIRS_PER_TICK:
            key, stored_ms = next(iter(self._stored_ms.items()))
            if stored_ms > now_ms - REPAIR_MS:
                return
            del self._stored_ms[key]
            records = self.shelf.get(key, now_ms)
            if not records:
                continue
            self._note_stored(key, now_ms)
            repaired += 1
            if any(contact.node_id == self.node_id for contact in self.known(key, REPLICAS)):
                for record in records:
                    self._store(key, record, _ignore_count)

    def _ask_seed(self, seed: Address) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self.endpoint.loop.create_future()

        def answered(call: Call, error: DhtError | None, body: bytes) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                # The endpoint has put the seed into the table; the lookup of ourselves begins there.
                future.set_result(None)

        self.endpoint.call(seed, self.tag, FIND, self.node_id, answered)
        return future

    def _feel_for(self, seed: Address) -> None:
        """Everybody is gone: perhaps a seed is back."""

        def answered(call: Call, error: DhtError | None, body: bytes) -> None:
            if error is None:
                self._settle()

        self.endpoint.call(seed, self.tag, FIND, self.node_id, answered)

    def _settle(self) -> None:
        self.find_then(self.node_id, _ignore_contacts)

    def _changed(self) -> None:
        if self._listeners and self._change_told and self.endpoint.is_open:
            self._change_told = False
            self.endpoint.loop.call_soon(self._tell_change)

    def _tell_change(self) -> None:
        self._change_told = True
        for listener in self._listeners:
            listener()

    def _random_id(self, low: int, high: int) -> bytes:
        return self.endpoint.rng.randint(low, high).to_bytes(NODE_ID_BYTES, "big")

    def _address(self) -> Address:
        return self.endpoint.address


def _check_kind(kind: int) -> None:
    if not 0 <= kind < 65_536:
        raise LocalError("a kind is 0 to 65,535")


def _ignore(call: Call, error: DhtError | None, body: bytes) -> None:
    """For calls whose effect is on the table, or none."""


def _ignore_contacts(contacts: list[Contact]) -> None:
    """For lookups that only refresh the table."""


def _ignore_count(count: int) -> None:
    """For stores that nobody waits for."""


__all__ = ["Contact", "Handler", "Overlay", "PeerInfo", "Reply"]
