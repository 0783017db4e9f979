"""Processes that hold worlds ask for large pages of memory, and get them where the system has any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xenonode.simulation import pages

OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
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
    not pages.have_effect() or not OFFERED.exists() or "[never]" in OFFERED.read_text(),
    reason="this system has no large pages for those who ask",
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


def test_what_the_user_has_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONMALLOC", "debug")
    with pages.inherited():
        assert os.environ["PYTHONMALLOC"] == pages.environment(OTHER="1")["PYTHONMALLOC"] == "debug"
    assert os.environ["PYTHONMALLOC"] == "debug"


@needs_large_pages
def test_a_program_begins_anew_once_with_its_arguments(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(
        "import os, sys\nfrom xenonode.simulation import pages\nprint('begins', flush=True)\n"
        "pages.begin_again_with()\nprint(os.environ['PYTHONMALLOC'], *sys.argv[1:])\n"
    )
    command = [sys.executable, str(program), "a", "b c"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["begins", "begins", "malloc a b c", ""]


def test_an_older_c_library_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for told in (("glibc", "2.31"), ("", ""), ("musl", "1.2")):
        monkeypatch.setattr(pages.platform, "libc_ver", lambda told=told: told)
        assert not pages.have_effect() and "PYTHONMALLOC" not in pages.environment()
