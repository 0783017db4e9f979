"""Faults that a scenario can name, planned from a seed and done to a simulated world."""

from xenonode.simulation.faults.inject import Injector, inject
from xenonode.simulation.faults.kinds import KINDS, LOSING_FILES, FaultSpec, Injection, Kind
from xenonode.simulation.faults.plan import check_targets, plan

__all__ = ["KINDS", "LOSING_FILES", "FaultSpec", "Injection", "Injector", "Kind", "check_targets", "inject", "plan"]
