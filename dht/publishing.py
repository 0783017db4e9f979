"""Records on their way to their holders: stored, stored again by their publisher, repaired by a holder.

Decides where a record goes and when it goes there again. Leaves what a holder keeps to `shelf`, and finding the
holders to `walk`.

Sources: Maymounkov and Mazieres 2002, section 2.5 (the publisher stores again, holders only when nobody did).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
# A holder stores a record again when nobody else did for this long.
REPAIR_MS = 3_600_000
MAX_REPAIRS_PER_TICK = 4
# Records that this node publishes and stores again at half of their remaining life.
MAX_PUBLICATIONS = 4_096
MAX_REPUBLISH_PER_TICK = 16
MIN_REPUBLISH_MS = 30_000


@dataclass(slots=True)
class _Publication:
    raw: bytes
    expires_ms: int
    due_ms: int


class Publishing:
    """The records that one overlay's node publishes, and those that it holds for others."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._endpoint = overlay.endpoint
        self._publications: OrderedDict[tuple[bytes, bytes], _Publication] = OrderedDict()
        self._stored_ms: OrderedDict[bytes, int] = OrderedDict()

    def publish(self, key: bytes, record: Record) -> None:
        """Store this record again until it expires; LocalError when too many are."""
        name = (key, record.owner)
        if name not in self._publications and len(self._publications) >= MAX_PUBLICATIONS:
            raise LocalError(f"{MAX_PUBLICATIONS} records are published already; unpublish some")
        due_ms = self._due_ms(record.expires_ms, self._endpoint.now_ms())
        self._publications[name] = _Publication(record.raw, record.expires_ms, due_ms)

    def unpublish(self, key: bytes, owner: bytes) -> None:
        """Stop storing a record again."""
        self._publications.pop((key, owner), None)

    def clear(self) -> None:
        """Stop storing anything again."""
        self._publications.clear()

    def store(self, key: bytes, record: Record, on_done: Callable[[int], None]) -> None:
        """Store a record at the nodes nearest to its key; `on_done` hears how many hold it."""
        overlay = self._overlay

        def found(contacts: list[Contact]) -> None:
            nearest = contacts[:REPLICAS]
            remote = [contact for contact in nearest if contact.node_id != overlay.node_id]
            count, left = 0, len(remote)
            if len(remote) < len(nearest):
                now_ms = self._endpoint.now_ms()
                if overlay.shelf.put(key, record, now_ms, limited=False) in (STORED, KNOWN):
                    self.note_stored(key, now_ms)
                    count += 1

            def acknowledged(call: Call, error: DhtError | None, body: bytes) -> None:
                nonlocal count, left
                count += error is None
                left -= 1
                if not left:
                    on_done(count)

            if not remote or not self._endpoint.is_open:
                on_done(count)
                return
            body = key + record.raw
            for contact in remote:
                self._endpoint.call(
                    contact.address, overlay.tag, PUT, body, acknowledged, contact=contact, again_ms=PUT_AGAIN_MS
                )

        overlay.find_then(key, found)

    def note_stored(self, key: bytes, now_ms: int) -> None:
        """Somebody has just stored what lies under this key."""
        self._stored_ms.pop(key, None)
        self._stored_ms[key] = now_ms

    def republish(self, now_ms: int) -> None:
        """Store again what is due, so much at once."""
        due = [item for item in self._publications.items() if item[1].due_ms <= now_ms]
        for (key, owner), publication in due[:MAX_REPUBLISH_PER_TICK]:
            if publication.expires_ms <= now_ms + 1_000:
                del self._publications[key, owner]
                continue
            publication.due_ms = self._due_ms(publication.expires_ms, now_ms)
            self._store_raw(key, publication.raw, now_ms)

    def repair(self, now_ms: int) -> None:
        """Store again what nobody stored for an hour, if we are among the nearest to it."""
        overlay, repaired = self._overlay, 0
        while self._stored_ms and repaired < MAX_REPAIRS_PER_TICK:
            key, stored_ms = next(iter(self._stored_ms.items()))
            if stored_ms > now_ms - REPAIR_MS:
                return
            del self._stored_ms[key]
            records = overlay.shelf.get(key, now_ms)
            if not records:
                continue
            self.note_stored(key, now_ms)
            repaired += 1
            if any(contact.node_id == overlay.node_id for contact in overlay.known(key, REPLICAS)):
                for record in records:
                    self.store(key, record, _ignore_count)

    def _due_ms(self, expires_ms: int, now_ms: int) -> int:
        left_ms = expires_ms - now_ms
        return now_ms + max(MIN_REPUBLISH_MS, int(left_ms * self._endpoint.rng.uniform(0.4, 0.5)))

    def _store_raw(self, key: bytes, raw: bytes, now_ms: int) -> None:
        try:
            record = open_record(raw, self._endpoint.scheme, self._overlay.dimension, key, now_ms)
        except RemoteError:
            return
        self.store(key, record, _ignore_count)


def _ignore_count(count: int) -> None:
    """For stores that nobody waits for."""
