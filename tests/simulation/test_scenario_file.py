"""Scenario files: what is wrong is told with the file, the key, and what to do."""

from __future__ import annotations

import gzip
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from xenonode.catalogue import catalogue_rows
from xenonode.simulation.campaign import jobs
from xenonode.simulation.campaign.jobs import code_version, jobs_of, parse_seeds
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.fault_tables import fault_keys
from xenonode.simulation.faults import KINDS, FaultSpec, Injection
from xenonode.simulation.faults.kinds import bounds_of
from xenonode.simulation.measured import Outage
from xenonode.simulation.scenario import ScenarioError
from xenonode.simulation.scenario_file import keys, load, swept_as_set


def written(folder: Path, text: str, name: str = "one.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_without_a_word_is_the_default_scenario(tmp_path: Path) -> None:
    scenario = load(written(tmp_path, ""))
    assert scenario.kind == "platform" and scenario.nodes.servers == 10 and scenario.name == "one"


def test_set_goes_over_the_file_and_out_of_the_sweep(tmp_path: Path) -> None:
    source = written(
        tmp_path, 'duration_s = 10\n[nodes]\nservers = 4\n[sweep]\n"nodes.servers" = [4, 5]\nnetwork.loss = [0, 0.1]'
    )
    assert len(jobs_of(source, {}, (1, 2))) == 8
    scenario = load(source, {"nodes.servers": "6", "network.latency": "plane"})
    assert (scenario.nodes.servers, scenario.network.latency, scenario.duration_s) == (6, "plane", 10.0)
    assert dict(scenario.sweep) == {"network.loss": (0, 0.1)}
    jobs = jobs_of(source, {"nodes.servers": "6"}, (1, 2))
    assert [job.title for job in jobs] == [
        f"network.loss={loss} seed {seed}" for loss in ("0", "0.1") for seed in (1, 2)
    ]
    assert len({job.key for job in jobs}) == 4


@pytest.mark.parametrize(
    ("text", "told", "next_step"),
    [
        ("[nodes]\nserver = 3", "nodes.server: no such key", "'nodes.servers'"),
        ("[network]\nservers = 3", "network.servers: no such key", "'nodes.servers'"),
        ("servers = 3", "servers: no such key", "'nodes.servers'"),
        ("[nods]\nservers = 3", "nods: no such key", "'nodes'"),
        ("[nodes]\nservers = 0", "nodes.servers: must be in 1..100000, not 0", "XenoServers"),
        ("[nodes]\nservers = 2.5", "nodes.servers: must be a whole number, not 2.5", ""),
        ("[nodes]\nservers = true", "nodes.servers: must be a whole number, not True", ""),
        ("[network]\nloss = 1.5", "network.loss: must be in 0..1, not 1.5", ""),
        ("[network]\nloss = nan", "network.loss: must be finite, not nan", ""),
        ('[network]\nlatency = "plan"', "network.latency: 'plan' is none of", "'plane'"),
        ('[network]\nlatency = "matrix"', "network: matrix = \"FILE\" and latency = \"matrix\" go together", ""),
        ('kind = "peers"\n[workload]\nsessions_per_s = 1', 'workload.sessions_per_s needs kind = "platform"', ""),
        ("[nodes]\ndimensions = 8", "nodes.dimensions below 11 needs kind", ""),
        ("[nodes]\nestablished = true", "nodes.established needs kind", ""),
        ("nodes = 3", "nodes: must be a table", "[nodes]"),
        ("[workload]\nmix = { fast = 1 }", "mix: fast is none of", ""),
        ("[workload]\nmix = { union = -1 }", "mix: weights are not negative", ""),
        ("[workload]\nsession_cores = [2, 1]", "session_cores is [least, most]", "write session_cores"),
        ("[churn]\nlifetime_mean_s = 10", "churn.lifetime_mean_s: does nothing without churn.lifetime", "write"),
        ('[churn]\nreplace = true', "churn.replace: does nothing without churn.lifetime", ""),
        ('[churn]\nlifetime = "weibull"\ndowntime_shape = 1', "does nothing without churn.downtime", ""),
        ("[workload]\nsession_mean_s = 60", "does nothing without workload.sessions_per_s", ""),
        ("[workload]\nsurge_at_s = 10", "workload.surge_at_s: does nothing without workload.surge_for_s", ""),
        ("[workload]\nreprice_step = 0.1", "does nothing without workload.reprice_every_s", ""),
        ("[workload]\nsurge_for_s = 9\nsurge_at_s = 300", "surge_at_s = 300 is not before the end", ""),
        ("[sweep]\nnodes.servrs = [1]", "sweep.nodes.servrs: no such key to sweep", "'nodes.servers'"),
        ("[sweep]\nnodes.servers = 1", "must be a list", ""),
        ("[sweep]\nnodes.servers = [1, 1]", "names a value twice", ""),
        ("[workload]\nmix = { union = 1e308, topk = 1e308 }", "mix: weights are not negative", "write mix"),
        ("duration_s = " + "9" * 5_000, "no TOML file: Exceeds the limit", "--list"),
        ("a = = 1", "no TOML file", "--list"),
        ("\x00\x01", "no TOML file", "--list"),
        ("#" * 300_000, "larger than 262144 bytes", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, told: str, next_step: str) -> None:
    source = written(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        load(source)
    assert source in caught.value.message and told in caught.value.message, caught.value.message
    assert next_step in caught.value.next_step and caught.value.next_step, caught.value.next_step


def test_what_is_switched_off_in_words_is_a_baseline(tmp_path: Path) -> None:
    churn = '[churn]\nlifetime = "weibull"\nlifetime_mean_s = 60\nreplace = true\n' + LOSS
    surge = "[workload]\nsurge_for_s = 20\nsurge_at_s = 400\nsessions_per_s = 0\nsession_mean_s = 60\n"
    source = written(tmp_path, f"duration_s = 500\n{churn}targets = \"clients\"\n{surge}")
    assert not load(source, {"churn.lifetime": ""}).churn.lifetime
    assert not load(source, {"workload.surge_for_s": "0", "duration_s": "300"}).workload.surge_for_s
    swept = written(tmp_path, '[churn]\nlifetime_mean_s = 60\n[sweep]\nchurn.lifetime = ["", "weibull"]')
    assert [job.scenario.churn.lifetime for job in jobs_of(swept, {}, (1,))] == ["", "weibull"]
    lone = written(tmp_path, "")
    for key in ("churn.share", "workload.surge_times"):
        with pytest.raises(ScenarioError, match=f"{key}: does nothing without"):
            load(lone, {key: "1"})
    alone = written(tmp_path, "[sweep]\nchurn.share = [0.5, 1]")
    with pytest.raises(ScenarioError, match=r"churn\.share: does nothing without"):
        load(alone)


def test_a_folder_does_not_hide_a_shipped_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "churn").mkdir()
    assert load("churn").churn.lifetime == "weibull"
    (tmp_path / "eclipse").write_text("duration_s = 7", encoding="utf-8")
    assert load("eclipse").duration_s == 7


def test_files_that_are_set_are_sought_where_one_stands_and_others_beside_the_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    written(tmp_path, "0,1\n1,0\n", "here.csv")
    written(tmp_path / "there", "0,2\n2,0\n", "beside.csv")
    text = '[network]\nlatency = "matrix"\nmatrix = "beside.csv"\n[sweep]\nnetwork.matrix = ["beside.csv"]'
    source = written(tmp_path / "there", text)
    monkeypatch.chdir(tmp_path)
    beside, here = load(source).network.matrix, load(source, {"network.matrix": "here.csv"}).network.matrix
    assert beside is not None and here is not None
    assert (beside.rows_us[0][1], here.rows_us[0][1]) == (1_000, 500)
    (job,) = jobs_of(source, {}, (1,))
    ((key, value),) = job.point.items()
    as_set = load(source, {key: swept_as_set(os.path.relpath(source), key, value)}).network.matrix
    assert job.scenario.network.matrix == as_set == beside
    for wrong, sets in ((tmp_path / "no.csv", {"network.matrix": "no.csv"}), (tmp_path / "there" / "beside.csv", {})):
        (tmp_path / "there" / "beside.csv").unlink(missing_ok=True)
        with pytest.raises(ScenarioError) as caught:
            load(source, sets)
        assert f"network.matrix: {wrong}: it cannot be read: No such file" in caught.value.message


def test_keys_need_to_go_together_at_the_points_of_a_sweep_only(tmp_path: Path) -> None:
    late = "[workload]\nsurge_at_s = 400\nsurge_for_s = 10\n[sweep]\n"
    source = written(tmp_path, late + "duration_s = [500, 600]")
    assert [job.scenario.duration_s for job in jobs_of(source, {}, (0,))] == [500, 600]
    with pytest.raises(ScenarioError, match="surge_at_s = 400 is not before the end"):
        jobs_of(written(tmp_path, late + "duration_s = [500, 300]"), {}, (0,))


def test_a_point_of_the_sweep_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    source = written(tmp_path, "[sweep]\nnodes.servers = [5, 0]")
    with pytest.raises(ScenarioError, match=r"nodes\.servers: must be in"):
        jobs_of(source, {}, (0,))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0,1\n1,0,2\n", "not square: 2 rows, but row 2 has 3 columns"),
        ("0,1\n", "not square: 1 rows, but row 1 has 2 columns"),
        ("0,-1\n1,0\n", "line 1, column 2: a round trip of -1 ms cannot be"),
        ("0,inf\n1,0\n", "line 1, column 2"),
        ("0,nan\n1,0\n", "line 1, column 2"),
        ("0,1e9\n1,0\n", "line 1, column 2: a round trip of 1e+09 ms cannot be; it is 0 to 60,000"),
        ("1" * 200_000, "it is no CSV: field larger"),
        ("a,b\n0,1\n", "line 1: 'a' is no number of milliseconds"),
        ("\n\n", "it is empty"),
    ],
)
def test_a_matrix_that_is_none_is_refused_with_the_place(tmp_path: Path, text: str, told: str) -> None:
    written(tmp_path, text, "m.csv")
    source = written(tmp_path, '[network]\nlatency = "matrix"\nmatrix = "m.csv"')
    with pytest.raises(ScenarioError) as caught:
        load(source)
    assert f"network.matrix: {tmp_path / 'm.csv'}: {told}" in caught.value.message


def test_a_matrix_places_its_own_nodes_on_its_rows_and_others_near_one(tmp_path: Path) -> None:
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(b"0,80,10\n80,0,20\n10,20,0\n"))
    matrix = load(written(tmp_path, '[network]\nlatency = "matrix"\nmatrix = "m.csv.gz"')).network.matrix
    assert matrix is not None
    assert matrix.rows_us[0] == (0, 40_000, 5_000)
    assert matrix.place(1, "server-2") == (2, 0)
    row, away_us = matrix.place(1, "server-3")
    assert row in range(3) and 500 <= away_us <= 5_000
    assert matrix.place(1, "server-3") == (row, away_us)
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf0,80\r\n80,0\r\n"))  # as a spreadsheet writes it
    matrix = load(str(tmp_path / "one.toml")).network.matrix
    assert matrix is not None and matrix.rows_us == ((0, 40_000), (40_000, 0))
    whole = gzip.compress(b"0,1\n1,0\n")
    for broken in (b"\x1f\x8b\x08\x00garbage", whole[:-9], whole[:10] + b"\xff" * 12 + whole[22:]):
        (tmp_path / "m.csv.gz").write_bytes(broken)
        with pytest.raises(ScenarioError, match=r"network\.matrix: .*/m\.csv\.gz: it"):
            load(str(tmp_path / "one.toml"))


