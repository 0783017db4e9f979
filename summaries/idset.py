"""Sets of advert ids: the union and intersection that complex searches are built from.

An IdSet is a sorted array of distinct 64-bit ids. Decides nothing about where ids come from: a
search's result, a saved result, an exclude list or another system's answer are all the same.
Source: poster panel "Search" ("built up from ranges and the union and intersection operators").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from summaries.errors import MessageError

MAX_IDS = 1 << 24  # 128 MiB of ids: sixteen times the largest network that was simulated


class IdSet:
    """An immutable set of u64 ids. `|`, `&` and `-` are union, intersection and difference."""

    __slots__ = ("_ids",)

    def __init__(self, ids: Iterable[int] | NDArray[np.uint64] = ()) -> None:
        if isinstance(ids, np.ndarray):
            self._ids = np.unique(ids.astype(np.uint64, copy=False))
        else:
            self._ids = np.unique(np.fromiter(ids, dtype=np.uint64))

    @classmethod
    def _sorted(cls, ids: NDArray[np.uint64]) -> IdSet:
        made = cls.__new__(cls)
        made._ids = ids
        return made

    def union(self, other: IdSet) -> IdSet:
        return IdSet._sorted(np.union1d(self._ids, other._ids))

    def intersection(self, other: IdSet) -> IdSet:
        small, large = sorted((self._ids, other._ids), key=len)
        return IdSet._sorted(small[_among(small, large)])

    def difference(self, other: IdSet) -> IdSet:
        return IdSet._sorted(self._ids[~_among(self._ids, other._ids)])

    __or__, __and__, __sub__ = union, intersection, difference

    def __contains__(self, one: int) -> bool:
        place = int(np.searchsorted(self._ids, np.uint64(one)))
        return place < len(self._ids) and int(self._ids[place]) == one

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and bool(np.array_equal(self._ids, other._ids))

    def __hash__(self) -> int:
        return hash(self._ids.tobytes())

    def __repr__(self) -> str:
        return f"IdSet({len(self)} ids)"

    def to_bytes(self) -> bytes:
        """Eight big-endian bytes an id, rising."""
        return self._ids.astype(">u8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> IdSet:
        """Read what to_bytes wrote; ids that do not rise raise MessageError."""
        if len(data) % 8 or len(data) // 8 > MAX_IDS:
            raise MessageError("an id set is eight bytes an id, and bounded")
        ids = np.frombuffer(data, dtype=">u8").astype(np.uint64)
        if len(ids) > 1 and not bool(np.all(ids[1:] > ids[:-1])):
            raise MessageError("the ids of a set must rise")
        return cls._sorted(ids)


def _among(ids: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of `ids` are in `others`; both sorted."""
    if not len(others):
        return np.zeros(len(ids), dtype=np.bool_)
    places = np.minimum(np.searchsorted(others, ids), len(others) - 1)
    return np.asarray(others[places] == ids, dtype=np.bool_)
