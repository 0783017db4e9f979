"""`xenonode simulate` from outside: it keeps and resumes, ends by its checks, and a failure says how to replay it."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import distributed
import pytest
from pyarrow import parquet

from xenonode.catalogue import catalogue_rows
from xenonode.cli import main
from xenonode.simulation.campaign import cluster, pool
from xenonode.simulation.campaign.jobs import Job, jobs_of
from xenonode.simulation.campaign.results import Finished

PROGRAM = [sys.executable, "-c", "from xenonode.cli.main import main; main()"]
QUICK = """
shows = "A world that is over at once."
duration_s = 5
[nodes]
servers = 3
clients = 1
[workload]
queries_per_s = 0.5
[checks]
quiet_s = 20
quiet_queries = 1
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of a test stay with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.toml").write_text(QUICK, encoding="utf-8")


def simulate(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    status = main.run(["simulate", *words, "--json"])
    captured = capsys.readouterr()
    return status, json.loads(captured.out) if captured.out else None, captured.err


def living(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_kept_resumed_and_tabled(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("quick.toml", "--seeds", "1,2", "--out", "out", "--jobs", "2")
    status, told, _ = simulate(capsys, *words)
    assert status == 0 and told["passed"] == 2 and told["failed"] == []
    kept = sorted(Path("out/runs").iterdir())
    times = [path.stat().st_mtime_ns for path in kept]
    status, again, _ = simulate(capsys, *words)
    assert again == told
    assert [path.stat().st_mtime_ns for path in kept] == times  # nothing was run again
    assert [row["seed"] for row in rows("out/runs.csv")] == ["1", "2"]
    assert {row["seed"] for row in rows("out/series.csv")} == {"1", "2"}
    assert all(float(row["recall"]) == 1 for row in rows("out/queries.csv"))
    assert rows("out/sessions.csv") == []  # but what would be in it is said
    assert Path("out/sessions.csv").read_text().startswith("seed,number,client,arrived_s,")

    kept[0].write_bytes(b"damaged")
    status, repaired, _ = simulate(capsys, *words)
    assert [run["trace"] for run in repaired["runs"]] == [run["trace"] for run in told["runs"]]
    assert kept[0].stat().st_mtime_ns != times[0] and kept[1].stat().st_mtime_ns == times[1]

    status, fresh, _ = simulate(capsys, "quick.toml", "--seeds", "2", "--fresh", "--out", "out")
    assert status == 0 and fresh["runs"][0]["trace"] == told["runs"][1]["trace"]


def test_a_run_that_does_not_repeat_is_kept_beside_the_one_before_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("quick.toml", "--seeds", "1,2", "--out", "out", "--jobs", "1")
    _, told, _ = simulate(capsys, *words)
    before = Path(f"out/runs/{jobs_of('quick.toml', {}, (1,))[0].key}.json.gz")
    fields = json.loads(gzip.decompress(before.read_bytes()))
    fields["row"] |= {"rpcs": 1, "queries": 1, "datagrams": 1, "joined_s": 1, "trace": "another"}
    before.write_bytes(gzip.compress(json.dumps(fields).encode()))
    evidence = before.read_bytes()
    Path("out/runs.csv").unlink()

    status, again, error = simulate(capsys, *words, "--fresh")
    assert status == 1 and again["runs"][0]["trace"] == told["runs"][0]["trace"] and len(again["runs"]) == 2
    failure = json.loads(error.splitlines()[-1])
    assert failure["code"] == "not_repeatable"
    assert "seed 1 is not repeatable: trace another then" in failure["message"]
    after = before.with_name(before.name.replace(".json", "-again.json"))
    assert str(before) in failure["message"] and str(after) in failure["message"]
    assert before.read_bytes() == evidence != after.read_bytes()
    assert json.loads(gzip.decompress(after.read_bytes()))["row"]["trace"] == told["runs"][0]["trace"]
    assert [row["seed"] for row in rows("out/runs.csv")] == ["1", "2"]
    assert len(again["not_repeatable"]) == 1


def test_what_is_kept_needs_no_cluster_and_where_nothing_failed_nothing_can_be_shrunk(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["simulate", "quick.toml", "--seeds", "1", "--shrink"]) == 0
    assert "--shrink: nothing failed" in capsys.readouterr().err
    status, told, _ = simulate(capsys, "quick.toml", "--seeds", "1", "--cluster", "tcp://127.0.0.1:1")
    assert status == 0 and told["passed"] == 1


def test_a_failing_seed_says_when_and_what_and_its_command_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sweep.toml").write_text(QUICK + '[sweep]\n"checks.sessions_least" = [0, 1]\n', encoding="utf-8")
    poor = ["--set", "workload.sessions_per_s=0.5", "--set", "workload.session_cores=[900, 900]"]
    status, told, error = simulate(capsys, "sweep.toml", "--seeds", "5", *poor)
    assert status == 1 and told["passed"] == 1
    (failed,) = told["failed"]
    assert failed["seed"] == 5 and failed["check"] == "sessions" and failed["virtual_s"] > 25
    assert failed["last_events"]
    assert failed["replay"] in json.loads(error)["next_step"]
    words = shlex.split(failed["replay"])
    assert words[:2] == ["xenonode", "simulate"]
    status, again, _ = simulate(capsys, *words[2:])
    assert status == 1
    assert [each["trace"] for each in again["failed"]] == [failed["trace"]]
    assert again["failed"][0]["virtual_s"] == failed["virtual_s"]


def test_shrinking_leaves_the_fault_that_matters_and_its_command_fails_alike(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = "".join(
        f'[[fault]]\nkind = "{kind}"\nat_s = 1\nfor_s = 25\ntargets = {targets}\n'
        for kind, targets in (("reordering", '"any"'), ("partition", '["client-0"]'), ("duplication", '"any"'))
    )
    Path("faulty.toml").write_text(QUICK + "recall_least = 1\n" + faults, encoding="utf-8")
    # Long enough that no search outlasts the partition.
    longer = ("--set", "duration_s=30", "--set", "workload.queries_per_s=1")
    status = main.run(["simulate", "faulty.toml", *longer, "--seeds", "1", "--shrink"])
    errors = capsys.readouterr().err
    assert status == 1, errors
    assert "looking for the fewest of 3 faults" in errors
    (replay,) = [line.split("replay: ")[1] for line in errors.splitlines() if "--injections" in line]
    (file,) = Path("simulations/faulty").glob("faults-*.json")
    assert [each["kind"] for each in json.loads(file.read_text())] == ["partition"]
    status, told, _ = simulate(capsys, *shlex.split(replay)[2:])
    assert status == 1 and told["failed"][0]["check"] == "recall"
    assert told["failed"][0]["replay"] == replay  # a replay of a replay does the same faults


def test_faults_are_tabled_by_kind_and_one_that_met_nobody_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    crash = '[[fault]]\nkind = "crash"\nat_s = 1\nfor_s = 2\n'
    full = '[[fault]]\nkind = "disk_full"\nat_s = 1\nfor_s = 0.01\ntargets = "servers"\n'
    Path("faulty.toml").write_text(QUICK + crash + full, encoding="utf-8")
    words = ("faulty.toml", "--seeds", "1,2", "--out", "out")
    status, told, _ = simulate(capsys, *words)
    assert status == 0
    struck = {"kind": "crash", "planned": 2, "struck": 2, "bit": 2, "runs_bitten": 2}
    idle = {"kind": "disk_full", "planned": 2, "struck": 0, "bit": 0, "runs_bitten": 0}
    assert told["faults"] == [struck, idle]
    assert [row["bit"] for row in rows("out/faults.csv")] == ["1", "0"] * 2
    assert [row["planned"] for row in rows("out/fault_kinds.csv")] == ["1"] * 4
    assert main.run(["simulate", *words]) == 0
    captured = capsys.readouterr()
    assert "runs that it bit in" in captured.out and "disk_full met nobody" in captured.err


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"kind": "gremlins"}, "there is no fault 'gremlins'"),
        ({"targets": ["server-99"]}, "this world has no host 'server-99'; it has corp, server-0 to server-2, client-0"),
        (
            {"kind": "crash", "targets": ["client-0"], "parameters": {}},
            "crash strikes servers or corp; client-0 is a client",
        ),
        ({"targets": []}, "loss: it has no targets"),
        ({"at_ms": 5_000}, "loss: it begins at 5 s, not before the end, duration_s = 5"),
        ({"parameters": {"loss_ppm": "many"}}, "has no faults to inject"),
        ({"parameters": {"loss_percent": 5}}, "has no parameter 'loss_percent'"),
        ({"at_ms": -1}, "times must not be below 0"),
    ],
)
def test_faults_that_would_strike_nobody_are_refused(
    capsys: pytest.CaptureFixture[str], changes: dict[str, object], told: str
) -> None:
    fault = {"kind": "loss", "at_ms": 0, "for_ms": 1_000, "targets": ["server-0"], "parameters": {}}
    Path("faults.json").write_text(json.dumps([fault | changes]), encoding="utf-8")
    status, _, error = simulate(capsys, "quick.toml", "--injections", "faults.json")
    assert status == 1 and told in error


