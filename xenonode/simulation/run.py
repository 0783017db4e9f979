"""A simulated run: one loop, one network, one trace, and nodes that start, crash and come back.

Decides: how those are put together from a seed, and when a run has failed. Leaves to others: what the nodes do
(`xenonode.server_node`) and what the world throws at them (worlds, checkers).

    run = Simulation(seed=7)
    node = run.add_node("alice")
    node.start(serve(node.env))         # a coroutine function's result; runs on the node's host
    run.run(scenario())                 # returns its result; raises on deadlock or on an error that nobody handled
    run.trace.hexdigest()
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from dht.identity import Scheme
from xenonode.simulation.env import SimulatedEnv, derive
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.loop import INCARNATION, Incarnation, VirtualLoop
from xenonode.simulation.network import Conditions, Host, Network
from xenonode.simulation.scheme import SimulatedScheme
from xenonode.simulation.trace import Trace, Untraced

T = TypeVar("T")
STOP_S = 120.0
"""Virtual time that cancelled tasks have to end. A task outside of all nodes that awaits one of a crashed node never
does, and ends with the loop."""


class SimulatedNode:
    """A host and the node that lives on it, one incarnation after the other."""

    def __init__(self, simulation: Simulation, host: Host, skew_ms: int) -> None:
        self._simulation, self.host, self._skew_ms = simulation, host, skew_ms
        self._number = -1
        self.env: SimulatedEnv
        self.restart()

    def restart(self) -> SimulatedEnv:
        """Begin a new incarnation (after a crash) and return its env."""
        if self.host.incarnation is not None and self.host.incarnation.alive:
            raise SimulationError(f"{self.host.name} is running; crash it first")
        self._number += 1
        incarnation = self.host.incarnation = Incarnation(self.host.name, self._number)
        self._context = contextvars.copy_context()
        self._context.run(INCARNATION.set, incarnation)
        simulation = self._simulation
        self.env = SimulatedEnv(
            simulation.seed, self.host.name, self._number, simulation.loop, simulation.scheme, self._skew_ms
        )
        return self.env

    def start(self, coroutine: Coroutine[Any, Any, T], name: str = "main") -> asyncio.Task[T]:
        """Run a coroutine on this node as a task of its present incarnation."""
        context = self._context.copy()
        return self._simulation.loop.create_task(coroutine, name=f"{self.host.name}:{name}", context=context)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a plain function as this node."""
        return self._context.copy().run(function, *args)

    def skew(self, by_ms: int) -> None:
        """Set this node's wall clock forward, in this life and the next ones."""
        self._skew_ms += by_ms
        self.env.skew_ms += by_ms

    def crash(self) -> None:
        """Stop this node where it stands: no `finally`, no goodbye."""
        self._simulation.trace.note("crash", self.host.name.encode())
        self._simulation.network.crash(self.host)


class Simulation:
    """Everything of one run. Use as a context manager, or call `close`."""

    def __init__(
        self,
        seed: int,
        *,
        conditions: Conditions | None = None,
        latency_us: Callable[[Host, Host], int] | None = None,
        scheme: Scheme | None = None,
        inline_executor: bool = False,
        horizon_ns: int | None = None,
        traced: bool = True,
    ) -> None:
        self.seed = seed
        self.loop = VirtualLoop(inline_executor=inline_executor, horizon_ns=horizon_ns)
        self.trace = (Trace if traced else Untraced)(self.loop)
        self.network = Network(self.loop, seed, self.trace, conditions, latency_us)
        self.scheme: Scheme = SimulatedScheme(derive(seed, "scheme")) if scheme is None else scheme
        self.nodes: dict[str, SimulatedNode] = {}

    def add_node(self, name: str, *, address: str | None = None, skew_ms: int = 0) -> SimulatedNode:
        """Add a host and begin its first incarnation."""
        node = self.nodes[name] = SimulatedNode(self, self.network.add_host(name, address), skew_ms)
        return node

    def run(self, coroutine: Awaitable[T]) -> T:
        """Run until the coroutine (or task, or future) is done; every other task may go on in a later call of `run`."""
        result = self.loop.run_until_complete(coroutine)
        self.loop.check_failure()
        return result

    def run_until(self, when_ns: int) -> None:
        """Let virtual time pass until `when_ns`, whatever happens meanwhile; nothing when that is past."""
        if when_ns > self.loop.now_ns:
            reached = self.loop.create_future()
            self.loop.call_at_ns(when_ns, reached.set_result, None)
            self.loop.run_until_complete(reached)
            self.loop.check_failure()

    def close(self) -> None:
        """Cancel what still runs, then raise what any task failed with and nobody looked at."""
        try:
            self._stop_tasks()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            gc.collect()  # a failed task tells of itself when it is collected
            self.loop.check_failure()
        finally:
            self.loop.close()

    def _stop_tasks(self) -> None:
        living = self.loop.living_tasks()
        for task in living:
            task.cancel()
        if living:
            self.loop.run_until_complete(asyncio.wait(living, timeout=STOP_S))
        for task in living:
            if not task.done():
                if task.incarnation is not None:
                    raise SimulationError(f"{task.get_name()} does not stop")
            elif not task.cancelled() and task.exception() is not None:
                raise SimulationError(f"{task.get_name()} failed while it was stopped") from task.exception()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if kind is None:
            self.close()
        else:
            self.loop.close()  # the first error is the one to show
