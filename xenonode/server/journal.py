"""The journal: what a server must still know after `kill -9`: its sessions, and a few counters.

Decides how records become durable and how they are found again: an append-only file of checksummed frames, each
a session's whole record, a session's end, or a counter. The newest of each counts. The file is written anew once
it is mostly out of date. Leaves to `sessions` what a found session means for a guest that may or may not run.
"""

from __future__ import annotations

from typing import Any

from dht import wire
from dht.errors import WireError
from xenonode.model.errors import MessageError
from xenonode.server.disk import Disk
from xenonode.server.errors import DamagedError
from xenonode.server.frames import frame, read_frames
from xenonode.server.session_state import Session

NAME = "sessions.journal"
VERSION = 1
COMPACT_MIN_BYTES = 1 << 20
"""Below a mebibyte writing anew saves nothing; reading this much takes a few milliseconds."""
COMPACT_FACTOR = 4
"""The file may be four times its live content, so that each byte is rewritten less than once on average."""
CLOSED_MAX = 256
"""Closed sessions that can still be asked about; older ones are forgotten, XenoCorp and the audit log are not."""


class Journal:
    """One server's durable memory. Opening it recovers; every write is durable when it returns."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._sessions: dict[bytes, bytes] = {}
        self._closed: dict[bytes, None] = {}
        self._counters: dict[str, int] = {}
        self._found: dict[bytes, Session] = {}
        self._recover()

    @property
    def sessions(self) -> dict[bytes, Session]:
        """The sessions found when the journal was opened, by id."""
        return dict(self._found)

    def put(self, session: Session) -> list[bytes]:
        """Make a session's record durable; the ids of closed sessions that were forgotten for it."""
        payload = _payload({"session": session.id, "record": session.to_fields()})
        self._append(payload)
        self._sessions[session.id] = payload
        if not session.closed:
            return []
        self._closed[session.id] = None
        forgotten = list(self._closed)[: max(0, len(self._closed) - CLOSED_MAX)]
        for each in forgotten:
            self._append(_payload({"forget": each}))
            del self._closed[each], self._sessions[each]
        return forgotten

    def counter(self, name: str) -> int:
        """A counter's last durable value; 0 for one never set."""
        return self._counters.get(name, 0)

    def count(self, name: str, value: int) -> None:
        """Make a counter's value durable."""
        self._append(_payload({"counter": name, "value": value}))
        self._counters[name] = value

    def _append(self, payload: bytes) -> None:
        data = frame(payload)
        self._disk.append(NAME, data)
        self._size_bytes += len(data)
        if self._size_bytes > COMPACT_MIN_BYTES and self._size_bytes > COMPACT_FACTOR * self._live_bytes():
            self._compact(payload)

    def _live_bytes(self) -> int:
        return sum(len(each) for each in self._sessions.values())

    def _compact(self, newest: bytes) -> None:
        """Write anew what counts; `newest` was appended but is not yet in our books, so it comes last."""
        counters = [_payload({"counter": name, "value": value}) for name, value in sorted(self._counters.items())]
        data = b"".join(frame(each) for each in (*self._sessions.values(), *counters, newest))
        self._disk.replace(NAME, data)
        self._size_bytes = len(data)

    def _recover(self) -> None:
        data = self._disk.read(NAME)
        payloads, whole_bytes = read_frames(data, NAME)
        if whole_bytes < len(data):
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


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError("a counter that is no integer")
    return value


def _id(value: object) -> bytes:
    if type(value) is not bytes:
        raise TypeError("an id that is no bytes")
    return value
