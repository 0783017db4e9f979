"""Simulated guests behind the same contract: for the simulator's worlds and for tests of what is above.

A `SimulatedMachine` holds the guests and outlives the adapters that use it, as real guests outlive a server's
process. Time comes from `now_ms`, and a guest's appetite from a seeded generator: nothing sleeps and nothing
runs in the background; use accrues when somebody looks. No guest's code runs, so SSH is not declared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypervisor import hostkeys
from hypervisor.adapter import Ability, Capabilities, Effect, Handle, OfferedImage, Running
from hypervisor.environment import (
    Action,
    EnvironmentSpec,
    State,
    Usage,
    after,
)
from hypervisor.errors import (
    AlreadyExistsError,
    CapacityError,
    ConnectionLostError,
    InvalidSpecError,
    UnknownGuestError,
)

ALL_ABILITIES = frozenset(Ability) - {Ability.SSH}
MICRO = OfferedImage("micro", (("os", "linux", "6.1"), ("os", "debian", "12")), 64 * 1024 * 1024)
CONSOLE_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Load:
    """What a guest would use if nothing held it back."""

    cpu_ms_per_s: int
    net_rx_bit_per_s: int = 0
    net_tx_bit_per_s: int = 0
    disk_read_byte_per_s: int = 0
    disk_written_byte_per_s: int = 0


def burning(spec: EnvironmentSpec, rng: random.Random) -> Load:
    """The default load: one CPU's worth of work, whatever the share, and no traffic."""
    return Load(cpu_ms_per_s=1000)


@dataclass(slots=True)
class _Guest:
    spec: EnvironmentSpec
    load: Load
    state: State
    cpu_ms_per_s: int
    memory_bytes: int
    seen_ms: int
    started_ms: int
    cpu_ns: int = 0
    # Traffic in bit-milliseconds and byte-milliseconds, so that no rounding adds up.
    traffic: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    console: bytes = b""


class SimulatedMachine:
    """One machine with its guests, shared by all owners on it."""

    def __init__(
        self,
        *,
        now_ms: Callable[[], int],
        rng: random.Random,
        cpus: int = 2,
        memory_bytes: int = 8 << 30,
        images: tuple[OfferedImage, ...] = (MICRO,),
        load: Callable[[EnvironmentSpec, random.Random], Load] = burning,
        abilities: frozenset[Ability] = ALL_ABILITIES,
    ) -> None:
        self.now_ms, self.rng, self.load = now_ms, rng, load
        self.capabilities = Capabilities(
            "simulated:///", "simulated", cpus, memory_bytes, abilities, images, ("guests are simulated",)
        )
        self.guests: dict[tuple[str, str], _Guest] = {}

    def crash(self, owner: str, id: str) -> None:
        """A fault: the guest's kernel panics."""
        self._set(owner, id, State.CRASHED)

    def power_off(self, owner: str, id: str) -> None:
        """The guest shuts itself down."""
        self._set(owner, id, State.STOPPED)

    def _set(self, owner: str, id: str, state: State) -> None:
        guest = self.guests[owner, id]
        self.accrue(guest)
        guest.state = state

    def accrue(self, guest: _Guest) -> None:
        """Bring a guest's counters up to now."""
        now = self.now_ms()
        passed = max(0, now - guest.seen_ms)
        guest.seen_ms = max(now, guest.seen_ms)
        if guest.state is not State.RUNNING:
            return
        load, spec = guest.load, guest.spec
        # ms of CPU a second is the same number as microseconds a millisecond.
        guest.cpu_ns += passed * min(load.cpu_ms_per_s, guest.cpu_ms_per_s) * 1000
        net_cap = spec.net_bit_per_s or max(load.net_rx_bit_per_s, load.net_tx_bit_per_s)
        disk_cap = spec.disk_byte_per_s or max(load.disk_read_byte_per_s, load.disk_written_byte_per_s)
        guest.traffic[0] += passed * min(load.net_rx_bit_per_s, net_cap)
        guest.traffic[1] += passed * min(load.net_tx_bit_per_s, net_cap)
        guest.traffic[2] += passed * min(load.disk_read_byte_per_s, disk_cap)
        guest.traffic[3] += passed * min(load.disk_written_byte_per_s, disk_cap)


