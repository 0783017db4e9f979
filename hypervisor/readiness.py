"""When a guest can be used: its ssh server has said who it is.

Short tries, because user-mode networking accepts a connection before the guest listens and then says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from hypervisor.adapter import Ability, Handle, Hypervisor
from hypervisor.environment import EnvironmentSpec
from hypervisor.errors import GuestFailedError

TRY_S = 0.4
PAUSE_S = 0.1
BANNER_MAX_BYTES = 255  # RFC 4253, section 4.2
# 2.5-3.5 s measured on a quiet machine; eight servers' guests may boot on two cores at once.
BOOT_TIMEOUT_MS = 60_000


async def wait_for_ssh(host: str, port: int, *, timeout_ms: int = BOOT_TIMEOUT_MS) -> str:
    """The banner that the guest's ssh server greets with; GuestFailedError when the time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    while loop.time() < deadline:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return await _banner(host, port)
        await asyncio.sleep(PAUSE_S)
    raise GuestFailedError(f"no ssh at {host}:{port} within {timeout_ms} ms", "look at the guest's console")


async def start(hypervisor: Hypervisor, spec: EnvironmentSpec, *, timeout_ms: int = BOOT_TIMEOUT_MS) -> Handle:
    """Create a guest, wait for its ssh server, and hold it to the agreed CPU share from then on.

    A guest that does not answer is destroyed; nothing is left behind when this raises or is cancelled.
    """
    handle = await hypervisor.create(spec)
    try:
        abilities = (await hypervisor.probe()).abilities
        if Ability.SSH in abilities:
            await wait_for_ssh(handle.ssh_host, handle.ssh_port, timeout_ms=timeout_ms)
        if Ability.CPU_QUOTA in abilities and spec.boot_cpu_ms_per_s != spec.cpu_ms_per_s:
            await hypervisor.resize(spec.name, cpu_ms_per_s=spec.cpu_ms_per_s)
    except BaseException:
        with contextlib.suppress(Exception):
            await asyncio.shield(hypervisor.destroy(spec.name))
        raise
    return handle


async def _banner(host: str, port: int) -> str:
    async with asyncio.timeout(TRY_S):
        reader, writer = await asyncio.open_connection(host, port, limit=BANNER_MAX_BYTES)
        try:
            line = await reader.readuntil(b"\n")
        finally:
            _break_off(writer)
    if not line.startswith(b"SSH-2.0-"):
        raise OSError("not an ssh server")
    return line.decode("ascii", "replace").strip()


def _break_off(writer: asyncio.StreamWriter) -> None:
    """End a try with a reset, which no forwarder on the way can take for a client that only has nothing more to say."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
