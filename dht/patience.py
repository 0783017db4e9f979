"""Several are asked, and one answer is enough to go on: how long the others are waited for.

Decides when a wait for many is over. Leaves asking, and what an answer means, to its caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from .peers import MAX_SOFT_TIMEOUT_MS, MIN_SOFT_TIMEOUT_MS

# The bounds of what a lookup waits for a peer before it gives its slot to another one.
MIN_GRACE_S, MAX_GRACE_S = MIN_SOFT_TIMEOUT_MS / 1_000, MAX_SOFT_TIMEOUT_MS / 1_000


async def until_answered(asked: Sequence[asyncio.Future[Any]], is_answer: Callable[[Any], bool]) -> None:
    """Wait until all are done, or three times as long as the first answer took; whoever is later is not stopped.

    None of them may end with an exception, which nobody would take.
    """
    loop = asyncio.get_running_loop()
    began_s, until_s = loop.time(), float("inf")
    while waited := [each for each in asked if not each.done()]:
        now_s = loop.time()
        if until_s == float("inf") and any(each.done() and is_answer(each.result()) for each in asked):
            until_s = now_s + grace_s(now_s - began_s)
        if now_s >= until_s:
            return
        left_s = None if until_s == float("inf") else until_s - now_s
        await asyncio.wait(waited, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)


def grace_s(took_s: float) -> float:
    """How long the others are waited for after an answer that took so long."""
    return min(MAX_GRACE_S, max(MIN_GRACE_S, 2 * took_s))
