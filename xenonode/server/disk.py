"""The few things that the journal and the audit log ask of a disk, and the real disk that does them.

Decides what durable means: `append` and `replace` return only once the bytes would survive a loss of power.
Tests and the simulator put a disk in its place that tears writes and loses what was not flushed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from xenonode.server.errors import LocalError, NotKeptError

FILE_MODE = 0o600
_NO_FILES = (".new", ".lock")
"""Endings of half-made replacements and of what is held: neither holds anything that somebody wrote."""


class Disk(Protocol):
    """A folder of files, each known by a plain name."""

    def read(self, name: str) -> bytes:
        """The whole file; empty where there is none."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Add to the file's end, durably. After a crash any part of `data`'s beginning may be there."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Put `data` in the place of the file, durably: after a crash there is the old one or the new."""
        ...

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away, if it is there; after a crash it may be back."""
        ...

    def hold(self, name: str, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Keep other processes from holding the same name until the end of the block, or of this process.

        Yields whether it is held: without `wait` it is not where another process holds it.
        """
        ...


class FolderDisk:
    """A real folder (implements Disk). It must exist; processes that share it `hold` what they write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes:
        """The whole file; empty where there is none."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return b""

    def append(self, name: str, data: bytes) -> None:
        """Add to the file's end, durably; a failed write is taken back as far as the disk allows."""
        path = self._path(name)
        new = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        try:
            before = os.fstat(handle).st_size
            try:
                _write_all(handle, data)
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)
        if new:
            self._flush_folder()

    def replace(self, name: str, data: bytes) -> None:
        """Put `data` in the place of the file, durably; a failed write leaves nothing that takes room."""
        path = self._path(name)
        fresh = path.with_name(path.name + ".new")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE)
            try:
                _write_all(handle, data)
                os.fsync(handle)
            finally:
                os.close(handle)
            fresh.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        self._flush_folder()

    def names(self) -> list[str]:
        """The names of all files, sorted; a half-made replacement is none."""
        return sorted(each.name for each in self._folder.iterdir() if each.is_file() and each.suffix not in _NO_FILES)

    def remove(self, name: str) -> None:
        """Take a file away, and what it was held by."""
        for path in (self._path(name), self._path(name + ".lock")):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """An flock, which the kernel ends with its process, however that ends."""
        handle = os.open(self._path(name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def _path(self, name: str) -> Path:
        if not name or "/" in name or name.startswith("."):
            raise LocalError(f"{name!r} is no plain file name")
        return self._folder / name

    def _flush_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What is written in here. Raises NotKeptError where the disk takes no writes."""
    try:
        yield
    except OSError as error:
        raise NotKeptError(error) from error


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
