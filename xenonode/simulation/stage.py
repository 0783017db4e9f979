"""What every simulated world has in common: going on, looking in from outside, and trying out what would happen.

Decides how a user drives virtual time (`run`, `step`), how figures are taken while it passes (`probe`), and how a
branch of a run is tried in a forked process (`what_if`), so that the run itself never knows. Leaves what is in the
world to `world` (the whole platform) and `crowd` (thousands of search peers).
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite, isqrt
from numbers import Integral, Real
from random import Random
from typing import Any, Self, TypeVar, overload

from summaries.schema import Schema
from xenonode import catalogue
from xenonode.first_schema import ENVIRONMENTS
from xenonode.model.advert import Location, VerifiedAdvert
from xenonode.model.entity import Trust
from xenonode.search.searching import SearchAnswer
from xenonode.simulation.branch import Branch
from xenonode.simulation.env import EPOCH_MS
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.loop import NANOSECONDS
from xenonode.simulation.network import Host
from xenonode.simulation.node_host import NodeHost
from xenonode.simulation.run import Simulation

T = TypeVar("T")
ACCESS_US = 2_000
"""One way through both ends' access networks: what is left of a latency between neighbours."""
SCHEMA_SAMPLES = 3_000
"""As many shares as breakpoints have bins to fill, a quarter of what the live schema is drawn from."""
NOT_BEGUN = "the world has not begun; run(until=0) begins it"


def check_counts(**counts: int) -> None:
    """Raise SimulationError, with the name of what was asked for, unless all are whole numbers of at least 0."""
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise SimulationError(f"{name}: a world has a whole number of them, 0 or more, not {count!r}")


def small_first_schema() -> Schema:
    """Of `first_schema` what is quick to make: drawn from fewer shares."""
    return Schema.from_sample(catalogue.schema_samples(Random(0), SCHEMA_SAMPLES, ENVIRONMENTS))


class Geography:
    """Where hosts are, and how long packets take between those places."""

    def __init__(self) -> None:
        self.places: dict[str, Location] = {}
        self._rows: dict[Location, dict[int, int]] = {}  # from each place; a few hundred pairs of regions
        self._numbers: dict[Location, int] = {}

    def latency_us(self, source: Host, destination: Host) -> int:
        """One way: half the round trip between the regions, and the way through the access networks."""
        here = source.place or self._place(source)
        there = destination.place or self._place(destination)
        if here is None or there is None:
            return ACCESS_US
        known = here[2].get(there[1])
        if known is None:
            one, two = here[0], there[0]
            square = (one.x_us - two.x_us) ** 2 + (one.y_us - two.y_us) ** 2 + (one.z_us - two.z_us) ** 2
            known = here[2][there[1]] = ACCESS_US + isqrt(square) // 2
        return known

    def _place(self, host: Host) -> tuple[Location, int, dict[int, int]] | None:
        place = self.places.get(host.name)
        if place is None:
            return None
        number = self._numbers.setdefault(place, len(self._numbers))
        host.place = found = (place, number, self._rows.setdefault(place, {}))
        return found


