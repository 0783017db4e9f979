"""An asyncio event loop whose time is a number: it jumps from timer to timer and never sleeps or does I/O.

Decides: the order in which callbacks run. Time is integer nanoseconds; what is due at the same nanosecond runs in the
order in which it was asked for; nothing depends on addresses of objects or on the hash seed. A run that can make no
progress ends with `DeadlockError`; an error that nobody handles ends it with `SimulationError`.
Crash: `INCARNATION` names the life of a node that a callback belongs to. Callbacks of an ended life are dropped, so no
`finally` runs and no goodbye is sent; its tasks are kept (buried) until the loop closes, because collecting a suspended
coroutine would run its `finally` after all.
Leaves to others: sockets (`xenonode.simulation.network`).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import gc
import heapq
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar, TypeVarTuple

from xenonode.simulation.errors import DeadlockError, HorizonError, PowerLost, SimulationError

NANOSECONDS = 1_000_000_000
GC_THRESHOLDS = (50_000, 1_000, 100)
"""While a loop is open: objects until the youngest are collected (Python: 700), and how many of such rounds until older
ones are. Garbage in cycles waits a little; looking for it as often as Python does took a fifth of a world's time. What
has lived through one round is nearly always there to stay: going through it once more each 50 rounds found nothing."""
NEVER_NS = 1 << 63
LONE_TIMERS_MAX = 256  # that run in a row before we look again for what else there is to do
PURGE_AT = 256  # cancelled timers that may wait before we look whether they outnumber the live ones
SLOT_BITS = 24  # of the nanoseconds that one slot of timers spans, 17 ms: of a large world it holds some thousand
DEADLOCK_NAMES = 12  # tasks named in a deadlock's message: enough to see the cycle, short enough to read


_Timed = tuple[int, int, Any]
"""When something is due, the how-manieth it was that was put in, and its handle."""
Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


_open_loops = 0
_usual_thresholds = gc.get_threshold()


def _collect_seldom(more: int) -> None:
    """So many more loops are open: the first one finds other thresholds, the last one gives the usual ones back."""
    global _open_loops, _usual_thresholds
    if not _open_loops:
        _usual_thresholds = gc.get_threshold()
    _open_loops += more
    gc.set_threshold(*(GC_THRESHOLDS if _open_loops else _usual_thresholds))


class Incarnation:
    """One life of a node, from start to crash or stop. `held` is what waits while its processor is stopped or slow."""

    __slots__ = ("alive", "free_ns", "held", "node", "number", "runs", "step_ns")

    def __init__(self, node: str, number: int) -> None:
        self.node, self.number, self.alive = node, number, True
        self.runs = True  # alive, and at full speed: the one thing that the loop looks at
        self.held: collections.deque[Any] | None = None  # made when the first callback has to wait
        self.step_ns: int | None = 0  # what each callback costs; None while the node is paused
        self.free_ns = 0  # when its processor has done what it began


INCARNATION: contextvars.ContextVar[Incarnation | None] = contextvars.ContextVar("incarnation", default=None)
NOBODY = contextvars.Context()
"""The context of what belongs to no node."""


class CountedFuture(asyncio.Future[Any]):
    """A future whose hash is a number of its loop, so that sets of futures iterate alike in every process."""

    _number: int | None = None

    def __hash__(self) -> int:
        if self._number is None:
            self._number = self.get_loop().next_number()  # type: ignore[attr-defined]
        return self._number


class CountedTask(asyncio.Task[Any]):
    """A task that hashes by a number (asyncio.wait, TaskGroup and all_tasks keep sets) and knows its incarnation."""

    _number: int | None = None
    buried = False  # its node crashed: it will never run again

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: VirtualLoop, **keywords: Any) -> None:
        context = keywords.get("context")
        self.incarnation = INCARNATION.get() if context is None else context.get(INCARNATION)
        super().__init__(coro, loop=loop, **keywords)

    __hash__ = CountedFuture.__hash__


class Arrival:
    """A datagram on its way: what a timer's handle is to the loop, at a third of its cost; nobody cancels it."""

    __slots__ = ("_context", "_scheduled", "data", "loop", "source", "transport")
    _cancelled = False

    def __init__(self, loop: VirtualLoop, transport: Any, data: bytes, source: tuple[str, int]) -> None:
        self.loop, self.transport, self.data, self.source = loop, transport, data, source
        self._context: contextvars.Context = transport.context

    def _run(self) -> None:
        try:
            self._context.run(self.transport.arrive, self.data, self.source)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.loop.call_exception_handler({"message": "a datagram's receiver failed", "exception": error})


