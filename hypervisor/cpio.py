"""newc archives, as the kernel unpacks them: the guest's initramfs, and the small one appended for each guest.

The kernel unpacks archives one after another, later files winning, so a guest's keys, name and address are
put in without touching the shared image. Source: Linux Documentation/driver-api/early-userspace/buffer-format.
Output is reproducible: no times, no owners but root, entries in the order given.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

from hypervisor.errors import InvalidSpecError

# Bounds of what a guest's injected archive may hold; the fields themselves are 32-bit.
PATH_MAX_CHARS = 255
FILE_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One path in an archive; `mode` carries the file's type as in stat."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if (
            not self.path
            or len(self.path) > PATH_MAX_CHARS
            or "\0" in self.path
            or any(p in ("", ".", "..") for p in parts)
        ):
            raise InvalidSpecError(f"{self.path!r} cannot be a path in an archive", "use a relative path without dots")
        if len(self.data) > FILE_MAX_BYTES:
            raise InvalidSpecError(f"{self.path} is too large", f"at most {FILE_MAX_BYTES} bytes")


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, data)


def directory(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, stat.S_IFDIR | mode)


def symlink(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(path, stat.S_IFCHR | mode, b"", (major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """A whole archive with its trailer, padded to 512 bytes so that another may follow."""
    parts = [
        _record(number, entry.path, entry.mode, entry.data, entry.device) for number, entry in enumerate(entries, 1)
    ]
    parts.append(_record(0, "TRAILER!!!", 0, b"", (0, 0)))
    whole = b"".join(parts)
    return whole + bytes(-len(whole) % 512)


def _record(inode: int, path: str, mode: int, data: bytes, device: tuple[int, int]) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
