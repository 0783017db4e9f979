"""The reaper takes in what libvirt's pid files name, guests and probes of QEMU alike, and nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from hypervisor import reaper


@pytest.mark.parametrize("name", ["run/qemu/xeno-a-b.pid", "lib/qemu/qmp-XYZ123/qmp.pid"])
def test_an_ended_process_that_a_pid_file_names_is_taken_in(tmp_path: Path, name: str) -> None:
    ended = subprocess.Popen(["true"])
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(f"{ended.pid}\n")
    (found,) = reaper._process_ids(tmp_path)
    assert found == ended.pid
    while not reaper._taken_in(found):
        time.sleep(0.01)
    with pytest.raises(ChildProcessError):
        os.waitpid(ended.pid, os.WNOHANG)


def test_other_files_name_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "qemu"
    folder.mkdir(parents=True)
    (folder / "driver.pid").write_text("1")
    (folder / "xeno-half.pid").write_text("")
    assert reaper._process_ids(tmp_path) == set()
