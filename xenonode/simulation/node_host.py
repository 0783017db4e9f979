"""A host that is part of the overlays: its node, which comes and goes, and its disk, which stays.

What hosts of every kind of world share, so that the same faults strike them and the same invariants look at them.
"""

from __future__ import annotations

from random import Random
from typing import Any

from xenonode.simulation.disk import SimulatedDisk, Trap
from xenonode.simulation.run import SimulatedNode

UDP_PORT, CONTROL_PORT = 7_400, 7_401


class NodeHost:
    """See the module. `running` is what runs of the node, None while it is down or on its way up."""

    def __init__(self, node: SimulatedNode, disk: SimulatedDisk | None = None) -> None:
        self.node, self.disk = node, disk or SimulatedDisk()
        self.running: Any = None

    @property
    def follows(self) -> bool:
        """Whether the node goes on by itself when the host's address changes while it runs."""
        return False

    def crash(self) -> None:
        """Stop where it stands; its disk stays."""
        self.running = None
        self.node.crash()

    def set_trap(self, writes: int, kept: int) -> None:
        """Let the power fail during a write to the disk."""
        self.disk.trap = Trap(writes, kept, self.crash)

    def clear_trap(self) -> None:
        """Let it be."""
        self.disk.trap = None

    def set_full(self, full: bool) -> None:
        """Leave no room for writes."""
        self.disk.full = full

    @property
    def refused(self) -> int:
        """Writes for which there was no room."""
        return self.disk.refused

    def rot(self, rng: Random) -> bool:
        """Flip one bit of one file; False where there is none."""
        names = self.disk.names()
        return bool(names) and self.disk.flip(rng.choice(names), rng.getrandbits(31))
