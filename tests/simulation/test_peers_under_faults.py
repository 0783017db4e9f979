"""Worlds of peers alone: every fault that they know meets somebody, and the invariants hold and are watched."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from xenonode.simulation.crowd import NEEDED, Crowd
from xenonode.simulation.errors import PowerLost
from xenonode.simulation.experiment import run
from xenonode.simulation.faults import KINDS, Injection, Injector
from xenonode.simulation.faults.byzantine import FLOOD, LIES, VICTIMS, Liar, lie
from xenonode.simulation.faults.kinds import PEERS
from xenonode.simulation.invariants import running
from xenonode.simulation.invariants.watch import Watch
from xenonode.simulation.scenario_file import load

WORLD = """
kind = "peers"
duration_s = {duration_s}
[nodes]
servers = 20
clients = 2
dimensions = 7
leaf_capacity = 8
advert_period_s = 40
[workload]
queries_per_s = 0.2
[checks]
quiet_s = 130
"""
FAULT = '[[fault]]\nkind = "{kind}"\nat_s = {at_s}\nfor_s = {for_s}\ncount = 3\n'
LASTS_S = {"network": 15.0, "node": 15.0, "disk": 41.0, "byzantine": 41.0}
"""Long enough that disks are written and adverts renewed meanwhile."""
GAP_S = 10.0


@pytest.mark.parametrize("family", list(LASTS_S))
def test_every_kind_meets_somebody_and_all_is_whole_after(family: str, tmp_path: Path) -> None:
    text, at_s = "", 5.0
    for kind in KINDS.values():
        if kind.family == family and PEERS in kind.worlds:
            text += FAULT.format(kind=kind.name, at_s=at_s, for_s=LASTS_S[family])
            text += "after_writes = 0\n" if "after_writes" in kind.parameters else ""
            at_s += GAP_S
    path = tmp_path / "peers.toml"
    path.write_text(WORLD.format(duration_s=at_s + LASTS_S[family]) + text, encoding="utf-8")
    result = run(load(path), 1)
    print(result.fault_kinds, result.row["recall_mean"])
    assert result.verdict.passed, result.verdict
    assert [each["kind"] for each in result.fault_kinds if not each["bit"]] == []
    assert len(result.fault_kinds) >= 4


def test_who_starts_with_a_wrong_clock_is_refused_and_comes_back_once_it_is_right(tmp_path: Path) -> None:
    # The run ended with what that start failed with: live, a server that finds its papers invalid tries again.
    path = tmp_path / "peers.toml"
    faults = (("clock_jump", 5, 30), ("crash", 10, 10))
    text = "".join(FAULT.format(kind=kind, at_s=at_s, for_s=for_s) for kind, at_s, for_s in faults)
    text = text.replace("count = 3", 'targets = ["peer-3"]')
    path.write_text(WORLD.format(duration_s=40).replace("servers = 20", "servers = 8") + text, encoding="utf-8")
    result = run(load(path), 1)
    assert result.verdict.passed, result.verdict
    assert [each["bit"] for each in result.fault_kinds] == [1, 1]


@pytest.mark.parametrize("kind", ["adverts_expired", "equivocation"])
def test_a_liar_that_shows_no_advert_has_none_to_lie_about(kind: str) -> None:
    # After a restart with a full disk nothing is signed: the liar's own work failed, and with it the run.
    liar = Liar.__new__(Liar)
    liar.node = SimpleNamespace(peer=None, env=None, advertiser=SimpleNamespace(current=None))
    again = LIES[kind](liar)
    assert again is not None and liar.own == b""
    again()


def test_a_liar_whose_power_fails_while_it_writes_is_down_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two adverts under one number are written to its disk first: the run ended with what that write failed with.
    host = SimpleNamespace(running=object(), node=SimpleNamespace(call=lambda function, *args: function(*args)))
    scene: Any = SimpleNamespace(liars=set(), loop=SimpleNamespace(time=lambda: 0.0), host=lambda name: host)
    injection: Any = SimpleNamespace(kind="equivocation", for_ms=1, targets=["peer-1"])

    def fail() -> None:
        host.running = None
        raise PowerLost

    monkeypatch.setitem(LIES, "equivocation", lambda liar: fail)
    scene.rng = lambda injection: Random(1)
    asyncio.run(lie(scene, injection))
    assert host.running is None and not scene.liars


def struck(world: Crowd, *injections: Injection) -> Injector:
    """Do these in a world that has begun, and count."""
    injector = Injector(world)
    world.run(injector.run(injections))
    return injector


@pytest.mark.parametrize("others", [0, 2])
def test_a_flood_counts_the_records_that_it_sent(others: int) -> None:
    # A hundred were counted even where nobody was there to be flooded.
    flood = Injection("store_flood", 0, 5_500, ("peer-0",))
    with Crowd(1, peers=1 + others, clients=0, dimensions=NEEDED, advertising=False) as world:
        world.run(world.begin())
        injector = struck(world, flood)
        assert injector.scene.bites["store_flood"] == injector.scene.met(flood) == 2 * others * (FLOOD // VICTIMS)


def test_a_disk_that_two_faults_fill_is_full_until_the_last_is_over_and_refuses_once() -> None:
    full = [Injection("disk_full", at_ms, 9_500, ("peer-0",)) for at_ms in (0, 5_000)]
    refusals: list[float] = []
    with Crowd(1, peers=1, clients=0, dimensions=NEEDED, advertising=False) as world:
        world.run(world.begin())
        began_s, disk = world.now_s, world.host("peer-0").disk

        async def write() -> None:
            for _ in range(10):
                await asyncio.sleep(2.0)
                try:
                    disk.append("file", b"line")
                except OSError:
                    refusals.append(round(world.now_s - began_s, 3))

        writing = world.simulation.loop.create_task(write())
        injector = struck(world, *full)
        world.run(writing)
        assert refusals == [2, 4, 6, 8, 10, 12, 14]
        assert injector.scene.bites["disk_full"] == 7 and [injector.scene.met(each) for each in full] == [4, 5]


def test_a_broken_invariant_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "K", 1)  # as if a bucket may hold but one
    path = tmp_path / "peers.toml"
    path.write_text(WORLD.format(duration_s=30), encoding="utf-8")
    verdict = run(load(path), 1).verdict
    assert (verdict.status, verdict.check) == ("broken", "buckets hold at most k")
    assert verdict.virtual_s < 90 and verdict.last_packets


def test_of_a_large_world_everybody_has_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "HOSTS_A_TIME", 6)
    looked: list[str] = []
    last: list[set[str]] = []
    hosts, check = running.Checks.hosts, Watch.check

    def noted(self: running.Checks) -> list[object]:
        found = list(hosts(self))
        looked.extend(host.node.host.name for host in found)
        return found

    def begun_in_the_midst(self: Watch) -> None:
        self.checks.turn()
        looked.clear()
        check(self)
        last.append(set(looked))

    monkeypatch.setattr(running.Checks, "hosts", noted)
    monkeypatch.setattr(Watch, "check", begun_in_the_midst)
    path = tmp_path / "peers.toml"
    path.write_text(WORLD.format(duration_s=30), encoding="utf-8")
    assert run(load(path), 1).verdict.passed
    assert last == [{f"peer-{number}" for number in range(20)}]
