"""The audit log: a hash chain of what the server did, so that nobody can change its past unnoticed.

Decides what an entry is and what `verify` can prove. Each entry carries the hash of the one before it; now and then
the server signs how long the chain is and what its head is (a checkpoint), and each usage record that a client signs
names the head too. Whoever holds a checkpoint or a head finds every edit, deletion, reordering and truncation before
it; after the last one, `verify` still finds every accidental change. Source: the poster's "Logging and Forensic
Auditing", and money.md.

    entry: length of the body (4 bytes) | hash (32) | body
    hash = SHA-256("xeno-audit1" | hash before | body)      the first entry's hash before is 32 zero bytes

An entry says what was done and for which session, and names parties by their keys only: no personal data.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dht import wire
from dht.errors import RemoteError, WireError
from dht.identity import Scheme, Signer
from xenonode.model.message import Message, require
from xenonode.server.disk import Disk, kept
from xenonode.server.errors import DamagedError, LocalError, NotKeptError

NAME = "audit.log"
CHECKPOINTS_NAME = "audit.checkpoints"
BODY_MAX_BYTES = 8_192
"""The largest entry is a refusal with all its reasons, about 2 kB."""
CHECKPOINT_EVERY = 1_000
CHECKPOINT_PERIOD_MS = 60_000
GENESIS = bytes(32)
_HEAD_BYTES = 36


@dataclass(frozen=True, slots=True)
class Checkpoint(Message):
    """The server's word on its log: after `length` entries its head was `head`."""

    TYPE: ClassVar[str] = "audit_checkpoint"
    length: int
    head: bytes
    made_ms: int

    def __post_init__(self) -> None:
        require(self.length >= 0 and len(self.head) == 32, "a checkpoint needs a length and a head of 32 bytes")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: the entries that stand, and the first thing that is wrong, with the entry's number."""

    length: int
    head: bytes
    fault: str | None
    entry: int | None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None


class AuditLog:
    """One server's log. Opening it checks it whole; every entry is durable when `add` returns, or NotKeptError."""

    def __init__(self, disk: Disk, signer: Signer, scheme: Scheme) -> None:
        self._disk, self._signer = disk, signer
        data, signed = disk.read(NAME), disk.read(CHECKPOINTS_NAME)
        whole_bytes = _without_torn_tail(data)
        checkpoints, signed_bytes = _split(signed)
        verdict = verify(data[:whole_bytes], signer.public_key, checkpoints, scheme)
        if not verdict.sound:  # nothing is written before this, so that the evidence stays
            raise DamagedError(f"{NAME}: {verdict.fault}", "keep the file for an investigation, and start a new one")
        with kept():
            if whole_bytes < len(data):
                disk.replace(NAME, data[:whole_bytes])
            if signed_bytes < len(signed):
                disk.replace(CHECKPOINTS_NAME, signed[:signed_bytes])
        self._length, self._head = verdict.length, verdict.head
        self._checkpoint = checkpoints[-1] if checkpoints else None
        self._checkpointed = 0
        self._checkpointed_ms: int | None = None
        if self._checkpoint is not None:
            last, _ = Checkpoint.open(self._checkpoint, scheme)
            self._checkpointed, self._checkpointed_ms = last.length, last.made_ms

    @property
    def head(self) -> bytes:
        """The newest entry's hash."""
        return self._head

    @property
    def length(self) -> int:
        """How many entries there are."""
        return self._length

    @property
    def checkpoint(self) -> bytes | None:
        """The newest signed checkpoint."""
        return self._checkpoint

    def add(self, kind: str, session: bytes, body: Mapping[str, Any], now_ms: int) -> bytes:
        """Write an entry, and a checkpoint if one is due; the new head."""
        entry: dict[str, wire.Value] = {
            "version": 1,
            "seq": self._length,
            "time_ms": now_ms,
            "kind": kind,
            "session": session,
            "body": dict(body),
        }
        encoded = wire.encode(entry)
        if len(encoded) > BODY_MAX_BYTES:
            raise LocalError(f"an audit entry of {len(encoded)} bytes; at most {BODY_MAX_BYTES} are kept")
        hash_ = _chain(self._head, encoded)
        with kept():
            self._disk.append(NAME, len(encoded).to_bytes(4, "big") + hash_ + encoded)
        self._length, self._head = self._length + 1, hash_
        if self._checkpoint_due(now_ms):
            with contextlib.suppress(NotKeptError):  # the entry stands, and the next one is signed with it
                self.sign_checkpoint(now_ms)
        return hash_

    def sign_checkpoint(self, now_ms: int) -> bytes:
        """Sign how long the log is now; durable when it returns."""
        raw = Checkpoint(self._length, self._head, now_ms).seal(self._signer).raw
        with kept():
            self._disk.append(CHECKPOINTS_NAME, len(raw).to_bytes(4, "big") + raw)
        self._checkpoint, self._checkpointed, self._checkpointed_ms = raw, self._length, now_ms
        return raw

    def _checkpoint_due(self, now_ms: int) -> bool:
        if self._checkpointed_ms is None or self._length - self._checkpointed >= CHECKPOINT_EVERY:
            return True
        return abs(now_ms - self._checkpointed_ms) >= CHECKPOINT_PERIOD_MS


