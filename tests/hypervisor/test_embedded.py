"""Where the guests' folder is: inside the root folder where QEMU may pass, and beside the machine's state otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hypervisor import embedded
from hypervisor.embedded import QemuUser, guests_folder

NOBODY = QemuUser(65_534, 65_534)


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder below one that others may not enter, as a home folder is."""
    monkeypatch.setattr(embedded, "_MACHINE_STATE", tmp_path / "machine")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return home / "hypervisor"


def test_a_folder_that_qemu_may_not_pass_is_kept_outside_and_found_again(closed: Path) -> None:
    first = guests_folder(closed, NOBODY)
    assert first.is_dir() and first.parent.name == "machine"
    assert guests_folder(closed, NOBODY) == first


def test_an_outside_folder_that_was_removed_is_made_again(closed: Path) -> None:
    first = guests_folder(closed, NOBODY)
    shutil.rmtree(first.parent)
    assert guests_folder(closed, NOBODY) == first
    assert first.is_dir()
