"""The one contract that every hypervisor adapter keeps; tests/hypervisor/contract.py proves it of each.

An adapter declares its abilities in `probe()` and REFUSES what it does not declare with UnsupportedError,
before anything is changed: admission must never promise a quality that the machine cannot enforce.
Every adapter sees only the guests that carry its own owner tag. Guests outlive the adapter and our processes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hypervisor.environment import EnvironmentSpec, State, Usage
from hypervisor.errors import ImageError, UnsupportedError


class Ability(enum.StrEnum):
    CPU_QUOTA = "cpu_quota"  # any cpu_ms_per_s is enforced; without it only whole CPUs are taken, and no resize
    CPU_METER = "cpu_meter"
    MEMORY_METER = "memory_meter"
    RESIZE_MEMORY = "resize_memory"  # between MEMORY_MIN_BYTES and the spec's memory_max_bytes
    NET_METER = "net_meter"
    NET_CAP = "net_cap"  # net_bit_per_s is enforced, each way
    DISK = "disk"  # a scratch disk of disk_bytes
    DISK_METER = "disk_meter"
    DISK_CAP = "disk_cap"  # disk_byte_per_s is enforced, each way
    PAUSE = "pause"
    SAVE = "save"
    CONSOLE = "console"
    RECONCILE = "reconcile"  # guests are found again after the adapter's process was killed
    SSH = "ssh"  # the guest answers ssh at its handle's address, with the host key given


@dataclass(frozen=True, slots=True)
class OfferedImage:
    """An image that create() accepts, and the environments that it gives, such as ("os", "debian", "12")."""

    id: str
    environments: tuple[tuple[str, str, str], ...]
    memory_min_bytes: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    uri: str
    virtualisation: str  # "kvm", "emulated", "xen", "container", "simulated"
    cpus: int
    memory_bytes: int
    abilities: frozenset[Ability]
    images: tuple[OfferedImage, ...] = ()
    notices: tuple[str, ...] = ()  # what the owner should know, such as a fall-back to emulation

    @property
    def cpu_ms_per_s(self) -> int:
        """All of the machine's CPU, in the unit that is sold."""
        return self.cpus * 1000

    def require(self, ability: Ability, what: str) -> None:
        """Refuse what was not declared."""
        if ability not in self.abilities:
            raise UnsupportedError(f"{self.uri} cannot {what}", f"use a hypervisor that declares {ability}")

    def require_for(self, spec: EnvironmentSpec) -> None:
        """Refuse a specification that asks for more than was declared."""
        if spec.cpu_ms_per_s % 1000 or spec.boot_cpu_ms_per_s != spec.cpu_ms_per_s:
            self.require(Ability.CPU_QUOTA, "hold a guest to a part of a CPU")
        if spec.memory_max_bytes != spec.memory_bytes:
            self.require(Ability.RESIZE_MEMORY, "resize memory")
        if spec.net_bit_per_s:
            self.require(Ability.NET_CAP, "cap the network")
        if spec.disk_bytes:
            self.require(Ability.DISK, "give a disk")
        if spec.disk_byte_per_s:
            self.require(Ability.DISK_CAP, "cap the disk")

    def image(self, id: str) -> OfferedImage:
        """The image of this name; ImageError when it is not offered."""
        for image in self.images:
            if image.id == id:
                return image
        raise ImageError(f"there is no image {id!r} here", "ask for one that probe() names")


@dataclass(frozen=True, slots=True)
class Handle:
    """How to reach one guest. `ssh_host_key` is the public line ("ssh-ed25519 AAAA..."), empty without SSH."""

    id: str
    ssh_host: str = ""
    ssh_port: int = 0
    ssh_host_key: str = ""

    def known_hosts(self) -> str:
        """The line for a known_hosts file, so that the client verifies strictly."""
        host = self.ssh_host if self.ssh_port == 22 else f"[{self.ssh_host}]:{self.ssh_port}"
        return f"{host} {self.ssh_host_key}\n"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a resize brought about; None for what was not asked for."""

    cpu_ms_per_s: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A guest of ours that is really there, in whatever state; None for what cannot be read back."""

    handle: Handle
    state: State
    cpu_ms_per_s: int | None
    memory_bytes: int | None


class Hypervisor(Protocol):
    """Environments on one machine. All calls may raise HypervisorError; a guest's id is its spec's name."""

    async def probe(self) -> Capabilities:
        """What this machine can do; cheap after the first call."""

    async def create(self, spec: EnvironmentSpec) -> Handle:
        """Start a guest and return once it runs (readiness.wait_for_ssh waits for its boot)."""

    async def resize(self, id: str, *, cpu_ms_per_s: int | None = None, memory_bytes: int | None = None) -> Effect:
        """Change a running guest's share, and wait until the change is there."""

    async def pause(self, id: str) -> None: ...

    async def resume(self, id: str) -> None: ...

    async def save(self, id: str) -> None:
        """Write the guest's whole state to disk and free its CPU and memory."""

    async def restore(self, id: str) -> None: ...

    async def stop(self, id: str, *, grace_ms: int = 10_000) -> Usage:
        """Ask the guest to power off, force it after `grace_ms`; the last usage, which stays readable."""

    async def destroy(self, id: str) -> Usage:
        """End the guest at once and remove all that it had on this machine; the last usage."""

    async def usage(self, ids: Sequence[str]) -> dict[str, Usage]:
        """Counters of the guests named; a guest that is not there is left out."""

    async def console(self, id: str, *, max_bytes: int = 65_536) -> bytes:
        """The last bytes that the guest wrote to its console."""

    async def reconcile(self) -> list[Running]:
        """All guests that carry our owner tag, sorted by id, whoever started them and whenever."""

    async def aclose(self) -> None:
        """Let go of the hypervisor; guests go on running."""
