"""A planned network as it runs: XenoCorp and the XenoServers, each started, stopped, or killed by itself.

Decides the order in which things start and end, and that nothing outlives `stop`: no process, guest or folder of a
guest. What the network is used for is the story's business.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from hypervisor import remote
from xenonode.demo.plan import DemoPlan, Place
from xenonode.demo.processes import Process, run_command
from xenonode.errors import XenoError


class DemoNetwork:
    """See the module. `processes` holds what was started and not stopped, by the name of its place."""

    def __init__(self, plan: DemoPlan) -> None:
        self.plan = plan
        self.processes: dict[str, Process] = {}

    async def start_corp(self) -> Process:
        """Found the network if it is new, and start XenoCorp. Raises XenoError."""
        corp = self.plan.corp
        if not (corp.folder / "network.xeno").exists():
            await run_command(["corp", "init", "--config", str(corp.config)])
        return await self._start(corp, ["corp", "serve"])

    async def start_server(self, number: int) -> Process:
        """Start the server of this number, from 0. Raises XenoError."""
        return await self._start(self.plan.servers[number], ["join"])

    async def start_servers(self) -> list[Process]:
        """Start all servers together. Raises the first one's XenoError when every start has ended, so none is lost."""
        numbers = range(len(self.plan.servers))
        started = await asyncio.gather(*(self.start_server(number) for number in numbers), return_exceptions=True)
        for each in started:
            if isinstance(each, BaseException):
                raise each
        return [self.processes[place.name] for place in self.plan.servers]

    async def _start(self, place: Place, arguments: list[str]) -> Process:
        log = place.config.with_suffix(".log")
        process = await Process.start(place.name, [*arguments, "--config", str(place.config)], log)
        self.processes[place.name] = process
        return process

    async def kill(self, place: Place) -> None:
        """End a process at once, as a crash would; it can be started again."""
        await self.processes.pop(place.name).kill()

    async def end(self, place: Place) -> None:
        """Stop a process in order; it can be started again."""
        await self.processes.pop(place.name).stop()

    def server(self, key: bytes) -> Place:
        """The place of the server with this key."""
        for place in self.plan.servers:
            process = self.processes.get(place.name)
            if process is not None and process.status["key"] == key.hex():
                return place
        raise XenoError(f"{key.hex()[:12]} is none of the demonstration's servers", "", "unknown_server")

    async def stop(self) -> None:
        """Stop every process, then destroy guests that were left, for example by a story that broke off."""
        processes, self.processes = list(self.processes.values()), {}
        await asyncio.gather(*(process.stop() for process in reversed(processes)))
        await asyncio.gather(*(destroy_guests(place.folder) for place in self.plan.servers))
        for place in self.plan.servers:
            remove_outside(place.folder)


async def destroy_guests(folder: Path) -> None:
    """Destroy what a stopped server's hypervisor still has; one that never had a guest is not even asked."""
    root = folder / "hypervisor"
    if not any(root.glob("hypervisor/guests/*")):
        return
    hypervisor = await remote.connect(root=root)
    try:
        for running in await hypervisor.reconcile():
            await hypervisor.destroy(running.handle.id)
    finally:
        await hypervisor.aclose()


def remove_outside(folder: Path) -> None:
    """Remove the machine folder that a server's guests lived in, where QEMU could not pass the server's own."""
    link = folder / "hypervisor" / "hypervisor"
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
