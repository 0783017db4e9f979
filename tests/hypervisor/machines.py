"""Real adapters as benches of the contract: each through its own small process, guests reached by ssh."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from hypervisor import guest_image, readiness, remote
from hypervisor.adapter import Handle, Hypervisor
from hypervisor.environment import EnvironmentSpec
from hypervisor.forwarded import ForwardedHypervisor

from .contract import Bench


class RealBench(Bench):
    """libvirt by URI; `folder` is one that QEMU's user can reach."""

    guest_user: str | None = None
    user_network = False
    forwarded_to: str | None = None

    def __init__(self, uri: str, folder: Path, cache: Path) -> None:
        self.uri, self.folder, self.cache = uri, folder, cache
        self.client_key = folder / "client"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.client_key)], check=True)
        self.public_key = self.client_key.with_suffix(".pub").read_text().strip()

    async def connect(self) -> None:
        self.process = await self.open("root")
        self.hypervisor = self.reachable(self.process, "root")

    async def open(self, name: str) -> remote.RemoteHypervisor:
        folder = self.folder / name
        return await remote.connect(
            self.uri, root=folder, cache=self.cache, guest_user=self.guest_user, user_network=self.user_network
        )

    def reachable(self, inner: Hypervisor, name: str) -> Hypervisor:
        if self.forwarded_to is None:
            return inner
        return ForwardedHypervisor(inner, self.forwarded_to, self.folder / name / "ports.json")

    def spec(self, name: str, **changes: Any) -> EnvironmentSpec:
        return super().spec(name, **{"authorized_keys": (self.public_key,), **changes})

    async def elapse(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1000)

    async def ready(self, handle: Handle) -> None:
        if handle.ssh_port:
            await readiness.wait_for_ssh(handle.ssh_host, handle.ssh_port)

    async def command(self, handle: Handle, command: str, given: bytes = b"") -> bytes:
        """Run a command in the guest, verifying its host key strictly."""
        known = self.folder / f"known-{handle.id}"
        known.write_text(handle.known_hosts())
        options = ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", "BatchMode=yes", "ConnectTimeout=20"]
        arguments = [part for option in options for part in ("-o", option)]
        process = await asyncio.create_subprocess_exec(
            *("ssh", "-i", str(self.client_key), *arguments, "-p", str(handle.ssh_port), f"root@{handle.ssh_host}"),
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, complaint = await process.communicate(given)
        assert process.returncode == 0, complaint
        return output

    async def burn(self, handle: Handle) -> None:
        if handle.ssh_port:
            await self.command(handle, "while :; do :; done </dev/null >/dev/null 2>&1 &")

    async def talk(self, handle: Handle) -> None:
        if handle.ssh_port:
            assert len(await self.command(handle, "cat", bytes(120_000))) == 120_000

    async def write_disk(self, handle: Handle) -> None:
        if handle.ssh_port:
            await self.command(handle, "dd if=/dev/zero of=/mnt/file bs=64k count=20 && sync")

    async def memory_seen(self, handle: Handle) -> int | None:
        if not handle.ssh_port:
            return None
        lines = (await self.command(handle, "free -b")).split(b"\n")
        return int(lines[1].split()[1])

    async def kill_and_reopen(self) -> None:
        process_id = self.process.process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGKILL)
        await self.hypervisor.aclose()
        await self.connect()

    async def stranger(self) -> Hypervisor:
        return self.reachable(await self.open("stranger"), "stranger")


@contextlib.asynccontextmanager
async def machine(uri: str, cache: Path | None = None, **changes: Any) -> AsyncIterator[Bench]:
    """A bench on a libvirt URI, with everything of it gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="xeno-hypervisor-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chmod(name, 0o711)
        bench = RealBench(uri, folder, cache or guest_image.default_cache())
        for field, value in changes.items():
            setattr(bench, field, value)
        await bench.connect()
        try:
            yield bench
        finally:
            with contextlib.suppress(Exception):
                for running in await bench.hypervisor.reconcile():
                    await bench.hypervisor.destroy(running.handle.id)
            await bench.hypervisor.aclose()
