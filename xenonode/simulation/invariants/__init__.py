"""What must hold in every simulated run, checked while it runs."""

from xenonode.simulation.invariants.broken import BrokenInvariant
from xenonode.simulation.invariants.watch import Watch

__all__ = ["BrokenInvariant", "Watch"]
