"""Network coordinates: where a node lies, so that round-trip times can be told without measuring.

Decides how a coordinate moves with each measured round trip. Leaves measuring to `endpoint`. Pure.

Sources: Dabek, Cox, Kaashoek and Morris 2004, "Vivaldi" (the spring relaxation with adaptive time-step
c_c = c_e = 0.25, section 3.3; the height, section 5.4); Ledlie, Gardner and Seltzer 2007, "Network
Coordinates in the Wild" (a short median filter of samples per link, section 4; gravity, section 5.3.2);
HashiCorp Serf, coordinate/config.go (error at most 1.5, height at least 10 us, median of 3) and the 10 s bound on a
sample in client.go. Gravity is half of Serf's (rho = 150) and a step at most 40 ms: on 490 measured hosts,
200 samples each, steps of 100 ms with rho = 150 missed a median relative error of 0.10 for some seeds; without
gravity the middle of all nodes walks 100 ms in a day, with this it stays within 40 (scripts/bench_coordinates).
"""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass

ERROR_CONFIDENCE = 0.25
ADJUSTMENT = 0.25
MAX_ERROR = 1.5
MIN_HEIGHT_MS = 0.01
GRAVITY_RHO_MS = 300.0
SAMPLES_IN_MEDIAN = 3
# Round trips of more than this say something about a queue, not about a place (serf: 10 s).
MAX_RTT_MS = 10_000.0
# One sample moves a coordinate at most this far, so that one liar cannot fling it away (Ledlie: bound the step).
MAX_STEP_MS = 40.0
# A coordinate beyond a planet's circumference at light speed in fibre, with much to spare, is a lie.
MAX_EXTENT_MS = 5_000.0
# Links whose last samples are kept.
MAX_LINKS = 512

_SAMPLE = struct.Struct("d")


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A place in milliseconds: three dimensions, a height above them (the access link), and its own error."""

    x_ms: float = 0.0
    y_ms: float = 0.0
    z_ms: float = 0.0
    height_ms: float = MIN_HEIGHT_MS
    error: float = MAX_ERROR

    def __post_init__(self) -> None:
        most = MAX_EXTENT_MS
        # What is no number is in no range.
        if not (abs(self.x_ms) <= most and abs(self.y_ms) <= most and abs(self.z_ms) <= most):
            raise ValueError("a coordinate off the map")
        if not abs(self.height_ms) <= most:
            raise ValueError("a coordinate off the map")
        if self.height_ms < 0 or not 0 <= self.error <= MAX_ERROR:
            raise ValueError("a coordinate with an impossible height or error")

    def distance_ms(self, other: Coordinate) -> float:
        """The predicted round trip."""
        plane = math.dist((self.x_ms, self.y_ms, self.z_ms), (other.x_ms, other.y_ms, other.z_ms))
        return plane + self.height_ms + other.height_ms

    def to_fields(self) -> list[int]:
        """Whole microseconds, and the error in millionths."""
        parts = (self.x_ms, self.y_ms, self.z_ms, self.height_ms)
        return [*(round(part * 1_000) for part in parts), round(self.error * 1_000_000)]

    @classmethod
    def from_fields(cls, fields: list[int]) -> Coordinate:
        """ValueError for what lies off the map."""
        x, y, z, height, error = fields
        return cls(x / 1_000, y / 1_000, z / 1_000, height / 1_000, error / 1_000_000)


class Locator:
    """Our own coordinate, moved by each round trip to a peer whose coordinate is known."""

    def __init__(self, rng: random.Random) -> None:
        self.coordinate = Coordinate()
        self._rng = rng
        # The last samples of each, packed: as tuples of numbers they would weigh three times as much.
        self._links: dict[object, bytes] = {}

    def observe(self, link: object, rtt_ms: float, peer: Coordinate) -> Coordinate:
        """Take a sample in; samples that cannot be true change nothing."""
        if not 0 <= rtt_ms <= MAX_RTT_MS:
            return self.coordinate
        rtt_ms = max(self._filtered(link, rtt_ms), 0.01)
        own = self.coordinate
        weight = own.error / max(own.error + peer.error, 1e-6)
        predicted = own.distance_ms(peer)
        relative = abs(predicted - rtt_ms) / rtt_ms
        blend = ERROR_CONFIDENCE * weight
        error = min(MAX_ERROR, relative * blend + own.error * (1 - blend))
        force = ADJUSTMENT * weight * (rtt_ms - predicted)
        force = max(-MAX_STEP_MS, min(MAX_STEP_MS, force))
        x, y, z, height = self._moved(own, peer, force)
        kept = _kept(math.hypot(x, y, z))
        self.coordinate = Coordinate(x * kept, y * kept, z * kept, height, error)
        return self.coordinate

    def forget(self, link: object) -> None:
        """Drop a link's samples."""
        self._links.pop(link, None)

    def _filtered(self, link: object, rtt_ms: float) -> float:
        links = self._links
        before = links.pop(link, b"")
        samples = (*_samples(before), rtt_ms)[-SAMPLES_IN_MEDIAN:]
        links[link] = before[-8 * (SAMPLES_IN_MEDIAN - 1) :] + _SAMPLE.pack(rtt_ms)
        if len(links) > MAX_LINKS:
            del links[next(iter(links))]
        return sorted(samples)[(len(samples) - 1) // 2]

    def _moved(self, own: Coordinate, peer: Coordinate, force: float) -> tuple[float, float, float, float]:
        away_x, away_y, away_z = own.x_ms - peer.x_ms, own.y_ms - peer.y_ms, own.z_ms - peer.z_ms
        length = math.hypot(away_x, away_y, away_z)
        height = own.height_ms
        if length > 1e-6:
            unit_x, unit_y, unit_z = away_x / length, away_y / length, away_z / length
            height = max(MIN_HEIGHT_MS, (own.height_ms + peer.height_ms) * force / length + own.height_ms)
        else:
            # Two nodes in one place leave it in a direction of chance (Dabek, section 3.2).
            chance = [self._rng.uniform(-1, 1) for _ in range(3)]
            size = math.hypot(*chance) or 1.0
            unit_x, unit_y, unit_z = (part / size for part in chance)
        limit = MAX_EXTENT_MS
        x = max(-limit, min(limit, own.x_ms + unit_x * force))
        y = max(-limit, min(limit, own.y_ms + unit_y * force))
        z = max(-limit, min(limit, own.z_ms + unit_z * force))
        return x, y, z, min(height, limit)


def _kept(distance: float) -> float:
    """Gravity: a pull to the origin of (distance / rho)^2, against the drift of all coordinates together."""
    return 1 - min(distance, (distance / GRAVITY_RHO_MS) ** 2) / distance if distance >= 1e-6 else 1.0


def _samples(packed: bytes) -> list[float]:
    return [sample for (sample,) in _SAMPLE.iter_unpack(packed)]
