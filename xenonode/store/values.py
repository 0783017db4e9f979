"""Values under their writers' names: to 64 KiB in the overlays, larger ones over a control connection.

Decides what a record says of a value that it does not hold (how large it is, its SHA-256, where it can be had), what a
node gives out, and when a value that was fetched is the one that was signed. Leaves records of up to 64 KiB to `dht`,
and how a call is made to its caller.

A writer has one value of a name. A large one lives in the memory of the server that published it, as long as that runs;
who asks for it proves to be a member, and has nobody else's word to believe than the writer's signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dht import wire
from dht.chunks import MAX_PAYLOAD_BYTES
from dht.contact import admits
from dht.errors import RemoteError
from dht.overlay import Overlay
from dht.record import MAX_LIFE_MS, MAX_NAME_LENGTH, owned_key
from summaries.schema import Schema
from xenonode.control.errors import ControlError
from xenonode.control.server import Caller, Handler
from xenonode.errors import XenoError
from xenonode.model.entity import Address

LARGEST_BYTES = 16 * 2**20
"""Of one value; it is in memory at both ends."""
KEPT_BYTES_MAX = 64 * 2**20
"""Of all values that one node gives out."""
PIECE_BYTES = 512 * 1024
"""Of one answer: half of what a frame holds."""
DIGEST_BYTES = 32
HERE, ELSEWHERE = b"\0", b"\1"
"""How a record's payload begins: the value follows, or where it can be had."""
READERS = 2
"""Holders whose records are compared, so that a copy on the way hides no newer value."""
Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a record says of a value that it does not hold."""

    size_bytes: int
    digest: bytes
    control: Address

    def packed(self) -> bytes:
        """As a record's payload."""
        return ELSEWHERE + wire.pack([self.size_bytes, self.digest, str(self.control)])

    @classmethod
    def of(cls, payload: bytes) -> Elsewhere:
        """From a record's payload. Raises RemoteError."""
        match wire.unpack(payload[1:]):
            case [int(size_bytes), bytes(digest), str(control)]:
                address = Address.parse(control)
                if 0 < size_bytes <= LARGEST_BYTES and len(digest) == DIGEST_BYTES and address is not None:
                    return cls(size_bytes, digest, address)
        raise RemoteError("a record that does not say where its value is")


