"""Token buckets: how much one place or one peer may ask of us.

Decides whether a request is within its allowance. Pure; time is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass

from .aging import Aging

# Places remembered; the longest silent one is forgotten first, and by then its bucket is full again.
MAX_PLACES = 4_096

# Thousands of additions of a step that is no binary fraction are off by less.
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class Allowance:
    """A sustained rate and what may come at once."""

    per_s: float
    burst: float

    def take(self, spent_s: float, now_s: float) -> float | None:
        """Take one of what is spent until `spent_s`: until when it is then, or None when nothing is left.

        A token bucket in one number, the moment at which it is full again (ITU-T I.371, the cell rate algorithm).
        """
        until_s = (spent_s if spent_s > now_s else now_s) + 1 / self.per_s
        return until_s if (until_s - now_s) * self.per_s <= self.burst + _ROUNDING else None


@dataclass(frozen=True, slots=True)
class Limits:
    """All allowances of a profile."""

    hellos: Allowance
    requests: Allowance
    strays: Allowance
    free_hellos: Allowance


# `hellos` and `strays` (datagrams of unknown sessions, answered by RESET) count per place, `requests` per
# peer; `free_hellos` are those answered without a cookie, from everywhere together: one costs about 0.4 ms
# of a core. On one host every peer shares the processor, so a local network is generous: the largest demo
# joins 60 nodes x 11 overlays, about 2,000 requests a peer within seconds.
LIMITS = {
    "local": Limits(Allowance(50, 100), Allowance(5_000, 10_000), Allowance(100, 200), Allowance(500, 1_000)),
    "public": Limits(Allowance(5, 20), Allowance(200, 1_000), Allowance(10, 20), Allowance(50, 100)),
}


class Bucket:
    """One allowance, partly used."""

    __slots__ = ("at_s", "tokens")

    def __init__(self, allowance: Allowance, now_s: float) -> None:
        self.tokens = allowance.burst
        self.at_s = now_s

    def take(self, allowance: Allowance, now_s: float) -> bool:
        """Use one token up, if there is one."""
        tokens = min(allowance.burst, self.tokens + (now_s - self.at_s) * allowance.per_s)
        self.at_s = now_s
        if tokens < 1:
            self.tokens = tokens
            return False
        self.tokens = tokens - 1
        return True


class Places:
    """One allowance for each of many places."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._buckets: Aging[object, Bucket] = Aging()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, place: object, now_s: float) -> bool:
        """Use one token of a place up, if it has one."""
        bucket = self._buckets.get(place)
        if bucket is None:
            self._forget_full(now_s)
            bucket = self._buckets[place] = Bucket(self._allowance, now_s)
            if len(self._buckets) > MAX_PLACES:
                self._buckets.pop_oldest()
        else:
            self._buckets.touch(place)
        return bucket.take(self._allowance, now_s)

    def _forget_full(self, now_s: float) -> None:
        """A bucket that has filled up again says no more than none; the longest unused ones are first."""
        full_s = now_s - self._allowance.burst / self._allowance.per_s
        while self._buckets:
            place, bucket = next(iter(self._buckets.items()))
            if bucket.at_s > full_s:
                return
            del self._buckets[place]
