"""A simulated role's disk: files in memory that outlive crashes, and what goes wrong with real ones.

Decides what is left of a write during which the power failed: nothing of it, or a beginning (of a replacement: the old
file or the new). What `append` and `replace` returned from is durable, as `xenonode.server.disk.Disk` promises. Leaves
when such things happen to `xenonode.simulation.faults`.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xenonode.simulation.errors import PowerLost
from xenonode.simulation.loop import INCARNATION

KEPT_STEPS = 1_000
"""A torn write keeps so many thousandths of what was written."""


@dataclass(slots=True)
class Trap:
    """The power fails during the write after `writes` more; `kept` thousandths of it are found later."""

    writes: int
    kept: int
    power_off: Callable[[], None]


class SimulatedDisk:
    """Files in memory (implements xenonode.server.disk.Disk)."""

    def __init__(self) -> None:
        self._files: dict[str, bytearray] = {}
        self._held: set[str] = set()
        self.trap: Trap | None = None
        self.full = False
        self.refused = 0  # writes for which there was no room

    def read(self, name: str) -> bytes:
        """The whole file; empty where there is none."""
        return bytes(self._files.get(name, b""))

    def append(self, name: str, data: bytes) -> None:
        """Add to the file's end."""
        kept = self._written(len(data))
        self._files.setdefault(name, bytearray()).extend(data if kept is None else data[:kept])
        if kept is not None:
            self._fail()

    def replace(self, name: str, data: bytes) -> None:
        """Put `data` in the place of the file."""
        kept = self._written(len(data))
        if kept is None or kept * 2 > len(data):
            self._files[name] = bytearray(data)
        if kept is not None:
            self._fail()

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        return sorted(self._files)

    def remove(self, name: str) -> None:
        """Take a file away."""
        self._files.pop(name, None)

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Only one life at a time uses this disk, so that what is held is held by a task that awaits."""
        free = name not in self._held
        self._held.add(name)
        try:
            yield free
        finally:
            if free:
                self._held.discard(name)

    def begin_life(self) -> None:
        """Whoever held something is gone."""
        self._held.clear()

    def erase(self) -> None:
        """A new, empty disk in the place of this one."""
        self._files.clear()

    def copy(self) -> dict[str, bytes]:
        """A backup of every file."""
        return {name: bytes(data) for name, data in self._files.items()}

    def restore(self, files: dict[str, bytes]) -> None:
        """Put a backup back."""
        self._files = {name: bytearray(data) for name, data in files.items()}

    def flip(self, name: str, bit: int) -> bool:
        """Let one bit of a file rot; False where it has none."""
        data = self._files.get(name)
        if not data:
            return False
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        return True

    def _written(self, size_bytes: int) -> int | None:
        """None for a write that goes well, else how much of it is kept."""
        incarnation = INCARNATION.get()
        if incarnation is not None and not incarnation.alive:
            raise PowerLost
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "no space left on device")
        if self.trap is None:
            return None
        self.trap.writes -= 1
        return None if self.trap.writes >= 0 else size_bytes * self.trap.kept // KEPT_STEPS

    def _fail(self) -> None:
        trap, self.trap = self.trap, None
        if trap is not None:
            trap.power_off()
        raise PowerLost
