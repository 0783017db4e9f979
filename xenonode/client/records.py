"""What a client remembers of its sessions and of servers it found, and how it shows a session.

Decides the form on disk: one file a session, canonical and versioned. A record holds what a dispute would need: the
agreement with both seals, the start record, the last usage record that was accepted. Commands and the agent share
these files, so a record is changed where it is read, while nobody else may. A reservation is noted before XenoCorp
hears of it, and held by its process: what is noted and not held is of one that ended too early.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from dht import wire
from dht.errors import RemoteError
from dht.identity import Scheme
from xenonode.client.checking import Share
from xenonode.errors import XenoError
from xenonode.model.advert import VerifiedAdvert
from xenonode.model.entity import Address
from xenonode.model.message import Message
from xenonode.model.resources import Resources
from xenonode.model.session import Agreement, Start
from xenonode.server.disk import Disk

_SESSION, _RESERVING, FOUND = "session-", "reserving-", "found"
_CHANGING = "changing"
logger = logging.getLogger("xenonode.client.records")
FOUND_MAX = 1_000
"""Servers of the last search that can be named by the first digits of their keys."""


@dataclass(frozen=True, slots=True)
class SessionRecord(Message):
    """One session as its client keeps it; `id` is the agreement's, `shares` what it was resized to, and when.

    `reservation` is XenoCorp's signed word while the server has not answered the agreement yet, empty afterwards.
    """

    TYPE: ClassVar[str] = "client_session"
    MAX_BYTES: ClassVar[int] = 1 << 20
    id: bytes
    server: bytes
    control: Address
    order: bytes
    client_agreement: bytes
    server_agreement: bytes
    start: bytes
    shares: tuple[Share, ...]
    accepted_usage: bytes
    closed: bool
    reservation: bytes

    def agreement(self, scheme: Scheme) -> Agreement:
        """What both signed."""
        return Agreement.open(self.client_agreement, scheme)[0]

    def started(self, scheme: Scheme) -> Start | None:
        """The server's start record, checked; None before there is one."""
        return Start.open(self.start, scheme, signed_by=self.server)[0] if self.start else None


@dataclass(frozen=True, slots=True)
class Reserving(Message):
    """A reservation that a client is about to ask for; `id` is the request's, which is there as it was signed."""

    TYPE: ClassVar[str] = "client_reserving"
    id: bytes
    request: bytes
    control: Address


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as it stands, for people and programs."""

    session: str
    state: str
    reason: str
    server: bytes
    environment: str
    resources: Resources
    ssh: str
    currency: str
    due_nano: int
    settled_nano: int
    lease_until_ms: int
    closed: bool


def view(record: SessionRecord, told: dict[str, Any], scheme: Scheme) -> SessionView:
    """A server's answer to 'session.show' as a view. Raises XenoError where it is malformed."""
    try:
        start = record.started(scheme)
        amounts = told["resources"]
        return SessionView(
            session=record.id.hex(),
            state=str(told["state"]),
            reason=str(told.get("reason", "")),
            server=record.server,
            environment=str(told["environment"]),
            resources=Resources(**{name: int(amounts[name]) for name in Resources.__slots__}),
            ssh="" if start is None or not start.ssh_host else f"{start.ssh_host}:{start.ssh_port}",
            currency=str(told["currency"]),
            due_nano=int(told["due_nano"]),
            settled_nano=int(told["settled_nano"]),
            lease_until_ms=int(told["lease_until_ms"]),
            closed=bool(told["closed"]),
        )
    except (KeyError, TypeError, ValueError, RemoteError) as error:
        raise XenoError(f"the server's answer cannot be read: {error}", "compare the versions", "bad_peer") from error


