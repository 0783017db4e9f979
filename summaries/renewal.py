"""What a server's new advert changes in its last one, byte by byte: a heartbeat is mostly times and a signature.

Decides when a change is worth sending in the place of the whole, and how it is applied. What comes out is checked as
any advert is, signature included, so whoever keeps the base needs to trust nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from summaries.errors import MessageError

GAP_BYTES = 4  # equal bytes between two changes that cost no more than another change's frame
MAX_CHANGES = 32  # a heartbeat has some six


@dataclass(frozen=True, slots=True)
class Change:
    """These bytes stand at `first` now."""

    first: int
    data: bytes


def changes_of(old: bytes, new: bytes) -> tuple[Change, ...]:
    """What makes `new` of `old`; nothing where they differ in length, or in too much for it to be worth while."""
    if len(old) != len(new):
        return ()
    places = np.flatnonzero(np.frombuffer(old, dtype=np.uint8) != np.frombuffer(new, dtype=np.uint8)).tolist()
    runs: list[list[int]] = []
    for place in places:
        if runs and place - runs[-1][1] <= GAP_BYTES:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    if len(runs) > MAX_CHANGES or sum(last - first + 1 + GAP_BYTES for first, last in runs) > len(new) // 2:
        return ()
    return tuple(Change(first, new[first : last + 1]) for first, last in runs)


def changed(old: bytes, changes: Sequence[Change]) -> bytes:
    """The new advert. Raises MessageError for what lies outside of the old one."""
    made = bytearray(old)
    for one in changes:
        end = one.first + len(one.data)
        if end > len(made):
            raise MessageError("a change lies beyond the advert's end")
        made[one.first : end] = one.data
    return bytes(made)
