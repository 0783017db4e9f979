"""A server's owner: sees and stops all sessions of a running server, and publishes from it.

It has the key in that server's own folder.
"""

from __future__ import annotations

import hashlib
from typing import Any, Self

from xenonode import membership
from xenonode.config import ServerConfig
from xenonode.control.client import Connection, connect
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.home import CONTROL_FILE, Home, LiveHome
from xenonode.model.entity import Address
from xenonode.store.values import check, pieces

LEAVE_TIMEOUT_MS = 300_000
"""As long as a server lets a request last: tens of thousands of adverts are handed on at some hundred a second."""


class Owner:
    """A connection to the own server that proves the server's own key."""

    def __init__(self, home: Home, connection: Connection) -> None:
        self._home, self._connection = home, connection

    @classmethod
    async def open(cls, config: ServerConfig, env: Env) -> Self:
        """On the server's own machine. Raises XenoError, or ControlError where it does not run."""
        home, control = LiveHome(config.folder, exclusive=False), config.control
        if config.follows:
            control = Address.parse(home.disk.read(CONTROL_FILE).decode("ascii", "replace")) or control
        return await cls.connect(home, control.pair)

    @classmethod
    async def connect(cls, home: Home, address: tuple[str, int]) -> Self:
        """With the papers in this home. Raises XenoError or ControlError."""
        papers = membership.stored(home)
        if papers is None:
            raise XenoError("this server has not run in its folder yet", "start it: xenonode join", "not_running")
        transport = home.transport(papers.certificate, [papers.authority])
        return cls(home, await connect(*address, home.signer.public_key, transport=transport))

    async def sessions(self) -> list[dict[str, Any]]:
        """The newest sessions of all clients, the latest last."""
        return [dict(each) for each in (await self._connection.call("owner.sessions", {}))["sessions"]]

    async def stop(self, session: str, reason: str) -> dict[str, Any]:
        """End the session whose id begins so, whoever's it is; what is known of it then. Raises XenoError."""
        wanted = session.strip().lower()
        found = [each["session"] for each in await self.sessions() if wanted and each["session"].startswith(wanted)]
        if len(found) != 1:
            message = f"{len(found) or 'no'} sessions here begin with {session!r}"
            raise XenoError(message, "see them with 'xenonode server sessions'", "unknown_session")
        return dict(await self._connection.call("owner.stop", {"session": found[0], "reason": reason}))

    async def publish(self, name: str, value: bytes, life_ms: int) -> int:
        """Have the server publish a value under this name, and give it out; how many nodes hold its record."""
        check(name, value, life_ms, is_server=True)
        digest = hashlib.sha256(value).digest()
        head = {"name": name, "life_ms": life_ms, "size_bytes": len(value), "digest": digest}
        holders = 0
        for offset, piece in pieces(value):
            answer = await self._connection.call("owner.publish", {**head, "offset": offset, "piece": piece})
            holders = int(answer["holders"])
        return holders

    async def dimensions(self) -> list[dict[str, Any]]:
        """Every dimension of the schema: whether the server takes part in it, and what it holds there."""
        return [dict(each) for each in (await self._connection.call("owner.dimensions", {}))["dimensions"]]

    async def leave(self, dimension: str) -> dict[str, Any]:
        """Have the server hand on what it holds of a dimension, and hold no part of it any more."""
        return dict(await self._connection.call("owner.leave", {"dimension": dimension}, timeout_ms=LEAVE_TIMEOUT_MS))

    async def enter(self, dimension: str) -> dict[str, Any]:
        """Have it hold a part of a dimension again that it had left."""
        return dict(await self._connection.call("owner.enter", {"dimension": dimension}))

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()
        self._home.leave()
