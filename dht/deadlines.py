"""Time-outs without a Task or a heap: one FIFO for each duration, one loop timer for each FIFO.

Decides when something has waited too long. Whatever waits for the same time ends in the order in which it
began, so a queue needs a timer for its head only; a call costs one append, and nothing when it is done. Who is done
sooner lets go of the place that it waits at (`release`): what stood there, up to a whole lookup, is freed at once, and
the next one finds its memory in the processor's cache instead of a hundred lookups' worth of new one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

# Durations are rounded up to these steps, so that there are at most 20 + 600 queues.
_FINE_STEP_MS = 50
_FINE_UNTIL_MS = 1_000
_COARSE_STEP_MS = 1_000
MAX_DURATION_MS = 600_000


class Waiting(Protocol):
    """Something that may be over before its time-out."""

    done: bool
    # Where it waits, the latest if at several: when it is due, itself, and what happens then.
    deadline: list[Any] | None


def release(item: Waiting) -> None:
    """Nothing that waits refers to an item any more that is done."""
    if item.deadline is not None:
        item.deadline.clear()


class Deadlines:
    """All time-outs of one endpoint."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_fault: Callable[[Exception], None]) -> None:
        self._loop = loop
        self._on_fault = on_fault
        self._queues: dict[int, _Queue] = {}

    def add(self, duration_ms: int, item: Waiting, expire: Callable[[Any], None]) -> None:
        """Call `expire(item)` after the duration, unless `item.done` by then."""
        step = _FINE_STEP_MS if duration_ms <= _FINE_UNTIL_MS else _COARSE_STEP_MS
        rounded = -(-duration_ms // step) * step
        queue = self._queues.get(rounded)
        if queue is None:
            rounded = min(rounded, MAX_DURATION_MS)
            queue = self._queues.get(rounded) or self._new(rounded)
        due_s = self._loop.time() + queue.duration_s
        entry = item.deadline = [due_s, item, expire]
        queue.entries.append(entry)
        if queue.timer is None:
            queue.begin(due_s)

    def _new(self, duration_ms: int) -> _Queue:
        """A queue lasts while anything waits in it: an idle node has none."""
        drained = partial(self._queues.pop, duration_ms, None)
        queue = self._queues[duration_ms] = _Queue(self._loop, duration_ms / 1_000, self._on_fault, drained)
        return queue

    def close(self) -> None:
        """Forget everything that waits."""
        for queue in self._queues.values():
            queue.close()
        self._queues.clear()


class _Queue:
    __slots__ = ("_drained", "_loop", "_on_fault", "duration_s", "entries", "timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        duration_s: float,
        on_fault: Callable[[Exception], None],
        drained: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._drained = drained
        self.duration_s = duration_s
        self._on_fault = on_fault
        self.entries: deque[list[Any]] = deque()
        self.timer: asyncio.TimerHandle | None = None

    def begin(self, due_s: float) -> None:
        self.timer = self._loop.call_at(due_s, self._fire)

    def close(self) -> None:
        self.entries.clear()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _fire(self) -> None:
        entries = self.entries
        now_s = self._loop.time() + 1e-6
        while entries:
            entry = entries[0]
            if entry and not entry[1].done:
                due_s, item, expire = entry
                if due_s > now_s:
                    break
                entries.popleft()
                try:
                    expire(item)
                except Exception as error:
                    self._on_fault(error)
            else:
                entries.popleft()
        if entries:
            self.timer = self._loop.call_at(entries[0][0], self._fire)
        else:
            self.timer = None
            self._drained()
