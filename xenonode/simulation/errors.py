"""What a simulated run can fail with, besides its own invariants."""

from __future__ import annotations


class SimulationError(Exception):
    """The run is wrong: an error nobody handled, or a thing that a simulation has not got."""


class DeadlockError(SimulationError):
    """Nothing is scheduled, and the run is not over."""


class HorizonError(SimulationError):
    """The run passed the virtual time that it was allowed."""


class BranchError(SimulationError):
    """A branch of a run failed, or could not tell its result."""
