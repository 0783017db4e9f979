"""From [[fault]] tables and a seed to injections."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from xenonode.simulation.errors import SimulationError
from xenonode.simulation.faults import KINDS, FaultSpec, Injection, Injector, plan
from xenonode.simulation.world import World

NAMES = {"servers": [f"server-{number}" for number in range(20)], "clients": ["client-0"], "corp": ["corp"]}


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    loss = FaultSpec("loss", 0, 50, targets="any", share_ppm=500_000)
    specs = [FaultSpec("crash", 5, 10, every_s=20, count=3), loss]
    assert plan(specs, 1, NAMES, 100) == plan(specs, 1, NAMES, 100) != plan(specs, 2, NAMES, 100)
    crashes = [one for one in plan(specs, 1, NAMES, 100) if one.kind == "crash"]
    assert [one.at_ms for one in crashes] == [5_000, 25_000, 45_000, 65_000, 85_000]
    assert all(len(set(one.targets)) == 3 and set(one.targets) <= set(NAMES["servers"]) for one in crashes)


def test_taking_a_fault_away_leaves_the_others_as_they_were() -> None:
    specs = [FaultSpec("crash", 5, 10), FaultSpec("pause", 5, 10), FaultSpec("nat", 30, 10)]
    whole = plan(specs, 3, NAMES, 100)
    without = plan([specs[0], specs[1]], 3, NAMES, 100)
    assert without == tuple(one for one in whole if one.kind != "nat")


def test_a_share_of_nothing_strikes_nobody_and_any_other_at_least_one() -> None:
    def struck(share_ppm: int | None) -> list[int]:
        spec = FaultSpec("eclipse", 0, 10, every_s=50, share_ppm=share_ppm)
        return [len(one.targets) for one in plan([spec], 1, NAMES, 100)]

    assert struck(0) == []
    assert struck(1) == struck(None) == [1, 1]
    assert (struck(330_000), struck(1_000_000)) == ([6, 6], [20, 20])
    with pytest.raises(SimulationError, match="eclipse: it has no targets"):
        Injection("eclipse", 0, 1, ())


def test_faults_of_one_draw_strike_the_same_hosts_each_time_and_fewer_are_some_of_them() -> None:
    specs = [
        FaultSpec("closest_wrong", 0, 10, share_ppm=200_000, draw="liars"),
        FaultSpec("eclipse", 20, 10, every_s=20, share_ppm=200_000, draw="liars"),
        FaultSpec("store_flood", 90, 5, count=2, draw="liars"),
        FaultSpec("silent", 95, 5, share_ppm=200_000, draw="others"),
    ]
    *same, fewer, others = (set(one.targets) for one in plan(specs, 1, NAMES, 100))
    assert len(same) == 5 and all(each == same[0] for each in same) and len(same[0]) == 4
    assert len(fewer) == 2 and fewer < same[0] != others
    assert same[0] != set(plan(specs, 2, NAMES, 100)[0].targets)


def test_an_injection_is_plain_data() -> None:
    (one,) = plan([FaultSpec("mtu", 1, 2, parameters={"mtu_bytes": 700})], 1, NAMES, 10)
    assert Injection.from_fields(json.loads(json.dumps(one.to_fields()))) == one
    assert one.parameter("mtu_bytes") == 700 and replace(one, parameters={}).parameter("mtu_bytes") == 576


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"kind": "gremlins"}, "there is no fault 'gremlins'"),
        ({"kind": "mtu", "parameters": {"bytes": 1}}, "has no parameter 'bytes'; it has: mtu_bytes"),
        ({"kind": "cold_restart", "targets": "clients"}, "strikes servers, not 'clients'"),
        ({"kind": "loss", "for_s": 10, "every_s": 5}, "nor every_s below for_s"),
        ({"kind": "loss", "count": 0}, "count is at least 1"),
        ({"kind": "loss", "count": 1, "share_ppm": 0}, "either count or share, not both"),
        ({"kind": "loss", "targets": ("server-1",), "share_ppm": 0}, "and its targets are named"),
        ({"kind": "loss", "targets": ("server-1",), "count": 2}, "and its targets are named"),
        ({"kind": "loss", "targets": ("server-1",), "draw": "x"}, "and its targets are named"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(fields: dict[str, object], told: str) -> None:
    with pytest.raises(SimulationError, match=told):
        FaultSpec(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind, name, told",
    [
        ("silent", "client-0", "silent strikes servers; client-0 is a client"),
        ("disk_full", "client-0", "disk_full strikes servers or corp; client-0 is a client"),
        ("churn", "corp", "churn strikes servers; corp is XenoCorp"),
        ("corp_away", "server-1", "corp_away strikes corp; server-1 is a server"),
        ("ledger_bit_rot", "server-1", "ledger_bit_rot strikes corp; server-1 is a server"),
        ("loss", "server-77", "loss: this world has no host 'server-77'; it has server-0 to server-19, client-0, corp"),
    ],
)
def test_hosts_that_a_kind_does_not_strike_are_refused(kind: str, name: str, told: str) -> None:
    with pytest.raises(SimulationError) as caught:
        plan([FaultSpec(kind, targets=(name,))], 1, NAMES, 10)
    assert str(caught.value) == told


def test_named_hosts_of_the_groups_that_a_kind_strikes_are_taken() -> None:
    for kind in KINDS.values():
        for group in kind.groups:
            name = NAMES["servers" if group == "any" else group][0]
            (one,) = plan([FaultSpec(kind.name, targets=(name,))], 1, NAMES, 10)
            assert one.targets == (name,)


def test_a_world_of_peers_knows_no_xenocorp() -> None:
    with pytest.raises(SimulationError, match="a world of peers knows no corp_away"):
        plan([FaultSpec("corp_away")], 1, NAMES, 10, world="peers")


def test_every_kind_has_somebody_who_does_it() -> None:
    with World(1, servers=1) as world:
        assert set(Injector(world).work) == set(KINDS)
