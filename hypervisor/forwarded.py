"""A hypervisor whose guests can be reached from other machines.

On a bridge, or behind forwarded loopback ports, a guest's ssh address means something on its own machine only.
`ForwardedHypervisor` gives every guest a port of an address that others can reach, and says so in its handle. The
port is remembered, because a client's signed start record names it: after a restart, also by `kill -9`, the same one
is opened again. Everything else passes through to the adapter within.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from hypervisor.adapter import Capabilities, Effect, Handle, Hypervisor, Running
from hypervisor.environment import EnvironmentSpec, State, Usage
from hypervisor.errors import CapacityError, UnknownGuestError
from hypervisor.forwarder import Forwarder

logger = logging.getLogger("hypervisor.forwarded")
FIRST_PORT = 20_000
PORTS = 1_000
"""Ports 20000 to 20999: below those that Linux gives to outgoing connections (from 32768), so that none of these
takes a port while its server is away, and one rule for a firewall. One bridge holds 250 guests."""
ENDED = (State.STOPPED, State.CRASHED)


class ForwardedHypervisor:
    """Implements adapter.Hypervisor on top of another one; `ports_path` is a file of its own.

    `seen_at` is the address that clients are told, where a router forwards the ports of `host`.
    """

    def __init__(self, inner: Hypervisor, host: str, ports_path: Path, *, seen_at: str = "") -> None:
        self._inner, self._host, self._path = inner, host, ports_path
        self._seen_at = seen_at or host
        self._forwarder = Forwarder(host)
        self._ports = _read(ports_path)
        self._closed: dict[str, Handle] = {}
        """Guests whose remembered port could not be had yet; tried again at each reading."""

    async def probe(self) -> Capabilities:
        return await self._inner.probe()

    async def create(self, spec: EnvironmentSpec) -> Handle:
        handle = await self._inner.create(spec)
        if not handle.ssh_port or handle.ssh_host == self._host:
            return handle
        try:
            await self._forwarder.close(spec.name)
            self._ports[spec.name] = await self._open_any(handle)
            self._write()
        except BaseException:
            with contextlib.suppress(UnknownGuestError):
                await self.destroy(spec.name)
            raise
        return self._seen(handle)

    async def resize(self, id: str, *, cpu_ms_per_s: int | None = None, memory_bytes: int | None = None) -> Effect:
        return await self._inner.resize(id, cpu_ms_per_s=cpu_ms_per_s, memory_bytes=memory_bytes)

    async def pause(self, id: str) -> None:
        await self._inner.pause(id)

    async def resume(self, id: str) -> None:
        await self._inner.resume(id)

    async def save(self, id: str) -> None:
        await self._inner.save(id)

    async def restore(self, id: str) -> None:
        await self._inner.restore(id)

    async def stop(self, id: str, *, grace_ms: int = 10_000) -> Usage:
        usage = await self._inner.stop(id, grace_ms=grace_ms)
        await self._close(id)
        return usage

    async def destroy(self, id: str) -> Usage:
        try:
            usage = await self._inner.destroy(id)
        except UnknownGuestError:
            await self._forget(id)
            raise
        await self._forget(id)
        return usage

    async def usage(self, ids: Sequence[str]) -> dict[str, Usage]:
        for id in list(self._closed):
            await self._reopen(self._closed.pop(id))
        found = await self._inner.usage(ids)
        for id, usage in found.items():
            if usage.state in ENDED:
                await self._close(id)
        return found

    async def console(self, id: str, *, max_bytes: int = 65_536) -> bytes:
        return await self._inner.console(id, max_bytes=max_bytes)

    async def reconcile(self) -> list[Running]:
        """As within; the ports of guests that run are open again afterwards."""
        found = await self._inner.reconcile()
        there = {running.handle.id for running in found}
        for id in [id for id in self._ports if id not in there]:
            await self._forget(id)
        for running in found:
            if running.state not in ENDED:
                await self._reopen(running.handle)
        return [dataclasses.replace(running, handle=self._seen(running.handle)) for running in found]

    async def move(self, host: str) -> None:
        """Lead the same ports of another address to the guests: this machine no longer has the former one."""
        followed = self._seen_at == self._host
        await self._forwarder.move(host)
        self._host = host
        self._seen_at = host if followed else self._seen_at
        await self.reconcile()

    def show(self, seen_at: str) -> None:
        """Tell clients this address from now on."""
        self._seen_at = seen_at

    async def aclose(self) -> None:
        await self._forwarder.aclose()
        await self._inner.aclose()

    def _seen(self, handle: Handle) -> Handle:
        """A guest's handle as clients are told it."""
        port = self._ports.get(handle.id)
        return handle if port is None else dataclasses.replace(handle, ssh_host=self._seen_at, ssh_port=port)

    async def _open_any(self, handle: Handle) -> int:
        """Open the first port that can be had, beginning at one that depends on the guest, since others' guests on
        this machine may be away and want theirs back."""
        first, taken = zlib.crc32(handle.id.encode()), set(self._ports.values())
        for step in range(PORTS):
            port = FIRST_PORT + (first + step) % PORTS
            if port in taken:
                continue
            with contextlib.suppress(CapacityError):
                return await self._forwarder.open(handle.id, handle.ssh_host, handle.ssh_port, port)
        last = FIRST_PORT + PORTS - 1
        raise CapacityError(f"no port of {self._host} from {FIRST_PORT} to {last} can be had", "end another guest")

    async def _reopen(self, handle: Handle) -> None:
        port = self._ports.get(handle.id)
        if port is None or self._forwarder.leads_to(handle.id):
            return
        try:
            await self._forwarder.open(handle.id, handle.ssh_host, handle.ssh_port, port)
        except CapacityError as error:
            logger.warning("guest %s cannot be reached from other machines yet: %s", handle.id, error)
            self._closed[handle.id] = handle

    async def _close(self, id: str) -> None:
        self._closed.pop(id, None)
        await self._forwarder.close(id)

    async def _forget(self, id: str) -> None:
        await self._close(id)
        if self._ports.pop(id, None) is not None:
            self._write()

    def _write(self) -> None:
        """Not forced to disk: it must outlive our process, and a machine that loses power loses its guests too."""
        fresh = self._path.with_suffix(".new")
        with open(fresh, "w", encoding="utf-8", opener=_private) as stream:
            json.dump({"version": 1, "ports": self._ports}, stream)
        fresh.replace(self._path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(path: Path) -> dict[str, int]:
    """The remembered ports; without the file, or with a damaged one, guests get new ports."""
    try:
        fields = json.loads(path.read_text("utf-8"))
        if fields["version"] == 1:
            return {str(id): int(port) for id, port in fields["ports"].items() if 0 < int(port) < 65_536}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be read; guests that run keep no port: %s", path, error)
    return {}