def verify(
    data: bytes, public_key: bytes, checkpoints: Sequence[bytes], scheme: Scheme, *, heads: Sequence[bytes] = ()
) -> Verdict:
    """Check a log whole. `heads` are chain heads that others know of, such as those in signed usage records."""
    bodies, hashes, fault = _walk(data)
    length, head = len(bodies), hashes[-1]
    if fault is not None:
        return Verdict(length, head, f"entry {length}: {fault}", length)
    for index, raw in enumerate(checkpoints):
        try:
            checkpoint, _ = Checkpoint.open(raw, scheme, signed_by=public_key)
        except RemoteError as error:
            return Verdict(length, head, f"checkpoint {index}: {error}", None)
        if checkpoint.length > length:
            missing = f"the log ends after {length} entries, checkpoint {index} counts {checkpoint.length}"
            return Verdict(length, head, missing, length)
        if hashes[checkpoint.length] != checkpoint.head:
            other = f"entries 0 to {checkpoint.length - 1} are not those that checkpoint {index} signs"
            return Verdict(length, head, other, max(0, checkpoint.length - 1))
    for known in heads:
        if known not in hashes:
            return Verdict(length, head, f"the entry with the witnessed head {known.hex()[:16]} is missing", None)
    return Verdict(length, head, None, None)


def entries(data: bytes) -> list[dict[str, wire.Value]]:
    """The entries of a log, up to the first that is damaged; check it with `verify` first."""
    return _walk(data)[0]


def split_checkpoints(data: bytes) -> list[bytes]:
    """The signed checkpoints in a checkpoint file; one that a crash tore is left out."""
    return _split(data)[0]


def _split(data: bytes) -> tuple[list[bytes], int]:
    found, at = [], 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        found.append(data[at + 4 : end])
        at = end
    return found, at


def _walk(data: bytes) -> tuple[list[dict[str, wire.Value]], list[bytes], str | None]:
    """Bodies, the head before and after each, and what is wrong with the first entry that does not stand."""
    bodies: list[dict[str, wire.Value]] = []
    hashes, at = [GENESIS], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + _HEAD_BYTES + length
        if length > BODY_MAX_BYTES or end > len(data):
            return bodies, hashes, "it is cut off, or its length was changed"
        hash_, encoded = data[at + 4 : at + _HEAD_BYTES], data[at + _HEAD_BYTES : end]
        if _chain(hashes[-1], encoded) != hash_:
            return bodies, hashes, "its hash does not follow from the entry before and its body"
        try:
            body = wire.decode(encoded)
        except WireError as error:
            return bodies, hashes, f"its body cannot be read: {error}"
        if not isinstance(body, dict) or body.get("seq") != len(bodies):
            return bodies, hashes, "its number is wrong: entries were removed, or their order changed"
        bodies.append(body)
        hashes.append(hash_)
        at = end
    return bodies, hashes, None


def _without_torn_tail(data: bytes) -> int:
    """How many bytes the entries take that were written whole: a crash can only cut off the last one."""
    at = 0
    while at + _HEAD_BYTES <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length > BODY_MAX_BYTES:
            return len(data)  # no torn write looks like this: `verify` says what is wrong
        if at + _HEAD_BYTES + length > len(data):
            break
        at += _HEAD_BYTES + length
    return at


def _chain(before: bytes, encoded: bytes) -> bytes:
    return hashlib.sha256(b"xeno-audit1" + before + encoded).digest()
