"""One connection as a stream of messages: the driver that moves bytes between asyncio and the splitter.

Decides only about time: a message that was begun must be complete within its own time-out, however slowly its bytes
drip. `Transport` is what proves who is at the other end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from xenonode.control.errors import FrameError, IdleError, SlowFrameError, StreamLostError
from xenonode.control.frames import Splitter, join

READ_BYTES = 65_536  # asked of the socket at once; asyncio's own high-water mark
FRAME_TIMEOUT_MS = 30_000  # one MiB at 280 kbit/s, slower than any server's uplink


class Stream:
    """A connection that carries messages. `peer_key` is proved, or None if the peer is anonymous (or not yet asked)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._splitter = Splitter()
        self._frame_deadline_s: float | None = None
        self.peer_key: bytes | None = None
        self.expected_key: bytes | None = None

    @property
    def peer_address(self) -> tuple[str, int]:
        """The other end's address."""
        name = self._writer.get_extra_info("peername") or ("", 0)
        return str(name[0]), int(name[1])

    def tls(self) -> ssl.SSLObject | None:
        """Return the TLS session, if there is one."""
        found: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return found

    async def receive(self, *, idle_ms: int | None = None, frame_ms: int = FRAME_TIMEOUT_MS) -> dict[str, Any] | None:
        """Return the next message; None at the end. Raises FrameError, IdleError, SlowFrameError, StreamLostError."""
        loop = asyncio.get_running_loop()
        while (message := self._splitter.next()) is None:
            if not self._splitter.partial:
                deadline_s = None if idle_ms is None else loop.time() + idle_ms / 1_000
            else:
                if self._frame_deadline_s is None:
                    self._frame_deadline_s = loop.time() + frame_ms / 1_000
                deadline_s = self._frame_deadline_s
            data = await self._read(deadline_s)
            if not data:
                if self._splitter.partial:
                    raise FrameError("the connection ended within a frame")
                return None
            self._splitter.feed(data)
        self._frame_deadline_s = None
        return message

    async def _read(self, deadline_s: float | None) -> bytes:
        try:
            async with asyncio.timeout_at(deadline_s) as limit:
                return await self._reader.read(READ_BYTES)
        except TimeoutError as error:
            if not limit.expired():  # the system's own ETIMEDOUT is a TimeoutError too
                raise StreamLostError(str(error)) from error
            if self._splitter.partial:
                raise SlowFrameError("a frame was begun and not finished in time") from None
            raise IdleError("nothing came for too long") from None
        except (OSError, ssl.SSLError) as error:
            raise StreamLostError(getattr(error, "reason", None) or str(error)) from error

    async def send(self, message: dict[str, Any], *, timeout_ms: int = FRAME_TIMEOUT_MS) -> None:
        """Send a message; LocalError if it cannot be one, StreamLostError if the peer is gone or does not read."""
        frame = join(message)
        try:
            async with asyncio.timeout(timeout_ms / 1_000):
                self._writer.write(frame)
                await self._writer.drain()
        except (OSError, RuntimeError) as error:  # TimeoutError is an OSError; RuntimeError: closed meanwhile
            self.abort()
            raise StreamLostError(str(error) or "the peer does not read") from error

    def close(self) -> None:
        """Flush and close; never raises."""
        self._writer.close()

    def abort(self) -> None:
        """Close without flushing."""
        self._writer.transport.abort()


Accepted = Callable[[Stream], Awaitable[None]]
Failed = Callable[[str], None]


class Transport(Protocol):
    """How two members connect and prove their keys."""

    async def dial(self, host: str, port: int, expected_key: bytes | None) -> Stream:
        """Connect and prove both ends; ControlError says why not. `expected_key` None: any member will do."""

    async def listen(
        self, host: str, port: int, *, anonymous: bool, accepted: Accepted, failed: Failed
    ) -> asyncio.AbstractServer:
        """Accept connections; `anonymous` admits peers without a certificate; `failed` hears of lost handshakes."""

    async def identify(self, stream: Stream) -> bytes | None:
        """Return the proved key of who connected, None if anonymous; ControlError or RemoteError if it fails."""
