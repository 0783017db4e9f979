"""What a node answers in one overlay: who is near a key, what lies under it, whether a record is taken.

Decides the answers to FIND, GET, PUT and LEAVE. Leaves what is kept to `shelf` and who may ask to `answering`.
A contact enters the table only by a genuine message under a session that it helped to agree on from its own
address; clients never do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from . import wire
from .chunking import PART_HEAD_BYTES, READ_BYTES, Incoming
from .chunks import PIECE_BYTES, cut
from .contact import Contact, join_contacts
from .copies import Copies, copy_life_ms
from .errors import LocalError
from .handshake import Member
from .identity import KEY_BYTES, NODE_ID_BYTES
from .peers import Peer
from .publishing import REPLICAS
from .reading import COPIED, HELD, NEARER
from .record import BROUGHT_BY, Record, open_record
from .reply import MAX_BODY_BYTES, Reply
from .routing import K
from .shelf import KNOWN, STORED
from .walk import CACHE, FIND, GET, LEAVE, PART, PUT, READ
from .writers import Writers

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
        # Made with the first record of its kind.
        self._writers: Writers | None = None
        self._incoming: Incoming | None = None
        self._copies: Copies | None = None
        # By kind: one or two, for which a dictionary in each overlay is a lot of room.
        self._handlers: tuple[tuple[int, Handler], ...] = ()

    @property
    def incoming(self) -> Incoming:
        """Values in parts that are on their way in."""
        if self._incoming is None:
            self._incoming = Incoming()
        return self._incoming

    @property
    def copies(self) -> Copies:
        """Copies that readers left here."""
        if self._copies is None:
            self._copies = Copies()
        return self._copies

    @property
    def writers(self) -> Writers:
        """What each entity has brought."""
        if self._writers is None:
            self._writers = Writers()
        return self._writers

    def add(self, kind: int, handler: Handler) -> None:
        """Answer an application's requests of this kind with this handler."""
        check_kind(kind)
        others = [each for each in self._handlers if each[0] != kind]
        self._handlers = (*others, (kind, handler))

    def requested(self, peer: Peer, kind: int, body: bytes, reply: Reply) -> None:
        """One genuine request."""
        overlay = self._overlay
        overlay.measures.requested(kind)
        if kind >= 0:
            for each, handler in self._handlers:
                if each == kind:
                    handler(overlay.contact_of(peer), body, reply)
                    break
            else:
                reply.refuse("nobody answers this kind here")
        elif self._endpoint.is_client:
            reply.refuse("a client serves nothing")
        elif kind == FIND:
            self._answer_find(peer, body, reply)
        elif kind == GET:
            self._answer_get(peer, body, reply)
        elif kind == PUT:
            self._answer_put(body, reply)
        elif kind == PART:
            self._answer_part(body, reply)
        elif kind == READ:
            self._answer_read(body, reply)
        elif kind == CACHE:
            self._answer_cache(body, reply)
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
        if len(body) not in (_GET_LENGTH, _GET_LENGTH + KEY_BYTES):
            reply.refuse("a key is 20 bytes, a position 2, and an owner 32")
            return
        key, position = body[:NODE_ID_BYTES], int.from_bytes(body[NODE_ID_BYTES:_GET_LENGTH], "big")
        owner, now_ms = body[_GET_LENGTH:], self._endpoint.now_ms()
        if owner:
            one = self._overlay.records.shelf.get_of(key, owner, now_ms)
            copy = self.copies.get(key, owner, now_ms) if one is None else None
            if copy is not None:
                reply(COPIED + wire.pack([0, copy.raw]))
                return
            held = [one] if one is not None else []
        else:
            held = self._overlay.records.shelf.get(key, now_ms)
        held = held[position:]
        if not held:
            reply(NEARER + self._endpoint.vitals() + self._packed_nearest(peer, key))
            return
        page: list[bytes] = []
        room = MAX_BODY_BYTES - 16
        for record in held:
            room -= len(record.raw) + 3
            if room < 0:
                break
            page.append(record.raw)
        following = position + len(page) if len(page) < len(held) else 0
        reply(HELD + wire.pack([following, *page]))

    def _answer_put(self, body: bytes, reply: Reply) -> None:
        if len(body) <= NODE_ID_BYTES:
            reply.refuse("a key and a record are needed")
            return
        overlay = self._overlay
        key, now_ms = body[:NODE_ID_BYTES], self._endpoint.now_ms()
        raw = body[NODE_ID_BYTES:]
        # Publishers store the same bytes again and again: those that lie here were checked when they came.
        record = overlay.records.shelf.held_as(key, raw, now_ms) or open_record(
            raw, self._endpoint.scheme, overlay.dimension, key, now_ms
        )
        record = replace(record, account=self._account(record, reply.member))
        if (
            record.owner != reply.member.public_key
            and overlay.records.shelf.judge(key, record, now_ms) == STORED
            and overlay.records.shelf.get_of(key, record.owner, now_ms) is None
            and not self.writers.may_bring(reply.member.entity, record.expires_ms, now_ms)
        ):
            reply.busy(WRITE_RETRY_MS)
            return
        if record.manifest is None:
            self._answer_outcome(overlay.records.take(key, record, now_ms), reply)
            return
        outcome = overlay.records.shelf.judge(key, record, now_ms)
        if outcome == KNOWN:
            self._answer_outcome(overlay.records.take(key, record, now_ms), reply)
            return
        if outcome != STORED:
            reply.refuse(outcome)
            return
        missing = self.incoming.begin(key, record, now_ms)
        if missing is None:
            reply.busy(WRITE_RETRY_MS)
        else:
            reply(wire.pack(missing))

    def _account(self, record: Record, bringer: Member) -> str:
        """Who answers for a record here: its owner's entity, or, for an owner whom nobody proved to us, who brings it.

        Records that are repaired or handed to a newcomer are brought by others, so that the latter is no fault.
        """
        if record.owner == bringer.public_key:
            return bringer.entity
        return self._endpoint.sessions.entity_of(record.owner) or BROUGHT_BY + bringer.entity

    def _answer_outcome(self, outcome: str, reply: Reply, answer: bytes = b"") -> None:
        if outcome in (STORED, KNOWN):
            reply(answer)
        elif outcome.startswith("rate"):
            reply.busy(WRITE_RETRY_MS)
        else:
            reply.refuse(outcome)

    def _answer_part(self, body: bytes, reply: Reply) -> None:
        if len(body) <= PART_HEAD_BYTES:
            reply.refuse("a key is 20 bytes, an owner 32, a number 2, and then comes a part")
            return
        key, owner = body[:NODE_ID_BYTES], body[NODE_ID_BYTES : NODE_ID_BYTES + KEY_BYTES]
        index, now_ms = int.from_bytes(body[PART_HEAD_BYTES - 2 : PART_HEAD_BYTES], "big"), self._endpoint.now_ms()
        whole = self.incoming.add(key, owner, index, body[PART_HEAD_BYTES:], now_ms)
        if whole is None:
            reply(b"\0")
        else:
            self._answer_outcome(self._overlay.records.take(key, whole, now_ms), reply, b"\1")

    def _answer_read(self, body: bytes, reply: Reply) -> None:
        if len(body) != READ_BYTES:
            reply.refuse("a key is 20 bytes, an owner 32, a sequence number 8, and a number 2")
            return
        key, owner = body[:NODE_ID_BYTES], body[NODE_ID_BYTES : NODE_ID_BYTES + KEY_BYTES]
        seq, index = int.from_bytes(body[-10:-2], "big"), int.from_bytes(body[-2:], "big")
        record = self._overlay.records.shelf.get_of(key, owner, self._endpoint.now_ms())
        if record is None or record.manifest is None or record.seq != seq or index >= record.manifest.parts:
            reply.refuse("no such part here")
        else:
            reply(_part_of(record, index))

    def _answer_cache(self, body: bytes, reply: Reply) -> None:
        """A copy from a reader: checked like a record, kept apart, and not for long."""
        if len(body) <= NODE_ID_BYTES:
            reply.refuse("a key and a record are needed")
            return
        overlay = self._overlay
        key, now_ms = body[:NODE_ID_BYTES], self._endpoint.now_ms()
        record = open_record(body[NODE_ID_BYTES:], self._endpoint.scheme, overlay.dimension, key, now_ms)
        target, holders = int.from_bytes(key, "big"), overlay.known(key, REPLICAS)
        held = overlay.records.shelf.get_of(key, record.owner, now_ms)
        if record.manifest is not None or held is not None or not holders:  # who is shunned may know nobody
            reply.refuse("no copy of this is needed here")
            return
        life_ms = copy_life_ms(overlay.table.number ^ target, holders[-1].number ^ target)
        self.copies.put(key, record, life_ms, now_ms)
        reply()

    def _packed_nearest(self, peer: Peer, key: bytes) -> bytes:
        """The nearest of the table but the asker: nobody needs to be told of itself."""
        table, target = self._overlay.table, int.from_bytes(key, "big")
        asker = self._overlay.known_contact(peer)
        found = table.around(target, K)
        others = [contact.packed for contact in found if contact is not asker]
        if len(others) < len(found):
            others = [contact.packed for contact in table.around(target, K + 1) if contact is not asker]
        return join_contacts(others)


def check_kind(kind: int) -> None:
    """Refuse what is no kind of an application's request."""
    if not 0 <= kind < 65_536:
        raise LocalError("a kind is 0 to 65,535")


def _part_of(record: Record, index: int) -> bytes:
    if index == 0:
        return cut(record.blob)[0]
    return record.blob[(index - 1) * PIECE_BYTES : index * PIECE_BYTES]
