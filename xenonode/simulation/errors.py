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


class PowerLost(BaseException):
    """The power of a simulated machine failed in the midst of this call: nothing that follows in it counts.

    No `Exception`, so that no code takes it for an error of its own; the loop lets it end a callback unheard.
    """
