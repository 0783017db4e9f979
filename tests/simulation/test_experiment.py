"""One run of a scenario: what clients do is real, what is measured is what happened, and a seed repeats to the byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from summaries.parse import parse
from xenonode.client.orders import Orders
from xenonode.control.errors import TIMEOUT, ControlError
from xenonode.corp.transfers import RING_FENCE, Transfer
from xenonode.server.claiming import ClaimPump
from xenonode.simulation import asking, checking
from xenonode.simulation.experiment import Experiment, run
from xenonode.simulation.invariants import running
from xenonode.simulation.recall import judge
from xenonode.simulation.scenario import Scenario, ScenarioError
from xenonode.simulation.scenario_file import load
from xenonode.simulation.verdict import COLUMNS, RunResult

SMALL = """
duration_s = 60
[nodes]
servers = 5
clients = 2
[workload]
queries_per_s = 0.2
mix = { conjunction = 1, union = 1, topk = 1, nearest = 1, cheapest_within = 1 }
sessions_per_s = 0.05
session_mean_s = 20
reprice_every_s = 10
[churn]
lifetime = "weibull"
lifetime_mean_s = 60
downtime_mean_s = 10
share = 0.5
[network]
loss = 0.01
[checks]
sessions_least = 0.5
"""


def small(folder: Path, **sets: str) -> Scenario:
    path = folder / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return load(path, {name.replace("__", "."): value for name, value in sets.items()})


def test_a_small_world_with_churn_and_sessions_passes_and_its_figures_fit_each_other(tmp_path: Path) -> None:
    told: list[Any] = []
    result = run(small(tmp_path), 3, told.append)
    row = result.row
    print(row)
    assert result.verdict.passed, result.verdict
    assert told == result.series and result.series[-1]["rpcs"] == row["rpcs"] > 1_000
    assert row["queries"] == len(result.queries) > 10
    assert row["recall_mean"] > 0.9 and row["churn_left"] > 0
    settled = [one for one in result.sessions if one["state"] == "settled"]
    assert len(settled) == row["sessions_settled"] > 0
    assert abs(sum(one["paid_usd"] for one in settled) - row["paid_usd"]) < 1e-9
    assert min(one["free_cores"] for one in result.series) < max(one["free_cores"] for one in result.series)
    assert sum(each["sent"] for each in result.nodes) >= row["datagrams"] > 0
    for name, columns in COLUMNS.items():
        assert {key for row in getattr(result, name) for key in row} <= set(columns)
    again = RunResult.from_fields(json.loads(json.dumps(result.to_fields())))
    assert again == result


def test_the_same_seed_is_the_same_to_the_byte_under_another_hash_seed_and_another_seed_is_not(tmp_path: Path) -> None:
    small(tmp_path)
    program = (
        "import json, sys; from xenonode.simulation.experiment import run;"
        "from xenonode.simulation.scenario_file import load;"
        f"print(json.dumps(run(load({str(tmp_path / 'small.toml')!r}), int(sys.argv[1])).to_fields()))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, seed],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, hash_seed in (("1", "1"), ("1", "99"), ("2", "1"))
    ]
    one, again, other = (process.communicate(timeout=120)[0] for process in processes)
    assert one == again
    assert json.loads(one)["row"]["trace"] != json.loads(other)["row"]["trace"]


def test_a_check_that_does_not_hold_is_told_with_its_time_and_what_happened_last(tmp_path: Path) -> None:
    result = run(small(tmp_path, checks__sessions_least="1.0", workload__session_budget_usd="0.01",
                       workload__session_cores="[200, 900]"), 3)  # fmt: skip
    assert (result.verdict.status, result.verdict.check) == ("broken", "sessions")
    assert result.verdict.virtual_s > 60
    assert any("unserved" in event for event in result.verdict.last_events)
    assert "end of a stream" not in result.verdict.last_packets[-1]  # as those are that closing the world sends
    assert result.row["sessions_unserved"] > 0


def test_a_world_that_nobody_can_join_breaks_a_check_and_is_no_mistake_of_ours(tmp_path: Path) -> None:
    verdict = run(small(tmp_path, network__loss="1"), 1).verdict
    assert (verdict.status, verdict.check, verdict.trace) == ("broken", "joining", "")
    assert "10.1.0.1" in verdict.detail and verdict.virtual_s > 1


def test_datagrams_of_the_least_size_that_a_network_may_carry_are_enough(tmp_path: Path) -> None:
    assert run(small(tmp_path, network__mtu_bytes="1200"), 3).verdict.passed
    with pytest.raises(ScenarioError, match=r"network\.mtu_bytes: must be in 1200\.\.65507, not 1199"):
        small(tmp_path, network__mtu_bytes="1199")


def test_a_search_that_forgets_a_server_breaks_the_recall_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(query: Any, found: list[int], *offers: Any) -> Any:
        return judge(query, found[1:], *offers)

    monkeypatch.setattr(asking, "judge", forgetful)
    result = run(small(tmp_path), 3)
    assert (result.verdict.status, result.verdict.check) == ("broken", "quiet_recall")
    assert result.verdict.last_events


def test_a_mistake_in_the_experiment_fails_its_run_and_is_told_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Experiment) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Experiment, "sample", broken)
    result = run(small(tmp_path), 3)
    assert result.verdict.status == "error" and "planted" in result.verdict.trace


def test_judging_counts_what_had_to_be_found_and_what_must_not_be() -> None:
    query = parse("cores >= 4")
    before, after = (
        {1: {"cores": 4}, 2: {"cores": 8}, 3: {"cores": 2}},
        {1: {"cores": 4}, 2: {"cores": 1}, 4: {"cores": 9}},
    )
    judged = judge(query, [1, 2, 3], before, after)
    assert (judged.expected, judged.hits, judged.stale) == (1, 1, 1)
    assert judge(query, [], before, after).recall == 0.0
    best = parse("cores >= 1 order by cores desc limit 1")
    assert judge(best, [2], before, before).hits == 1
    assert judge(best, [1], before, before).hits == 0
    assert judge(best, [1, 2], before, before).hits == 1


FAULTS = """
duration_s = 60
[nodes]
servers = 5
[workload]
queries_per_s = 0.2
[[fault]]
kind = "crash"
at_s = 10
for_s = 10
[[fault]]
kind = "loss"
at_s = 5
for_s = 10
targets = "any"
share = 1
loss_ppm = 50000
"""


def test_faults_strike_and_are_told_and_others_can_be_done_in_their_place(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(FAULTS, encoding="utf-8")
    scenario = load(path)
    result = run(scenario, 1)
    assert result.verdict.passed, result.verdict
    assert [fault["kind"] for fault in result.faults] == ["loss", "crash"]
    assert result.row["faults"] == 2 and result.row["fault_bites"] > 1
    lost = result.faults[0]["bit"]
    assert lost > 0 and result.faults[1]["bit"] == 1
    assert result.fault_kinds == [
        {"kind": "loss", "planned": 1, "struck": 1, "bit": lost},
        {"kind": "crash", "planned": 1, "struck": 1, "bit": 1},
    ]
    assert min(sample["servers_up"] for sample in result.series) == 4
    quiet = run(scenario, 1, injections=())
    assert quiet.row["faults"] == quiet.row["fault_bites"] == 0
    assert min(sample["servers_up"] for sample in quiet.series) == 5


def test_a_broken_invariant_ends_the_run_with_its_name_and_the_last_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "K", 1)  # as if a bucket may hold but one
    path = tmp_path / "faults.toml"
    path.write_text(FAULTS, encoding="utf-8")
    verdict = run(load(path), 1).verdict
    assert (verdict.status, verdict.check) == ("broken", "buckets hold at most k")
    assert verdict.virtual_s < 60 and len(verdict.last_packets) > 10
    assert all(" to " in one for one in verdict.last_packets if "datagram" in one or "stream" in one)


def test_a_server_that_never_claims_breaks_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are patient without end, so that nothing else would tell."""

    async def never(self: ClaimPump, id: bytes, claim: object) -> bool:
        return False

    monkeypatch.setattr(ClaimPump, "_send", never)
    sets = {"churn__lifetime": '""', "checks__sessions_least": "0.0", "network__loss": "0.0"}
    verdict = run(small(tmp_path, **sets), 3).verdict
    assert verdict.check == "settled" and "is still stopping" in verdict.detail, verdict


