"""XenoCorp's ledger rots while it is down: what its start sees is restored, and the platform goes on with its money."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest

from xenonode.corp.errors import DamagedLedgerError
from xenonode.errors import XenoError
from xenonode.simulation.experiment import run
from xenonode.simulation.faults import Injection
from xenonode.simulation.ledger.files import LedgerDisk
from xenonode.simulation.scenario_file import load
from xenonode.simulation.stand import needs_ledger_disk
from xenonode.simulation.world import CorpHost

WORLD = """
duration_s = 60
[nodes]
servers = 4
clients = 1
[workload]
queries_per_s = 0.1
sessions_per_s = 0.05
session_mean_s = 10
[checks]
quiet_s = 60
"""
ROT = """
[[fault]]
kind = "ledger_bit_rot"
at_s = 30
for_s = 5
"""


def test_a_ledger_that_rotted_is_noticed_and_a_backup_put_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    opening = CorpHost._open_ledger

    def noted(host: CorpHost) -> object:
        try:
            return opening(host)
        except DamagedLedgerError as error:
            seen.append(error.message)
            raise

    def in_many_places(disk: LedgerDisk, name: str, bit: int) -> bool:
        rng = Random(bit)
        return all(flip(disk, name, rng.getrandbits(31)) for _ in range(400))

    flip = LedgerDisk.rot
    monkeypatch.setattr(CorpHost, "_open_ledger", noted)
    monkeypatch.setattr(LedgerDisk, "rot", in_many_places)
    path = tmp_path / "rot.toml"
    path.write_text(WORLD + ROT, encoding="utf-8")
    result = run(load(path), 1)
    assert result.verdict.passed, result.verdict
    assert result.fault_kinds == [{"kind": "ledger_bit_rot", "planned": 1, "struck": 1, "bit": 1}]
    assert len(seen) == 1 and "is damaged" in seen[0]


def test_a_replay_of_what_befell_the_ledger_finds_one_on_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "calm.toml"
    path.write_text(WORLD, encoding="utf-8")
    result = run(load(path), 1, injections=[Injection("disk_full", 20_000, 30_000, ("corp",))])
    assert result.verdict.passed, result.verdict
    assert result.fault_kinds[0]["bit"] > 0


def test_without_apsw_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xenonode.simulation.ledger", None)  # as if apsw were not installed
    path = tmp_path / "rot.toml"
    path.write_text(WORLD + ROT, encoding="utf-8")
    with pytest.raises(XenoError, match="apsw") as caught:
        needs_ledger_disk(load(path))
    assert "pip install" in caught.value.next_step
