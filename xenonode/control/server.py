"""The answering end: accepts connections, bounds them, and gives each request to its handler.

Decides: who waits and who is turned away. A connection is greeted (proved) > welcomed or refused > served until it
ends, idles, or breaks the protocol; what breaks the protocol is closed and counted, and never costs a traceback.
Leaves to others: what a method does (handlers), proof of identity (`Transport`). A handler that has begun is not
stopped because its caller went away: it may be about money, and the caller will repeat the same ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from xenonode.control.errors import (
    BAD_REQUEST,
    BUSY,
    CERTIFICATE_REQUIRED,
    INTERNAL,
    TIMEOUT,
    UNKNOWN_METHOD,
    ControlError,
    FrameError,
    IdleError,
    LocalError,
    RemoteError,
    SlowFrameError,
)
from xenonode.control.messages import Reply, Request, welcome_fields
from xenonode.control.stream import FRAME_TIMEOUT_MS, Stream, Transport

logger = logging.getLogger("xenonode.control")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `public_key` is proved; None is somebody without a certificate yet."""

    public_key: bytes | None
    address: tuple[str, int]
    request_id: str  # for the log; unique within this server's life


Handler = Callable[[Caller, dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server spends on its callers."""

    connections: int = 512  # at a frame of 1 MiB each, half a GiB at the very worst
    connections_per_address: int = 64  # one address cannot take them all; a site behind NAT still gets some
    in_flight: int = 32  # requests of one connection at a time; further ones wait unread
    greeting_ms: int = 5_000
    frame_ms: int = FRAME_TIMEOUT_MS
    idle_ms: int = 600_000  # a client that asks every few minutes keeps its connection
    handler_ms: int = 300_000  # a boot of an environment, the slowest thing asked for, takes a minute or two

    def __post_init__(self) -> None:
        if min(self.connections, self.connections_per_address, self.in_flight, self.greeting_ms, self.frame_ms) <= 0:
            raise LocalError("every limit is above 0")
        if min(self.idle_ms, self.handler_ms) <= 0:
            raise LocalError("every limit is above 0")


@dataclass(slots=True)
class Statistics:
    """Counters since the server began."""

    connections: int = 0
    handshakes_failed: int = 0
    refused: int = 0
    garbage: int = 0  # protocol errors of connections that were let in, or tried to be
    slow: int = 0
    requests: int = 0
    failures: int = 0  # handlers that failed with something other than a refusal


class Server:
    """A listening control server; made by `serve`."""

    def __init__(
        self, handlers: Mapping[str, Handler], transport: Transport, anonymous: Collection[str], limits: Limits
    ) -> None:
        unknown = sorted(set(anonymous) - set(handlers))
        if unknown:
            raise LocalError(f"anonymous methods without a handler: {unknown}")
        self._handlers, self._transport, self._limits = dict(handlers), transport, limits
        self._anonymous = frozenset(anonymous)
        self._listener: asyncio.AbstractServer | None = None
        self._streams: dict[int, Stream] = {}
        self._answering: dict[str, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()  # set while nothing is being answered
        self._idle.set()
        self._closing = False
        self.statistics = Statistics()

    async def open(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. Who listens already does so here from now on; what is connected stays so."""
        former = self._listener
        self._listener = await self._transport.listen(
            host, port, anonymous=bool(self._anonymous), accepted=self._accepted, failed=self._handshake_failed
        )
        if former is not None:
            former.close()

    @property
    def address(self) -> tuple[str, int]:
        """The address that is listened on."""
        if self._listener is None or not self._listener.sockets:  # type: ignore[attr-defined]
            raise LocalError("the server is not listening")
        name = self._listener.sockets[0].getsockname()  # type: ignore[attr-defined]
        return str(name[0]), int(name[1])

    async def close(self, grace_ms: int = 5_000) -> None:
        """Stop listening, let what was begun end within the grace, then close every connection."""
        self._closing = True
        if self._listener is not None:
            self._listener.close()
        try:
            async with asyncio.timeout(grace_ms / 1_000):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("stopped %d requests that were still being answered", len(self._answering))
        for task in list(self._answering.values()):
            task.cancel()
        for stream in list(self._streams.values()):
            stream.close()

    def _handshake_failed(self, reason: str) -> None:
        self.statistics.handshakes_failed += 1
        logger.info("a TLS handshake failed: %s", reason)

    async def _accepted(self, stream: Stream) -> None:
        statistics = self.statistics
        statistics.connections += 1
        number = statistics.connections
        try:
            refusal = self._turn_away(stream)
            if refusal is not None:
                raise refusal
            self._streams[number] = stream
            async with asyncio.timeout(self._limits.greeting_ms / 1_000):
                stream.peer_key = await self._transport.identify(stream)
            if stream.peer_key is None and not self._anonymous:
                text = "This server admits members only, and you showed no certificate."
                raise ControlError(CERTIFICATE_REQUIRED, text, "Register with XenoCorp first.")
            await stream.send(welcome_fields(), timeout_ms=self._limits.frame_ms)
            await self._converse(stream, number)
        except ControlError as refusal:
            statistics.refused += 1
            await self._refuse(stream, refusal)
        except (FrameError, LocalError) as error:
            statistics.garbage += 1
            logger.info("closed connection %d from %s: %s", number, stream.peer_address[0], error)
        except (SlowFrameError, TimeoutError):
            statistics.slow += 1
        except RemoteError:
            pass  # it went away; so be it
        except Exception:
            logger.exception("connection %d failed", number)
        finally:
            self._streams.pop(number, None)
            stream.close()

    def _turn_away(self, stream: Stream) -> ControlError | None:
        host = stream.peer_address[0]
        same = sum(1 for other in self._streams.values() if other.peer_address[0] == host)
        if self._closing or len(self._streams) >= self._limits.connections:
            return ControlError(BUSY, "The server takes no more connections now.", "Try again in a minute.")
        if same >= self._limits.connections_per_address:
            return ControlError(BUSY, "Your address has too many connections here.", "Close some of them.")
        return None

    async def _refuse(self, stream: Stream, refusal: ControlError) -> None:
        with contextlib.suppress(RemoteError):  # told or not, the connection ends
            await stream.send(welcome_fields(refusal), timeout_ms=self._limits.greeting_ms)

    async def _converse(self, stream: Stream, number: int) -> None:
        room = asyncio.Semaphore(self._limits.in_flight)
        busy = 0

        def done(task: asyncio.Task[None]) -> None:
            nonlocal busy
            busy -= 1
            room.release()

        while not self._closing:
            await room.acquire()
            try:
                message = await stream.receive(idle_ms=self._limits.idle_ms, frame_ms=self._limits.frame_ms)
            except IdleError:
                room.release()
                if busy:
                    continue
                return
            if message is None:
                return
            request = Request.from_fields(message)
            caller = Caller(stream.peer_key, stream.peer_address, f"{number}-{request.id}")
            self.statistics.requests += 1
            busy += 1
            self._begin(stream, caller, request).add_done_callback(done)

    def _begin(self, stream: Stream, caller: Caller, request: Request) -> asyncio.Task[None]:
        key = f"{self.statistics.requests}"
        name = f"control {request.method} {caller.request_id}"
        task = asyncio.get_running_loop().create_task(self._answer(stream, caller, request), name=name)
        self._answering[key] = task
        self._idle.clear()

        def ended(_: asyncio.Task[None]) -> None:
            del self._answering[key]
            if not self._answering:
                self._idle.set()

        task.add_done_callback(ended)
        return task

    async def _answer(self, stream: Stream, caller: Caller, request: Request) -> None:
        try:
            reply = Reply(request.id, await self._handle(caller, request), None)
        except ControlError as refusal:
            reply = Reply(request.id, None, refusal)
        with contextlib.suppress(RemoteError):  # the caller went away; what was done is done
            try:
                await stream.send(reply.to_fields(), timeout_ms=self._limits.frame_ms)
            except LocalError as error:
                logger.error("request %s (%s): the reply %s", caller.request_id, request.method, error)
                self.statistics.failures += 1
                failed = Reply(request.id, None, _internal(caller))
                await stream.send(failed.to_fields(), timeout_ms=self._limits.frame_ms)

    async def _handle(self, caller: Caller, request: Request) -> dict[str, Any]:
        handler = self._handlers.get(request.method)
        if handler is None:
            raise ControlError(UNKNOWN_METHOD, f"There is no method {request.method}.", "Compare the versions.")
        if caller.public_key is None and request.method not in self._anonymous:
            text = f"{request.method} is for members only, and you showed no certificate."
            raise ControlError(CERTIFICATE_REQUIRED, text, "Register with XenoCorp first.")
        try:
            async with asyncio.timeout(self._limits.handler_ms / 1_000) as limit:
                return await handler(caller, request.body)
        except ControlError:
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                text = f"{request.method} took longer than {self._limits.handler_ms} ms."
                raise ControlError(TIMEOUT, text, "It may have acted: repeat it, with the same ids.") from None
            self.statistics.failures += 1
            logger.exception("request %s (%s) failed", caller.request_id, request.method)
            raise _internal(caller) from None


def _internal(caller: Caller) -> ControlError:
    text = f"The server failed to answer (request {caller.request_id})."
    return ControlError(INTERNAL, text, "Try again; if it fails again, give the request's number to the owner.")


def bad_request(message: str) -> ControlError:
    """Return the refusal for a body that is not what the method takes."""
    return ControlError(BAD_REQUEST, message, "Compare the versions of both sides.")


async def serve(
    host: str,
    port: int,
    handlers: Mapping[str, Handler],
    *,
    transport: Transport,
    anonymous: Collection[str] = (),
    limits: Limits | None = None,
) -> Server:
    """Listen and answer. `anonymous` names the methods that callers without a certificate may use (registration)."""
    server = Server(handlers, transport, anonymous, limits or Limits())
    await server.open(host, port)
    return server