def test_a_trace_of_outages_is_read_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path, '[nodes]\nservers = 3\n[churn]\ntrace = "t.csv"')
    written(tmp_path, "server,down_s,up_s\n2,40,50\n0,10,30.5\n1,20,\n", "t.csv")
    assert load(source).churn.trace == (Outage(0, 10, 30.5), Outage(1, 20, 0), Outage(2, 40, 50))
    for text, told in (
        ("server,down,up\n", "its first line must be server,down_s,up_s"),
        ("server,down_s,up_s\n0,10,5\n", "up again at 5.0 s, before it was down"),
        ("server,down_s,up_s\n0,10,30\n0,20,40\n", "server 0 goes down at 20.0 s while it is down"),
        ("server,down_s,up_s\n0,x,30\n", "line 2"),
        ("server,down_s,up_s\n0,1,30,60\n", "line 2: a server's number and two times"),
        ("server,down_s,up_s\n0,1e300,\n", "line 2: negative, or later than a year"),
        ("server,down_s,up_s\n0,nan,\n", "line 2: negative, or later than a year"),
        ("server,down_s,up_s\n" + "1" * 200_000, "it is no CSV: field larger"),
        ("server,down_s,up_s\n0,300,301\n", "churn.trace has no outage that begins before the end, duration_s = 300"),
        ("server,down_s,up_s\n7,1,30\n", "churn.trace names server 7, but nodes.servers is 3"),
    ):
        written(tmp_path, text, "t.csv")
        with pytest.raises(ScenarioError, match="trace") as caught:
            load(source)
        assert told in caught.value.message


