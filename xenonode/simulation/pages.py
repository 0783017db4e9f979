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

VARIABLES = {
    # Python's own arenas are smaller than a large page, and nobody can ask for others.
    "PYTHONMALLOC": "malloc",
    # Where the kernel says "madvise", the default, pages are large for those who ask.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
GLIBC_LEAST = (2, 35)


def have_effect() -> bool:
    """Whether this system's C library knows how to ask for them."""
    name, version = platform.libc_ver()
    parts = version.split(".")
    return name == "glibc" and all(part.isdecimal() for part in parts) and tuple(map(int, parts)) >= GLIBC_LEAST


def environment(**others: str) -> dict[str, str]:
    """The environment of a process that is to hold a world: ours, with these others in it."""
    return {**(VARIABLES if have_effect() else {}), **os.environ, **others}


@contextlib.contextmanager
def inherited() -> Iterator[None]:
    """Processes that are begun meanwhile have it."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(environment())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def begin_again_with() -> None:
    """For a program that holds worlds itself, before it does anything: if it was begun without, begin it anew."""
    wanted = environment()
    if any(os.environ.get(name) != wanted.get(name) for name in VARIABLES):
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)


if __name__ == "__main__":
    # For shells: env $(python -m xenonode.simulation.pages) jupyter lab
    print(*(f"{name}={value}" for name, value in environment().items() if name in VARIABLES))
