"""Records on their way to their holders: stored, stored again by their publisher, repaired by a holder.

Decides where a record goes and when it goes there again. Leaves what a holder keeps to `shelf`, finding the
holders to `walk`, and values in parts to `chunking`.

Sources: Maymounkov and Mazieres 2002, section 2.5 (the publisher stores again, holders only when nobody did). Not
theirs: a holder that goes is replaced by the one nearest to the key, and a newcomer is given what it should hold by
the nearest one only, so much, and once: else whoever keeps arriving could make others send without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .aging import Aging
from .chunking import Upload, unpack_missing
from .chunks import cut
from .contact import Contact
from .errors import DhtError, LocalError, RemoteError
from .peers import Call
from .record import Record, open_record
from .shelf import KNOWN, STORED
from .walk import PUT

if TYPE_CHECKING:
    from .overlay import Overlay

# A store that is not acknowledged by then is sent once more; the same record twice is one record.
PUT_AGAIN_MS = 700
# Route with k = 20, store at 8: enough that a fifth of the holders may go between two stores.
REPLICAS = 8
# A store's lookup is over when so many of the nearest have answered; the first 8 of them hold the record. In 100
# lookups each (500 nodes, the same with a fifth dead, 2,000 nodes) ten led to the same 8 as the k = 20 of a plain
# lookup, with 12 to 14 questions instead of 21 to 26.
NEAREST_FOR_STORE = REPLICAS + 2
# A holder stores a record again when nobody else did for this long.
REPAIR_MS = 3_600_000
MAX_REPAIRS_PER_TICK = 16
# Records that this node publishes and stores again at half of their remaining life.
MAX_PUBLICATIONS = 4_096
MAX_REPUBLISH_PER_TICK = 16
MAX_PUBLISHED_BYTES = 64 * 2**20
MIN_REPUBLISH_MS = 30_000
# Newcomers that wait for their records, those given theirs lately, and what one of them is given.
MAX_NEWCOMERS = 64
MAX_WELCOMED = 1_024
MAX_TRANSFER_RECORDS = 64
MAX_TRANSFER_BYTES = 262_144
NEWCOMERS_PER_TICK = 4
# Records that are handed on at the same time by a node that leaves, to eight holders each.
HANDED_AT_ONCE = 16
# Holders that went since the last look.
MAX_GONE = 64


@dataclass(slots=True)
class _Publication:
    raw: bytes
    blob: bytes
    expires_ms: int
    due_ms: int


class Publishing:
    """The records that one overlay's node publishes, and those that it holds for others."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._endpoint = overlay.endpoint
        self._publications: Aging[tuple[bytes, bytes], _Publication] = Aging()
        self._published_bytes = 0
        self._stored_ms: Aging[bytes, int] = Aging()
        self._newcomers: Aging[bytes, Contact] = Aging()
        self._welcomed: Aging[bytes, None] = Aging()
        self._gone: Aging[bytes, Contact] = Aging()

    def publish(self, key: bytes, record: Record) -> None:
        """Store this record again until it expires; LocalError when too many are."""
        name = (key, record.owner)
        if name not in self._publications and len(self._publications) >= MAX_PUBLICATIONS:
            raise LocalError(f"{MAX_PUBLICATIONS} records are published already; unpublish some")
        if self._published_bytes + len(record.blob) > MAX_PUBLISHED_BYTES:
            raise LocalError(f"{MAX_PUBLISHED_BYTES} bytes are published already; unpublish some")
        self.unpublish(*name)
        due_ms = self._due_ms(record.expires_ms, self._endpoint.now_ms())
        self._publications[name] = _Publication(record.raw, record.blob, record.expires_ms, due_ms)
        self._published_bytes += len(record.blob)

    def unpublish(self, key: bytes, owner: bytes) -> None:
        """Stop storing a record again."""
        former = self._publications.pop((key, owner), None)
        if former is not None:
            self._published_bytes -= len(former.blob)

    def clear(self) -> None:
        """Stop storing anything again."""
        self._publications.clear()
        self._published_bytes = 0

    def lag_ms(self, now_ms: int) -> int:
        """By how much the most overdue of our records is late to be stored again."""
        return max((now_ms - each.due_ms for each in self._publications.values() if each.due_ms < now_ms), default=0)

    def store(self, key: bytes, record: Record, on_done: Callable[[int], None]) -> None:
        """Store a record at the nodes nearest to its key; `on_done` hears how many hold it."""
        overlay = self._overlay

        def found(contacts: list[Contact]) -> None:
            nearest = contacts[:REPLICAS]
            remote = [contact for contact in nearest if contact.node_id != overlay.node_id]
            count, left = 0, len(remote)
            if len(remote) < len(nearest):
                count += overlay.records.take(key, record, self._endpoint.now_ms(), limited=False) in (STORED, KNOWN)

            def acknowledged(held: bool) -> None:
                nonlocal count, left
                count += held
                left -= 1
                if not left:
                    on_done(count)

            if not remote or not self._endpoint.is_open:
                on_done(count)
                return
            for contact in remote:
                self._give(contact, key, record, acknowledged)

        overlay.find_then(key, found, NEAREST_FOR_STORE)

    def _give(self, holder: Contact, key: bytes, record: Record, on_done: Callable[[bool], None]) -> None:
        """Store a record at one node, and its parts when it asks for them."""

        def answered(call: Call, error: DhtError | None, body: bytes) -> None:
            if error is not None or not body or record.manifest is None:
                on_done(error is None)
                return
            try:
                missing = unpack_missing(body)
            except RemoteError:
                on_done(False)
                return
            Upload(self._overlay, holder, key, record.owner, cut(record.blob), missing, on_done).begin()

        try:
            self._endpoint.call(
                holder.address,
                self._overlay.tag,
                PUT,
                key + record.raw,
                answered,
                contact=holder,
                again_ms=PUT_AGAIN_MS,
            )
        except LocalError:
            # Closing, or full of calls; nobody hears of an end from within.
            self._endpoint.loop.call_soon(on_done, False)

    async def hand_on(self) -> tuple[int, int]:
        """Store what lies here at the nodes that are nearest without us; how many records, and how many nobody took."""
        overlay, now_ms = self._overlay, self._endpoint.now_ms()
        turns = asyncio.Semaphore(HANDED_AT_ONCE)

        async def one(key: bytes, record: Record) -> bool:
            async with turns:
                found = await overlay.find(key, NEAREST_FOR_STORE)
                others = [contact for contact in found if contact.node_id != overlay.node_id][:REPLICAS]
                taken = await asyncio.gather(*(self._given(contact, key, record) for contact in others))
            return any(taken)

        shelf = overlay.records.shelf
        held = [(key, record) for key in shelf.all_keys() for record in shelf.get(key, now_ms)]
        outcomes = await asyncio.gather(*(one(key, record) for key, record in held))
        return len(outcomes), outcomes.count(False)

    async def _given(self, holder: Contact, key: bytes, record: Record) -> bool:
        done: asyncio.Future[bool] = self._endpoint.loop.create_future()
        self._give(holder, key, record, lambda held: None if done.done() else done.set_result(held))
        return await done

    def take_over(self, other: Publishing) -> None:
        """Store again from now on what another overlay's node of ours did."""
        self._publications.update(other._publications)
        self._published_bytes += other._published_bytes
        other.clear()

    def arrived(self, contact: Contact) -> None:
        """A node is in the table now: it may lack what it should hold."""
        if contact.node_id not in self._welcomed and len(self._overlay.records.shelf):
            self._newcomers[contact.node_id] = contact
            if len(self._newcomers) > MAX_NEWCOMERS:
                self._newcomers.pop_oldest()

    def departed(self, contact: Contact) -> None:
        """A node is gone: what it held has one holder less."""
        self._newcomers.pop(contact.node_id, None)
        if len(self._overlay.records.shelf):
            self._gone[contact.node_id] = contact
            if len(self._gone) > MAX_GONE:
                self._gone.pop_oldest()

    def note_stored(self, key: bytes, now_ms: int) -> None:
        """Somebody has just stored what lies under this key."""
        self._stored_ms.pop(key, None)
        self._stored_ms[key] = now_ms

    def republish(self, now_ms: int) -> None:
        """Store again what is due, so much at once."""
        due = [item for item in self._publications.items() if item[1].due_ms <= now_ms]
        for (key, owner), publication in due[:MAX_REPUBLISH_PER_TICK]:
            if publication.expires_ms <= now_ms + 1_000:
                self.unpublish(key, owner)
                continue
            publication.due_ms = self._due_ms(publication.expires_ms, now_ms)
            self._endpoint.counters["records-stored-again"] += 1
            self._store_again(key, publication, now_ms)

    def repair(self, now_ms: int) -> None:
        """Store again what nobody stored for an hour, if we are among the nearest to it."""
        overlay, repaired = self._overlay, 0
        while self._stored_ms and repaired < MAX_REPAIRS_PER_TICK:
            key, stored_ms = next(iter(self._stored_ms.items()))
            if stored_ms > now_ms - REPAIR_MS:
                return
            del self._stored_ms[key]
            records = overlay.records.shelf.get(key, now_ms)
            if not records:
                continue
            self.note_stored(key, now_ms)
            repaired += 1
            if any(contact.node_id == overlay.node_id for contact in overlay.known(key, REPLICAS)):
                for record in records:
                    self._endpoint.counters["records-stored-again"] += 1
                    self.store(key, record, _ignore_count)

    def replace_gone(self) -> None:
        """Have stored again soon what a node held that went, where we are the nearest that is left."""
        gone, self._gone = list(self._gone.values()), Aging()
        if not gone:
            return
        overlay = self._overlay
        urgent: Aging[bytes, int] = Aging()
        for key in overlay.records.shelf.all_keys():
            target, near = int.from_bytes(key, "big"), overlay.known(key, REPLICAS)
            if not near or near[0].node_id != overlay.node_id:
                continue
            farthest = near[-1].number ^ target
            if any(contact.number ^ target < farthest for contact in gone) or len(near) < REPLICAS:
                self._stored_ms.pop(key, None)
                urgent[key] = 0
        urgent.update(self._stored_ms)
        self._stored_ms = urgent

    def welcome(self, now_ms: int) -> None:
        """Give newcomers, once, what they should hold and we are the nearest to hold."""
        overlay = self._overlay
        for _ in range(min(NEWCOMERS_PER_TICK, len(self._newcomers))):
            node_id, newcomer = self._newcomers.pop_oldest()
            if overlay.table.get(newcomer) is not newcomer:
                continue
            self._welcomed[node_id] = None
            if len(self._welcomed) > MAX_WELCOMED:
                self._welcomed.pop_oldest()
            given, given_bytes = 0, 0
            for key in overlay.records.shelf.all_keys():
                near = overlay.known(key, REPLICAS)
                others = [contact.node_id for contact in near if contact.node_id != node_id]
                if len(others) == len(near) or others[:1] != [overlay.node_id]:
                    continue
                for record in overlay.records.shelf.get(key, now_ms):
                    given, given_bytes = given + 1, given_bytes + len(record.raw) + len(record.blob)
                    if given > MAX_TRANSFER_RECORDS or given_bytes > MAX_TRANSFER_BYTES:
                        break
                    self._endpoint.counters["records-transferred"] += 1
                    self._give(newcomer, key, record, _ignore_held)
                if given > MAX_TRANSFER_RECORDS or given_bytes > MAX_TRANSFER_BYTES:
                    break

    def _due_ms(self, expires_ms: int, now_ms: int) -> int:
        left_ms = expires_ms - now_ms
        return now_ms + max(MIN_REPUBLISH_MS, int(left_ms * self._endpoint.rng.uniform(0.4, 0.5)))

    def _store_again(self, key: bytes, publication: _Publication, now_ms: int) -> None:
        try:
            record = open_record(publication.raw, self._endpoint.scheme, self._overlay.dimension, key, now_ms)
        except RemoteError:
            return
        self.store(key, replace(record, blob=publication.blob), _ignore_count)


def _ignore_count(count: int) -> None:
    """For stores that nobody waits for."""


def _ignore_held(held: bool) -> None:
    """For a transfer that nobody waits for."""
