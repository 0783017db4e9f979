"""A lookup on its way: moves the questions and answers of one `Lookup` through the endpoint.

Decides how an answer is read (contacts, or records as well) and what a bad one means for the lookup.
Leaves whom to ask to `lookup`. No Task: every step runs in a reply's or a time-out's callback, and the
end is told to one callback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import wire
from .contact import Contact, admits, unpack_contacts
from .errors import DhtError, LocalError, PeerIdentityError, RemoteError, WireError
from .lookup import Lookup
from .peers import MAX_SOFT_TIMEOUT_MS, Call
from .record import Record, open_record
from .routing import K
from .vitals import VITALS_BYTES

if TYPE_CHECKING:
    from .overlay import Overlay

FIND, PUT, GET, LEAVE = -2, -3, -4, -5
# How long a lookup waits for a slow peer that has answered us before, after its slot was given away.
GRACE_MS = 500
# Datagrams of records that are read from one holder: 64 owners' records of 1,000 bytes.
MAX_PAGES = 64


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
    ) -> None:
        target = int.from_bytes(key, "big")
        self._overlay = overlay
        self._endpoint = overlay.endpoint
        self._kind = kind
        self._body = key if body is None else body
        self._on_done = on_done
        self._over = False
        start = overlay.table.nearest(target, max(K, k)) if seeds is None else seeds
        self._lookup = Lookup(target, start, k=k, own_id=overlay.node_id, disjoint=disjoint, admit=self._admits)
        overlay.table.touch(target, overlay.endpoint.now_ms())

    def begin(self) -> None:
        """Ask the first contacts."""
        self._go_on(self._lookup.start())

    def _go_on(self, contacts: list[Contact]) -> None:
        endpoint, lookup = self._endpoint, self._lookup
        while contacts:
            contact = contacts.pop(0)
            try:
                call = endpoint.call(
                    contact.address, self._overlay.tag, self._kind, self._body, self._answered, contact=contact
                )
            except LocalError:
                # The endpoint is closing, or full of calls: the walk ends with what it has.
                contacts += lookup.failed(contact)
                continue
            peer = call.peer
            slow_ms = peer.soft_timeout_ms if peer.session is not None else MAX_SOFT_TIMEOUT_MS
            endpoint.deadlines.add(slow_ms, call, self._slow)
        if lookup.done:
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._on_done(self._lookup.result())

    def _slow(self, call: Call) -> None:
        if call.contact is None or self._over:
            return
        if call.peer.session is None or call.peer.failures:
            self._go_on(self._lookup.overdue(call.contact))
        else:
            # It was alive a moment ago, and the nearest must not be missed because the host is busy or a
            # datagram was lost; questions of a lookup may be answered twice.
            self._endpoint.calls.resend(call)
            self._endpoint.deadlines.add(GRACE_MS, call, self._overdue)
            self._go_on(self._lookup.slow(call.contact))

    def _overdue(self, call: Call) -> None:
        if call.contact is not None and not self._over:
            self._go_on(self._lookup.overdue(call.contact))

    def _answered(self, call: Call, error: DhtError | None, body: bytes) -> None:
        contact = call.contact
        if contact is None or self._over:
            return
        if error is None:
            try:
                self._go_on(self._lookup.answered(contact, self._read(call, body)))
                return
            except RemoteError as bad:
                error = bad
        hostile = isinstance(error, WireError | PeerIdentityError)
        if hostile:
            self._endpoint.counters["hostile-answer"] += 1
        if isinstance(error, PeerIdentityError):
            self._overlay.drop(contact)
        self._go_on(self._lookup.failed(contact, hostile=hostile))

    def _read(self, call: Call, body: bytes) -> list[Contact]:
        self._endpoint.observe(call, body)
        return unpack_contacts(body[VITALS_BYTES:], K)

    def _admits(self, contact: Contact) -> bool:
        endpoint, address = self._endpoint, contact.address
        return admits(address[0], endpoint.profile) and not endpoint.sessions.is_lost(address)


class ReadingWalk(Walk):
    """The search for the records under a key: over when enough holders have told all that they hold."""

    def __init__(
        self, overlay: Overlay, key: bytes, on_done: Callable[[list[Record]], None], *, holders: int, disjoint: int = 1
    ) -> None:
        super().__init__(overlay, key, self._tell, kind=GET, body=key + bytes(2), disjoint=disjoint)
        self._key = key
        self._on_records = on_done
        self._records: dict[bytes, Record] = {}
        self._holders_wanted = holders
        self._open_pages = 0

    def add(self, record: Record) -> None:
        """Take a record in; of two by one owner the newer stays."""
        known = self._records.get(record.owner)
        if known is None or record.seq > known.seq:
            self._records[record.owner] = record

    def _tell(self, contacts: list[Contact]) -> None:
        self._on_records([self._records[owner] for owner in sorted(self._records)])

    def _read(self, call: Call, body: bytes) -> list[Contact]:
        if body[:1] == b"\0":
            return super()._read(call, body[1:])
        self._take_page(call, body, 0)
        return []

    def _take_page(self, call: Call, body: bytes, page: int) -> None:
        """Read one page of a holder's records, and ask for the next."""
        if body[:1] != b"\1":
            raise WireError("neither contacts nor records")
        fields = wire.unpack(body[1:])
        if len(fields) < 2 or type(fields[0]) is not int:
            raise WireError("a page of records needs a position and a record")
        overlay = self._overlay
        for raw in fields[1:]:
            if type(raw) is not bytes:
                raise WireError("a record is bytes")
            self.add(open_record(raw, overlay.endpoint.scheme, overlay.dimension, self._key, overlay.endpoint.now_ms()))
        position = fields[0]
        if position and 0 < position < 65_536 and page < MAX_PAGES and call.contact is not None:
            self._next_page(call.contact, position, page + 1)
            return
        self._holders_wanted -= 1
        if self._holders_wanted <= 0:
            self._lookup.found(True)
            self._end()

    def _end(self) -> None:
        # Whoever has begun to tell may finish, though there is nobody left to ask.
        if not self._open_pages or self._holders_wanted <= 0:
            super()._end()

    def _next_page(self, holder: Contact, position: int, page: int) -> None:
        def turned(call: Call, error: DhtError | None, body: bytes) -> None:
            self._open_pages -= 1
            if self._over:
                return
            try:
                if error is None:
                    self._take_page(call, body, page)
            except RemoteError:
                self._endpoint.counters["hostile-answer"] += 1
            if self._lookup.done:
                self._end()

        request = self._key + position.to_bytes(2, "big")
        with contextlib.suppress(LocalError):
            self._endpoint.call(holder.address, self._overlay.tag, GET, request, turned, contact=holder)
            self._open_pages += 1
