"""Larger pages of memory for processes that hold worlds: 2 MiB instead of 4 KiB where the system has them.

Decides what such a process is begun with; Python and glibc read it at their start only. A world's nodes lie all over
its memory and each datagram wakes another one, so that with small pages the processor looks up addresses as much as it
computes: a third to two fifths of a run on a machine whose neighbours are busy, a twentieth on an idle one. Leaves
alone what whoever starts the command has chosen. Never changes what a run does: a trace is the same.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

VARIABLES = {
    # Python's own arenas are smaller than a large page, and nobody can ask for others.
    "PYTHONMALLOC": "malloc",
    # Where the kernel says "madvise", as distributions have it, pages are large for those who ask.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
GLIBC_LEAST = (2, 35)
OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def are_there() -> bool:
    """Whether this system has large pages, and its C library knows how to ask for them."""
    try:
        offered = "[never]" not in OFFERED.read_text()
    except OSError:
        return False
    name, version = platform.libc_ver()
    parts = version.split(".")
    known = name == "glibc" and all(part.isdecimal() for part in parts)
    return offered and known and tuple(map(int, parts)) >= GLIBC_LEAST


def wanted() -> dict[str, str]:
    """What a process that is to hold a world is begun with besides ours; nothing where the user chose any of it."""
    return VARIABLES if are_there() and not any(name in os.environ for name in VARIABLES) else {}


def environment(**others: str) -> dict[str, str]:
    """The environment of a process that is to hold a world: ours, with these others in it."""
    return {**os.environ, **wanted(), **others}


@contextlib.contextmanager
def inherited() -> Iterator[None]:
    """Processes that are begun meanwhile have it."""
    ours = wanted()
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def begin_again_with_large_pages() -> None:
    """For a program that holds worlds itself, before it does anything: if it was begun without, begin it anew."""
    if wanted():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment())


if __name__ == "__main__":
    # For shells: env $(python -m xenonode.simulation.pages) jupyter lab
    print(*(f"{name}={value}" for name, value in wanted().items()))
