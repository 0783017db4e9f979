"""XenoCorp's ledger on a simulated disk: SQLite's own code above files in memory, whose power can fail in any write."""

from random import Random

from xenonode.simulation.env import derive
from xenonode.simulation.ledger.driver import Driver
from xenonode.simulation.ledger.files import LedgerDisk


def make_ledger(seed: int) -> LedgerDisk:
    """An empty disk, and how SQLAlchemy reaches files on it."""
    disk = LedgerDisk(Random(int.from_bytes(derive(seed, "ledger"))))
    disk.driver = Driver(disk)
    return disk


__all__ = ["Driver", "LedgerDisk", "make_ledger"]
