"""Values in parts on their way: taken in by a holder, sent to holders, read from holders.

Decides how many parts are in flight, when a part is asked for again and when a holder is given up. Leaves what is
a right part to `chunks` and where a value belongs to `publishing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import wire
from .aging import Aging
from .chunks import Assembly
from .contact import Contact
from .errors import DhtError, LocalError, RemoteError, WireError
from .identity import KEY_BYTES, NODE_ID_BYTES
from .peers import Call
from .record import Record
from .walk import PART, READ

if TYPE_CHECKING:
    from .overlay import Overlay

# Parts in flight to or from one holder: 8 KiB, less than any socket's buffer, and 64 KiB in 8 round trips.
WINDOW = 8
# A part is sent once more after this, and asked for anew this often.
PART_AGAIN_MS = 400
MAX_ATTEMPTS = 3
# Values that a holder takes in at once: 4 MiB an overlay; of one owner; and how long one may make no progress.
MAX_INCOMING = 64
MAX_INCOMING_PER_OWNER = 4
INCOMING_IDLE_MS = 20_000
PART_HEAD_BYTES = NODE_ID_BYTES + KEY_BYTES + 2
READ_BYTES = NODE_ID_BYTES + KEY_BYTES + 8 + 2


@dataclass(slots=True)
class _Incoming:
    record: Record
    assembly: Assembly
    heard_ms: int


class Incoming:
    """The values that one holder is taking in; they count for nothing until they are complete."""

    def __init__(self) -> None:
        self._open: Aging[tuple[bytes, bytes], _Incoming] = Aging()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, key: bytes, record: Record, now_ms: int) -> list[int] | None:
        """The parts that are needed for a record; None when too many others are on their way."""
        if record.manifest is None:
            raise LocalError("this record has no parts")
        self._drop_idle(now_ms)
        name = (key, record.owner)
        known = self._open.get(name)
        if known is not None and known.record.seq >= record.seq:
            known.heard_ms = now_ms
            return known.assembly.missing() if known.record.envelope.id == record.envelope.id else None
        owners = Counter(owner for _, owner in self._open)
        if known is None and (len(self._open) >= MAX_INCOMING or owners[record.owner] >= MAX_INCOMING_PER_OWNER):
            return None
        assembly = Assembly(record.manifest)
        self._open[name] = _Incoming(record, assembly, now_ms)
        return assembly.missing()

    def add(self, key: bytes, owner: bytes, index: int, part: bytes, now_ms: int) -> Record | None:
        """Take a part in; the whole record once it is complete. WireError for a part that nobody awaits."""
        known = self._open.get((key, owner))
        if known is None:
            raise WireError("a part of no value that is on its way")
        known.assembly.add(index, part)
        known.heard_ms = now_ms
        self._open.touch((key, owner))
        if not known.assembly.complete:
            return None
        del self._open[key, owner]
        return replace(known.record, blob=known.assembly.payload())

    def _drop_idle(self, now_ms: int) -> None:
        while self._open:
            name, oldest = next(iter(self._open.items()))
            if oldest.heard_ms > now_ms - INCOMING_IDLE_MS:
                return
            del self._open[name]


class Upload:
    """One value's missing parts, sent to one holder; `on_done` hears whether it holds the value now."""

    def __init__(
        self,
        overlay: Overlay,
        holder: Contact,
        key: bytes,
        owner: bytes,
        parts: list[bytes],
        missing: list[int],
        on_done: Callable[[bool], None],
    ) -> None:
        self._overlay = overlay
        self._holder = holder
        self._head = key + owner
        self._parts = parts
        # Whoever lacks the hashes can check nothing else, and is sent the rest afterwards.
        self._left = [index for index in missing if 0 <= index < len(parts)][::-1]
        self._rest = list(range(len(parts) - 1, 0, -1)) if self._left == [0] else []
        self._attempts: Counter[int] = Counter()
        self._in_flight = 0
        self._over = False
        self._on_done = on_done

    def begin(self) -> None:
        """Send the first parts."""
        self._go_on()

    def _go_on(self) -> None:
        while self._left and self._in_flight < WINDOW and not self._over:
            index = self._left.pop()
            self._attempts[index] += 1
            self._in_flight += 1
            self._send(index)
        if not self._left and not self._in_flight:
            self._end(False)

    def _send(self, index: int) -> None:
        def answered(call: Call, error: DhtError | None, answer: bytes) -> None:
            self._answered(index, error, answer)

        body = self._head + index.to_bytes(2, "big") + self._parts[index]
        try:
            self._overlay.endpoint.call(
                self._holder.address,
                self._overlay.tag,
                PART,
                body,
                answered,
                contact=self._holder,
                again_ms=PART_AGAIN_MS,
            )
        except LocalError:
            self._end(False)

    def _answered(self, index: int, error: DhtError | None, answer: bytes) -> None:
        self._in_flight -= 1
        if self._over:
            return
        if error is None and answer == b"\1":
            self._end(True)
            return
        if error is None and index == 0:
            self._left, self._rest = self._rest, []
        elif error is not None:
            if self._attempts[index] >= MAX_ATTEMPTS:
                self._end(False)
                return
            self._left.append(index)
        self._go_on()

    def _end(self, held: bool) -> None:
        if not self._over:
            self._over = True
            self._on_done(held)


