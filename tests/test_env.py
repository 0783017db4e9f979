"""The live world: fresh entropy, the system's clock, and tasks whose failure is never lost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from dht.identity import ED25519
from xenonode.env import LiveEnv


def test_seeds_are_fresh_and_the_clock_is_the_systems() -> None:
    env = LiveEnv()
    assert len({env.seed("key") for _ in range(100)}) == 100
    assert len(env.seed("key")) == 32
    before = time.time_ns() // 1_000_000
    assert before <= env.now_ms() <= time.time_ns() // 1_000_000
    assert env.scheme is ED25519
    assert 0 <= env.rng("jitter").random() < 1


def test_a_spawned_task_is_kept_alive_and_its_failure_reaches_the_loops_handler() -> None:
    heard: list[dict[str, Any]] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("lost otherwise")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))
        env = LiveEnv()
        stopped = env.spawn(asyncio.sleep(60), "stopped")
        env.spawn(fail(), "failing")
        stopped.cancel()
        while not heard:  # noqa: ASYNC110 - the handler is no coroutine
            await asyncio.sleep(0.01)
        assert stopped.cancelled()

    asyncio.run(main())
    assert [str(context["exception"]) for context in heard] == ["lost otherwise"]
    assert "failing" in heard[0]["message"]
