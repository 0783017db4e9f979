"""Connections kept for use again: at most one for each (address, key), and a bounded number in all."""

from __future__ import annotations

import asyncio
from typing import Any

from xenonode.control.client import CALL_TIMEOUT_MS, Connection, connect
from xenonode.control.errors import BUSY, TIMEOUT, ControlError
from xenonode.control.stream import Transport

MAX_CONNECTIONS = 64  # a client talks to XenoCorp and to some dozens of servers; below usual file limits
Key = tuple[str, int, bytes | None]


class ConnectionPool:
    """Calls peers over connections that are opened when needed and closed when others are needed more."""

    def __init__(self, transport: Transport, max_connections: int = MAX_CONNECTIONS) -> None:
        self._transport, self._max_connections = transport, max_connections
        self._connections: dict[Key, Connection] = {}  # least recently used first
        self._opening: dict[Key, asyncio.Task[Connection]] = {}

    def __len__(self) -> int:
        return len(self._connections) + len(self._opening)

    async def call(
        self,
        address: tuple[str, int],
        expected_key: bytes | None,
        method: str,
        body: dict[str, Any],
        *,
        timeout_ms: int = CALL_TIMEOUT_MS,
    ) -> dict[str, Any]:
        """Ask a peer, connecting first if there is no connection.

        A call over a kept connection whose other end has gone meanwhile is repeated once over a new one. It may have
        acted the first time; every method's ids make that harmless.
        """
        key = (address[0], address[1], expected_key)
        kept = self._connections.get(key)
        connection = await self._connection(key)
        try:
            return await connection.call(method, body, timeout_ms=timeout_ms)
        except ControlError as error:
            if error.code == TIMEOUT:
                self._doubt(key, connection)
            if error.code == TIMEOUT or connection is not kept or connection.open:
                raise
        finally:
            if self._connections.get(key) is not connection and not connection.busy:
                await connection.close()  # doubted meanwhile, and this was its last call
        return await (await self._connection(key)).call(method, body, timeout_ms=timeout_ms)

    def _doubt(self, key: Key, connection: Connection) -> None:
        """Nobody answered: one of the two may have another address now, and then nothing ever ends the connection."""
        if self._connections.get(key) is connection:
            del self._connections[key]

    async def _connection(self, key: Key) -> Connection:
        connection = self._connections.pop(key, None)
        if connection is not None and connection.open:
            self._connections[key] = connection  # now the most recently used
            return connection
        if key not in self._opening:
            await self._make_room()
        if key not in self._opening:  # nobody else began while room was made
            task = asyncio.get_running_loop().create_task(self._open(key), name=f"connect to {key[0]}:{key[1]}")
            self._opening[key] = task
        return await asyncio.shield(self._opening[key])  # one caller's time-out does not fail the others

    async def _open(self, key: Key) -> Connection:
        try:
            connection = await connect(key[0], key[1], key[2], transport=self._transport)
            self._connections[key] = connection
            return connection
        finally:
            del self._opening[key]

    async def _make_room(self) -> None:
        for key, connection in list(self._connections.items()):
            if not connection.open or (len(self) >= self._max_connections and not connection.busy):
                self._connections.pop(key, None)
                await connection.close()
        if len(self) >= self._max_connections:
            text = f"All {self._max_connections} control connections are in use."
            raise ControlError(BUSY, text, "Wait for a call to end, then try again.")

    async def close(self) -> None:
        """Close every connection."""
        for task in list(self._opening.values()):
            task.cancel()
            await asyncio.wait([task])
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close what is open; whoever calls next connects anew."""
        kept, self._connections = list(self._connections.values()), {}
        for connection in kept:
            await connection.close()
