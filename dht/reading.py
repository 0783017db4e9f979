"""A lookup for records: over when enough holders have told all that they hold.

Decides how an answer to GET is read, page by page, how many holders are enough, and who gets a copy. Leaves the
questions and their time-outs to `walk`, and what a record is to `record`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import wire
from .contact import Contact
from .errors import DhtError, LocalError, RemoteError, WireError
from .lookup import ALPHA, Lookup
from .peers import Call
from .record import Record, open_record
from .routing import K
from .walk import CACHE, GET, Walk

if TYPE_CHECKING:
    from .overlay import Overlay

# How an answer to GET begins: contacts, records of the shelf, a copy that was left on the path.
NEARER, HELD, COPIED = b"\0", b"\1", b"\3"
# Questions in flight of a read that one holder can end: the nearest contact, or the nearest it names, is a holder
# nearly always, so that more of them at once are asked in vain (measured at 500 nodes: 5.2 questions a read with
# ALPHA in flight, 2.0 so); a peer that takes longer than it should is overtaken by the next (`Pace.hedge_ms`).
READ_ALPHA = 1
# Datagrams of records that are read from one holder: 64 owners' records of 1,000 bytes.
MAX_PAGES = 64


class ReadingWalk(Walk):
    """The search for the records under a key: over when enough holders have told all that they hold.

    On disjoint paths each of them must have found a holder, so that whoever has taken one path over has not
    taken the answer. With an `owner` only that one's record counts, and a copy on the path will do for one holder.
    """

    def __init__(
        self,
        overlay: Overlay,
        key: bytes,
        on_done: Callable[[list[Record]], None],
        *,
        holders: int,
        disjoint: int = 1,
        owner: bytes = b"",
    ) -> None:
        alpha, seeds = ALPHA, None
        if holders <= 1 and disjoint == 1:
            alpha, seeds = READ_ALPHA, overlay.table.around(int.from_bytes(key, "big"), 1)
        body = key + bytes(2) + owner
        super().__init__(overlay, key, self._tell, kind=GET, body=body, disjoint=disjoint, seeds=seeds, alpha=alpha)
        # Such a read begins with the nearest contact alone, and goes on with the nearest that this one names. The
        # others of our own are taken in when somebody is slow, or when nobody is left to ask: 20 candidates were a
        # tenth of a get. The one is a holder nearly always, and until it says that it is not, nothing is to be chosen.
        self._may_widen = seeds is not None
        self._asks_one = bool(seeds)
        self._key = key
        self._owner = owner
        self._on_records = on_done
        self._records: dict[bytes, Record] = {}
        self._holders_wanted = max(holders, disjoint)
        self._may_be_copy = self._holders_wanted == 1
        self._paths_wanted = set(range(disjoint)) if disjoint > 1 else set()
        self._open_pages = 0
        self._without: Contact | None = None
        self._from_holder = False
        # Who told of a record in parts, by the id of its envelope: those who have them.
        self.tellers: dict[bytes, list[Contact]] = {}

    def begin(self) -> None:
        """Ask the first contacts, or the only one."""
        if self._asks_one:
            self._go_on(self._seeds.copy())
        else:
            super().begin()

    def _choice(self) -> Lookup:
        if self._lookup is not None:
            return self._lookup
        lookup = super()._choice()
        if self._asks_one:
            # That one was asked.
            lookup.start()
        return lookup

    def add(self, record: Record) -> None:
        """Take a record in; of two by one owner the newer stays."""
        known = self._records.get(record.owner)
        if known is None or record.seq > known.seq:
            self._records[record.owner] = record
        elif record.seq == known.seq:
            self._endpoint.contradictions.note(known, record)

    def _found(self) -> list[Contact]:
        """Nobody: a reader wants what they hold."""
        return []

    def _tell(self, contacts: list[Contact]) -> None:
        self._leave_copy()
        self._on_records([self._records[owner] for owner in sorted(self._records)])

    def _leave_copy(self) -> None:
        """Kademlia, section 2.3: the nearest node on the path that had nothing gets a copy; nobody waits for it."""
        record, nearest = self._records.get(self._owner), self._without
        if record is None or record.manifest is not None or nearest is None or not self._from_holder:
            return
        with contextlib.suppress(LocalError):
            self._endpoint.call(
                nearest.address, self._overlay.tag, CACHE, self._key + record.raw, _forget, contact=nearest
            )

    def _read(self, call: Call, body: bytes) -> list[Contact]:
        if body[:1] == NEARER:
            contacts = super()._read(call, body[1:])
            self._note_without(call.contact)
            return contacts
        self._take_page(call, body, 0)
        return []

    def _note_without(self, contact: Contact | None) -> None:
        target, best = int.from_bytes(self._key, "big"), self._without
        if contact is not None and (best is None or contact.number ^ target < best.number ^ target):
            self._without = contact

    def _take_page(self, call: Call, body: bytes, page: int) -> None:
        """Read one page of a holder's records, and ask for the next."""
        copied = body[:1] == COPIED
        if body[:1] != HELD and not (copied and self._owner):
            raise WireError("neither contacts nor records")
        fields = wire.unpack(body[1:])
        if len(fields) < 2 or type(fields[0]) is not int:
            raise WireError("a page of records needs a position and a record")
        overlay = self._overlay
        for raw in fields[1:]:
            if type(raw) is not bytes:
                raise WireError("a record is bytes")
            now_ms = overlay.endpoint.now_ms()
            record = open_record(raw, overlay.endpoint.scheme, overlay.dimension, self._key, now_ms)
            if self._owner and record.owner != self._owner:
                raise WireError("a record of another owner")
            self.add(record)
            if record.manifest is not None and call.contact is not None and not copied:
                self.tellers.setdefault(record.envelope.id, []).append(call.contact)
        position = fields[0]
        if position and 0 < position < 65_536 and page < MAX_PAGES and call.contact is not None:
            self._next_page(call.contact, position, page + 1)
            return
        if copied and not self._may_be_copy:
            return
        self._from_holder = self._from_holder or not copied
        self._holders_wanted -= 1
        if call.contact is not None and self._paths_wanted:
            self._paths_wanted.discard(self._choice().path_of(call.contact))
        if self._enough:
            if self._lookup is not None:
                self._lookup.found(True)
            self._end()

    @property
    def _enough(self) -> bool:
        return self._holders_wanted <= 0 and not self._paths_wanted

    def _end(self) -> None:
        # Whoever has begun to tell may finish, though there is nobody left to ask.
        if self._open_pages and not self._enough:
            return
        if not self._over and not self._enough and self._widen():
            self._go_on(self._choice().start())
        else:
            super()._end()

    def _widen(self) -> bool:
        may_widen, self._may_widen = self._may_widen, False
        return may_widen and self._choice().learn(self._overlay.table.around(self._target, K))

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
            if self._lookup is not None and self._lookup.done:
                self._end()

        request = self._key + position.to_bytes(2, "big") + self._owner
        with contextlib.suppress(LocalError):
            self._endpoint.call(holder.address, self._overlay.tag, GET, request, turned, contact=holder)
            self._open_pages += 1


def _forget(call: Call, error: DhtError | None, body: bytes) -> None:
    """For what is sent and forgotten."""
