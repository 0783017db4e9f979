"""Where guests are reached, said anew and signed when this server is reached elsewhere.

Decides when to ask the hypervisor again. It is a task of its own, since a hypervisor may take two minutes to answer:
guests are metered and stopped meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from dht.identity import Signer
from hypervisor.adapter import Running
from hypervisor.errors import HypervisorError
from xenonode.env import Env
from xenonode.model.errors import ModelError
from xenonode.model.session import Start
from xenonode.server import session_events as ev
from xenonode.server.launching import guest_name
from xenonode.server.session_state import LIVE, Session

logger = logging.getLogger("xenonode.server.sessions")
AGAIN_S = 1.0


class Relocation:
    """`found` lists the guests by name; `happen` is whether a session took an event, without waiting for a busy one."""

    def __init__(
        self,
        env: Env,
        signer: Signer,
        found: Callable[[], Awaitable[Mapping[str, Running]]],
        sessions: Callable[[], Mapping[bytes, Session]],
        happen: Callable[[bytes, ev.Event], Awaitable[bool]],
    ) -> None:
        self._env, self._signer = env, signer
        self._found, self._sessions, self._happen = found, sessions, happen
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look where guests are, and say it; what fails is tried each second."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = self._env.spawn(self._until_told(), "say where guests are")

    async def tell(self, found: Mapping[str, Running]) -> bool:
        """Say where guests are that are not where their clients were told; whether nothing is left for later."""
        told = True
        for id, session in list(self._sessions().items()):
            running = found.get(guest_name(id))
            if running is None or session.start is None or session.state not in LIVE:
                continue
            start, handle = Start.open(session.start, self._env.scheme)[0], running.handle
            if (handle.ssh_host, handle.ssh_port) != (start.ssh_host, start.ssh_port):
                try:
                    there = replace(start, ssh_host=handle.ssh_host, ssh_port=handle.ssh_port)
                except ModelError as error:  # asked again, the hypervisor says the same
                    logger.warning("session %s: its client is not told where its guest is: %s", id.hex(), error)
                    continue
                told &= await self._happen(id, ev.Relocated(there.seal(self._signer).raw))
        return told

    async def close(self) -> None:
        """Stop trying."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _until_told(self) -> None:
        warned = False
        while self._wanted:
            self._wanted = False
            try:
                told = await self.tell(await self._found())
            except (HypervisorError, OSError) as error:
                told = False
                if not warned:
                    logger.warning("clients are not told yet where guests are reached now: %s", error)
                warned = True
            if not told:
                self._wanted = True
                await asyncio.sleep(AGAIN_S)