def test_figures_and_a_page_are_drawn_of_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sweep.toml").write_text(QUICK + "[sweep]\nnodes.leaf_capacity = [2, 64]\n", encoding="utf-8")
    status, told, _ = simulate(capsys, "sweep.toml", "--seeds", "1", "--out", "out", "--plots")
    assert status == 0, told
    drawn = {path.name for path in Path("out").glob("*.png")}
    assert {"search-time.png", "search-rounds.png", "load.png", "sweep-nodes.leaf_capacity.png"} <= drawn
    assert "recall.png" in drawn  # though it is 1 all the time: that is worth knowing
    assert "price.png" not in drawn  # nobody changed one
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(drawn)
    assert "A world that is over at once." in page and told["runs"][0]["trace"] in page


def test_parquet_tables_hold_what_the_others_hold(capsys: pytest.CaptureFixture[str]) -> None:
    status, told, _ = simulate(capsys, "quick.toml", "--seeds", "1", "--out", "out", "--parquet")
    assert status == 0
    (row,) = parquet.read_table("out/runs.parquet").to_pylist()
    assert row == told["runs"][0]
    assert parquet.read_table("out/queries.parquet").num_rows == len(rows("out/queries.csv"))
    assert parquet.read_table("out/faults.parquet").column_names[:2] == ["seed", "kind"]  # of which there is none