class SimulatedHypervisor:
    """One owner's view of a simulated machine (implements adapter.Hypervisor)."""

    def __init__(self, machine: SimulatedMachine, owner: str = "owner") -> None:
        self._machine, self._owner, self._open = machine, owner, True

    async def probe(self) -> Capabilities:
        self._check_open()
        return self._machine.capabilities

    async def create(self, spec: EnvironmentSpec) -> Handle:
        self._check_open()
        machine = self._machine
        capabilities = machine.capabilities
        capabilities.require_for(spec)
        image = capabilities.image(spec.image)
        if (self._owner, spec.name) in machine.guests:
            raise AlreadyExistsError(f"{spec.name} is there already", "choose another name, or destroy it first")
        if spec.memory_bytes < image.memory_min_bytes:
            raise InvalidSpecError(f"{spec.image} needs {image.memory_min_bytes} bytes", "ask for more memory")
        held = sum(guest.memory_bytes for guest in machine.guests.values() if guest.state in _HOLDING)
        if held + spec.memory_bytes > capabilities.memory_bytes:
            raise CapacityError("not enough memory left", "end another environment, or ask for less")
        now = machine.now_ms()
        guest = _Guest(
            spec, machine.load(spec, machine.rng), State.RUNNING, spec.boot_cpu_ms_per_s, spec.memory_bytes, now, now
        )
        guest.console = f"simulated {spec.image}\n{spec.hostname} login: ".encode()
        machine.guests[self._owner, spec.name] = guest
        return _handle(guest)

    async def resize(self, id: str, *, cpu_ms_per_s: int | None = None, memory_bytes: int | None = None) -> Effect:
        guest = self._guest(id)
        capabilities = self._machine.capabilities
        if cpu_ms_per_s is not None:
            capabilities.require(Ability.CPU_QUOTA, "limit CPU")
        if memory_bytes is not None:
            capabilities.require(Ability.RESIZE_MEMORY, "resize memory")
        guest.spec.check_resize(cpu_ms_per_s, memory_bytes)
        after(guest.state, Action.RESIZE)
        self._machine.accrue(guest)
        if cpu_ms_per_s is not None:
            guest.cpu_ms_per_s = cpu_ms_per_s
        if memory_bytes is not None:
            guest.memory_bytes = memory_bytes
        return Effect(cpu_ms_per_s, memory_bytes)

    async def pause(self, id: str) -> None:
        self._step(id, Action.PAUSE, Ability.PAUSE)

    async def resume(self, id: str) -> None:
        self._step(id, Action.RESUME, Ability.PAUSE)

    async def save(self, id: str) -> None:
        self._step(id, Action.SAVE, Ability.SAVE)

    async def restore(self, id: str) -> None:
        self._step(id, Action.RESTORE, Ability.SAVE)

    async def stop(self, id: str, *, grace_ms: int = 10_000) -> Usage:
        self._step(id, Action.STOP, None)
        return self._usage(self._guest(id))

    async def destroy(self, id: str) -> Usage:
        usage = self._usage(self._guest(id))
        del self._machine.guests[self._owner, id]
        return usage

    async def usage(self, ids: Sequence[str]) -> dict[str, Usage]:
        self._check_open()
        guests = self._machine.guests
        return {id: self._usage(guests[self._owner, id]) for id in ids if (self._owner, id) in guests}

    async def console(self, id: str, *, max_bytes: int = CONSOLE_MAX_BYTES) -> bytes:
        guest = self._guest(id)
        self._machine.capabilities.require(Ability.CONSOLE, "read a console")
        return guest.console[-max_bytes:] if max_bytes > 0 else b""

    async def reconcile(self) -> list[Running]:
        self._check_open()
        ours = sorted(id for owner, id in self._machine.guests if owner == self._owner)
        found = (self._machine.guests[self._owner, id] for id in ours)
        return [Running(_handle(guest), guest.state, guest.cpu_ms_per_s, guest.memory_bytes) for guest in found]

    async def aclose(self) -> None:
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise ConnectionLostError("this adapter was closed", "open another one")

    def _guest(self, id: str) -> _Guest:
        self._check_open()
        try:
            return self._machine.guests[self._owner, id]
        except KeyError:
            raise UnknownGuestError(f"there is no environment {id}", "reconcile() lists those there are") from None

    def _step(self, id: str, action: Action, ability: Ability | None) -> None:
        guest = self._guest(id)
        if ability is not None:
            self._machine.capabilities.require(ability, action)
        state = after(guest.state, action)
        self._machine.accrue(guest)
        guest.state = state

    def _usage(self, guest: _Guest) -> Usage:
        self._machine.accrue(guest)
        abilities = self._machine.capabilities.abilities
        net, disk = Ability.NET_METER in abilities, Ability.DISK_METER in abilities and guest.spec.disk_bytes > 0
        return Usage(
            guest.seen_ms,
            guest.state,
            guest.cpu_ns if Ability.CPU_METER in abilities else None,
            (guest.memory_bytes if guest.state in _HOLDING else 0) if Ability.MEMORY_METER in abilities else None,
            guest.traffic[0] // 8000 if net else None,
            guest.traffic[1] // 8000 if net else None,
            guest.traffic[2] // 1000 if disk else None,
            guest.traffic[3] // 1000 if disk else None,
        )


_HOLDING = (State.RUNNING, State.PAUSED)


def _handle(guest: _Guest) -> Handle:
    key = hostkeys.public_line(guest.spec.ssh_host_key) if guest.spec.ssh_host_key else ""
    return Handle(guest.spec.name, "", 0, key)
