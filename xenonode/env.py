"""What a node needs from the world that asyncio cannot virtualise: wall time, randomness, signatures, tasks.

Decides: the one small seam (`Env`) through which all code above the drivers gets these, and its live form. Timers,
sleeping and sockets are not here: those belong to the running asyncio loop, which the simulator replaces whole.
Leaves to others: `xenonode.simulation.env`, which gives the same seam from a seed.
Source: the simulator's rule that a run is a function of its seed, so no clock and no entropy may be reached directly.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from dht.identity import ED25519, X25519_EXCHANGE, KeyExchange, Scheme

SEED_BYTES = 32  # an Ed25519 seed (RFC 8032, section 5.1.5)

T = TypeVar("T")
logger = logging.getLogger("xenonode.env")


class Env(Protocol):
    """The world as one node sees it; handed to every part by `xenonode.corp_node` and `xenonode.server_node`."""

    @property
    def scheme(self) -> Scheme:
        """The signature scheme that this world's members use."""

    @property
    def exchange(self) -> KeyExchange:
        """How two of them agree on a secret."""

    def now_ms(self) -> int:
        """Wall time of this node in Unix milliseconds; its clock may be skewed. Expiry only, never time-outs."""

    def rng(self, purpose: str) -> random.Random:
        """The random stream for one purpose; streams of different purposes are independent."""

    def seed(self, purpose: str) -> bytes:
        """Return 32 bytes to make a key from. Live: fresh each time, so store it; simulated: fixed for the purpose."""

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task that nobody needs to await: it is kept alive, and its failure is surfaced, never lost."""


class Tasks:
    """Tasks kept alive until they end; a failure goes to the loop's exception handler."""

    def __init__(self) -> None:
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._next = 0

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start `coroutine` as a task named `name`."""
        number, self._next = self._next, self._next + 1
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running[number] = task  # asyncio itself keeps only weak references
        task.add_done_callback(lambda done: self._ended(number, done))
        return task

    def _ended(self, number: int, task: asyncio.Task[Any]) -> None:
        del self._running[number]
        if not self._running:
            self._running = {}  # an emptied dictionary keeps its room
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            task.get_loop().call_exception_handler(
                {"message": f"task {task.get_name()} failed", "exception": error, "task": task}
            )


class LiveEnv:
    """The real world: the system's clock and entropy, Ed25519."""

    def __init__(self) -> None:
        self.scheme: Scheme = ED25519
        self.exchange: KeyExchange = X25519_EXCHANGE
        self._tasks = Tasks()
        self._system = random.SystemRandom()

    def now_ms(self) -> int:
        """Return the system's wall time."""
        return time.time_ns() // 1_000_000

    def rng(self, purpose: str) -> random.Random:
        """Return the system's entropy: all purposes share it, since it has no state to share."""
        return self._system

    def seed(self, purpose: str) -> bytes:
        """Return fresh entropy for a key."""
        return os.urandom(SEED_BYTES)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a background task; its failure is logged with its traceback by the loop's handler."""
        return self._tasks.spawn(coroutine, name)
