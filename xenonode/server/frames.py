"""Frames in an append-only file: where one entry ends and the next begins, and whether its bytes are whole.

    header: payload length (4 bytes) | CRC-32 of that length (4) | BLAKE2b of the payload (16)    then the payload

Decides what a crash can leave behind (a beginning of the last frame), and what it cannot: damage before a whole
frame is never taken for a torn tail, because throwing away what follows it could lose acknowledged entries.
"""

from __future__ import annotations

import hashlib
import struct
import zlib

from xenonode.server.errors import DamagedError, LocalError

PAYLOAD_MAX_BYTES = 1 << 16
"""A session's record takes about 10 kB; this is also the wire's own bound on a value."""
_HEADER = struct.Struct(">II16s")
HEADER_BYTES = _HEADER.size


def frame(payload: bytes) -> bytes:
    """The frame of one payload."""
    if len(payload) > PAYLOAD_MAX_BYTES:
        raise LocalError(f"an entry of {len(payload)} bytes; at most {PAYLOAD_MAX_BYTES} are kept")
    return _HEADER.pack(len(payload), _crc(len(payload)), _digest(payload)) + payload


def read_frames(data: bytes, name: str) -> tuple[list[bytes], int]:
    """All whole payloads in order, and how many bytes they take; what follows is a torn tail.

    Raises DamagedError where a crash cannot be the reason: whole frames come after broken bytes.
    """
    payloads, at = [], 0
    while at < len(data):
        payload = _frame_at(data, at)
        if payload is None:
            _check_torn(data, at, name)
            break
        payloads.append(payload)
        at += HEADER_BYTES + len(payload)
    return payloads, at


def _frame_at(data: bytes, at: int) -> bytes | None:
    if len(data) - at < HEADER_BYTES:
        return None
    length, crc, digest = _HEADER.unpack_from(data, at)
    if crc != _crc(length) or length > PAYLOAD_MAX_BYTES:
        return None
    payload = data[at + HEADER_BYTES : at + HEADER_BYTES + length]
    return payload if len(payload) == length and digest == _digest(payload) else None


def _check_torn(data: bytes, at: int, name: str) -> None:
    broken = DamagedError(
        f"{name} is damaged at byte {at}, and whole entries follow",
        "restore the file from a backup; a crash does not do this, a failing disk does",
    )
    if len(data) - at > HEADER_BYTES + PAYLOAD_MAX_BYTES:
        raise broken
    if any(_frame_at(data, later) is not None for later in range(at + 1, len(data) - HEADER_BYTES + 1)):
        raise broken


def _crc(length: int) -> int:
    return zlib.crc32(length.to_bytes(4, "big"))


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()
