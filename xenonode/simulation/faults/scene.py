"""What faults are done to: a world's hosts and network, with a count of what really happened.

Decides that lifecycles do not overlap: who is down, or on its way up, is struck by no second fault of that sort.
Restarts are tried until one works, as a service manager would.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import Any, Protocol

from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.simulation.disk import SimulatedDisk
from xenonode.simulation.env import derive
from xenonode.simulation.faults.kinds import Injection
from xenonode.simulation.run import SimulatedNode, Simulation

RESTART_S = 5.0
"""What a service manager waits before the next try."""


class FaultyHost(Protocol):
    """A host of a world, as faults see it. `running` is None while it is down."""

    node: SimulatedNode
    disk: SimulatedDisk
    running: Any

    def crash(self) -> None:
        """Stop where it stands."""

    async def restart(self) -> None:
        """Come back with the same disk. Raises XenoError where it cannot."""


class FaultyWorld(Protocol):
    """A world that faults can be done to."""

    simulation: Simulation

    def host(self, name: str) -> Any:
        """The host of this name."""

    def groups(self) -> Mapping[str, Sequence[str]]:
        """The names of hosts by group."""

    def place(self, name: str) -> object:
        """Where a host stands: equal for hosts of one region."""


class Scene:
    """One world under faults."""

    def __init__(self, world: FaultyWorld) -> None:
        self.world, self.simulation = world, world.simulation
        self.network, self.loop = world.simulation.network, world.simulation.loop
        self.bites: Counter[str] = Counter()
        self._met: Counter[int] = Counter()  # the same by injection, which are told apart by their identity
        self.liars: set[str] = set()
        """Hosts that misbehave: in one way at a time, since two would put their methods in each other's place."""
        self._busy: set[str] = set()
        self._open: dict[str, tuple[int, int]] = {}
        self._counting: dict[int, int] = {}
        self._full: dict[str, tuple[int, int]] = {}

    def host(self, name: str) -> Any:
        """A host of the world."""
        return self.world.host(name)

    def rng(self, injection: Injection) -> Random:
        """Randomness of one injection's own."""
        place = f"{injection.kind} {injection.at_ms} {' '.join(injection.targets)}"
        return Random(int.from_bytes(derive(self.simulation.seed, "injection", place)))

    def bit(self, injection: Injection) -> None:
        """It really happened."""
        self.bites[injection.kind] += 1
        self._met[id(injection)] += 1

    @asynccontextmanager
    async def counted(self, injection: Injection) -> AsyncIterator[None]:
        """Within this, what the network does under its kind's name is this injection's doing."""
        kind = injection.kind
        own_before = self.network.bites[kind]
        users, before = self._open.get(kind, (0, own_before))
        self._open[kind] = users + 1, before
        self._counting[id(injection)] = own_before
        try:
            yield
        finally:
            self._met[id(injection)] += self.network.bites[kind] - self._counting.pop(id(injection))
            users, before = self._open.pop(kind)
            if users > 1:
                self._open[kind] = users - 1, before
            else:
                self.bites[kind] += self.network.bites[kind] - before

    @contextmanager
    def full(self, injection: Injection, name: str) -> Iterator[None]:
        """Within this, and within others' of the same host, no write to its disk finds room."""
        host = self.host(name)
        own_before = host.refused
        users, before = self._full.get(name, (0, own_before))
        self._full[name] = users + 1, before
        host.set_full(True)
        try:
            yield
        finally:
            self._met[id(injection)] += host.refused - own_before
            users, before = self._full.pop(name)
            if users > 1:
                self._full[name] = users - 1, before
            else:
                host.set_full(False)
                self.bites[injection.kind] += host.refused - before

    def so_far(self, kind: str) -> int:
        """How often a kind really happened, including what of it is still under way."""
        _, before = self._open.get(kind, (0, self.network.bites[kind]))
        return self.bites[kind] + self.network.bites[kind] - before

    def met(self, injection: Injection) -> int:
        """How often one injection did. What two of one kind do to the network or a disk at one time counts for both."""
        now = self.network.bites[injection.kind]
        return self._met[id(injection)] + now - self._counting.get(id(injection), now)

    def take(self, name: str) -> bool:
        """Take a host's lifecycle into one's hands; False while another fault has it, or it is down."""
        if name in self._busy or self.host(name).running is None:
            return False
        self._busy.add(name)
        return True

    def release(self, name: str) -> None:
        """Give it back."""
        self._busy.discard(name)

    async def come_back(self, name: str, before: Callable[[], None] = lambda: None) -> None:
        """Start a host that is down, as often as it takes. Whatever it fails with but our own errors fails the run."""
        host = self.host(name)
        while True:
            before()
            try:
                await host.restart()
                return
            except (XenoError, ControlError, OSError):
                host.crash()  # what is left of the attempt
            await asyncio.sleep(RESTART_S)
