"""How many records of others one member may bring to a holder.

Decides whether a record that its own writer did not sign is taken. An owner is a key, and keys cost nothing: without
this, one certified member could write under as many owners as it likes, each with a quota of its own. Members do
store for others, when they repair or give a newcomer what it should hold, so it is bounded and not forbidden. Pure.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from .aging import Aging

# Twice what a neighbour gives a newcomer at once (64 records); a repair brings up to 64 a minute.
MAX_BROUGHT_PER_MINUTE = 128
# Live records of others from one entity: 2 MiB of a shelf of 64. A neighbour in a full network brings some hundred.
MAX_BROUGHT = 1_024
# Entities remembered; the longest silent one is forgotten first.
MAX_ENTITIES = 4_096


@dataclass(slots=True)
class _Account:
    times_ms: deque[int] = field(default_factory=deque)
    expiries_ms: list[int] = field(default_factory=list)


class Writers:
    """What each entity has brought to one holder."""

    def __init__(self) -> None:
        self._accounts: Aging[str, _Account] = Aging()

    def __len__(self) -> int:
        return len(self._accounts)

    def may_bring(self, entity: str, expires_ms: int, now_ms: int) -> bool:
        """Whether an entity may bring one more record of somebody else; asking counts."""
        account = self._accounts.setdefault(entity, _Account())
        self._accounts.touch(entity)
        if len(self._accounts) > MAX_ENTITIES:
            self._accounts.pop_oldest()
        times_ms, expiries_ms = account.times_ms, account.expiries_ms
        while times_ms and times_ms[0] <= now_ms - 60_000:
            times_ms.popleft()
        while expiries_ms and expiries_ms[0] <= now_ms:
            heapq.heappop(expiries_ms)
        if len(times_ms) >= MAX_BROUGHT_PER_MINUTE or len(expiries_ms) >= MAX_BROUGHT:
            return False
        times_ms.append(now_ms)
        heapq.heappush(expiries_ms, expires_ms)
        return True
