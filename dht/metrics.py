"""What a node counts and measures, as Prometheus text.

Decides the histograms, their bounds and the names under which an operator meets them; every series has labels from a
fixed set, so that no peer can make the list grow. Leaves serving the text to whoever holds the endpoint. Source:
Prometheus' text exposition format 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .overlay import Overlay

# Upper bounds of the buckets: round trips from one host to the other side of the world, lookups of a few of those.
ROUND_TRIP_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
LOOKUP_MS = (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
LOOKUP_QUESTIONS = (1, 2, 5, 10, 20, 40, 80, 160)
# The overlays' own requests; an application's are one series.
KIND_NAMES = {-1: "ping", -2: "find", -3: "put", -4: "get", -5: "leave", -6: "part", -7: "read", -8: "cache"}
APPLICATION, UNKNOWN = "application", "unknown"
# A republication that is so late leaves its record with less than a quarter of its life on fewer holders each time.
REPUBLISH_ALARM_MS = 120_000
# Names of an endpoint's events; they are our own words, and this many are more than there are.
MAX_EVENTS = 128

Sample = tuple[str, str, float]


class Histogram:
    """How many values were at most so large."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._counts: list[int] | None = None
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        if self._counts is None:
            self._counts = self.counts
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def counts(self) -> list[int]:
        """How many there were up to each bound, and above the last."""
        return self._counts or [0] * (len(self.bounds) + 1)

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def samples(self, name: str, labels: str) -> Iterator[Sample]:
        """The series of this histogram."""
        total = 0
        comma = "," if labels else ""
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            yield f"{name}_bucket", f'{labels}{comma}le="{bound}"', total
        yield f"{name}_sum", labels, round(self.sum, 3)
        yield f"{name}_count", labels, total


class OverlayMeasures:
    """What one overlay measures."""

    __slots__ = ("lookup_ms", "lookup_questions", "requests")

    def __init__(self) -> None:
        self.lookup_ms = Histogram(LOOKUP_MS)
        self.lookup_questions = Histogram(LOOKUP_QUESTIONS)
        self.requests: Counter[str] = Counter()

    def requested(self, kind: int) -> None:
        """A genuine request has come."""
        self.requests[APPLICATION if kind >= 0 else KIND_NAMES.get(kind, UNKNOWN)] += 1

    def looked_up(self, took_ms: float, questions: int) -> None:
        """A lookup is over."""
        self.lookup_ms.add(took_ms)
        self.lookup_questions.add(questions)


def republish_alarm(endpoint: Endpoint) -> str:
    """What to tell an operator about records that should have been stored again; empty when all is well."""
    now_ms = endpoint.now_ms()
    late = {overlay.dimension: overlay.records.publishing.lag_ms(now_ms) for overlay in _overlays(endpoint)}
    worst = max(late, key=lambda name: late[name], default="")
    if not worst or late[worst] < REPUBLISH_ALARM_MS:
        return ""
    late_s = late[worst] // 1_000
    return f"records of {worst!r} are {late_s} s late to be stored again; is the node cut off, or too busy?"


def prometheus_text(endpoint: Endpoint) -> str:
    """All counters, gauges and histograms of a node."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
        lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} {kind}")
        for series, labels, value in samples:
            lines.append(f"{series}{{{labels}}} {value:g}" if labels else f"{series} {value:g}")

    events = sorted(endpoint.counters.items())[:MAX_EVENTS]
    family(
        "xeno_dht_events_total",
        "counter",
        "What happened on the socket and to peers.",
        [("xeno_dht_events_total", f'event="{name}"', count) for name, count in events],
    )
    family("xeno_dht_peers", "gauge", "Peers known.", [("xeno_dht_peers", "", len(endpoint.sessions.peers))])
    family("xeno_dht_sessions", "gauge", "Sessions in memory.", [("xeno_dht_sessions", "", endpoint.session_count())])
    family("xeno_dht_open_calls", "gauge", "Questions open.", [("xeno_dht_open_calls", "", endpoint.call_count())])
    family(
        "xeno_dht_round_trip_ms",
        "histogram",
        "Round trips of questions that were asked once.",
        endpoint.round_trips.samples("xeno_dht_round_trip_ms", ""),
    )
    overlays = _overlays(endpoint)
    now_ms = endpoint.now_ms()
    gauges: tuple[tuple[str, str, Callable[[Overlay], float]], ...] = (
        ("xeno_dht_contacts", "Contacts in the routing table.", lambda each: len(each.table)),
        ("xeno_dht_records", "Records held.", lambda each: each.records.holdings[0]),
        ("xeno_dht_record_bytes", "What the records weigh.", lambda each: each.records.holdings[1]),
        (
            "xeno_dht_republish_lag_ms",
            "How late the latest republication is.",
            lambda each: each.records.publishing.lag_ms(now_ms),
        ),
    )
    for name, text, value in gauges:
        family(name, "gauge", text, [(name, _label(overlay), value(overlay)) for overlay in overlays])
    family(
        "xeno_dht_requests_total",
        "counter",
        "Genuine requests by kind.",
        [
            ("xeno_dht_requests_total", f'{_label(overlay)},kind="{kind}"', count)
            for overlay in overlays
            for kind, count in sorted(overlay.measures.requests.items())
        ],
    )
    histograms: tuple[tuple[str, str, Callable[[Overlay], Histogram]], ...] = (
        ("xeno_dht_lookup_ms", "How long lookups took.", lambda each: each.measures.lookup_ms),
        ("xeno_dht_lookup_questions", "How many they asked.", lambda each: each.measures.lookup_questions),
    )
    for name, text, pick in histograms:
        samples = [sample for overlay in overlays for sample in pick(overlay).samples(name, _label(overlay))]
        family(name, "histogram", text, samples)
    return "\n".join(lines) + "\n"


def _overlays(endpoint: Endpoint) -> list[Overlay]:
    return sorted(endpoint.overlays.values(), key=lambda overlay: overlay.dimension)


def _label(overlay: Overlay) -> str:
    name = overlay.dimension.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'overlay="{name}"'
