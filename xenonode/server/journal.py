"""The journal: what a server must still know after `kill -9`: its sessions, spent reservations, a few counters.

Decides how records become durable and how they are found again: an append-only file of checksummed frames, each
a session's whole record, a session's end, a spent reservation, or a counter. The newest of each counts. The file is
written anew once it is mostly out of date. Leaves to `sessions` what a found session means for a guest that may
or may not run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from dht import wire
from dht.errors import WireError
from xenonode.model.errors import MessageError
from xenonode.server.disk import Disk, kept
from xenonode.server.errors import DamagedError
from xenonode.server.frames import frame, read_frames
from xenonode.server.session_state import Session

logger = logging.getLogger("xenonode.server.journal")
NAME = "sessions.journal"
VERSION = 1
COMPACT_MIN_BYTES = 1 << 20
"""Below a mebibyte writing anew saves nothing; reading this much takes a few milliseconds."""
COMPACT_FACTOR = 4
"""The file may be four times its live content, so that each byte is rewritten less than once on average."""
SPENT_BYTES = 128
"""About what a spent reservation takes besides its release."""
CLOSED_MAX = 256
"""Closed sessions that can still be asked about; older ones are forgotten, XenoCorp and the audit log are not."""


@dataclass(frozen=True, slots=True)
class Spent:
    """A reservation that no agreement may use any more: until when that matters, whose it is, and the signed release
    that XenoCorp has not answered yet (empty: none waits)."""

    client: bytes
    until_ms: int
    release: bytes


class Journal:
    """One server's durable memory. Opening it recovers; every write is durable when it returns, or NotKeptError."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._sessions: dict[bytes, bytes] = {}
        self._closed: dict[bytes, None] = {}
        self._counters: dict[str, int] = {}
        self._spent: dict[bytes, Spent] = {}
        self._found: dict[bytes, Session] = {}
        self._size_bytes = 0
        self._kept_whole_bytes = COMPACT_MIN_BYTES
        self._recover()

    @property
    def sessions(self) -> dict[bytes, Session]:
        """The sessions found when the journal was opened, by id."""
        return dict(self._found)

    @property
    def surplus(self) -> list[bytes]:
        """Closed sessions that are more than are kept, the oldest first."""
        return list(self._closed)[: max(0, len(self._closed) - CLOSED_MAX)]

    def put(self, session: Session) -> None:
        """Make a session's record durable."""
        payload = _payload({"session": session.id, "record": session.to_fields()})
        self._append(payload)
        self._sessions[session.id] = payload
        if session.closed:
            self._closed[session.id] = None

    def forget(self, id: bytes) -> None:
        """Make it durable that a closed session is no longer remembered."""
        self._append(_payload({"forget": id}))
        del self._closed[id], self._sessions[id]

    @property
    def spent(self) -> dict[bytes, Spent]:
        """Reservations that are used up or given up, by id."""
        return self._spent

    def spend(self, reservation: bytes, spent: Spent, now_ms: int) -> None:
        """Make it durable that a reservation is spent; what no longer matters is forgotten."""
        self._append(_spent_payload(reservation, spent))
        self._spent[reservation] = spent
        for id in [id for id, each in self._spent.items() if each.until_ms < now_ms and not each.release]:
            del self._spent[id]

    def counter(self, name: str) -> int:
        """A counter's last durable value; 0 for one never set."""
        return self._counters.get(name, 0)

    def count(self, name: str, value: int) -> None:
        """Make a counter's value durable."""
        self._append(_payload({"counter": name, "value": value}))
        self._counters[name] = value

    def _append(self, payload: bytes) -> None:
        data = frame(payload)
        with kept():
            self._disk.append(NAME, data)
        self._size_bytes += len(data)
        if self._size_bytes > self._kept_whole_bytes and self._size_bytes > COMPACT_FACTOR * self._live_bytes():
            self._compact(payload)

    def _live_bytes(self) -> int:
        spent_bytes = sum(SPENT_BYTES + len(each.release) for each in self._spent.values())
        return spent_bytes + sum(len(each) for each in self._sessions.values())

    def _compact(self, newest: bytes) -> None:
        """Write anew what counts; `newest` was appended but is not yet in our books, so it comes last.

        It is durable already: where there is no room for a second file, the first goes on for a while.
        """
        counters = [_payload({"counter": name, "value": value}) for name, value in sorted(self._counters.items())]
        spent = [_spent_payload(id, each) for id, each in self._spent.items()]
        data = b"".join(frame(each) for each in (*self._sessions.values(), *spent, *counters, newest))
        try:
            self._disk.replace(NAME, data)
        except OSError as error:
            if self._kept_whole_bytes == COMPACT_MIN_BYTES:
                logger.warning("%s cannot be written anew (%s), and grows: make room", NAME, error)
            self._kept_whole_bytes = self._size_bytes + COMPACT_MIN_BYTES
        else:
            self._kept_whole_bytes, self._size_bytes = COMPACT_MIN_BYTES, len(data)

    def _recover(self) -> None:
        data = self._disk.read(NAME)
        payloads, whole_bytes = read_frames(data, NAME)
        if whole_bytes < len(data):
            with kept():
                self._disk.replace(NAME, data[:whole_bytes])
        self._size_bytes = whole_bytes
        for payload in payloads:
            self._replay(payload)

    def _replay(self, payload: bytes) -> None:
        try:
            entry = wire.decode(payload)
            if not isinstance(entry, dict) or entry.get("version") != VERSION:
                raise DamagedError(f"{NAME} is of another version", "use the program that wrote it, or a newer one")
            if "counter" in entry:
                self._counters[str(entry["counter"])] = _whole(entry["value"])
            elif "spent" in entry:
                self._spent[_id(entry["spent"])] = Spent(
                    _id(entry["client"]), _whole(entry["until_ms"]), _id(entry["release"])
                )
            elif "forget" in entry:
                forgotten = _id(entry["forget"])
                self._sessions.pop(forgotten, None)
                self._closed.pop(forgotten, None)
                self._found.pop(forgotten, None)
            else:
                self._replay_session(payload, entry)
        except (WireError, MessageError, KeyError, TypeError) as error:
            what = f"{NAME} holds an entry that makes no sense: {error}"
            raise DamagedError(what, "restore it from a backup") from error

    def _replay_session(self, payload: bytes, entry: dict[str, Any]) -> None:
        session = Session.from_fields(entry["record"])
        self._sessions[session.id], self._found[session.id] = payload, session
        if session.closed:
            self._closed[session.id] = None


def _payload(entry: dict[str, Any]) -> bytes:
    return wire.encode({"version": VERSION, **entry})


def _spent_payload(reservation: bytes, spent: Spent) -> bytes:
    return _payload(
        {"spent": reservation, "client": spent.client, "until_ms": spent.until_ms, "release": spent.release}
    )


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError("a counter that is no integer")
    return value


def _id(value: object) -> bytes:
    if type(value) is not bytes:
        raise TypeError("an id that is no bytes")
    return value
