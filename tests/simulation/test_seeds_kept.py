"""A thousand seeds are run with interruptions: what is finished is kept, and what broke can be run again."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from scripts.seeds import pool
from scripts.seeds.kept import Kept, Replay
from scripts.seeds.pool import Job, Outcome
from xenonode.simulation.faults import Injection
from xenonode.simulation.scenario import ScenarioError

LOSS = Injection("loss", 1_000, 2_000, ("server-1",), {"loss_ppm": 500_000}).to_fields()
HELD = Outcome(3, "aa", 600.0, 9.5, 100, 5, "", {"loss": 4}, [LOSS])
BROKE = replace(HELD, seed=4, broken="money is conserved: it is not")
DIED = Outcome(4, "", 0.0, 0.0, 0, 0, "its process failed: status -9: ")


def test_finished_seeds_are_kept_for_the_same_code_alone(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "new" / "folder", "1")
    kept.keep(HELD)
    kept.keep(replace(HELD, hash_seed="1"))
    jobs = [Job("full", 3), Job("full", 3, "1"), Job("full", 4), Job("small", 3)]
    assert [one.job for one in Kept(kept.folder, "1").outcomes(jobs)] == jobs[:2]
    assert Kept(kept.folder, "1").outcomes(jobs[:1]) == [HELD]
    assert Kept(kept.folder, "2").outcomes(jobs) == []


def test_what_was_cut_off_while_it_was_written_is_run_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "1")
    kept.keep(HELD)
    path = tmp_path / "full-3-0.json"
    path.write_text(path.read_text()[:-10])
    assert kept.outcomes([Job("full", 3)]) == []


def test_a_broken_seed_leaves_a_replay_until_it_holds(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "1")
    kept.keep(HELD)
    kept.keep(BROKE)
    path = kept.replay_of(BROKE)
    assert [one.name for one in tmp_path.glob("broken-*")] == [path.name]
    assert Replay.read(path) == Replay(Job("full", 4), (Injection.from_fields(LOSS),))
    assert Replay.read(kept.write_shrunk(BROKE, ())).injections == ()
    kept.keep(replace(BROKE, broken=""))
    assert not path.exists()


def test_what_broke_under_another_hash_seed_is_replayed_under_that(tmp_path: Path) -> None:
    kept, elsewhere = Kept(tmp_path, "1"), replace(BROKE, hash_seed="4711")
    kept.keep(elsewhere)
    kept.keep(replace(BROKE, broken=""))
    assert Replay.read(kept.replay_of(elsewhere)).job == Job("full", 4, "4711")
    assert Replay.read(kept.write_shrunk(elsewhere, ())).job == Job("full", 4, "4711")
    kept.keep(replace(elsewhere, broken=""))
    assert not kept.replay_of(elsewhere).exists()


def test_a_seed_whose_process_died_is_run_again_and_replayed_with_its_own_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, kept, jobs = _script(), Kept(tmp_path, "1"), [Job("full", 4), Job("full", 4, "1")]
    ran: list[tuple[Job, tuple[str, ...]]] = []

    def killed(job: Job, *chosen: str) -> Outcome:
        ran.append((job, chosen))
        return DIED if job == jobs[0] else replace(HELD, seed=4, hash_seed="1")

    monkeypatch.setattr(pool, "run_one", killed)
    monkeypatch.setattr(script, "run_one", killed)
    assert script.run_all(jobs, 1, kept, fresh=False, shrinking=True) == 1
    told = capsys.readouterr().out
    assert "not repeatable" not in told and "these faults" not in told and "with 0 faults" not in told
    assert [one.job for one in kept.outcomes(jobs)] == jobs[1:]
    assert script.run_all(jobs, 1, kept, fresh=False, shrinking=False) == 1
    assert script.replay(Replay.read(kept.replay_of(DIED))) == 1
    assert ran == [(jobs[0], ()), (jobs[1], ()), (jobs[0], ()), (jobs[0], ())]


def test_a_replay_from_before_hash_seeds_stood_in_it_is_one_still(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"size": "full", "seed": 1, "faults": []}')
    assert Replay.read(tmp_path / "file") == Replay(Job("full", 1), ())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"size": "huge", "seed": 1, "faults": []}', '{"size": "full", "seed": "1", "faults": []}',
     '{"size": "full", "seed": 1, "faults": [{}]}', '{"size": "full", "seed": 1, "hash_seed": 7, "faults": []}',
     '{"size": "full", "seed": 1}', "[" * 100_000],
)  # fmt: skip
def test_a_file_that_is_no_replay_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ScenarioError):
        Replay.read(tmp_path / "file")


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioError, match="cannot be made"):
        Kept(tmp_path / "file" / "below", "1")


def test_who_is_interrupted_goes_on_with_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = _script()
    jobs = [Job("full", seed) for seed in range(4)]
    ran: list[int] = []
    kept = Kept(tmp_path, "1")

    def interrupted(job: Job) -> Outcome:
        if job.seed == 2 and not ran.count(2):
            ran.append(2)
            raise KeyboardInterrupt
        ran.append(job.seed)
        return replace(HELD, seed=job.seed)

    monkeypatch.setattr(pool, "run_one", interrupted)
    assert script.run_all(jobs, 1, kept, fresh=False, shrinking=False) == 130
    assert "the same command goes on" in capsys.readouterr().out
    assert [one.seed for one in kept.outcomes(jobs)][:2] == [0, 1]
    assert script.run_all(jobs, 1, kept, fresh=False, shrinking=False) == 0
    assert sorted(set(ran)) == [0, 1, 2, 3]
    assert ran.count(0) == ran.count(1) == 1


def _script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("simulate_seeds", str(pool.ROOT / "scripts" / "simulate_seeds"))
    spec = importlib.util.spec_from_loader("simulate_seeds", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