def test_a_dask_cluster_gives_the_same_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as dask:
        words = ("quick.toml", "--seeds", "1,2", "--out", "there", "--cluster", dask.scheduler_address)
        status, there, error = simulate(capsys, *words)
    assert status == 0, error
    status, here, _ = simulate(capsys, "quick.toml", "--seeds", "1,2", "--out", "here")
    assert [run["trace"] for run in there["runs"]] == [run["trace"] for run in here["runs"]]


def simulate_on_a_late_worker(capsys: pytest.CaptureFixture[str], late_s: float) -> tuple[int, str]:
    """Status and error of a run on a cluster that has no worker until so much later."""
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None) as dask:
        late = threading.Timer(late_s, dask.scale, (1,))
        late.start()
        words = ("quick.toml", "--seeds", "1", "--out", "there", "--cluster", dask.scheduler_address)
        status, _, error = simulate(capsys, *words)
        late.join()
    return status, error


def test_a_cluster_without_workers_is_told_of_and_waited_for(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    status, error = simulate_on_a_late_worker(capsys, 5)
    assert status == 0, error
    assert any("has no workers yet; start some with: dask worker tcp://" in line for line in caplog.messages)


def test_a_worker_that_comes_late_with_other_code_is_told_of_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "code_version", lambda: "another version")  # here; workers look at their own
    status, error = simulate_on_a_late_worker(capsys, 3)
    told = json.loads(error.splitlines()[-1])
    assert status == 1 and (told["code"], told["next_step"]) == ("died", cluster.SAME)
    assert "who asked has another version" in told["message"]


