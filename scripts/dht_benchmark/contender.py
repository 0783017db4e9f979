"""What every contender of the live benchmark can do: build a network in one process, then get, find and set in it.

Each contender lives in a process of its own with all of its nodes, and works only while it is told to, so that runs
can be interleaved and CPU time is the contender's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# Nodes that ask; the others answer. A few of them are enough to average over places in the id space.
ASKERS = 8
# The recall that is measured: of the 20 nodes nearest to a key.
K = 20


# What an operation achieved, in parts of 1; asked for when its CPU time has been taken.
Achieved = Callable[[], float]


class Contender(Protocol):
    """One DHT under test; every method is a coroutine on the process's own loop."""

    async def build(self, nodes: int, keys: int, seed: int) -> None:
        """Open all nodes, let them know one another, store the keys, and meet whoever will be asked."""
        ...

    async def turn(self, kind: str) -> Achieved:
        """One `get`, `find` or `set`."""
        ...

    def questions(self) -> int:
        """Questions asked so far by all nodes."""
        ...

    async def close(self) -> None:
        """Close all sockets."""
        ...


def recall(target: int, found: list[int], everybody: list[int]) -> float:
    """How many of the nearest were found, in parts of 1, by brute force."""
    nearest = sorted(number ^ target for number in everybody)[:K]
    return len({number ^ target for number in found}.intersection(nearest)) / len(nearest)
