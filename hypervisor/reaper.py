"""Takes in QEMU processes that have ended, on machines whose first process does not.

libvirt starts QEMU as a daemon, and waits until an ended one is gone for good; in a container without a proper
init that never happens by itself, and ending a guest takes seconds. As a "child subreaper" our process becomes
the parent of those it started, and takes in exactly those that libvirt's pid files name: guests, and the two
processes by which it asks QEMU what it can do (without that, each was waited for 40 s).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
PERIOD_S = 0.1


def start_reaping(folder: Path) -> None:
    """Watch the pid files of one embedded driver from a thread of its own."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        return
    threading.Thread(target=_loop, args=(folder,), name="reaper", daemon=True).start()


def _loop(folder: Path) -> None:
    known: set[int] = set()
    while True:
        known |= _process_ids(folder)
        known = {process_id for process_id in known if not _taken_in(process_id)}
        time.sleep(PERIOD_S)


def _taken_in(process_id: int) -> bool:
    """Whether a process has ended and was taken in, or never was ours."""
    try:
        return os.waitpid(process_id, os.WNOHANG)[0] == process_id
    except ChildProcessError:
        return True


def _process_ids(folder: Path) -> set[int]:
    found = set()
    for path in [*folder.glob("run/qemu/xeno-*.pid"), *folder.glob("lib/qemu/qmp-*/qmp.pid")]:
        try:
            found.add(int(path.read_text("ascii")))
        except (OSError, ValueError):
            continue  # just being written, or just gone: the next round sees it
    return found