class Timer(asyncio.TimerHandle):
    """asyncio's handle of a timer, made without its three steps and its look for debugging: a run has millions."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: VirtualLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop, self._callback, self._args, self._when = loop, callback, args, when
        self._cancelled, self._scheduled = False, True
        self._repr = self._source_traceback = None


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `network` (set by `Network`) answers for sockets; `inline_executor` runs executor calls in place."""

    _ready: collections.deque[asyncio.Handle]
    _stopping: bool
    _timer_cancelled_count: int

    def __init__(self, *, inline_executor: bool = False, horizon_ns: int | None = None) -> None:
        super().__init__()
        self.now_ns = 0
        self.network: Any = None
        self.horizon_ns = horizon_ns
        self._lone_timers_max = LONE_TIMERS_MAX
        self._inline_executor = inline_executor
        # What is due in this slot of time or before is a heap; what comes later is one only once its slot begins.
        # Of a large world's hundred thousand timers these few stay in the processor's cache.
        self._timers: list[_Timed] = []
        self._later: dict[int, list[_Timed]] = {}
        self._later_slots: list[int] = []
        self._slot, self._purge_at = 0, PURGE_AT
        self._sequence = 0
        self._hashes = 0
        self._failure: BaseException | None = None
        self._buried: list[CountedTask] = []
        _collect_seldom(1)
        self.set_task_factory(lambda loop, coro, **keywords: CountedTask(coro, loop=self, **keywords))

    def next_number(self) -> int:
        """Return the next hash for a task or a future of this loop."""
        self._hashes += 1
        return self._hashes

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future that hashes alike in every process."""
        return CountedFuture(loop=self)

    # Time
    def time(self) -> float:
        """Return the virtual time in seconds since the run began."""
        return self.now_ns / NANOSECONDS

    def call_at_ns(
        self,
        when_ns: int,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run `callback` at `when_ns`, or as soon as possible when that is past."""
        handle = Timer(when_ns / NANOSECONDS, callback, args, self, context)
        self._put(when_ns, handle)
        return handle

    def deliver_at_ns(self, when_ns: int, transport: Any, data: bytes, source: tuple[str, int]) -> None:
        """Let a datagram arrive at `when_ns`, in the receiver's own context."""
        self._put(when_ns, Arrival(self, transport, data, source))

    def _put(self, when_ns: int, handle: Any) -> None:
        self._sequence = sequence = self._sequence + 1
        slot = when_ns >> SLOT_BITS
        if slot <= self._slot:
            heapq.heappush(self._timers, (when_ns, sequence, handle))
            return
        later = self._later.get(slot)
        if later is None:
            later = self._later[slot] = []
            heapq.heappush(self._later_slots, slot)
        later.append((when_ns, sequence, handle))

    def _first_due(self) -> None:
        """See to it that the first of the timers is the next one due, and not cancelled; or there is none at all."""
        timers = self._timers
        while timers or self._begin_next_slot():
            if not timers[0][2]._cancelled:
                break
            heapq.heappop(timers)
            self._timer_cancelled_count -= 1

    def _begin_next_slot(self) -> bool:
        """Once nothing is left of this slot: whether there is another one."""
        if not self._later_slots:
            return False
        self._slot = heapq.heappop(self._later_slots)
        self._timers += self._later.pop(self._slot)
        heapq.heapify(self._timers)
        return True

    def _purge(self) -> None:
        """Forget cancelled timers once they are as many as all others: some would wait for hours."""
        for timers in (self._timers, *self._later.values()):
            timers[:] = [timer for timer in timers if not timer[2]._cancelled]
        heapq.heapify(self._timers)
        self._later = {slot: timers for slot, timers in self._later.items() if timers}
        self._later_slots = sorted(self._later)
        self._timer_cancelled_count = 0
        self._purge_at = max(PURGE_AT, len(self._timers) + sum(map(len, self._later.values())))

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run `callback` at the virtual time `when`, in seconds."""
        when_ns = round(when * NANOSECONDS)
        if when_ns <= self.now_ns and when > self.time():
            when_ns = self.now_ns + 1  # see call_later
        return self.call_at_ns(when_ns, callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run `callback` after `delay` seconds.

        However short a wait is, it takes time: whoever sleeps for what is left until a moment, which may be less than a
        nanosecond by the rounding of floats, would else look again and again at a clock that stands still.
        """
        delay_ns = max(round(delay * NANOSECONDS), 1 if delay > 0 else 0)
        return self.call_at_ns(self.now_ns + delay_ns, callback, *args, context=context)

    def step(self) -> None:
        """Run what is ready, or else what is due at the next moment at which anything is."""
        with _outer_loop_set_aside():
            if asyncio._get_running_loop() is not None:
                raise SimulationError("a callback of a loop cannot step it")
            asyncio._set_running_loop(self)
            self._lone_timers_max = 0
            try:
                self._run_once()
            finally:
                self._lone_timers_max = LONE_TIMERS_MAX
                asyncio._set_running_loop(None)
        self.check_failure()

    def run_until_complete(self, future: Generator[Any, None, Result] | Awaitable[Result]) -> Result:
        """As asyncio's, but also below a loop that runs, such as a notebook's."""
        with _outer_loop_set_aside():
            return super().run_until_complete(future)

    def _run_once(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        timers, ready = self._timers, self._ready
        if self._timer_cancelled_count > self._purge_at:
            self._purge()
        if not ready and not self._stopping:
            self._first_due()
            if not timers:
                raise DeadlockError(self._describe_deadlock())
            if self.horizon_ns is not None and timers[0][0] > self.horizon_ns:
                raise HorizonError(f"the run is not over at its horizon of {self.horizon_ns / NANOSECONDS} virtual s")
            self.now_ns = max(self.now_ns, timers[0][0])
        while timers and timers[0][0] <= self.now_ns:
            handle = heapq.heappop(timers)[2]
            handle._scheduled = False
            if handle._cancelled:
                self._timer_cancelled_count -= 1
            else:
                ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            incarnation = handle._context.get(INCARNATION)  # type: ignore[attr-defined]
            if incarnation is None or incarnation.runs:
                handle._run()
            elif incarnation.alive:
                self._hold(incarnation, handle)
        if not ready:
            self._run_lone_timers(timers, ready)

    def _run_lone_timers(self, timers: list[_Timed], ready: collections.deque[asyncio.Handle]) -> None:
        """Most of a run is timers and datagrams that are due one after the other: they need no queue to wait in."""
        end_ns = NEVER_NS if self.horizon_ns is None else self.horizon_ns
        for _ in range(self._lone_timers_max):
            if ready or self._stopping or self._failure is not None or not (timers or self._begin_next_slot()):
                return
            when_ns, _, handle = timers[0]
            if when_ns <= self.now_ns or when_ns > end_ns or _is_shared(timers, when_ns):
                return
            heapq.heappop(timers)
            handle._scheduled = False
            if handle._cancelled:
                self._timer_cancelled_count -= 1
                continue
            self.now_ns = when_ns
            incarnation = handle._context.get(INCARNATION)
            if incarnation is None or incarnation.runs:
                handle._run()
            elif incarnation.alive:
                self._hold(incarnation, handle)

    # Slow processors
    def pace(self, incarnation: Incarnation, step_ns: int | None) -> None:
        """From now on each callback of this life takes `step_ns`; None stops it until it is paced anew."""
        incarnation.step_ns, incarnation.runs = step_ns, False
        self._work_off(incarnation)

    def _hold(self, incarnation: Incarnation, handle: Any) -> None:
        if incarnation.held is None:
            incarnation.held = collections.deque()
        incarnation.held.append(handle)
        if len(incarnation.held) == 1:
            self._work_off(incarnation)

    def _work_off(self, incarnation: Incarnation) -> None:
        if incarnation.held and incarnation.step_ns is not None:
            self.call_at_ns(max(self.now_ns, incarnation.free_ns), self._work, incarnation, context=NOBODY)
        elif not incarnation.step_ns and incarnation.step_ns is not None:
            incarnation.runs = incarnation.alive

    def _work(self, incarnation: Incarnation) -> None:
        """One callback that waited. At full speed all of them, in order, before anything newer."""
        while incarnation.alive and incarnation.held and incarnation.step_ns is not None:
            if incarnation.free_ns > self.now_ns:
                break
            handle = incarnation.held.popleft()
            incarnation.free_ns = self.now_ns + incarnation.step_ns
            if not handle._cancelled:
                handle._run()
        if incarnation.alive:
            self._work_off(incarnation)

    def _describe_deadlock(self) -> str:
        names = sorted(task.get_name() for task in self.living_tasks())
        more = f" and {len(names) - DEADLOCK_NAMES} more" if len(names) > DEADLOCK_NAMES else ""
        waiting = ", ".join(names[:DEADLOCK_NAMES]) + more
        told = f"these still wait: {waiting}" if names else "nobody waits for anything"
        return f"nothing is left to happen at {self.time():.9f} virtual s, and {told}"

    # Failures and crashes
    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Fail the run (at the next step) with what nobody handled, unless a test installed its own handler."""
        if isinstance(context.get("exception"), (asyncio.CancelledError, PowerLost)):
            return  # asyncio.streams of 3.11 asks a cancelled task for its exception; a machine without power is silent
        if self.get_exception_handler() is not None:
            super().call_exception_handler(context)
        elif self._failure is None:
            self._failure = SimulationError(f"{context.get('message')}: {context.get('exception')!r}")
            self._failure.__cause__ = context.get("exception")

    def check_failure(self) -> None:
        """Raise what nobody handled, if anything; called once more when a run is over."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def bury(self, incarnation: Incarnation) -> None:
        """End an incarnation now: none of its callbacks runs again."""
        incarnation.alive = incarnation.runs = False
        incarnation.held = None
        for task in asyncio.all_tasks(self):
            if isinstance(task, CountedTask) and task.incarnation is incarnation:
                self._bury_task(task)

    def _bury_task(self, task: CountedTask) -> None:
        if not task.buried:
            task.buried = True
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self._buried.append(task)

    def living_tasks(self) -> list[CountedTask]:
        """Return the tasks that are not done and may still run, oldest first."""
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, CountedTask) and not task.buried]
        return sorted(tasks, key=hash)

    def close(self) -> None:
        """Close the loop; only now do the coroutines of crashed or forsaken tasks end, and nobody hears them."""
        if not self.is_closed():
            for living in self.living_tasks():
                self._bury_task(living)
            for task in self._buried:
                with contextlib.suppress(BaseException):
                    task.get_coro().close()
            self._buried.clear()
            self._timers.clear()
            self._later.clear()
            self._later_slots.clear()
            _collect_seldom(-1)
        super().close()

    # What a virtual loop answers in place, or refuses
    def run_in_executor(
        self, executor: Any, func: Callable[[*Arguments], Result], *args: *Arguments
    ) -> asyncio.Future[Result]:
        """Run `func` in place when the run allows it (SQLite); otherwise refuse: a thread would not be repeatable."""
        if not self._inline_executor:
            raise SimulationError(f"{func!r} asked for a thread; a simulation has none (see inline_executor)")
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Run `callback` next; there is only one thread."""
        return self.call_soon(callback, *args, context=context)

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        """Resolve a simulated host's name or address."""
        address = self.network.resolve(host).address
        return [(socket.AF_INET, type or socket.SOCK_STREAM, proto, "", (address, int(port or 0)))]

    async def create_datagram_endpoint(self, *args: Any, **keywords: Any) -> Any:
        """Bind a datagram socket on the simulated network."""
        return await self.network.create_datagram_endpoint(*args, **keywords)

    async def create_server(self, *args: Any, **keywords: Any) -> Any:
        """Listen on the simulated network."""
        return await self.network.create_server(*args, **keywords)

    async def create_connection(self, *args: Any, **keywords: Any) -> Any:
        """Connect over the simulated network."""
        return await self.network.create_connection(*args, **keywords)


@contextlib.contextmanager
def _outer_loop_set_aside() -> Iterator[None]:
    """Whoever drives a world from a coroutine, as every cell of a notebook does, has a loop that runs already.

    It only waits until the world has gone on, as for any other function, but asyncio would refuse: it knows one running
    loop a thread. A virtual loop is never set aside, since what drives a world is not part of one.
    """
    outer = asyncio._get_running_loop()
    if outer is None or isinstance(outer, VirtualLoop):
        yield
        return
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)


def _is_shared(timers: list[_Timed], when_ns: int) -> bool:
    """Whether more than the first of a heap is due at its moment: then one of its two children is."""
    return (len(timers) > 1 and timers[1][0] == when_ns) or (len(timers) > 2 and timers[2][0] == when_ns)