class Download:
    """One value's parts, read from those who told of it; `on_done` hears the payload, or nothing."""

    def __init__(
        self,
        overlay: Overlay,
        key: bytes,
        record: Record,
        holders: list[Contact],
        on_done: Callable[[bytes | None], None],
    ) -> None:
        if record.manifest is None:
            raise LocalError("this record has no parts")
        self._overlay = overlay
        self._head = key + record.owner + record.seq.to_bytes(8, "big")
        self._assembly = Assembly(record.manifest)
        self._holders = list(holders)
        self._asked: set[int] = set()
        self._failures = 0
        self._over = False
        self._on_done = on_done

    def begin(self) -> None:
        """Ask for the hashes."""
        self._go_on()

    def _go_on(self) -> None:
        if self._over:
            return
        if self._assembly.complete:
            self._end(self._assembly.payload())
            return
        if not self._holders:
            self._end(None)
            return
        for index in self._assembly.missing():
            if len(self._asked) >= WINDOW or self._over:
                return
            if index not in self._asked:
                self._ask(index, self._holders[0])

    def _ask(self, index: int, holder: Contact) -> None:
        self._asked.add(index)

        def answered(call: Call, error: DhtError | None, part: bytes) -> None:
            self._asked.discard(index)
            if self._over:
                return
            try:
                if error is not None:
                    raise error
                self._assembly.add(index, part)
                self._failures = 0
            except RemoteError as bad:
                if isinstance(bad, WireError):
                    self._overlay.endpoint.counters["hostile-answer"] += 1
                self._failed(holder, lying=isinstance(bad, WireError))
            except LocalError:
                self._end(None)
            self._go_on()

        try:
            self._overlay.endpoint.call(
                holder.address,
                self._overlay.tag,
                READ,
                self._head + index.to_bytes(2, "big"),
                answered,
                contact=holder,
                again_ms=PART_AGAIN_MS,
            )
        except LocalError:
            self._end(None)

    def _failed(self, holder: Contact, *, lying: bool) -> None:
        """A holder that lies is given up at once, one that is silent after so many parts in a row."""
        self._failures += 1
        if holder in self._holders and (lying or self._failures >= MAX_ATTEMPTS):
            self._holders.remove(holder)
            self._failures = 0

    def _end(self, payload: bytes | None) -> None:
        if not self._over:
            self._over = True
            self._on_done(payload)


def unpack_missing(answer: bytes) -> list[int]:
    """The parts that a holder asks for in its answer to a manifest."""
    missing = wire.unpack(answer)
    if not all(type(index) is int for index in missing):
        raise WireError("parts have numbers")
    return missing
