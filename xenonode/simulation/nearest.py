"""Who of many ids is nearest to a key, by XOR: the global truth, for who builds a world and for who judges it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from dht.routing import ID_BITS


class Nearest:
    """Looked for among those who share a key's leading bits, so that it costs the same in a large world."""

    def __init__(self, numbers: Sequence[int]) -> None:
        """`numbers` are ids; what is told are places in it."""
        self._sorted = sorted((number, place) for place, number in enumerate(numbers))
        self._numbers = [number for number, _ in self._sorted]

    def __call__(self, key: int, count: int) -> list[int]:
        """The places of the `count` nearest, or of all where there are fewer; nearest first."""
        numbers, first, end = self._numbers, 0, 0
        # Everybody inside a block of ids that has the key in it is nearer than everybody outside.
        for bits in range(max(ID_BITS - len(numbers).bit_length(), 0), ID_BITS + 1):
            lowest = key >> bits << bits
            first, end = bisect_left(numbers, lowest), bisect_left(numbers, lowest + (1 << bits))
            if end - first >= count:
                break
        return [place for _, place in sorted(self._sorted[first:end], key=lambda pair: pair[0] ^ key)[:count]]
