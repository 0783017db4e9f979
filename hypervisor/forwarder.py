"""Leads clients on other machines to guests, whose addresses only this machine knows.

One listening port a guest, plain TCP both ways: ssh is end to end, so nothing of it can be read or changed here.
Connections end with the server's process; guests do not, and the same ports can be opened again.
"""

from __future__ import annotations

import asyncio
import contextlib

from hypervisor.errors import AlreadyExistsError, CapacityError

CONNECTIONS_MAX = 64  # for each guest; ssh multiplexes, and OpenSSH's server itself starts refusing at 10 unproved
CHUNK_BYTES = 65_536
CONNECT_TIMEOUT_S = 5.0


class Forwarder:
    """Listens on one address of this machine for any number of guests."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._servers: dict[str, asyncio.Server] = {}
        self._connections: dict[str, set[asyncio.Task[None]]] = {}

    async def open(self, id: str, target_host: str, target_port: int, port: int = 0) -> int:
        """Lead a port (0: any free one) to a guest; the port."""
        if id in self._servers:
            raise AlreadyExistsError(f"{id} is forwarded already", "close it first")
        connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is None or len(connections) >= CONNECTIONS_MAX:
                writer.close()
                return
            connections.add(task)
            try:
                with contextlib.suppress(asyncio.CancelledError):  # only close() cancels, and waits for no result
                    await _join(reader, writer, target_host, target_port)
            finally:
                connections.discard(task)
                writer.close()

        try:
            server = await asyncio.start_server(accept, self._host, port)
        except OSError as error:
            raise CapacityError(
                f"port {port} of {self._host} cannot be had ({error.strerror})", "choose another"
            ) from None
        self._servers[id], self._connections[id] = server, connections
        address: tuple[str, int] = server.sockets[0].getsockname()[:2]
        return address[1]

    async def move(self, host: str) -> None:
        """Listen on another address from now on: all ports are closed, and are to be opened again there."""
        await self.aclose()
        self._host = host

    def leads_to(self, id: str) -> bool:
        """Whether a port is open for this guest."""
        return id in self._servers

    async def close(self, id: str) -> None:
        """Stop leading to a guest, and cut what is connected; nothing happens if it is not forwarded."""
        server = self._servers.pop(id, None)
        if server is None:
            return
        server.close()
        tasks = list(self._connections.pop(id))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def aclose(self) -> None:
        for id in list(self._servers):
            await self.close(id)


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Carry bytes both ways until both sides have ended."""
    far = await _connect(writer, host, port)
    if far is None:
        return
    far_reader, far_writer = far
    try:
        with contextlib.suppress(OSError):
            await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
    finally:
        far_writer.close()


async def _connect(
    writer: asyncio.StreamWriter, host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    """The connection to the guest; None if it is not there, or as soon as the client has broken off.

    The connections of clients that have gone would all reach a guest in the moment in which its network is up, and a
    small ssh server (dropbear: five unproved of one address) then refuses the client that waited.
    """
    connecting = asyncio.create_task(asyncio.open_connection(host, port))
    gone = asyncio.create_task(writer.wait_closed())
    try:
        await asyncio.wait({connecting, gone}, timeout=CONNECT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(OSError):
            return connecting.result() if connecting.done() else None
        return None
    except asyncio.CancelledError:
        if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
            connecting.result()[1].close()
        raise
    finally:
        connecting.cancel()
        gone.cancel()
        await asyncio.gather(connecting, gone, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
