"""The client's agent: signs for the usage of every session until the last one ends, so that none is paused unpaid.

Decides which sessions need it, and how often an unreachable server is asked again; what may be signed is the
client's decision. One agent runs for a folder; 'session create' starts it as a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.folder import FILE_MODE, StateFolder

if TYPE_CHECKING:
    from xenonode.client import Client

LOCK_NAME = "agent.lock"
LOG_NAME = "agent.log"
LOG_MAX_BYTES = 2**20
LOOK_S = 2.0
"""How often new sessions are looked for: well within a receipt period, whose least is a second, for three of which
a server waits."""
RETRY_S = (1.0, 1.0, 2.0, 3.0, 5.0)
"""Pauses before a server that does not answer is asked again; the last one repeats until the session is closed. One
attempt is one connection, so five seconds are no burden; half a minute let a server that restarted now and then wait
too long for receipts, and pause what it hosted."""

Tell = Callable[[str], None]


async def sign_for_all(client: Client, tell: Tell) -> None:
    """Sign for every session's usage, also of those that begin meanwhile; return when none is open."""
    working: dict[str, asyncio.Task[None]] = {}
    finished: set[str] = set()
    try:
        while True:
            current = [record.id.hex() for record in client.records.sessions() if not record.closed]
            for id in current:
                if id not in working and id not in finished:
                    working[id] = asyncio.get_running_loop().create_task(_sign_for(client, id, tell), name=id)
            for id in [each for each, task in working.items() if task.done()]:
                working.pop(id).result()
                finished.add(id)
            if not working:
                return
            await asyncio.wait(list(working.values()), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in working.values():
            task.cancel()
        await asyncio.gather(*working.values(), return_exceptions=True)


async def _sign_for(client: Client, id: str, tell: Tell) -> None:
    failures = 0
    while True:
        try:
            await client.sessions.cosign(id, tell=tell)
        except (ControlError, XenoError) as error:
            if error.code == "unknown_session":
                tell(f"session {id[:12]}: its server knows it no longer")
                return
            tell(f"session {id[:12]}: {error}; trying again")
        except Exception as error:  # whatever one server answers, the sessions on the others are still signed for
            tell(f"session {id[:12]}: its server's answer makes no sense ({error!r:.200}); trying again")
        else:
            tell(f"session {id[:12]}: its final usage is signed")
            return
        await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
        failures += 1


def start_in_background(folder: Path, arguments: Sequence[str]) -> int | None:
    """Start the agent as a process of its own, unless one runs in this folder; its pid, or None if one runs.

    `arguments` name the configuration, as the command that calls this was given it.
    """
    state = StateFolder(folder)
    if state.holder(LOCK_NAME) is not None:
        return None
    path = state.file(LOG_NAME)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    flags |= os.O_TRUNC if path.exists() and path.stat().st_size > LOG_MAX_BYTES else os.O_APPEND
    log = os.open(path, flags, FILE_MODE)
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "xenonode.cli", "session", "agent", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the terminal's Ctrl-C and its end are not the agent's
        )
    finally:
        os.close(log)
    return child.pid
