"""A guest's files on the host: its initial RAM disk, its disk, its console's log, and the kernel that guests share.

All lie where QEMU's own user can reach them, and are that user's; guest_record.py keeps the record beside them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hypervisor.embedded import QemuUser
from hypervisor.image import Image

CONSOLE_MAX_BYTES = 1 << 20  # a guest may write without end; the host keeps this much
CONSOLE_NAME = "console.log"
INITRD_NAME = "initrd"
DISK_NAME = "disk.raw"
SAVED_NAME = "saved"


class GuestFiles:
    """The files of one guest in `folder`, for QEMU's `user`."""

    def __init__(self, folder: Path, user: QemuUser) -> None:
        self._user = user
        self.initrd = folder / INITRD_NAME
        self.disk = folder / DISK_NAME
        self.saved = folder / SAVED_NAME
        self.console = folder / CONSOLE_NAME

    def make(self, initrd: bytes, disk_bytes: int) -> None:
        self._write(self.initrd, initrd)
        self._write(self.console, b"")
        if disk_bytes:
            self._write(self.disk, b"")
            os.truncate(self.disk, disk_bytes)

    def _write(self, path: Path, data: bytes) -> None:
        with path.open("wb") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(data)
            if os.geteuid() == 0:
                os.fchown(stream.fileno(), self._user.user_id, self._user.group_id)

    def read_console(self, max_bytes: int) -> bytes:
        """The last `max_bytes`, at most what the host keeps."""
        if max_bytes <= 0:
            return b""
        with self.console.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - min(max_bytes, CONSOLE_MAX_BYTES)))
            return stream.read()

    def cut_console(self) -> None:
        """Keep the later half of what the host keeps, once the guest wrote more than all of it."""
        with contextlib.suppress(FileNotFoundError):
            if self.console.stat().st_size > CONSOLE_MAX_BYTES:
                with self.console.open("r+b") as stream:
                    stream.seek(-CONSOLE_MAX_BYTES // 2, os.SEEK_END)
                    tail = stream.read()
                    stream.truncate(0)
                with self.console.open("ab") as stream:
                    stream.write(tail)

    def share_kernel(self, image: Image, folder: Path) -> Path:
        """The image's kernel in `folder`, which QEMU's user can reach, one for all guests; a link where possible."""
        target = folder / f"kernel-{image.manifest.kernel.sha256[:16]}"
        if not target.exists():
            fresh = self.initrd.with_name("kernel.new")  # this guest's own: several may start at once
            fresh.unlink(missing_ok=True)
            try:
                os.link(image.kernel_path, fresh)
            except OSError:
                fresh.write_bytes(image.kernel_path.read_bytes())
                fresh.chmod(0o644)
            fresh.replace(target)
            # Two names of one file replace nothing (POSIX), where another guest was here first.
            fresh.unlink(missing_ok=True)
        return target
