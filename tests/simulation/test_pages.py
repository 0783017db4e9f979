"""Processes that hold worlds ask for large pages of memory, and get them where the system has any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.seeds import pool
from xenonode.simulation import pages

FILL = """
kept = [str(each) for each in range(1_000_000)]
rolled_up = open("/proc/self/smaps_rollup").read()
print(next(line.split()[1] for line in rolled_up.splitlines() if line.startswith("AnonHugePages")))
"""


def run(code: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in pages.VARIABLES:
        monkeypatch.delenv(name, raising=False)


needs_large_pages = pytest.mark.skipif(
    not pages.are_there(), reason="this system has no large pages for those who ask"
)


@needs_large_pages
def test_most_of_the_memory_of_such_a_process_is_large_pages() -> None:
    assert int(run(FILL, pages.environment())) > 32 * 1_024


@needs_large_pages
def test_processes_begun_meanwhile_inherit_it_and_later_ones_do_not() -> None:
    shown = "import os; print(os.environ.get('PYTHONMALLOC'))"
    with pages.inherited():
        assert run(shown) == "malloc"
    assert run(shown) == "None"


@pytest.mark.parametrize("chosen", list(pages.VARIABLES))
def test_where_the_user_has_chosen_nothing_is_added(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chosen, "mine")
    with pages.inherited():
        assert [name for name in pages.VARIABLES if name in os.environ] == [chosen]
    assert os.environ[chosen] == pages.environment(OTHER="1")[chosen] == "mine"
    assert pages.wanted() == {}


@needs_large_pages
def test_a_trace_is_the_same() -> None:
    code = (
        "import os; from xenonode.simulation.crowd import Crowd\n"
        "with Crowd(3, peers=12) as crowd:\n    crowd.run(crowd.begin())\n    print(crowd.trace.hexdigest())"
    )
    assert run(code) == run(code, pages.environment())


@needs_large_pages
def test_a_seed_is_begun_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}

    def begin(command: list[str], env: dict[str, str], **others: object) -> subprocess.CompletedProcess[str]:
        told.update(env)
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(pool.subprocess, "run", begin)
    assert pool.run_one(pool.Job("small", 1, "7")).broken
    assert pages.VARIABLES.items() < told.items() and told["PYTHONHASHSEED"] == "7"


@needs_large_pages
def test_a_program_begins_anew_once_with_its_arguments(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(
        "import os, sys\nfrom xenonode.simulation import pages\nprint('begins', flush=True)\n"
        "pages.begin_again_with_large_pages()\nprint(os.environ['PYTHONMALLOC'], *sys.argv[1:])\n"
    )
    command = [sys.executable, str(program), "a", "b c"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["begins", "begins", "malloc a b c", ""]


def test_what_is_not_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    monkeypatch.setattr(pages, "OFFERED", tmp_path / "enabled")
    monkeypatch.setattr(pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert pages.wanted() == pages.VARIABLES
    for told in (("glibc", "2.31"), ("", ""), ("musl", "1.2")):
        monkeypatch.setattr(pages.platform, "libc_ver", lambda told=told: told)
        assert pages.wanted() == {}
    monkeypatch.setattr(pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    assert pages.wanted() == {}
    (tmp_path / "enabled").unlink()
    assert pages.wanted() == {}
