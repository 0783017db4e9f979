"""The asking end: one connection, many calls at once.

Decides: which reply belongs to which call, and what a caller is told when none comes. Every failure that is not our
own misuse is a `ControlError` with a next step. A call that timed out or was cut off may have been carried out: its
ids make repeating it safe.
"""

from __future__ import annotations

import asyncio
from typing import Any

from dht.contact import address_text
from xenonode.control.errors import BAD_PEER, ControlError, FrameError, RemoteError, StreamLostError
from xenonode.control.messages import LARGEST_ID, Reply, Request, check_welcome
from xenonode.control.refusals import explain_loss, late, lost, unreachable
from xenonode.control.stream import Stream, Transport

CONNECT_TIMEOUT_MS = 10_000  # a connection, a handshake and a welcome over the worst path, with a retransmission
CALL_TIMEOUT_MS = 30_000
MAX_IN_FLIGHT = 32  # calls of one connection at a time; the server's own bound is the same


class Answer(dict[str, Any]):
    """A reply's body. What it lacks is the peer's fault, and a refusal that a user can read."""

    def __init__(self, peer: str, method: str, body: dict[str, Any]) -> None:
        super().__init__(body)
        self._peer, self._method = peer, method

    def __missing__(self, name: str) -> Any:
        text = f"{self._peer} answered {self._method} without {name!r}."
        raise ControlError(BAD_PEER, text, "Compare the versions of both sides.")


class Connection:
    """A proved connection to one peer; made by `connect`."""

    def __init__(self, stream: Stream, peer: str) -> None:
        self._stream, self._peer = stream, peer
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._next_id = 0
        self._room = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._error: ControlError | None = None
        self._reading = asyncio.get_running_loop().create_task(self._read(), name=f"control replies of {peer}")

    @property
    def peer_key(self) -> bytes | None:
        """The peer's proved public key."""
        return self._stream.peer_key

    @property
    def open(self) -> bool:
        """Whether calls can still be made."""
        return self._error is None

    @property
    def busy(self) -> bool:
        """Whether a call waits for its reply."""
        return bool(self._waiting)

    async def call(self, method: str, body: dict[str, Any], *, timeout_ms: int = CALL_TIMEOUT_MS) -> dict[str, Any]:
        """Ask, and return the reply's body; ControlError if it is refused or does not come."""
        try:
            async with asyncio.timeout(timeout_ms / 1_000) as limit, self._room:
                reply = await self._ask(method, body, timeout_ms)
        except TimeoutError:
            if limit.expired():
                raise late(self._peer, method, timeout_ms) from None
            raise
        if reply.error is not None:
            raise reply.error
        assert reply.body is not None  # a reply has one or the other
        return Answer(self._peer, method, reply.body)

    async def _ask(self, method: str, body: dict[str, Any], timeout_ms: int) -> Reply:
        if self._error is not None:
            raise self._error
        number, self._next_id = self._next_id, (self._next_id + 1) & LARGEST_ID
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await self._stream.send(Request(number, method, body).to_fields(), timeout_ms=timeout_ms)
            return await answer
        except StreamLostError:
            raise lost(self._peer) from None
        finally:
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # it may have come too late for anybody to look

    async def _read(self) -> None:
        error = lost(self._peer)
        try:
            while (message := await self._stream.receive()) is not None:
                reply = Reply.from_fields(message)
                answer = self._waiting.get(reply.id)
                if answer is not None and not answer.done():  # else nobody waits any more
                    answer.set_result(reply)
        except FrameError as broken:
            text = f"{self._peer} broke the protocol ({broken})."
            error = ControlError(BAD_PEER, text, "Compare the versions of both sides.")
        except RemoteError:
            pass  # lost, which is what `error` says
        finally:
            self._error = error
            self._stream.abort()
            for answer in list(self._waiting.values()):
                if not answer.done():
                    answer.set_exception(error)

    async def close(self) -> None:
        """Close; calls that still wait fail as lost."""
        if self._error is None:
            self._error = lost(self._peer)
            self._stream.close()
        self._reading.cancel()
        await asyncio.wait([self._reading])


async def connect(
    host: str,
    port: int,
    expected_key: bytes | None,
    *,
    transport: Transport,
    timeout_ms: int = CONNECT_TIMEOUT_MS,
) -> Connection:
    """Connect to the peer that holds `expected_key` (None: any member); ControlError says why it failed."""
    stream: Stream | None = None
    try:
        async with asyncio.timeout(timeout_ms / 1_000):
            stream = await transport.dial(host, port, expected_key)
            welcome = await stream.receive()
            if welcome is None:
                raise StreamLostError("it closed the connection")
            check_welcome(welcome)
    except BaseException as error:
        if stream is not None:
            stream.abort()
        if isinstance(error, TimeoutError):
            raise unreachable(host, port, f"no answer within {timeout_ms} ms") from None
        if isinstance(error, StreamLostError):
            raise explain_loss(error.reason) or unreachable(host, port, error.reason) from None
        if isinstance(error, RemoteError):
            text = f"{address_text((host, port))} does not speak this protocol ({error})."
            raise ControlError(BAD_PEER, text, "Compare the versions of both sides.") from None
        raise
    return Connection(stream, address_text((host, port)))