class Records:
    """The client's own files."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def keep(self, record: SessionRecord) -> None:
        """Remember a new session."""
        self._disk.replace(_SESSION + record.id.hex(), wire.encode(record.to_fields()))

    def change(self, id: bytes, how: Callable[[SessionRecord], SessionRecord]) -> SessionRecord:
        """Change a session's record as it is on disk now, whatever other processes did to it; what it is then."""
        with self._disk.hold(_CHANGING):
            record = self._read(_SESSION + id.hex())
            changed = how(record)
            if changed != record:
                self.keep(changed)
        return changed

    @contextlib.contextmanager
    def reserving(self, noted: Reserving) -> Iterator[Callable[[], None]]:
        """Note a reservation before it is asked for; what is yielded forgets it, once it is refused or in a record."""
        name = _RESERVING + noted.id.hex()
        with self._disk.hold(name):
            self._disk.replace(name, wire.encode(noted.to_fields()))
            yield lambda: self._disk.remove(name)

    @contextlib.contextmanager
    def abandoned(self) -> Iterator[list[tuple[Reserving, Callable[[], None]]]]:
        """Noted reservations that no process holds any more, each with the way to forget it; held meanwhile."""
        found: list[tuple[Reserving, Callable[[], None]]] = []
        with contextlib.ExitStack() as holding:
            for name in [name for name in self._disk.names() if name.startswith(_RESERVING)]:
                if not holding.enter_context(self._disk.hold(name, wait=False)):
                    continue
                raw = self._disk.read(name)
                if not raw:
                    self._disk.remove(name)  # forgotten just now
                    continue
                try:
                    found.append((_noted(raw, name), functools.partial(self._disk.remove, name)))
                except (RemoteError, XenoError) as error:
                    logger.error("%s is damaged, and is left as it is: %s", name, error)
            yield found

    def sessions(self) -> list[SessionRecord]:
        """Every session that is remembered, by id. A damaged record is told of and left out: the others go on."""
        found = []
        for name in self._disk.names():
            if name.startswith(_SESSION):
                try:
                    found.append(self._read(name))
                except XenoError as error:
                    logger.error("%s", error)
        return found

    def find(self, id: str) -> SessionRecord:
        """The session whose id begins so. Raises XenoError when there is none, or more than one."""
        text = id.strip().lower()
        names = [name for name in self._disk.names() if text and name.startswith(_SESSION + text)]
        if len(names) != 1:
            message = f"{len(names)} sessions begin with {id!r}" if names else f"there is no session {id!r}"
            raise XenoError(message, "see yours with 'xenonode session list'", "unknown_session")
        return self._read(names[0])

    def keep_found(self, adverts: list[VerifiedAdvert]) -> None:
        """Remember where found servers answer, so that a later command can name one by its key."""
        fresh = {each.server_key.hex(): each.advert.control.pair for each in adverts}
        with self._disk.hold(_CHANGING):
            older = {key: address for key, address in self._found().items() if key not in fresh}
            kept = [*older.items(), *fresh.items()][-FOUND_MAX:]
            self._disk.replace(FOUND, wire.encode({key: list(address) for key, address in kept}))

    def found(self, prefix: str) -> tuple[bytes, tuple[str, int]]:
        """The server whose key begins so, and its control address. Raises XenoError."""
        text = prefix.strip().lower()
        matching = [(key, value) for key, value in self._found().items() if text and key.startswith(text)]
        if len(matching) != 1:
            count = len(matching) or "no"
            message = f"{count} known server keys begin with {prefix!r}"
            raise XenoError(message, "find servers with 'xenonode search', or give HOST:PORT", "unknown_server")
        key, address = matching[0]
        return bytes.fromhex(key), address

    def address_of(self, server: bytes) -> Address | None:
        """Where a search found a server last; None where none did."""
        address = self._found().get(server.hex())
        return None if address is None else Address(*address)

    def _found(self) -> dict[str, tuple[str, int]]:
        raw = self._disk.read(FOUND)
        try:
            known = wire.decode(raw, max_bytes=1 << 20) if raw else {}
        except RemoteError:
            return {}  # only a convenience: the next search makes it again
        if not isinstance(known, dict):
            return {}
        return {key: address for key, at in known.items() if (address := _address(key, at)) is not None}

    def _read(self, name: str) -> SessionRecord:
        try:
            fields = wire.decode(self._disk.read(name), max_bytes=SessionRecord.MAX_BYTES)
            if not isinstance(fields, dict):
                raise XenoError(f"{name} holds no record", "restore it from a backup", "damaged")
            return SessionRecord.from_fields(_upgraded(fields))
        except RemoteError as error:
            raise XenoError(f"{name} is damaged: {error}", "restore it from a backup", "damaged") from error


def _noted(raw: bytes, name: str) -> Reserving:
    fields = wire.decode(raw)
    if not isinstance(fields, dict):
        raise XenoError(f"{name} holds no record", "restore it from a backup", "damaged")
    return Reserving.from_fields(fields)


def _upgraded(fields: dict[str, Any]) -> dict[str, Any]:
    """A record as it is now written: the first ones knew only the largest share, and no reservation."""
    if "most" in fields:
        fields = {**fields, "shares": [[0, fields["most"]]]}
    return {"reservation": b"", **fields}


def _address(key: str, at: wire.Value) -> tuple[str, int] | None:
    """Where a server of this key answers; None where this is no such entry."""
    if len(key) != 64 or not all(letter in "0123456789abcdef" for letter in key):
        return None
    match at:
        case [str(host), int(port)]:
            return host, port
    return None