def test_seeds_are_lists_and_ranges() -> None:
    assert parse_seeds("7") == (7,)
    assert parse_seeds("0..3,9, 2") == (0, 1, 2, 3, 9)
    for text in ("", "a", "3..1", "-1", "1..", "0..999999999", "1;2", "9" * 5_000, "0.." + "9" * 5_000, "9" * 25):
        with pytest.raises(ScenarioError, match="--seeds") as caught:
            parse_seeds(text)
        assert len(caught.value.message) < 200


def test_every_key_has_a_sentence_and_a_default_within_its_bounds() -> None:
    found = list(keys())
    assert len(found) > 40
    for name, default, key in found:
        assert len(key.about) > 5, name
        if key.least is not None and isinstance(default, int | float):
            assert key.most is not None and key.least <= default <= key.most, name


_VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.lists(st.integers(), max_size=3), st.just({})
)


_NAMES = [name for name, _, _ in keys()]
_FAULT_NAMES = [name.replace("N", "0", 1) for name, _, _ in fault_keys() if "=" not in name]


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(_NAMES + _FAULT_NAMES + ["nodes", "fault", "sweep", "x"]), value=_VALUES)
@example(name="churn.trace", value="\0")
@example(name="fault.0.kind", value=["loss"])
@example(name="fault.0.targets", value=["server-1"])
@example(name="fault.0.at_s", value=10**400)
@example(name="fault.0.count", value=10**400)
@example(name="duration_s", value=10**400)
@example(name="workload.mix.union", value=10**400)
def test_any_value_of_any_key_is_taken_or_refused_in_words(tmp_path: Path, name: str, value: object) -> None:
    parameter = name.rpartition(".")[2]
    kind = next((kind.name for kind in KINDS.values() if parameter in kind.parameters), "crash")
    source = written(tmp_path, f'[[fault]]\nkind = "{kind}"')
    text = "nan" if isinstance(value, float) and math.isnan(value) else str(value).lower()
    try:
        load(source, {name: text})
    except ScenarioError as error:
        assert error.message and error.next_step


