"""A XenoCorp in a process of its own, for tests that kill it or take its disk away.

The process is forked, serves the real control methods over a socket pair, and keeps its ledger in a file with the
threaded store, exactly as live. `Corp.ask` sends without waiting; `Corp.read` takes the next reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import signal
import socket
from pathlib import Path
from typing import Any

from dht.identity import Signer
from xenonode.control.errors import ControlError
from xenonode.control.frames import Splitter, join

from .world import Asker, World

_FORK = multiprocessing.get_context("fork")


class Corp:
    """The parent's end: start, ask, read, kill."""

    def __init__(self, ledger: Path, *, name: str) -> None:
        self._socket, theirs = socket.socketpair()
        self._splitter = Splitter()
        self._count = 0
        self._process = _FORK.Process(target=_serve, args=(ledger, name, theirs, self._socket), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, signer: Signer | None, method: str, **body: Any) -> int:
        """Send a request; its number."""
        self._count += 1
        key = signer.public_key if signer else None
        self._socket.sendall(join({"id": self._count, "key": key, "method": method, "body": body}))
        return self._count

    def read(self) -> dict[str, Any]:
        """The next reply: {id, ok} or {id, error: code}. Raises EOFError when the process is gone."""
        while (reply := self._splitter.next()) is None:
            data = self._socket.recv(65_536)
            if not data:
                raise EOFError
            self._splitter.feed(data)
        return reply

    def do(self, signer: Signer | None, method: str, **body: Any) -> dict[str, Any]:
        """Ask and wait for the reply's body. Raises ControlError."""
        number = self.ask(signer, method, **body)
        reply = self.read()
        assert reply["id"] == number
        if "error" in reply:
            raise ControlError(reply["error"], reply["message"])
        return dict(reply["ok"])

    def kill(self) -> list[dict[str, Any]]:
        """Kill -9; the replies that had been sent before."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        rest = []
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                rest.append(self.read())
        self._socket.close()
        return rest


def _serve(ledger: Path, name: str, mine: socket.socket, parents: socket.socket) -> None:
    parents.close()
    asyncio.run(_answer(World(ledger, threaded=True, name=name), mine))


async def _answer(world: World, mine: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=mine)
    splitter, tasks = Splitter(), []

    async def one(request: dict[str, Any]) -> None:
        try:
            handler = world.service.handlers[request["method"]]
            reply = {"ok": await handler(Asker(request["key"]), request["body"])}
        except ControlError as error:
            reply = {"error": error.code, "message": error.message}
        writer.write(join({"id": request["id"], **reply}))

    while data := await reader.read(65_536):
        splitter.feed(data)
        while (request := splitter.next()) is not None:
            if request["method"] == "test.limit":
                soft = request["body"]["bytes"] or resource.RLIM_INFINITY
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
                writer.write(join({"id": request["id"], "ok": {}}))
                continue
            tasks.append(asyncio.ensure_future(one(request)))
