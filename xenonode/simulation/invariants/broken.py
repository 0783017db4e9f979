"""What a run stops with when something that must hold does not: what, when, and the last that happened before."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from xenonode.simulation.errors import SimulationError
from xenonode.simulation.loop import NANOSECONDS
from xenonode.simulation.network import DATAGRAM_TRACE
from xenonode.simulation.streams import STREAM_TRACE
from xenonode.simulation.trace import Trace

ENTRIES_KEPT = 40
"""Of the trace, before what broke: a tenth of a busy second of a small world."""


class BrokenInvariant(SimulationError):  # a finding, not an error of the simulator's
    """`command`, which repeats the run, is for the runner to fill in."""

    def __init__(self, name: str, detail: str, *, seed: int, at_s: float, events: tuple[str, ...] = ()) -> None:
        super().__init__(name, detail)
        self.name, self.detail, self.seed, self.at_s, self.events = name, detail, seed, at_s, events
        self.command = ""

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.detail}", f"seed {self.seed}, at {self.at_s:.3f} virtual s"]
        if self.command:
            lines.append(f"again: {self.command}")
        return "\n".join([*lines, *(f"  {event}" for event in self.events)])


class Ring:
    """The last entries of a trace, which it listens to."""

    def __init__(self, trace: Trace) -> None:
        self._entries: deque[tuple[int, str, bytes, int]] = deque(maxlen=ENTRIES_KEPT)
        trace.listener = self._listen

    def _listen(self, now_ns: int, kind: str, data: bytes, rest: bytes) -> None:
        self._entries.append((now_ns, kind, data, len(rest)))

    def told(self, names: Mapping[bytes, str]) -> tuple[str, ...]:
        """The last ones as text; `names` are hosts by their identity."""
        return tuple(_line(*entry, names) for entry in self._entries)


def _line(now_ns: int, kind: str, data: bytes, size: int, names: Mapping[bytes, str]) -> str:
    at = f"{now_ns / NANOSECONDS:.6f} s"
    if kind == "datagram":
        source, _, destination, _, due_ns = DATAGRAM_TRACE.unpack(data)
    elif kind == "stream":
        source, _, destination, _, due_ns, is_end = STREAM_TRACE.unpack(data)
        kind = "end of a stream" if is_end else kind
    else:
        return f"{at} {kind} {data.decode(errors='replace')[:200]}"
    fate = "lost" if due_ns < 0 else f"arrives {(due_ns - now_ns) / 1_000_000:.1f} ms later"
    return f"{at} {kind} {names.get(source, '?')} to {names.get(destination, '?')}, {size} bytes, {fate}"
