"""A server whose clock was wrong for a while: what it holds for others ends when it should."""

from __future__ import annotations

import asyncio

from xenonode.simulation.invariants.running import Checks
from xenonode.simulation.world import World

AHEAD_MS = 600_000
WRONG_FOR_S = 20.0
ADVERTS_LIFE_S = 180.0
LATE_S = 200.0
"""Longer than a row may be held after its end, and much shorter than the clock was wrong by."""


def test_rows_of_who_is_gone_end_at_a_server_whose_clock_was_ahead() -> None:
    """Full seeds 70 and 90."""
    with World(seed=70, servers=4) as world:
        gone, jumped = world.servers[0], world.servers[1]

        async def story() -> str:
            await world.begin()
            jumped.node.skew(AHEAD_MS)
            await asyncio.sleep(WRONG_FOR_S)
            jumped.node.skew(-AHEAD_MS)
            await asyncio.sleep(80.0)  # everybody advertises once more, and everybody holds all of it
            gone.crash()
            await asyncio.sleep(ADVERTS_LIFE_S + LATE_S)
            return Checks(world).stored()

        assert world.run(story()) == ""
