"""The demonstration's processes: XenoCorp and each XenoServer is the same program that a user would start.

Decides when a process is ready (it says so in one JSON line) and how it ends: a SIGTERM first, SIGKILL after a grace.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xenonode.errors import XenoError

READY_TIMEOUT_S = 240.0
"""The first start of a hypervisor on a machine asks QEMU what it can do: some seconds of CPU for each of eight."""
STOP_GRACE_S = 20.0
SSH_TIMEOUT_S = 60.0
ERROR_LINES = 12


class Process:
    """One running role."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, status: dict[str, Any]) -> None:
        self.name, self.status = name, status
        self._process, self._log = process, log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @classmethod
    async def start(cls, name: str, arguments: list[str], log: Path) -> Process:
        """Start `xenonode ARGUMENTS --json`, and wait until it says that it runs. Raises XenoError in its own words."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "xenonode",
                *arguments,
                "--json",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # a terminal's Ctrl-C is for the demonstration, which stops them in order
            )
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                status = await _first_json(process)
        except TimeoutError:
            status = None
        except BaseException:
            await _stop(process)
            raise
        if status is None:
            await _stop(process)
            raise XenoError(f"{name} did not start: {_last_lines(log)}", f"its whole log is {log}", "not_started")
        return cls(name, process, log, status)

    async def stop(self) -> None:
        """End it in order; by force if it does not."""
        await _stop(self._process)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.running:
            self._process.kill()
        await self._process.wait()


async def run_command(arguments: list[str]) -> str:
    """Run one `xenonode` command to its end; what it printed. Raises XenoError with its own words."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "xenonode",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        answer, errors = await process.communicate()
    except BaseException:
        await _stop(process)
        raise
    if process.returncode:
        words = errors.decode(errors="replace").strip()
        raise XenoError(f"'xenonode {' '.join(arguments)}' failed: {words}", "", "command")
    return answer.decode()


async def run_inside(login: Sequence[str], command: str) -> str:
    """Run a command in a guest by the system's own ssh client, which `login` starts. Raises XenoError."""
    process = await asyncio.create_subprocess_exec(
        *login,
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SSH_TIMEOUT_S):
            answer, errors = await process.communicate()
    except TimeoutError:
        text = f"ssh did not end within {SSH_TIMEOUT_S:.0f} s"
        raise XenoError(text, "look at 'xenonode session console'", "ssh") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        text = f"ssh failed: {errors.decode(errors='replace').strip()}"
        raise XenoError(text, "look at 'xenonode session console'", "ssh")
    return answer.decode().strip()


def _last_lines(log: Path) -> str:
    return "\n    ".join(log.read_text(errors="replace").strip().splitlines()[-ERROR_LINES:])


async def _first_json(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """The JSON object that a role prints once it runs; None when it ended instead."""
    assert process.stdout is not None
    text = ""
    while line := await process.stdout.readline():
        text += line.decode()
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        return found
    return None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
