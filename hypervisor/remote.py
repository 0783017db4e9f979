"""The asynchronous Hypervisor in front of the small process that talks to libvirt (host_process.py).

`connect()` starts the process; if it is killed, the next call starts another one, which finds the guests again.
Calls that were under way when it died raise ConnectionLostError: whether they took effect, reconcile() tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypervisor import calls, guest_image
from hypervisor.adapter import Capabilities, Effect, Handle, Running
from hypervisor.environment import EnvironmentSpec, Usage
from hypervisor.errors import ConnectionLostError, RemoteError

EMBEDDED = "qemu:///embed"
# The first start on a machine asks QEMU what it can do (2-6 s of CPU), and seven others may stand before us.
START_TIMEOUT_S = 180.0
# The longest call is a stop with its grace, or saving a large guest to disk.
CALL_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 15.0


async def connect(
    uri: str = EMBEDDED,
    *,
    root: Path,
    cache: Path | None = None,
    owner: str | None = None,
    guest_user: str | None = None,
    user_network: bool = False,
    forward_host: str = "127.0.0.1",
) -> RemoteHypervisor:
    """A hypervisor by URI, with its own process and all its state below `root`.

    `cache` holds guest images (default: where scripts/build_guest_image puts them); `owner`, eight hex digits,
    tells our guests from others' (default: made from `root`); `guest_user` is whom QEMU runs as, when we are
    root (default: libvirt's own user). `user_network` asks for user-mode networking though we may make bridges;
    with it, guests' ssh ports are forwarded from `forward_host`.
    """
    options = ["--uri", uri, "--root", str(root), "--cache", str(cache or guest_image.default_cache())]
    options += ["--forward-host", forward_host]
    if owner is not None:
        options += ["--owner", owner]
    if guest_user is not None:
        options += ["--guest-user", guest_user]
    if user_network:
        options += ["--user-network"]
    hypervisor = RemoteHypervisor(root, options)
    await hypervisor.start()
    return hypervisor


class RemoteHypervisor:
    """Implements adapter.Hypervisor; made by connect()."""

    def __init__(self, root: Path, options: Sequence[str]) -> None:
        self._root, self._options = root, tuple(options)
        self._process: asyncio.subprocess.Process | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next_id = 1
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def process_id(self) -> int | None:
        """The small process, for whoever watches over it."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the small process, unless it runs."""
        async with self._starting:
            if self._closed:
                raise ConnectionLostError("this adapter was closed", "connect again")
            if self._writer is not None:
                return
            self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
            ours, theirs = socket.socketpair()
            command = [sys.executable, "-m", "hypervisor.host_process", *self._options]
            log_path = self._root / "hypervisor.log"
            with theirs, log_path.open("ab") as log:
                if log.tell() > 1 << 20:  # libvirt says little; a megabyte is months
                    log.truncate(0)
                # A session of its own: Ctrl-C at a terminal must not reach it in mid-call.
                self._process = await asyncio.create_subprocess_exec(
                    *command, stdin=theirs.fileno(), stdout=log, stderr=log, env=_environment(), start_new_session=True
                )
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    _result(await _read(reader))
            except TimeoutError:
                writer.close()
                raise RemoteError("the hypervisor's process did not start in time", f"see {log_path}") from None
            except (asyncio.IncompleteReadError, OSError):
                writer.close()
                raise RemoteError("the hypervisor's process ended at once", f"see {log_path}") from None
            except BaseException:
                writer.close()
                raise
            self._writer = writer
            self._reader_task = asyncio.create_task(self._read_answers(reader, self._process))

    async def probe(self) -> Capabilities:
        return calls.capabilities_from_fields(await self._call("probe"))

    async def create(self, spec: EnvironmentSpec) -> Handle:
        return Handle(**await self._call("create", spec=calls.spec_to_fields(spec)))

    async def resize(self, id: str, *, cpu_ms_per_s: int | None = None, memory_bytes: int | None = None) -> Effect:
        fields = await self._call("resize", id=id, cpu_ms_per_s=cpu_ms_per_s, memory_bytes=memory_bytes)
        return calls.effect_from_fields(fields)

    async def pause(self, id: str) -> None:
        await self._call("pause", id=id)

    async def resume(self, id: str) -> None:
        await self._call("resume", id=id)

    async def save(self, id: str) -> None:
        await self._call("save", id=id)

    async def restore(self, id: str) -> None:
        await self._call("restore", id=id)

    async def stop(self, id: str, *, grace_ms: int = 10_000) -> Usage:
        return calls.usage_from_fields(await self._call("stop", id=id, grace_ms=grace_ms))

    async def destroy(self, id: str) -> Usage:
        return calls.usage_from_fields(await self._call("destroy", id=id))

    async def usage(self, ids: Sequence[str]) -> dict[str, Usage]:
        found = await self._call("usage", ids=list(ids))
        return {id: calls.usage_from_fields(fields) for id, fields in found.items()}

    async def console(self, id: str, *, max_bytes: int = 65_536) -> bytes:
        return calls.bytes_from_text(await self._call("console", id=id, max_bytes=max_bytes))

    async def reconcile(self) -> list[Running]:
        return [calls.running_from_fields(fields) for fields in await self._call("reconcile")]

    async def aclose(self) -> None:
        self._closed = True
        if self._writer is not None:
            self._writer.close()
        if self._reader_task is not None:
            self._reader_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader_task
        if self._process is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._lose()

    async def _call(self, method: str, **parameters: Any) -> Any:
        await self.start()
        writer = self._writer
        if writer is None:
            raise ConnectionLostError("the hypervisor's process has ended", "try again; guests go on running")
        number, self._next_id = self._next_id, self._next_id + 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            writer.write(calls.encode_frame({"id": number, "method": method, "parameters": parameters}))
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await writer.drain()
                return await answer
        except TimeoutError:
            raise RemoteError(f"{method} did not end in time", "see hypervisor.log, then reconcile") from None
        except OSError:
            raise ConnectionLostError("the hypervisor's process has ended", "try again; guests go on running") from None
        finally:
            self._waiting.pop(number, None)

    async def _read_answers(self, reader: asyncio.StreamReader, process: asyncio.subprocess.Process) -> None:
        try:
            while True:
                fields = await _read(reader)
                answer = self._waiting.get(fields["id"])
                if answer is None or answer.done():
                    continue
                try:
                    answer.set_result(_result(fields))
                except Exception as error:
                    answer.set_exception(error)
        except (asyncio.IncompleteReadError, OSError, RemoteError):
            self._lose()
            await process.wait()

    def _lose(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(
                    ConnectionLostError("the hypervisor's process has ended", "reconcile; guests go on running")
                )


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    length = calls.frame_length(await reader.readexactly(4))
    return calls.decode_frame(await reader.readexactly(length))


def _result(fields: dict[str, Any]) -> Any:
    if "error" in fields:
        raise calls.error_from_fields(fields["error"])
    return fields.get("result")


def _environment() -> dict[str, str]:
    """Ours, with this package importable even when it is run from a source tree."""
    source = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{path}" if path else source}
