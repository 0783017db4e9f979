"""Prepares a root folder for libvirt's embedded QEMU driver, so that eight servers on one machine start cheaply.

* The folder must be passable for the user that QEMU runs as; if it is not (a home folder, say), the guests'
  folder is kept beside the machine's other state and the root folder points to it.
* libvirt asks QEMU what it can do, which takes 2-6 s of CPU. The answer is shared between root folders, under a
  lock, so that one of eight servers that start together asks and the others read.
* Where a processor has no virtualisation but /dev/kvm exists, libvirt believes its answer outdated each time it
  looks and asks anew for every guest. This process then hides /dev/kvm from itself and its guests (in a mount
  namespace of its own): they run under emulation anyway.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypervisor.errors import PrivilegeError, RemoteError

QEMU_USER = "libvirt-qemu"
_MACHINE_STATE = Path("/var/lib/xenonode")
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 4096, 0x4000, 1 << 18
LOCK_WAIT_S = 15.0  # a killed server's process may still be finishing a call
LEARN_WAIT_S = 150.0
"""On a fresh machine the first of eight servers asks QEMU what it can do, under the load of the other seven: that
was seen to take 20 s on two cores; a slow disk doubles it more than once."""
_QEMU_CONF = """user = "{user}"
group = "{group}"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
stdio_handler = "file"
"""


@dataclass(frozen=True, slots=True)
class QemuUser:
    """Who QEMU runs as, and whom its files must belong to."""

    user_id: int
    group_id: int


def qemu_user(name: str | None = None) -> QemuUser:
    """The user of this name (default libvirt's own) when we are root, else ourselves."""
    if os.geteuid() != 0:
        return QemuUser(os.geteuid(), os.getegid())
    name = name or QEMU_USER
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise PrivilegeError(
            f"there is no user {name} for guests to run as",
            f"groupadd -rf kvm && useradd -r -g kvm {name} (scripts/lib/system_packages does it)",
        ) from None
    return QemuUser(entry.pw_uid, entry.pw_gid)


def guests_folder(root: Path, user: QemuUser) -> Path:
    """Where everything of the guests lives: `root`/hypervisor, or a machine folder when QEMU cannot pass `root`."""
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    inside = root.resolve() / "hypervisor"
    if inside.is_symlink():
        outside = inside.resolve()
        outside.mkdir(mode=0o711, parents=True, exist_ok=True)  # gone, or not here yet: a backup on another machine
        return outside
    if inside.is_dir() or _passable(root.resolve(), user):
        inside.mkdir(mode=0o711, exist_ok=True)
        return inside
    outside = _MACHINE_STATE / f"hypervisor-{owner_tag(root)}"
    outside.mkdir(mode=0o711, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        inside.symlink_to(outside)
    return outside


def owner_tag(root: Path) -> str:
    """Eight hex digits that tell this root folder's guests from everybody else's."""
    return hashlib.sha256(b"xeno-owner" + os.fsencode(root.resolve())).hexdigest()[:8]


def write_configuration(folder: Path, user: QemuUser) -> None:
    """qemu.conf of the embedded driver."""
    configuration = folder / "etc"
    configuration.mkdir(mode=0o755, exist_ok=True)
    text = _QEMU_CONF.format(user=f"+{user.user_id}", group=f"+{user.group_id}")
    if os.geteuid() != 0:
        text = 'security_driver = "none"\nstdio_handler = "file"\n'
    (configuration / "qemu.conf").write_text(text, "utf-8")


def has_virtualisation(cpuinfo: str) -> bool:
    """Whether the processor can run guests itself (Intel's vmx or AMD's svm)."""
    flags = {flag for line in cpuinfo.splitlines() if line.startswith("flags") for flag in line.split()}
    return bool(flags & {"vmx", "svm"})


def hide_kvm(folder: Path) -> bool:
    """Put a file that nobody may open over /dev/kvm, for this process and its children only."""
    if os.geteuid() != 0 or not Path("/dev/kvm").exists():
        return False
    cover = folder / "no-kvm"
    cover.touch()
    cover.chmod(0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    return bool(libc.mount(os.fsencode(cover), b"/dev/kvm", None, _MS_BIND, None) == 0)


@contextlib.contextmanager
def locked(path: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold a lock file, waiting for another process that holds it a bounded time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RemoteError(
                        f"{path} is held by another process", "end the other server of this folder"
                    ) from None
                time.sleep(0.05)
        yield


def take_capabilities(shared: Path, folder: Path) -> bool:
    """Copy what another server learned of QEMU into this folder; whether there was anything."""
    return _copy_all(shared, _capabilities(folder))


def give_capabilities(shared: Path, folder: Path) -> None:
    shared.mkdir(mode=0o755, parents=True, exist_ok=True)
    _copy_all(_capabilities(folder), shared)


def _capabilities(folder: Path) -> Path:
    return folder / "cache" / "qemu" / "capabilities"


def _copy_all(source: Path, target: Path) -> bool:
    paths = sorted(source.glob("*.xml"))
    for path in paths:
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = target / f"{path.name}.new"
        shutil.copyfile(path, fresh)
        fresh.replace(target / path.name)
    return bool(paths)


def _passable(folder: Path, user: QemuUser) -> bool:
    """Whether the user may pass through a folder and all above it."""
    for step in (folder, *folder.parents):
        status = step.stat()
        if user.user_id == status.st_uid:
            allowed = stat.S_IXUSR
        elif user.group_id == status.st_gid:
            allowed = stat.S_IXGRP
        else:
            allowed = stat.S_IXOTH
        if user.user_id != 0 and not status.st_mode & allowed:
            return False
    return True
