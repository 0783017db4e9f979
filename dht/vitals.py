"""What short answers carry beside themselves: the sender's coordinate and clock; and what is learned from it.

Decides how both are packed, how often a round trip is a sample, and what the peers' clocks say of ours. Pure.
"""

from __future__ import annotations

import random
import struct

from .aging import Aging
from .contact import Address
from .coordinates import Coordinate, Locator
from .errors import WireError

_PLACE = struct.Struct(">iiiiI")
VITALS_BYTES = _PLACE.size + 8
# After the first round trips one in so many is enough to keep a coordinate: a busy lookup should not pay for all.
OBSERVE_ALL = 64
OBSERVE_EACH = 8
# Peers whose clocks are compared with ours; the median of 33 bears 16 liars.
MAX_CLOCKS = 33
# Fewer clocks than this say nothing.
MIN_CLOCKS = 3


class Vitals:
    """Our own coordinate and clock, and those of the peers."""

    def __init__(self, rng: random.Random) -> None:
        self._locator = Locator(rng)
        # Packed when somebody is told of it.
        self._packed_place = b""
        self._observations = 0
        self._clocks: Aging[Address, int] = Aging()

    @property
    def coordinate(self) -> Coordinate:
        """Where we are."""
        return self._locator.coordinate

    def pack(self, now_ms: int) -> bytes:
        """Our part of an answer."""
        if not self._packed_place:
            self._packed_place = _PLACE.pack(*self._locator.coordinate.to_fields())
        return self._packed_place + now_ms.to_bytes(8, "big")

    def observe(self, address: Address, rtt_ms: float, body: bytes, now_ms: int) -> None:
        """Learn from the vitals at the head of an answer that took so long; WireError when there are none."""
        if len(body) < VITALS_BYTES:
            raise WireError("an answer without vitals")
        self._observations += 1
        if self._observations > OBSERVE_ALL and self._observations % OBSERVE_EACH:
            return
        coordinate, clock_ms = unpack_vitals(body)
        self._locator.observe(address, rtt_ms, coordinate)
        self._packed_place = b""
        self._clocks.pop(address, None)
        self._clocks[address] = clock_ms - now_ms + int(rtt_ms / 2)
        if len(self._clocks) > MAX_CLOCKS:
            self._clocks.pop_oldest()

    def clock_skew_ms(self) -> int | None:
        """The peers' median clock minus ours; None while too few have told."""
        if len(self._clocks) < MIN_CLOCKS:
            return None
        return sorted(self._clocks.values())[len(self._clocks) // 2]


def unpack_vitals(body: bytes) -> tuple[Coordinate, int]:
    """The coordinate and the clock at the head of an answer."""
    try:
        return Coordinate.from_fields(list(_PLACE.unpack_from(body))), int.from_bytes(body[_PLACE.size : VITALS_BYTES])
    except (struct.error, ValueError):
        raise WireError("an answer without sane vitals") from None
