"""A role's state folder: where it is, who may read it, one process at a time, and files that are never half written.

Decides places and permissions; what stands in the files is their owners' business. Home of platformdirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from xenonode.errors import XenoError

SERVICE_FOLDER = Path("/var/lib/xenonode")
FOLDER_MODE = 0o700
FILE_MODE = 0o600
_LOCK_NAME = "lock"


def default_folder(role: str) -> Path:
    """Where a role keeps its state: a root service under /var/lib, everybody else under the XDG state folder."""
    if role != "client" and os.geteuid() == 0:
        return SERVICE_FOLDER / role
    return Path(platformdirs.user_state_path("xenonode")) / role


def default_config(role: str) -> Path:
    """Where a role's configuration file is looked for when none is named."""
    if role != "client" and os.geteuid() == 0:
        return Path("/etc/xenonode") / f"{role}.toml"
    return Path(platformdirs.user_config_path("xenonode")) / f"{role}.toml"


class StateFolder:
    """A folder of mode 0700 that belongs to this user; `lock()` while working in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> StateFolder:
        """Create the folder if it is absent; refuse one that others may enter or that belongs to somebody else."""
        try:
            self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            found = self.path.stat()
        except OSError as error:
            raise XenoError(
                f"state folder {self.path} cannot be used: {error.strerror}",
                "choose another with folder = \"...\" in the configuration, or XENONODE_FOLDER",
                "folder",
            ) from error
        if found.st_uid != os.geteuid():
            raise XenoError(
                f"state folder {self.path} belongs to user {found.st_uid}, not to {os.geteuid()}",
                f"run as that user, or: chown -R {os.geteuid()} {self.path}",
                "folder",
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise XenoError(
                f"state folder {self.path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
                f"chmod 0700 {self.path}",
                "folder",
            )
        return self

    def file(self, *parts: str) -> Path:
        """A path inside the folder."""
        return self.path.joinpath(*parts)

    def subfolder(self, *parts: str) -> Path:
        """A folder inside the folder, created 0700."""
        path = self.path.joinpath(*parts)
        path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        return path

    def write(self, name: str, data: bytes, mode: int = FILE_MODE) -> Path:
        """Put a whole file in the folder: after a crash there is the old one or the new one, never a part."""
        path = self.path / name
        write_atomically(path, data, mode)
        return path

    @contextlib.contextmanager
    def lock(self, name: str = _LOCK_NAME) -> Iterator[None]:
        """Hold the folder until the process ends, however it ends. Raises XenoError naming the holder."""
        self.prepare()
        handle = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                pid = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise XenoError(
                    f"state folder {self.path} is in use by process {pid}",
                    f"stop it first (kill {pid}), or choose another folder with XENONODE_FOLDER",
                    "locked",
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def holder(self, name: str = _LOCK_NAME) -> int | None:
        """The process that holds the folder now, if one does."""
        try:
            handle = os.open(self.path / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(handle, 20, 0).strip()
            return int(text) if text.isdigit() else None
        finally:
            os.close(handle)
        return None


def write_atomically(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Write beside, fsync, rename, fsync the folder. A second writer at the same time never mixes with the first."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
