"""Frames: how values are told apart on a byte stream. Pure: bytes in, values out.

A frame is its body's length (4 bytes, big-endian) and the body, a canonical value of `dht.wire`. Decides the bound on
a frame; the length is checked before anything is kept, so a liar's four bytes cost us nothing.
"""

from __future__ import annotations

from typing import Any

from dht.errors import DhtError, WireError
from dht.wire import decode, encode
from xenonode.control.errors import FrameError, LocalError

HEADER_BYTES = 4
MAX_FRAME_BYTES = 1_048_576  # 1 MiB: a statement of some thousand transfers or a chunk of an image; per connection


def join(value: Any) -> bytes:
    """Return the frame that carries a value; LocalError if none can."""
    try:
        body = encode(value)
    except DhtError as error:
        raise LocalError(f"cannot be sent: {error}") from error
    if len(body) > MAX_FRAME_BYTES:
        raise LocalError(f"a frame carries at most {MAX_FRAME_BYTES} bytes; this value has {len(body)}")
    return len(body).to_bytes(HEADER_BYTES) + body


class Splitter:
    """Splits what arrives into values; keeps at most one frame and what came with it."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrive; call `next` until it returns None before feeding more."""
        self._buffer += data

    def next(self) -> dict[str, Any] | None:
        """Return the next complete frame's message, or None. FrameError: close the connection, it cannot recover."""
        if len(self._buffer) < HEADER_BYTES:
            return None
        length = int.from_bytes(self._buffer[:HEADER_BYTES])
        if not 0 < length <= self._max_frame_bytes:
            raise FrameError(f"a frame of {length} bytes; at most {self._max_frame_bytes} are accepted")
        end = HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[HEADER_BYTES:end])
        del self._buffer[:end]
        try:
            value = decode(body, max_bytes=self._max_frame_bytes)
        except WireError as error:
            raise FrameError(f"no canonical value: {error}") from error
        if not isinstance(value, dict):
            raise FrameError("a message is a map")
        return value
