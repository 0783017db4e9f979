"""The few things that the journal and the audit log ask of a disk, and the real disk that does them.

Decides what durable means: `append` and `replace` return only once the bytes would survive a loss of power.
Tests and the simulator put a disk in its place that tears writes and loses what was not flushed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from xenonode.server.errors import LocalError

FILE_MODE = 0o600


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


class FolderDisk:
    """A real folder (implements Disk). It must exist, and one process at a time must use it."""

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
        """Put `data` in the place of the file, durably."""
        path = self._path(name)
        fresh = path.with_name(path.name + ".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE)
        try:
            _write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        fresh.replace(path)
        self._flush_folder()

    def names(self) -> list[str]:
        """The names of all files, sorted; a half-made replacement is none."""
        return sorted(each.name for each in self._folder.iterdir() if each.is_file() and each.suffix != ".new")

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


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
