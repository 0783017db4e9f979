"""The virtual loop: order, time, failures, crashes."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenonode.simulation.errors import DeadlockError, HorizonError, SimulationError
from xenonode.simulation.loop import PURGE_AT, SLOT_BITS, VirtualLoop
from xenonode.simulation.run import Simulation

SLOT_NS = 1 << SLOT_BITS
MOMENTS = st.one_of(
    st.integers(0, 3 * SLOT_NS), st.sampled_from([SLOT_NS - 1, SLOT_NS, SLOT_NS + 1]), st.integers(0, 10**15)
)


def test_sleepers_wake_in_order_of_time_and_then_of_asking() -> None:
    woken: list[str] = []

    async def sleeper(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        woken.append(name)

    async def main() -> float:
        await asyncio.gather(sleeper("c", 2), sleeper("a", 1), sleeper("b", 1), sleeper("z", 0.000000001))
        return asyncio.get_running_loop().time()

    with Simulation(1) as simulation:
        assert simulation.run(main()) == 2.0
    assert woken == ["z", "a", "b", "c"]


def test_ten_years_pass_at_once_and_to_the_nanosecond() -> None:
    async def main() -> None:
        await asyncio.sleep(315_360_000)
        await asyncio.sleep(0.000000003)

    with Simulation(1) as simulation:
        simulation.run(main())
        assert simulation.loop.now_ns == 315_360_000_000_000_003


@given(st.lists(st.tuples(MOMENTS, st.booleans(), MOMENTS), max_size=30))
def test_timers_run_by_moment_and_then_in_the_order_of_asking_whatever_is_cancelled(
    asked: list[tuple[int, bool, int]],
) -> None:
    """Of each: when it is due, whether it is cancelled, and how much later one is due that it asks for itself."""
    ran: list[tuple[int, int]] = []
    expected: list[tuple[int, int]] = []

    async def main() -> None:
        def first(number: int, later_ns: int) -> None:
            ran.append((loop.now_ns, number))
            loop.call_at_ns(loop.now_ns + later_ns, lambda: ran.append((loop.now_ns, number)))

        for number, (when_ns, cancelled, later_ns) in enumerate(asked):
            timer = loop.call_at_ns(when_ns, first, number, later_ns)
            if cancelled:
                timer.cancel()
            else:
                expected.extend(((when_ns, number), (when_ns + later_ns, number)))
        await asyncio.sleep(3_000_000)

    with contextlib.closing(VirtualLoop()) as loop:
        loop.run_until_complete(main())
    assert sorted(ran) == sorted(expected)
    assert [moment for moment, _ in ran] == sorted(moment for moment, _ in ran)
    asked_at = {number: when_ns for number, (when_ns, cancelled, _) in enumerate(asked) if not cancelled}
    firsts = [number for place, (_, number) in enumerate(ran) if all(other != number for _, other in ran[:place])]
    assert firsts == sorted(asked_at, key=lambda number: (asked_at[number], number))


def test_cancelled_timers_are_forgotten_before_their_time() -> None:
    async def main() -> None:
        loop = simulation.loop
        for hours in range(20 * PURGE_AT):
            loop.call_later(3_600 * (1 + hours), main).cancel()
            await asyncio.sleep(0.001)
        waiting = len(loop._timers) + sum(map(len, loop._later.values()))
        assert waiting <= 3 * PURGE_AT

    with Simulation(1) as simulation:
        simulation.run(main())


@pytest.mark.parametrize("begin_s", [0.0, 1 / 3, 22.371, 103.115])
def test_whoever_sleeps_for_what_is_left_until_a_moment_gets_there(begin_s: float) -> None:
    """What is left may be less than a nanosecond, which is less than the clock can show: it passes all the same."""
    looks: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(begin_s)
        ends_s = loop.time() + 1e-10
        while (left_s := ends_s - loop.time()) > 0 and len(looks) < 100:
            looks.append(left_s)
            await asyncio.sleep(left_s)
        assert loop.time() >= ends_s
        ends_s = loop.time() + 1e-10
        loop.call_at(ends_s, lambda: looks.append(loop.time() - ends_s))
        await asyncio.sleep(1)

    with Simulation(1) as simulation:
        simulation.run(main())
    assert len(looks) == 2 and looks[-1] >= 0


def test_waiting_for_what_never_comes_is_a_deadlock_that_names_the_waiter() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="the-waiter"), Simulation(1) as simulation:
        simulation.run(simulation.loop.create_task(forever(), name="the-waiter"))  # type: ignore[arg-type]


def test_a_run_that_never_ends_stops_at_its_horizon() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - it is the point
            await asyncio.sleep(10)

    with pytest.raises(HorizonError), Simulation(1, horizon_ns=60 * 10**9) as simulation:
        simulation.run(main())


def test_a_task_whose_error_nobody_looked_at_fails_the_run() -> None:
    async def bad() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(bad())
        await asyncio.sleep(1)
        del task
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="unseen"), Simulation(1) as simulation:
        simulation.run(main())


def test_a_spawned_task_that_fails_fails_the_run_at_once() -> None:
    async def bad() -> None:
        await asyncio.sleep(1)
        raise ValueError("spawned and lost")

    async def main() -> None:
        await asyncio.sleep(1_000)

    with pytest.raises(SimulationError, match="spawned and lost"), Simulation(1) as simulation:
        node = simulation.add_node("a")

        async def start() -> None:
            node.env.spawn(bad(), "bad")

        node.start(start())
        simulation.run(main())
    assert simulation.loop.now_ns == 10**9


def test_an_error_in_a_callback_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1, lambda: 1 // 0)
        await asyncio.sleep(5)

    with pytest.raises(SimulationError, match="ZeroDivisionError"), Simulation(1) as simulation:
        simulation.run(main())


def test_threads_are_refused_unless_the_run_allows_executor_calls_in_place() -> None:
    async def main() -> int:
        return await asyncio.to_thread(lambda: 7)

    with pytest.raises(SimulationError, match="thread"), Simulation(1) as simulation:
        simulation.run(main())
    with Simulation(1, inline_executor=True) as simulation:
        assert simulation.run(main()) == 7


def test_a_crash_runs_no_finally_and_leaves_other_nodes_alone() -> None:
    log: list[str] = []

    async def life(name: str) -> None:
        try:
            for _ in range(5):
                await asyncio.sleep(1)
                log.append(name)
        finally:
            log.append(f"{name} ends")

    async def main() -> None:
        await asyncio.sleep(2.5)
        victim.crash()
        await asyncio.sleep(10)

    with Simulation(1) as simulation:
        victim, other = simulation.add_node("victim"), simulation.add_node("other")
        victim.start(life("victim"))
        other.start(life("other"))
        simulation.run(main())
        assert log == ["victim", "other", "victim", "other", "other", "other", "other", "other ends"]
        victim.restart()
        log.clear()
        victim.start(life("again"))
        simulation.run(asyncio.sleep(6))
        assert log == ["again"] * 5 + ["again ends"]


def test_sets_of_tasks_and_of_futures_iterate_in_the_order_of_creation() -> None:
    async def main() -> tuple[list[str], list[int]]:
        loop = asyncio.get_running_loop()
        tasks = {loop.create_task(asyncio.sleep(1), name=str(number)) for number in range(7)}
        futures = [loop.create_future() for _ in range(7)]
        order = [futures.index(future) for future in set(futures)]
        for future in futures:
            future.set_result(None)
        done, _ = await asyncio.wait(tasks)
        return [task.get_name() for task in done], order

    with Simulation(1) as simulation:
        first = simulation.run(main())
    with Simulation(1) as simulation:
        ballast = [object() for _ in range(1_000)]
        assert simulation.run(main()) == first
    assert len(ballast) == 1_000


def test_each_node_has_its_own_streams_seeds_and_clock() -> None:
    with Simulation(5) as simulation:
        a, b = simulation.add_node("a"), simulation.add_node("b", skew_ms=-3_600_000)
        assert a.env.now_ms() - b.env.now_ms() == 3_600_000
        assert a.env.seed("key") != b.env.seed("key") != a.env.seed("other")
        first = a.env.rng("jitter").random()
        assert first != a.env.rng("jitter").random() != b.env.rng("jitter").random()
        a.crash()
        before = a.env.seed("key")
        env = a.restart()
        assert env.seed("key") == before
        assert env.rng("jitter").random() != first
    with Simulation(5) as simulation:
        assert simulation.add_node("a").env.rng("jitter").random() == first


def test_below_a_loop_that_runs_as_a_notebooks_does_a_virtual_one_goes_on_and_gives_the_place_back() -> None:
    async def cell() -> tuple[float, float, bool]:
        loop, outer = VirtualLoop(), asyncio.get_running_loop()
        loop.run_until_complete(asyncio.sleep(5))
        reached_s = loop.time()
        loop.call_later(2, lambda: None)
        loop.step()
        passed = loop.time(), reached_s, asyncio.get_running_loop() is outer
        loop.call_soon(loop.step)  # a world's own callback still cannot drive it
        with pytest.raises(SimulationError, match="cannot step it"):
            loop.run_until_complete(asyncio.sleep(1))
        assert asyncio.get_running_loop() is outer
        loop.close()
        await asyncio.sleep(0)
        return passed

    assert asyncio.run(cell()) == (7.0, 5.0, True)
