"""What a node answers in one overlay: who is near a key, what lies under it, whether a record is taken.

Decides the answers to FIND, GET, PUT and LEAVE. Leaves what is kept to `shelf` and who may ask to `answering`.
A contact enters the table only by a genuine message under a session that it helped to agree on from its own
address; clients never do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import wire
from .contact import Contact, pack_contacts
from .errors import LocalError
from .identity import NODE_ID_BYTES
from .peers import Peer
from .record import open_record
from .reply import MAX_BODY_BYTES, Reply
from .routing import K
from .shelf import KNOWN, STORED
from .walk import FIND, GET, LEAVE, PUT

if TYPE_CHECKING:
    from .overlay import Overlay

Handler = Callable[[Contact, bytes, Reply], None]

# A holder asks a writer that is too fast to come back after the minute that its writes are counted over.
WRITE_RETRY_MS = 60_000
_GET_LENGTH = NODE_ID_BYTES + 2


class Serving:
    """The requests of one overlay."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._endpoint = overlay.endpoint
        self._handlers: dict[int, Handler] = {}

    def add(self, kind: int, handler: Handler) -> None:
        """Answer an application's requests of this kind with this handler."""
        check_kind(kind)
        self._handlers[kind] = handler

    def requested(self, peer: Peer, kind: int, body: bytes, reply: Reply) -> None:
        """One genuine request."""
        overlay = self._overlay
        if kind >= 0:
            handler = self._handlers.get(kind)
            if handler is None:
                reply.refuse("nobody answers this kind here")
            else:
                handler(overlay.contact_of(peer), body, reply)
        elif self._endpoint.is_client:
            reply.refuse("a client serves nothing")
        elif kind == FIND:
            self._answer_find(peer, body, reply)
        elif kind == GET:
            self._answer_get(peer, body, reply)
        elif kind == PUT:
            self._answer_put(body, reply)
        elif kind == LEAVE:
            reply()
            overlay.drop(overlay.contact_of(peer))
            return
        else:
            reply.refuse("unknown request")
        if not peer.is_client and peer.member is not self._endpoint.member:
            overlay.heard(peer)

    def _answer_find(self, peer: Peer, body: bytes, reply: Reply) -> None:
        if len(body) != NODE_ID_BYTES:
            reply.refuse("a key is 20 bytes")
            return
        reply(self._endpoint.vitals() + self._packed_nearest(peer, body))

    def _answer_get(self, peer: Peer, body: bytes, reply: Reply) -> None:
        if len(body) != _GET_LENGTH:
            reply.refuse("a key is 20 bytes, and a position 2")
            return
        key, position = body[:NODE_ID_BYTES], int.from_bytes(body[NODE_ID_BYTES:], "big")
        held = self._overlay.shelf.get(key, self._endpoint.now_ms())[position:]
        if not held:
            reply(b"\0" + self._endpoint.vitals() + self._packed_nearest(peer, key))
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
        overlay = self._overlay
        key, now_ms = body[:NODE_ID_BYTES], self._endpoint.now_ms()
        record = open_record(body[NODE_ID_BYTES:], self._endpoint.scheme, overlay.dimension, key, now_ms)
        outcome = overlay.shelf.put(key, record, now_ms)
        if outcome in (STORED, KNOWN):
            overlay.publishing.note_stored(key, now_ms)
            reply()
        elif outcome.startswith("rate"):
            reply.busy(WRITE_RETRY_MS)
        else:
            reply.refuse(outcome)

    def _packed_nearest(self, peer: Peer, key: bytes) -> bytes:
        overlay = self._overlay
        target = int.from_bytes(key, "big")
        asker = peer.contacts.get(overlay.tag)
        found = overlay.table.nearest(target, K)
        if asker is not None and found and asker.number ^ target <= found[-1].number ^ target:
            # Nobody needs to be told of itself.
            found = [contact for contact in overlay.table.nearest(target, K + 1) if contact is not asker][:K]
        return pack_contacts(found)


def check_kind(kind: int) -> None:
    """Refuse what is no kind of an application's request."""
    if not 0 <= kind < 65_536:
        raise LocalError("a kind is 0 to 65,535")
