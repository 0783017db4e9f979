"""Work done in a copy of this process: the operating system's fork is the snapshot.

Decides how a result or a failure comes back. A fork copies page tables and no pages, so a world of thousands of nodes
branches in milliseconds, and what the branch does to its world is gone with it.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

from xenonode.simulation.errors import BranchError

T = TypeVar("T")


class Branch(Generic[T]):
    """Work that was begun in a child process."""

    def __init__(self, work: Callable[[], T]) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the child would write what waits here once more
        receiving, sending = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(receiving)
            _work_and_tell(work, sending)
        os.close(sending)
        self._pipe: int | None = receiving

    def result(self) -> T:
        """Wait for what the work returned; BranchError with the branch's own traceback when it failed. Ask once."""
        if self._pipe is None:
            raise BranchError("a branch tells its result once")
        with os.fdopen(self._pipe, "rb") as pipe:
            self._pipe = None
            told = pipe.read()
        _, status = os.waitpid(self._child, 0)
        if not told:
            raise BranchError(f"the branch ended with status {os.waitstatus_to_exitcode(status)} and without a word")
        good, value = pickle.loads(told)  # from our own child, over a pipe that nobody else has
        if not good:
            raise BranchError(f"the branch failed:\n{value}")
        result: T = value
        return result


def _work_and_tell(work: Callable[[], T], sending: int) -> None:
    """The child's life: it never returns into its parent's code."""
    try:
        gc.disable()  # a collection would touch, and so copy, every page of the world
        try:
            told = pickle.dumps((True, work()))
        except BaseException:
            told = pickle.dumps((False, traceback.format_exc()))
        with os.fdopen(sending, "wb") as pipe:
            pipe.write(told)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(0)