def test_ctrl_c_while_the_program_is_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "xenonode", "simulate", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "error: interrupted; nothing was left behind\n")
    command.append("--json")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert json.loads(done.stderr)["code"] == "interrupted"


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process_and_the_next_call_goes_on(tmp_path: Path) -> None:
    command = [*PROGRAM, "simulate", "quick.toml", "--seeds", "0..199", "--jobs", "1", "--out", "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    runs = tmp_path / "out" / "runs"
    deadline = time.monotonic() + 120
    while not (runs.is_dir() and len(list(runs.glob("*.gz"))) >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "runs are kept in out" in errors and "goes on from there" in errors
    while any(living(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)  # the standard library's own helper ends when it sees that nobody is left
    assert children and not any(living(child) for child in children)
    kept = len(list(runs.glob("*.gz")))
    assert len(rows(str(tmp_path / "out" / "runs.csv"))) == kept >= 2
    done = subprocess.run(
        [*PROGRAM, "simulate", "quick.toml", "--seeds", "0..1", "--out", "out"],
        capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True,
    )  # fmt: skip
    assert "2 of 2 runs are kept from before" in done.stderr


def test_ctrl_c_twice_at_a_terminal_while_workers_begin_is_told_once_and_in_words(tmp_path: Path) -> None:
    command = [*PROGRAM, "simulate", "quick.toml", "--seeds", "0..9", "--jobs", "2", "--out", "out"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not children_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "Exception ignored" not in errors, errors
    assert errors.count("interrupted") == 1, errors


def test_a_worker_that_ends_by_itself_is_told_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_work", os._exit)  # called with a connection, which is no status: it ends with 1
    (job,) = jobs_of("quick.toml", {}, (1,))
    told = [event for event in pool.run_all([job], 1) if isinstance(event, pool.Died)]
    assert len(told) == pool.DIED_TIMES_MAX and all("ended with status 1" in event.reason for event in told)


def ends_after_a_run(connection: Connection) -> None:
    """A worker's process that is gone once it has sent its first result."""
    connection.send(("done", *pool.carry_out(connection.recv())))
    os._exit(7)


def test_a_result_is_kept_though_its_worker_dies_before_it_has_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given: set[pool._Worker] = set()
    give = pool._Worker.give

    def late(worker: pool._Worker, job: Job) -> None:
        if worker in given:
            worker.process.join()
        given.add(worker)
        give(worker, job)

    monkeypatch.setattr(pool, "_work", ends_after_a_run)
    monkeypatch.setattr(pool._Worker, "give", late)
    told = list(pool.run_all(jobs_of("quick.toml", {}, (1, 2)), 1))
    assert [event.job.seed for event in told if isinstance(event, Finished)] == [1, 2]
    assert [(event.job.seed, event.reason) for event in told if isinstance(event, pool.Died)] == [
        (2, "its process ended with status 7; it begins again")
    ]


def test_two_at_once_into_one_folder_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    from xenonode.simulation.campaign.results import Results

    with Results(Path("out")):
        status, _, error = simulate(capsys, "quick.toml", "--out", "out")
    assert status == 1 and json.loads(error)["code"] == "folder_in_use"


def test_a_full_disk_is_an_error_for_people_and_what_was_kept_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(capsys, "quick.toml", "--out", "out")
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:  # the folder's own file still fits
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    status, _, error = simulate(capsys, "quick.toml", "--out", "out", "--seeds", "0..1")
    assert status == 1 and json.loads(error)["code"] == "no_space"
    assert "free some space" in json.loads(error)["next_step"]
    assert len(list(Path("out/runs").iterdir())) == 1  # nothing half-written either


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["nowhere.toml"], 1, "nowhere.toml cannot be read"),
        (["."], 1, "cannot be read: Is a directory"),
        (["quick.toml", "--seeds", "x"], 2, "is no seed"),
        (["quick.toml", "--seeds", "3..1"], 2, "goes backwards"),
        (["quick.toml", "--out", "/proc/nowhere"], 1, "/proc/nowhere"),
        (["quick.toml", "--set", "nodes.servers"], 2, "names no value"),
        (["quick.toml", "--set", "nodes.serverz=3"], 1, "nodes.serverz: no such key"),
        ([], 2, "no scenario is named"),
    ],
)
def test_wrong_input_is_told_in_words(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, told: str
) -> None:
    found, value, error = simulate(capsys, *words)
    assert found == status and value is None
    assert told in json.loads(error)["message"]


def test_what_can_be_set_is_shown_by_a_key_of_a_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, error = simulate(capsys, "quick.toml", "--set", "nodes.servers")
    assert "--set nodes.servers=20" in json.loads(error)["next_step"]
    assert main.run(["simulate", "--help"]) == 0
    told = capsys.readouterr().out
    assert "nodes.servers=20" in told and "share.memory" not in told
    assert main.run(["status", "--set", "folder"]) == 2 and "share.memory='1 GiB'" in capsys.readouterr().err


def test_keys_are_listed_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    status, told, _ = simulate(capsys, "--keys")
    assert status == 0
    by_key = {row["key"]: row for row in told}
    assert by_key["nodes.servers"] == {
        "key": "nodes.servers", "default": "10", "least": 1, "most": 100_000, "choices": [],
        "about": "XenoServers (kind peers: search peers)",
    }  # fmt: skip
    assert by_key["network.latency"]["choices"] == ["regions", "plane", "matrix"]
    assert "cheapest_within" in by_key["workload.mix"]["choices"]
    assert by_key["workload.session_cores"]["default"] == "[0.25, 2.0]"
    assert {f"fault.N.{name}" for name in ("at_s", "for_s", "every_s", "targets", "count", "share")} <= by_key.keys()
    assert by_key["fault.N.for_s"]["default"] == "10.0" and by_key["fault.N.share"]["most"] == 1
    assert by_key["fault.N.loss_ppm"]["most"] == 1_000_000 and "lost" in by_key['fault.N.kind = "loss"']["about"]
    assert "at most 10000" in by_key["sweep"]["about"]
    assert main.run(["simulate", "--keys"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("churn.downtime "))
    assert line.split()[:4] == ["churn.downtime", '"exponential"', '"exponential",', '"weibull"']


def test_scenarios_are_listed_with_their_sizes_over_the_whole_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    status, told, _ = simulate(capsys, "--list")
    assert status == 0
    by_name = {row["name"]: row for row in told}
    assert by_name["search-time"]["nodes"] == {"least": 104, "most": 3004} and by_name["search-time"]["points"] == 4
    assert by_name["eclipse"]["nodes"] == {"least": 34, "most": 34}
    assert main.run(["simulate", "--list"]) == 0
    out = capsys.readouterr().out
    assert "104 to 3004  300 " in out and "34 " in out


@pytest.mark.parametrize(
    ("option", "package"), [("--parquet", "pyarrow"), ("--plots", "matplotlib"), ("--fresh", "libcloud")]
)
def test_a_package_that_is_missing_is_said_before_anything_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    catalogue_rows.cache_clear()
    status, _, error = simulate(capsys, "quick.toml", "--out", "out", option)
    assert status == 1 and package in error and "pip install" in error
    assert not Path("out").exists()