def test_a_number_of_more_digits_than_can_be_read_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path, '[[fault]]\nkind = "loss"\n')
    for key in ("nodes.servers", "duration_s", "fault.0.at_s", f"fault.{'9' * 5_000}.at_s"):
        with pytest.raises(ScenarioError):
            load(source, {key: "9" * 5_000})


LOSS = '[[fault]]\nkind = "loss"\n'
FAULT = '[[fault]]\nkind = "partition"\n'


@pytest.mark.parametrize(
    ("text", "told", "next_step"),
    [
        ('[[fault]]\nkind = "partitoin"', "fault[0].kind: there is no fault 'partitoin'", "'partition'"),
        ("[[fault]]\nat_s = 1", "fault[0].kind: names no kind", "partition"),
        ('[[fault]]\nkind = ["loss"]', "fault[0].kind: there is no fault ['loss']", "'loss'"),
        (FAULT + "at_s = nan", "fault[0].at_s: must be in 0..31536000, not nan", ""),
        (FAULT + "count = 0", "fault[0].count: must be in 1..100000, not 0", "drawn"),
        (FAULT + "att_s = 1", "fault[0].att_s: no such key of 'partition'", "'at_s'"),
        (FAULT + "loss_ppm = 1", "fault[0].loss_ppm: no such key of 'partition'", ""),
        (FAULT + 'at_s = "x"', "fault[0].at_s: must be a number", ""),
        (FAULT + "at_s = 300", "fault[0]: at_s = 300 is not before the end", ""),
        (FAULT + "at_s = -1", "fault[0].at_s: must be in 0..31536000, not -1", "when it begins"),
        (LOSS + "loss_ppm = -1", "fault[0].loss_ppm: must be in 0..1000000, not -1", "of loss"),
        ('[[fault]]\nkind = "crash_loop"\ntimes = 1000000000', "fault[0].times: must be in 1..10000", ""),
        ('[[fault]]\nkind = "clock_jump"\njump_ms = ' + "9" * 20, "fault[0].jump_ms: must be in -3", ""),
        (FAULT + "share = 2", "fault[0].share: must be in 0..1", ""),
        (FAULT + "share = 0.2\ncount = 3", "fault[0]: partition: either count or share", ""),
        (FAULT + 'targets = "serfers"', "fault[0]: partition strikes", ""),
        (FAULT + 'targets = ["server-77"]', "fault[0]: partition: this world has no host 'server-77'", ""),
        ('[[fault]]\nkind = "crash"\ntargets = ["client-0"]', "crash strikes servers or corp; client-0 is", ""),
        (FAULT + "draw = 3", "fault[0].draw: must be a text in quotes, not 3", "liars"),
        (FAULT + "targets = 3", "fault[0].targets: must be a group or a list", ""),
        ('kind = "peers"\n[[fault]]\nkind = "corp_away"', "fault[0]: a world of peers knows no corp_away", ""),
        ("fault = 3", "fault: must be tables", "[[fault]]"),
        ('[churn]\nlifetime = "exponential"\nreplace = true\n' + FAULT, "leave for ever", ""),
    ],
)
def test_a_fault_that_cannot_be_is_told_with_its_place(tmp_path: Path, text: str, told: str, next_step: str) -> None:
    source = written(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        load(source)
    assert source in caught.value.message and told in caught.value.message, caught.value.message
    assert next_step in caught.value.next_step and caught.value.next_step


def test_other_prices_or_machines_are_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path, "")
    (here,) = jobs_of(source, {}, (1,))
    first, *others = catalogue_rows()
    for rows in ((replace(first, price_nano_per_hour=first.price_nano_per_hour + 1), *others), tuple(others)):
        monkeypatch.setattr(jobs, "catalogue_rows", lambda rows=rows: rows)
        code_version.cache_clear()
        (there,) = jobs_of(source, {}, (1,))
        assert there.key != here.key
    monkeypatch.undo()
    code_version.cache_clear()
    assert jobs_of(source, {}, (1,))[0].key == here.key


