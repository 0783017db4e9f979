"""Saved searches survive, combine as sets, and are named precisely when one is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from summaries.idset import IdSet
from xenonode.client.saved import Saved
from xenonode.errors import XenoError
from xenonode.server.disk import FolderDisk

ids = st.frozensets(st.integers(0, 2**64 - 1), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(ids, ids)
def test_sets_combine_as_sets_do(tmp_path: Path, a: frozenset[int], b: frozenset[int]) -> None:
    saved = Saved(FolderDisk(tmp_path))
    saved.keep("a", "cores >= 1", IdSet(a), True, 1)
    saved.keep("b", "cores >= 2", IdSet(b), False, 2)
    assert set(saved.combine("union", "a", "b")[0]) == a | b == set(saved.union(["a", "b"]))
    assert set(saved.combine("intersection", "a", "b")[0]) == a & b == set(saved.intersection(["a", "b"]) or ())
    assert saved.combine("difference", "a", "b") == (IdSet(a - b), False)
    assert saved.intersection([]) is None and not saved.union([])


def test_what_is_saved_is_found_by_another_process_and_can_be_removed(tmp_path: Path) -> None:
    kept = Saved(FolderDisk(tmp_path)).keep("cheap-ones", "price.cpu <= 0.1 USD/h", IdSet([3, 1]), True, 7)
    again = Saved(FolderDisk(tmp_path))
    assert again.find("cheap-ones") == kept and again.names() == ["cheap-ones"]
    with pytest.raises(XenoError) as refused:
        again.find("cheap-one")
    assert refused.value.next_step == "did you mean cheap-ones?"
    again.remove("cheap-ones")
    assert again.names() == []
    for wrong in ("", "../x", "A", "x" * 33):
        with pytest.raises(XenoError):
            again.keep(wrong, "", IdSet(), True, 1)


def test_a_damaged_file_is_told_as_such(tmp_path: Path) -> None:
    disk = FolderDisk(tmp_path)
    disk.replace("saved-x", b"junk")
    with pytest.raises(XenoError, match="damaged"):
        Saved(disk).find("x")
