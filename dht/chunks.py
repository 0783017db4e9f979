"""Values that no datagram holds: cut into checked parts under one signed manifest.

Decides how a payload is cut and how a part is checked. Leaves signing to `record` and moving parts to `chunking`.
Pure. A manifest names the payload's size and the SHA-256 of its list of hashes; part 0 is that list (16 bytes of
SHA-256 for each piece), parts 1 and up are the pieces. So the first part that a liar makes up is refused, whoever
it came from. Source: BEP 3 (a hash for each piece under one signed description), with the list itself as a piece.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .errors import LocalError, WireError

# 64 pieces and 16 bytes of hash for each: the list is as long as one piece, and both fit a datagram.
PIECE_BYTES = 1_024
HASH_BYTES = 16
MAX_PAYLOAD_BYTES = 65_536
DIGEST_BYTES = 32
ADVICE = "send more than 64 KiB over a control connection, and publish where it can be had"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is signed of a payload in parts."""

    size_bytes: int
    digest: bytes

    def __post_init__(self) -> None:
        if not 0 < self.size_bytes <= MAX_PAYLOAD_BYTES:
            raise WireError(f"a payload in parts has 1 to {MAX_PAYLOAD_BYTES} bytes")
        if len(self.digest) != DIGEST_BYTES:
            raise WireError("a list of hashes is named by 32 bytes")

    @property
    def parts(self) -> int:
        """How many parts there are, the list of hashes included."""
        return 1 + -(-self.size_bytes // PIECE_BYTES)


def cut(payload: bytes) -> list[bytes]:
    """The list of hashes and the pieces."""
    if not 0 < len(payload) <= MAX_PAYLOAD_BYTES:
        raise LocalError(f"a value of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} fit a record: {ADVICE}")
    pieces = [payload[at : at + PIECE_BYTES] for at in range(0, len(payload), PIECE_BYTES)]
    return [b"".join(map(_hash, pieces)), *pieces]


def manifest_of(payload: bytes) -> Manifest:
    """The manifest of a payload."""
    return Manifest(len(payload), hashlib.sha256(cut(payload)[0]).digest())


class Assembly:
    """A payload that is being put together; nothing unchecked ever enters."""

    __slots__ = ("_hashes", "_pieces", "held_bytes", "manifest")

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.held_bytes = 0
        self._hashes: bytes | None = None
        self._pieces: dict[int, bytes] = {}

    def missing(self) -> list[int]:
        """The parts still needed, the list of hashes before all others."""
        if self._hashes is None:
            return [0]
        return [index for index in range(1, self.manifest.parts) if index not in self._pieces]

    def add(self, index: int, part: bytes) -> None:
        """Take one part in; WireError when it is not what was signed."""
        manifest = self.manifest
        if index == 0:
            if hashlib.sha256(part).digest() != manifest.digest or len(part) != HASH_BYTES * (manifest.parts - 1):
                raise WireError("not the list of hashes that was signed")
            if self._hashes is None:
                self._hashes = part
                self.held_bytes += len(part)
            return
        if self._hashes is None:
            raise WireError("a piece before its hash")
        if not 0 < index < manifest.parts:
            raise WireError(f"part {index} of {manifest.parts}")
        room = manifest.size_bytes - (index - 1) * PIECE_BYTES
        if _hash(part) != self._hashes[(index - 1) * HASH_BYTES : index * HASH_BYTES] or len(part) != min(
            room, PIECE_BYTES
        ):
            raise WireError(f"part {index} is not what was signed")
        if index not in self._pieces:
            self._pieces[index] = part
            self.held_bytes += len(part)

    @property
    def complete(self) -> bool:
        """Whether all parts are there."""
        return self._hashes is not None and len(self._pieces) == self.manifest.parts - 1

    def payload(self) -> bytes:
        """The whole; only once it is complete."""
        if not self.complete:
            raise LocalError("the payload is not complete")
        return b"".join(self._pieces[index] for index in range(1, self.manifest.parts))


def _hash(piece: bytes) -> bytes:
    return hashlib.sha256(piece).digest()[:HASH_BYTES]