class Stage(ABC):
    """A world under virtual time; a context manager. A world's `begin` furnishes it, its `adverts` are the oracle."""

    simulation: Simulation
    leaf_capacity: int
    advertising: bool = True
    """Whether those who hold overlays advertise anything at all."""
    patience_s: float = 20.0
    """Once all is quiet, rows on their way and zones that widen are allowed so long; what is wrong then stays wrong."""

    def __init__(self) -> None:
        self.series: dict[str, list[tuple[float, Any]]] = {}
        """What probes measured: (virtual seconds, value), by the probe's name."""
        self.begun = False
        self.vanished: set[bytes] = set()
        """Keys of servers that went without a goodbye, and for good: their last adverts may be found until they end."""

    @abstractmethod
    async def begin(self) -> None:
        """Start everything that is in the world."""

    @abstractmethod
    def adverts(self) -> list[VerifiedAdvert]:
        """Every advert in force, straight from those who signed it."""

    @property
    @abstractmethod
    def trust(self) -> Trust:
        """What credentials are judged by."""

    @abstractmethod
    def holders(self) -> Sequence[NodeHost]:
        """Every host that is part of the overlays, up or not."""

    def shunned(self) -> set[bytes]:
        """The keys of members that everybody shuns by XenoCorp's word; a world without XenoCorp has none."""
        return set()

    @abstractmethod
    def groups(self) -> dict[str, list[str]]:
        """The names of all hosts, by what they are."""

    def unknown(self, name: str) -> SimulationError:
        """What is to be raised for the name of a host that there is not."""
        told = (f"{each[0]} .. {each[-1]}" if len(each) > 1 else each[0] for each in self.groups().values() if each)
        return SimulationError(f"there is no host {name!r} here; its hosts are {', '.join(told)}")

    async def ask(self, text: str) -> SearchAnswer:
        """A search of the first client's, in a world that begins first where it has not. Raises XenoError."""
        if not self.groups()["clients"]:
            raise SimulationError("clients: a world without any cannot be asked")
        if not self.begun:
            await self.begin()
        return await self._ask(text)

    @abstractmethod
    async def _ask(self, text: str) -> SearchAnswer:
        """The search, once all that is clear."""

    def now_ms(self) -> int:
        """True wall time: that of no node in particular."""
        return EPOCH_MS + self.simulation.loop.now_ns // 1_000_000

    @property
    def now_s(self) -> float:
        """Virtual seconds since the run began."""
        return self.simulation.loop.time()

    # -- going on

    @overload
    def run(self, until: Awaitable[T]) -> T: ...

    @overload
    def run(self, until: float) -> None: ...

    def run(self, until: Awaitable[Any] | float) -> Any:
        """Let the world go on until a coroutine is done, or until so many virtual seconds after the run's begin.

        With a number, a world that has not begun begins first; a coroutine may begin it, as `begin` and `ask` do.
        Raises on deadlock, and what no task handled.
        """
        if isinstance(until, Awaitable):
            return self.simulation.run(until)
        if not isinstance(until, Real):
            told = "until a coroutine is done, run(world.ask(TEXT)), or until so many virtual seconds, run(until=60)"
            raise SimulationError(f"a run goes on {told}; not until {until!r}")
        if not isfinite(until):
            raise SimulationError(f"a run goes on until so many virtual seconds, not {until}")
        self._see_to_it_that_it_began()
        seconds = int(until) if isinstance(until, Integral) else float(until)  # of numpy's kinds, some are too narrow
        self.simulation.run_until(round(seconds * NANOSECONDS))
        return None

    def step(self, count: int = 1) -> float:
        """Carry out the next `count` moments (all that is due at one time), and say what time it is.

        A world that has not begun begins first.
        """
        if not isinstance(count, Integral) or count < 0:
            raise SimulationError(f"a run goes on by a whole number of steps, 0 or more, not {count!r}")
        self._see_to_it_that_it_began()
        for _ in range(int(count)):
            self.simulation.loop.step()
        return self.now_s

    def _see_to_it_that_it_began(self) -> None:
        if not self.begun:
            self.simulation.run(self.begin())

    # -- looking in

    def probe(self, name: str, every_s: float, measure: Callable[[], Any]) -> list[tuple[float, Any]]:
        """Note `measure()` now and every so many virtual seconds; the list that is returned grows while time passes."""
        every_ns = round(float(every_s) * NANOSECONDS) if isfinite(every_s) else 0
        if every_ns < 1 or name in self.series:
            raise SimulationError(f"probe {name!r}: a new name and a period of a nanosecond or more are needed")
        taken = self.series[name] = []
        loop = self.simulation.loop

        def take() -> None:
            taken.append((loop.time(), measure()))
            loop.call_at_ns(loop.now_ns + every_ns, take)

        loop.call_at_ns(loop.now_ns, take)
        return taken

    # -- what if

    def branch(self, work: Callable[[Self], T]) -> Branch[T]:
        """Begin `work(world)` in a copy of this process; several branches run at once, each on a core of its own."""
        return Branch(lambda: work(self))

    def what_if(self, work: Callable[[Self], T]) -> T:
        """What `work(world)` would return. It happens in a copy of this process; this world does not notice."""
        return self.branch(work).result()

    def freeze(self) -> None:
        """Tell the garbage collector that what is alive now stays: collecting no longer walks the whole world."""
        gc.collect()
        gc.freeze()

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Nothing is collected while a world comes to be: nearly all of it stays, and to look through each new object
        once found seven of garbage a peer in a minute and took a twenty-fifth of the time."""
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()
            gc.freeze()

    def close(self) -> None:
        """Stop everything; raises what any task failed with."""
        gc.unfreeze()
        self.simulation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        gc.unfreeze()
        self.simulation.__exit__(kind, error, traceback)