def test_a_fault_is_set_and_swept_by_its_number(tmp_path: Path) -> None:
    source = written(tmp_path, FAULT + "at_s = 10\n[sweep]\nfault.0.share = [0, 0.0000001, 0.1, 0.2]")
    assert load(source, {"fault.0.at_s": "20"}).faults[0].at_s == 20
    assert [job.scenario.faults[0].share_ppm for job in jobs_of(source, {}, (1,))] == [0, 1, 100_000, 200_000]
    for key in ("fault.1.at_s", "fault.x.at_s", "fault.0", "fault", "fault.0.nothing"):
        with pytest.raises(ScenarioError) as caught:
            load(source, {key: "1"})
        assert "fault" in caught.value.message and caught.value.next_step


def test_a_replays_faults_end_with_the_scenario_as_its_own_do(tmp_path: Path) -> None:
    long = Injection("loss", 4_000, 60_000, ("corp",))
    (job,) = jobs_of(written(tmp_path, "duration_s = 10"), {}, (1,), (long,))
    assert job.injections == (replace(long, for_ms=6_000),)


def test_a_fault_that_the_file_has_not_got_is_told_with_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"there is no \[\[fault\]\] table") as caught:
        load(written(tmp_path, ""), {"fault.0.kind": "loss"})
    assert 'write [[fault]], and below it kind = "loss"' in caught.value.next_step
    with pytest.raises(ScenarioError, match=r"the last of 2 \[\[fault\]\] tables is fault\.1"):
        load(written(tmp_path, LOSS + FAULT), {"fault.2.kind": "loss"})


def test_faults_are_part_of_what_a_result_depends_on(tmp_path: Path) -> None:
    one, other = load(written(tmp_path, FAULT)), load(written(tmp_path, FAULT + "count = 2"))
    assert one.faults[0].kind == "partition" and one.digest() != other.digest()


def test_every_parameter_of_a_fault_has_bounds_and_its_default_is_within() -> None:
    for kind in KINDS.values():
        for name, default in kind.parameters.items():
            least, most = bounds_of(name)
            assert least <= default <= most, (kind.name, name)
            for value in (least, default, most):
                assert FaultSpec(kind.name, parameters={name: value}).parameters == {name: value}
            for value in (least - 1, most + 1):
                with pytest.raises(SimulationError) as caught:
                    FaultSpec(kind.name, parameters={name: value})
                assert str(caught.value) == f"{kind.name}: {name} must be in {least}..{most}, not {value}"
