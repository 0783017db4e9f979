"""Waiting for many of whom one answer is enough, and joining among seeds of whom some are dead; in virtual time."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from dht.calls import HARD_TIMEOUT_MS
from dht.patience import MAX_GRACE_S, MIN_GRACE_S, grace_s, until_answered
from xenonode.simulation.overlays import OverlayWorld

SLACK_S = 0.001
NOBODY, *MORE_NOBODY = [(f"10.9.9.{n}", 4_000) for n in range(1, 4)]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0.001, 5.0), st.booleans()), max_size=12))
def test_a_wait_ends_with_the_last_or_some_time_after_the_first_answer(whens: list[tuple[float, bool]]) -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        asked: list[asyncio.Future[bool]] = [loop.create_future() for _ in whens]
        for each, (after_s, good) in zip(asked, whens, strict=True):
            loop.call_later(after_s, each.set_result, good)
        began_s = loop.time()
        await until_answered(asked, bool)
        took_s = loop.time() - began_s
        assert all(each.done() for each, (after_s, _) in zip(asked, whens, strict=True) if after_s < took_s - SLACK_S)
        await asyncio.sleep(6)  # who is late is not stopped
        assert all(each.done() for each in asked)
        return took_s

    with OverlayWorld(1, 0) as world:
        took_s = world.simulation.run(scenario())
    last_s = max((after_s for after_s, _ in whens), default=0.0)
    first_s = min((after_s for after_s, good in whens if good), default=float("inf"))
    assert abs(took_s - min(last_s, first_s + grace_s(first_s))) < SLACK_S


def test_whoever_joins_goes_on_with_the_seed_that_answers_and_knows_the_late_ones_as_well() -> None:
    with OverlayWorld(2, 12, ("cores", "memory")) as world:
        world.begin()
        loop, newcomer, seed = world.simulation.loop, world.add(), world.nodes[0]

        async def enter(dimension: str) -> float:
            began_s = loop.time()
            await newcomer.node.start(newcomer.overlay(dimension).join([NOBODY, seed.address, *MORE_NOBODY]), "join")
            return loop.time() - began_s

        async def scenario() -> None:
            await newcomer.node.start(newcomer.open(world.dimensions), "open")
            first_s = await enter("cores")
            assert first_s < MAX_GRACE_S < HARD_TIMEOUT_MS / 1_000
            assert len(newcomer.overlay("cores").peers()) == 12
            # Who was silent in one overlay is not waited for in the next.
            await asyncio.sleep(HARD_TIMEOUT_MS / 1_000)
            assert await enter("memory") <= first_s - MIN_GRACE_S

        world.simulation.run(scenario())


def test_a_seed_that_was_silent_a_moment_ago_still_lets_in_when_nobody_else_does() -> None:
    with OverlayWorld(3, 3, ("cores", "memory")) as world:
        world.begin()
        newcomer, seed = world.add(), world.nodes[0]

        async def scenario() -> None:
            await newcomer.node.start(newcomer.open(world.dimensions), "open")
            sessions = newcomer.endpoint.sessions
            sessions.failed(newcomer.node.call(sessions.peer_at, seed.address), 2)
            assert sessions.is_lost(seed.address)
            await newcomer.node.start(newcomer.overlay("cores").join([NOBODY, seed.address]), "join")
            assert len(newcomer.overlay("cores").peers()) == 3

        world.simulation.run(scenario())
