"""The platform's own code, fifty servers of it with XenoCorp and a client, in one process under virtual time."""

from __future__ import annotations

import asyncio
import json
import math
import os
import pathlib
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy
import pytest

from xenonode.simulation.crowd import NEEDED, Crowd
from xenonode.simulation.errors import DeadlockError, SimulationError
from xenonode.simulation.lease import settled_once
from xenonode.simulation.world import World

SCRIPT = pathlib.Path(__file__).with_name("platform_world.py")
SEED, SERVERS, FLEET, CAPACITY = 7, 50, 1_950, 32
SMALL = (12, 24, 8)
"""Asked while rows are still being handed over: an advert whose server shows another one of its owner's may have left
the leaf that named it, and is fetched where it went."""
LIMIT_S = 1_500


def begin(script: pathlib.Path, hash_seed: str, *arguments: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        output, errors = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


def check_money(account: dict[str, Any]) -> None:
    """One session's money, as every party to it tells it."""
    assert settled_once(account) == ""


@pytest.mark.timeout(LIMIT_S)
def test_fifty_servers_with_two_thousand_adverts_answer_exactly_and_repeat_in_another_process() -> None:
    processes = [begin(SCRIPT, hash_seed, SEED, SERVERS, FLEET, CAPACITY) for hash_seed in ("1", "77")]
    first, second = (finish(process) for process in processes)
    print(f"seed {SEED}: trace {first['trace']}, {first['datagrams']} datagrams, {first['virtual_s']} virtual s")
    assert first["trace"] == second["trace"]
    assert first == second

    assert first["adverts"] == SERVERS + FLEET == 2_000
    assert min(first["depth"].values()) >= 3, first["depth"]
    for question in first["questions"]:
        print(question)
        assert question["equal"] and question["complete"], question
    assert sum(question["expected"] for question in first["questions"]) > 100
    check_money(first["account"])


def test_another_seed_is_another_run_and_the_same_seed_the_same() -> None:
    processes = [begin(SCRIPT, "3", 1, *SMALL), begin(SCRIPT, "4", 1, *SMALL), begin(SCRIPT, "3", 2, *SMALL)]
    one, again, other = (finish(process) for process in processes)
    print(f"seed 1: trace {one['trace']}, seed 2: trace {other['trace']}")
    assert one == again
    assert one["trace"] != other["trace"]
    for told in (one, other):
        assert all(question["equal"] and question["complete"] for question in told["questions"])
        check_money(told["account"])


@pytest.mark.parametrize("wrong", [{"servers": -1}, {"clients": 2.5}, {"fleet": True}, {"servers": 0, "fleet": 3}])
def test_a_world_of_an_impossible_size_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SimulationError, match=r"^(servers|clients|fleet): "):
        World(1, **wrong)
    if "fleet" not in wrong:
        with pytest.raises(SimulationError, match=r"^(peers|clients): "):
            Crowd(1, **{"peers" if name == "servers" else name: count for name, count in wrong.items()})


def test_a_world_without_clients_cannot_be_asked_and_says_so() -> None:
    with World(1, servers=1, clients=0) as world, pytest.raises(SimulationError, match="clients"):
        world.run(world.ask("cores >= 1"))


def test_a_world_goes_on_until_any_kind_of_number_and_says_what_else_it_takes() -> None:
    with World(1, servers=1, clients=0) as world:
        for now_s, until in enumerate((numpy.int32(5), numpy.float32(6), Fraction(7), 8), 5):
            world.run(until=until)
            assert world.now_s == now_s
        assert world.run(world.simulation.loop.create_task(asyncio.sleep(1, "a task's result"))) == "a task's result"
        for wrong in (None, world.begin, "9", Decimal(9)):
            with pytest.raises(SimulationError, match=r"run\(world\.ask\(TEXT\)\), or .* run\(until=60\)"):
                world.run(wrong)  # type: ignore[call-overload]
        for times in (-1, 1.5, "2"):
            with pytest.raises(SimulationError, match="whole number of steps"):
                world.step(times)  # type: ignore[arg-type]
        for period_s in (0, 4e-10, math.nan, math.inf):
            with pytest.raises(SimulationError, match="a period of a nanosecond or more"):
                world.probe("too often", period_s, lambda: 0)
        world.probe("often", 1e-9, lambda: 0)
        assert world.step(3) == pytest.approx(9, abs=1e-6) and len(world.series["often"]) == 3


def test_a_world_begins_when_it_is_first_driven_or_asked_and_not_twice() -> None:
    traces = set()
    for drive in (lambda world: world.run(world.begin()), lambda world: world.run(until=0), lambda world: world.step()):
        with World(3, servers=2) as world:
            drive(world)
            assert world.begun and len(world.adverts()) == 2
            assert len(world.run(world.ask("cores >= 1")).servers) == 2
    for kind in ({"servers": 2}, {"peers": 8, "dimensions": NEEDED}):
        for ask_first in (True, False):
            with Crowd(3, **kind) if "peers" in kind else World(3, **kind) as world:  # type: ignore[arg-type]
                if not ask_first:
                    world.run(world.begin())
                assert world.run(world.ask("cores >= 1")).servers
                traces.add(world.trace.hexdigest())
    assert len(traces) == 2  # of either kind, one


def test_what_needs_a_world_that_has_begun_or_a_host_that_there_is_says_so() -> None:
    with World(3, servers=3) as world:
        with pytest.raises(SimulationError, match=r"client-0 is no member yet: .*run\(until=0\) begins it"):
            world.run(world.clients[0].call(lambda client: client.finding.search("cores >= 1")))
        with pytest.raises(SimulationError, match=r"'server-9' here; its hosts are corp, server-0 \.\. server-2, cl"):
            world.host("server-9")
        with pytest.raises(DeadlockError, match="nobody waits for anything"):
            world.simulation.loop.step()
    with Crowd(3, peers=8, dimensions=NEEDED) as crowd:
        with pytest.raises(SimulationError, match=r"run\(until=0\) begins it"):
            crowd.run(crowd.clients[0].call(lambda own: own.search("cores >= 1")))
        with pytest.raises(SimulationError, match=r"'server-0' here; its hosts are peer-0 \.\. peer-7, client-0"):
            crowd.host("server-0")