def test_a_session_whose_money_is_not_what_its_client_was_told_breaks_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = checking.paid_and_held

    def dearer(transfers: Sequence[Transfer]) -> dict[str, tuple[int, int]]:
        return {order: (paid + 1, held) for order, (paid, held) in find(transfers).items()}

    monkeypatch.setattr(checking, "paid_and_held", dearer)
    verdict = run(small(tmp_path), 3).verdict
    assert verdict.check == "settled" and "its client was told of" in verdict.detail, verdict


def test_who_has_no_money_for_an_order_is_unserved_and_who_lost_an_answer_has_one_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = run(small(tmp_path, nodes__credit_usd="1", checks__sessions_least="0.0"), 3)
    assert poor.verdict.passed and {one["state"] for one in poor.sessions} == {"unserved"}
    assert {one["reason"] for one in poor.sessions} == {"no_funds"}
    place, lost = Orders.place, set[bytes]()

    async def placed(self: Orders, order: bytes) -> dict[str, Any]:
        state = await place(self, order)
        if order not in lost:
            lost.add(order)
            raise ControlError(TIMEOUT, "no answer came", "")
        return state

    monkeypatch.setattr(Orders, "place", placed)
    experiment = Experiment(small(tmp_path), 3, lambda sample: None)
    with experiment.stand.world as world:
        world.run(experiment.course())
        assert experiment.platform is not None and experiment.leases.count("settled")
        fenced = [each for each in experiment.platform.transfers if each.kind == RING_FENCE]
        assert len(fenced) == len(lost) == len(experiment.leases.all)


def test_peers_alone_are_searched_and_churn(tmp_path: Path) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(
        'kind = "peers"\nduration_s = 60\n[nodes]\nservers = 12\ndimensions = 7\nclients = 2\n'
        '[churn]\nlifetime = "exponential"\nlifetime_mean_s = 60\nreplace = true\nshare = 0.3\n'
        '[[fault]]\nkind = "loss"\nat_s = 5\nfor_s = 20\ntargets = "clients"\nshare = 1\n',
        encoding="utf-8",
    )
    result = run(load(path), 1)
    assert result.verdict.passed, result.verdict
    assert result.row["queries"] > 5 and result.row["churn_left"] > 0 and result.row["sessions"] == 0
    assert result.series[-1]["servers_up"] == 12
