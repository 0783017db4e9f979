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
AGREE_BYTES = 8  # that agree by chance nowhere else in an advert
MAX_CHANGES = 32  # a heartbeat has some six


@dataclass(frozen=True, slots=True)
class Change:
    """These bytes stand in the place of so many of the old ones from `first` on; of as many, unless said."""

    first: int
    data: bytes
    removed: int = -1

    @property
    def last(self) -> int:
        """The first of the old bytes that stays after it."""
        return self.first + (len(self.data) if self.removed < 0 else self.removed)


def changes_of(old: bytes, new: bytes) -> tuple[Change, ...]:
    """What makes `new` of `old`; nothing where they differ in too much for it to be worth while."""
    runs = _differing(old, new) if len(old) == len(new) else _shifted(old, new)
    if len(old) == len(new) and not _is_worth(runs, new):  # one part may have grown by as much as another shrank
        runs = _shifted(old, new)
    if not _is_worth(runs, new):
        return ()
    return tuple(
        Change(first, new[begin:end], -1 if last - first == end - begin else last - first)
        for first, last, begin, end in runs
    )


def changed(old: bytes, changes: Sequence[Change]) -> bytes:
    """The new advert. Raises MessageError for what lies outside of the old one, or in another order."""
    made, here = bytearray(), 0
    for one in changes:
        if not here <= one.first <= one.last <= len(old):
            raise MessageError("a change lies beyond the advert's end, or before another one")
        made += old[here : one.first]
        made += one.data
        here = one.last
    return bytes(made + old[here:])


_Run = tuple[int, int, int, int]
"""From where to where in the old one; in whose place from where to where in the new one."""


def _is_worth(runs: Sequence[_Run], new: bytes) -> bool:
    return len(runs) <= MAX_CHANGES and sum(end - at + GAP_BYTES for _, _, at, end in runs) <= len(new) // 2


def _differing(old: bytes, new: bytes) -> list[_Run]:
    """Where two of one length differ."""
    places = np.flatnonzero(np.frombuffer(old, dtype=np.uint8) != np.frombuffer(new, dtype=np.uint8)).tolist()
    runs: list[list[int]] = []
    for place in places:
        if runs and place - runs[-1][1] <= GAP_BYTES:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return [(first, last + 1, first, last + 1) for first, last in runs]


def _shifted(old: bytes, new: bytes) -> list[_Run]:
    """Where two of other lengths differ: after each difference both go on where so many bytes agree again."""
    known = {old[place : place + AGREE_BYTES]: place for place in range(len(old) - AGREE_BYTES, -1, -1)}
    runs = list[_Run]()
    here = there = 0
    while here < len(old) or there < len(new):
        if old[here : here + AGREE_BYTES] == new[there : there + AGREE_BYTES]:
            here, there = min(here + AGREE_BYTES, len(old)), min(there + AGREE_BYTES, len(new))
            continue
        while here < len(old) and there < len(new) and old[here] == new[there]:
            here, there = here + 1, there + 1
        first, begin = here, there
        while there < len(new) and known.get(new[there : there + AGREE_BYTES], -1) < here:
            there += 1
        here = known[new[there : there + AGREE_BYTES]] if there < len(new) else len(old)
        runs.append((first, here, begin, there))
    return runs
