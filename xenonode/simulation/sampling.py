"""What an experiment measures while it goes on: a sample of everything at even steps of virtual time.

Decides what one sample holds, and how counters of nodes that crash are summed over their lives. Pure of any clock:
the experiment says when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from dht.endpoint import Endpoint
from summaries.point import Point
from xenonode.corp.transfers import CAPTURE, FEE, Transfer
from xenonode.model.resources import NANO

Sample = dict[str, float | int | None]


@dataclass(slots=True)
class _Counted:
    """One node's questions: those of the lives that ended, and the endpoint of the present one."""

    endpoint: Endpoint
    seen: int = 0
    before: int = 0


class Questions:
    """Questions asked by each node over all its lives. What a node asked between the last look and its end is lost."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Counted] = {}

    def look(self, endpoints: Iterable[tuple[str, Endpoint]]) -> int:
        """Read every counter; the sum over all nodes so far."""
        for name, endpoint in endpoints:
            counted = self._nodes.get(name)
            if counted is None:
                counted = self._nodes[name] = _Counted(endpoint)
            elif counted.endpoint is not endpoint:
                counted.before, counted.seen, counted.endpoint = counted.before + counted.seen, 0, endpoint
            counted.seen = endpoint.calls.begun
        return sum(counted.before + counted.seen for counted in self._nodes.values())


def market(points: Sequence[Point]) -> Sample:
    """What the adverts in force say of supply and price."""
    prices = [usd(point.number("price.cpu")) for point in points]
    free = sum(point.number("cpu.available") for point in points)
    return {
        "adverts": len(points),
        "free_cores": free / 1000,
        "price_mean_usd": fmean(prices) if prices else None,
        "price_least_usd": min(prices, default=None),
    }


def spread(sent: Mapping[str, int]) -> Sample:
    """How evenly the work is shared: datagrams sent by the busiest node, and by the mean one."""
    counts = list(sent.values())
    return {"load_most": max(counts, default=0), "load_mean": fmean(counts) if counts else 0.0}


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of the values do not exceed (nearest rank); None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1))]


def paid_usd(transfers: Iterable[Transfer]) -> float:
    """What sessions have cost clients so far, fees included."""
    return usd(sum(each.amount_nano for each in transfers if each.kind in (CAPTURE, FEE)))


def usd(nano: int) -> float:
    """Nano-units as units; for figures, never for money."""
    return nano / NANO