class Desk:
    """The large values that one node gives out to members, until they expire."""

    def __init__(self, control: Address, now_ms: Callable[[], int]) -> None:
        self.control, self._now_ms = control, now_ms
        self._kept: dict[bytes, tuple[bytes, int]] = {}
        self._named: dict[str, bytes] = {}  # what a name's record says now

    def handlers(self) -> Mapping[str, Handler]:
        """For `xenonode.control.server.serve`."""
        return {"value.read": self._read}

    def keep(self, value: bytes, expires_ms: int) -> Elsewhere:
        """Give this value out from now on. Raises XenoError where there is no room."""
        now_ms = self._now_ms()
        self._kept = {digest: kept for digest, kept in self._kept.items() if kept[1] > now_ms}
        digest = hashlib.sha256(value).digest()
        _, until_ms = self._kept.pop(digest, (b"", 0))
        used = sum(len(kept) for kept, _ in self._kept.values())
        self._named = {name: said for name, said in self._named.items() if said in self._kept or said == digest}
        if used + len(value) > KEPT_BYTES_MAX:
            message = f"this node gives out {used} bytes already; at most {KEPT_BYTES_MAX} in all"
            raise XenoError(message, "wait until some values have expired", "value_room")
        self._kept[digest] = value, max(until_ms, expires_ms)
        return Elsewhere(len(value), digest, self.control)

    def named(self) -> list[tuple[str, bytes, int]]:
        """What records say now that is kept here: name, value, and until when."""
        return [(name, *self._kept[digest]) for name, digest in sorted(self._named.items()) if digest in self._kept]

    def name(self, name: str, digest: bytes | None) -> None:
        """This name's record says so now, or nothing that is kept here: what it said before is given out no longer."""
        former = self._named.pop(name, None)
        if digest is not None:
            self._named[name] = digest
        if former is not None:
            self.drop(former)

    def drop(self, digest: bytes) -> None:
        """Give this out no longer, unless a record says it."""
        if digest not in self._named.values():
            self._kept.pop(digest, None)

    async def _read(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        match body:
            case {"digest": bytes(digest), "offset": int(offset)} if offset >= 0:
                value, until_ms = self._kept.get(digest, (b"", 0))
                if until_ms <= self._now_ms():
                    message = "there is no such value here, or not any more"
                    raise ControlError("no_value", message, "have its writer publish it again")
                return {"piece": value[offset : offset + PIECE_BYTES]}
        message = "a question for a value names its digest and an offset"
        raise ControlError("bad_request", message, "compare the versions of both sides")


class Uploads:
    """What the owner's commands bring to the own server, a piece at a time; the last one has it published."""

    def __init__(self, own_key: bytes, publish: Callable[[str, bytes, int], Awaitable[int]]) -> None:
        self._own_key, self._publish = own_key, publish
        self._upload: object = None  # which one the pieces are of
        self._value = bytearray()

    def handlers(self) -> Mapping[str, Handler]:
        """For `xenonode.control.server.serve`."""
        return {"owner.publish": self._take}

    async def _take(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        if caller.public_key != self._own_key:
            raise ControlError("not_owner", "only this server's owner may do this", "use the server's own key")
        match body:
            case {
                "name": str(name),
                "life_ms": int(life_ms),
                "size_bytes": int(size),
                "digest": bytes(digest),
                "offset": int(offset),
                "piece": bytes(piece),
            }:
                upload = name, life_ms, size, digest
                if not offset:
                    self._upload, self._value = upload, bytearray()
                follows = upload == self._upload and offset == len(self._value)
                if not follows or not offset + len(piece) <= size <= LARGEST_BYTES:
                    message = "this piece follows on no other one: two publish here at once, perhaps"
                    raise ControlError("bad_request", message, "begin again")
                self._value += piece
                if len(self._value) < size:
                    return {"holders": 0}
                value, self._upload, self._value = bytes(self._value), None, bytearray()
                if hashlib.sha256(value).digest() != digest:
                    raise ControlError("bad_request", "this is not the value that was announced", "begin again")
                try:
                    return {"holders": await self._publish(name, value, life_ms)}
                except XenoError as error:
                    raise ControlError(error.code, error.message, error.next_step) from error
        raise ControlError("bad_request", "a piece of a value lacks something", "compare the versions of both sides")


def pieces(value: bytes) -> Iterator[tuple[int, bytes]]:
    """A value as it travels: each piece with its place. An empty value is one empty piece."""
    for offset in range(0, max(1, len(value)), PIECE_BYTES):
        yield offset, value[offset : offset + PIECE_BYTES]


def dimension(schema: Schema) -> str:
    """In whose overlay values lie: the schema's first, which every member knows, since schemas grow at their end."""
    return schema.dimensions[0].name


async def publish(
    overlay: Overlay, name: str, value: bytes, *, now_ms: int, life_ms: int, desk: Desk | None = None
) -> int:
    """Publish our value of this name; how many nodes hold its record. Raises XenoError."""
    check(name, value, life_ms, desk is not None)
    expires_ms = now_ms + life_ms
    kept = None
    if len(HERE + value) <= MAX_PAYLOAD_BYTES:
        payload = HERE + value
    else:
        assert desk is not None  # by `check`
        kept = desk.keep(value, expires_ms)
        payload = kept.packed()
    key = owned_key(overlay.dimension, overlay.endpoint.signer.public_key, name)
    holders = await overlay.records.put_value(key, payload, expires_ms, seq=now_ms, name=name)
    if not holders:
        if desk is not None and kept is not None:
            desk.drop(kept.digest)
        raise XenoError("no node took the value", "see with 'xenonode peers' whether there are any", "no_holder")
    if desk is not None:
        desk.name(name, None if kept is None else kept.digest)
    return holders


def check(name: str, value: bytes, life_ms: int, is_server: bool) -> None:
    """Raise XenoError for what cannot be published."""
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise XenoError(f"a name has 1 to {MAX_NAME_LENGTH} characters", "choose another name", "bad_request")
    if not 0 < life_ms <= MAX_LIFE_MS:
        raise XenoError("a value lives for at most seven days", "publish it again before they are over", "bad_request")
    if len(value) > LARGEST_BYTES:
        message = f"a value of {len(value)} bytes; at most {LARGEST_BYTES} can be published"
        raise XenoError(message, "publish where it can be had", "value_size")
    if len(HERE + value) > MAX_PAYLOAD_BYTES and not is_server:
        message = f"a value of {len(value)} bytes; the overlays hold up to {MAX_PAYLOAD_BYTES - len(HERE)}"
        next_step = "publish it on a server of yours, which readers can connect to: xenonode server publish"
        raise XenoError(message, next_step, "value_size")


async def read(overlay: Overlay, owner: bytes, name: str, profile: str, call: Callable[[Address], Call]) -> bytes:
    """The value that `owner` has under this name, whole and checked. `call` asks the owner there. Raises XenoError."""
    key = owned_key(overlay.dimension, owner, name)
    payload = await overlay.records.get_value(key, owner, holders=READERS)
    if payload is None:
        message = f"no node has a value {name!r} of {owner.hex()[:16]}"
        raise XenoError(message, "check name and owner; it may have expired", "no_value")
    if payload[:1] == HERE:
        return payload[1:]
    try:
        if payload[:1] != ELSEWHERE:
            raise RemoteError("a record of another use, or of a newer version")
        elsewhere = Elsewhere.of(payload)
        if not admits(elsewhere.control.host, profile):
            raise RemoteError(f"a record names {elsewhere.control}, where no member of this network can be")
        return await _fetch(elsewhere, call(elsewhere.control))
    except RemoteError as error:
        raise XenoError(f"the value does not hold: {error}", "ask its writer", "bad_peer") from error


async def _fetch(elsewhere: Elsewhere, call: Call) -> bytes:
    pieces, left = [], elsewhere.size_bytes
    while left:
        answer = await call("value.read", {"digest": elsewhere.digest, "offset": elsewhere.size_bytes - left})
        piece = answer.get("piece")
        if not isinstance(piece, bytes) or len(piece) != min(PIECE_BYTES, left):
            raise RemoteError("its writer's server sent something else than was asked")
        pieces.append(piece)
        left -= len(piece)
    value = b"".join(pieces)
    if hashlib.sha256(value).digest() != elsewhere.digest:
        raise RemoteError("what its writer's server sent is not what was signed")
    return value
