"""A clock for leases and deadlines that no jump of the wall clock can shake.

It starts at wall time and advances with the monotonic clock. Towards the wall clock it is drawn by at most a tenth of
the time that passes, so that a correction of seconds is followed soon, while a clock set an hour back or ten years
ahead in the middle of a lease stops no guest. It never goes back.
"""

from __future__ import annotations

from collections.abc import Callable

SLEW_DIVISOR = 10


class SteadyClock:
    """Reads as Unix milliseconds. `wall_ms` is the system's time; `monotonic_s` never jumps."""

    def __init__(self, wall_ms: Callable[[], int], monotonic_s: Callable[[], float]) -> None:
        self._wall_ms, self._monotonic_s = wall_ms, monotonic_s
        self._at_ms = self.monotonic_ms()
        self._now_ms = wall_ms()
        self._passed_ms = 0

    def monotonic_ms(self) -> int:
        """Milliseconds of the monotonic clock."""
        return int(self._monotonic_s() * 1000)

    def now_ms(self) -> int:
        """The time, never less than it was."""
        at_ms = self.monotonic_ms()
        passed_ms = max(0, at_ms - self._at_ms)
        self._at_ms += passed_ms
        self._passed_ms += passed_ms
        room_ms, self._passed_ms = divmod(self._passed_ms, SLEW_DIVISOR)
        straight_ms = self._now_ms + passed_ms
        off_ms = self._wall_ms() - straight_ms
        self._now_ms = max(self._now_ms, straight_ms + max(-room_ms, min(room_ms, off_ms)))
        return self._now_ms
