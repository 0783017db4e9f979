"""The files beneath SQLite: what was written, what of it was flushed, and what is left when the power fails.

Decides what a disk may do between two flushes: of the writes since, any may be there and any not, in no order that
SQLite may rely on, and one of them half. What was flushed stays. Leaves journals and recovery to SQLite, whose own they
are. Files are opened anew after each loss of power; what a former life still writes goes nowhere.
Source: SQLite's "Atomic Commit In SQLite", section 3 (hardware assumptions), and its VFS interface, through apsw.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import apsw

_NUMBERS = itertools.count()  # SQLite finds a VFS by its name, in all of the process
SECTOR_BYTES = 512
"""A sector is written whole or not at all; a longer write may be torn between sectors."""


@dataclass(slots=True)
class _File:
    """One file: as its writers see it, and as it was at the last flush."""

    content: bytearray = field(default_factory=bytearray)
    flushed: bytes = b""
    since: list[tuple[int, bytes]] = field(default_factory=list)  # writes after the flush; (-1, b"") marks a truncation


@dataclass(slots=True)
class _Trap:
    """Power fails in the write after `writes` more."""

    writes: int
    power_off: Callable[[], None]


class LedgerDisk:
    """Files by name, and the VFS under which SQLite finds them."""

    def __init__(self, rng: Random) -> None:
        self._files: dict[str, _File] = {}
        self._rng = rng
        self.life = 0
        self.trap: _Trap | None = None
        self.full = False
        self.refused = self.writes = self.flushes = self.lost_writes = self.torn_writes = 0
        self._lives: list[_Vfs] = []  # SQLite may still close files of former ones
        self.vfs = self._begin_life()
        self.driver: Any = None

    def open(self, name: str) -> _File:
        """The file, made if need be."""
        return self._files.setdefault(name, _File())

    def exists(self, name: str) -> bool:
        """Whether there is one."""
        return name in self._files

    def delete(self, name: str) -> None:
        """Take a file away; a directory's flush is taken for granted."""
        self._files.pop(name, None)

    def set_trap(self, writes: int, power_off: Callable[[], None]) -> None:
        """Let the power fail in the write after so many more."""
        self.trap = _Trap(writes, power_off)

    def lose_power(self) -> None:
        """Forget what no flush made durable, or rather: keep of it what chance keeps."""
        self.life += 1
        self.vfs, self.trap = self._begin_life(), None
        for name in sorted(self._files):
            file = self._files[name]
            left = bytearray(file.flushed)
            for offset, data in file.since:
                fate = self._rng.random()
                if offset < 0 or fate < 0.4:
                    self.lost_writes += 1
                    continue
                if fate < 0.6 and len(data) > SECTOR_BYTES:
                    data = data[: SECTOR_BYTES * self._rng.randrange(1, -(-len(data) // SECTOR_BYTES))]
                    self.torn_writes += 1
                _put(left, offset, data)
            file.content, file.flushed, file.since = left, bytes(left), []

    def copy(self) -> dict[str, bytes]:
        """A backup of every file, as a program would read it."""
        return {name: bytes(file.content) for name, file in self._files.items()}

    def restore(self, files: dict[str, bytes]) -> None:
        """Put a backup back, in the place of what is there. To be done while nobody has a file open."""
        self._files = {name: _File(bytearray(data), data) for name, data in files.items()}

    def rot(self, name: str, bit: int) -> bool:
        """Let one bit of a file flip; False where it has none."""
        file = self._files.get(name)
        if file is None or not file.content:
            return False
        at = bit // 8 % len(file.content)
        file.content[at] ^= 1 << bit % 8
        file.flushed, file.since = bytes(file.content), []
        return True

    def _begin_life(self) -> _Vfs:
        self._lives.append(_Vfs(self, f"simulated disk {next(_NUMBERS)}", self.life))
        return self._lives[-1]

    def write(self, file: _File, offset: int, data: bytes, life: int) -> None:
        """One write of SQLite's."""
        if life != self.life:
            return
        if self.full:
            self.refused += 1
            raise apsw.FullError("no space left on the simulated disk")
        self.writes += 1
        file.since.append((offset, data))
        _put(file.content, offset, data)
        if self.trap is not None:
            self.trap.writes -= 1
            if self.trap.writes < 0:
                trap, self.trap = self.trap, None
                trap.power_off()
                raise apsw.IOError("the power failed")

    def truncate(self, file: _File, size: int, life: int) -> None:
        """Cut a file; whether the cut was durable, chance says like of a write."""
        if life == self.life:
            del file.content[size:]
            file.since.append((-1, b""))

    def flush(self, file: _File, life: int) -> None:
        """Make a file's content durable."""
        if life != self.life:
            return
        self.flushes += 1
        file.flushed, file.since = bytes(file.content), []


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class _Vfs(apsw.VFS):
    """Where SQLite opens files, in one life of the machine."""

    def __init__(self, disk: LedgerDisk, name: str, life: int) -> None:
        self._disk, self.name, self._life = disk, name, life
        super().__init__(name, "")

    def xAccess(self, pathname: str, flags: int) -> bool:
        return self._disk.exists(pathname)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if self._life == self._disk.life:
            self._disk.delete(filename)

    def xFullPathname(self, name: str) -> str:
        return name

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        text = name.filename() if isinstance(name, apsw.URIFilename) else (name or "temporary")
        flags[1] = flags[0]
        return _Handle(self._disk, self._disk.open(text))


class _Handle:
    """One open file. SQLite is alone with it, so that locks need nothing."""

    def __init__(self, disk: LedgerDisk, file: _File) -> None:
        self._disk, self._file, self._life = disk, file, disk.life

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._file.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.write(self._file, offset, bytes(data), self._life)

    def xTruncate(self, size: int) -> None:
        self._disk.truncate(self._file, size, self._life)

    def xSync(self, flags: int) -> None:
        self._disk.flush(self._file, self._life)

    def xFileSize(self) -> int:
        return len(self._file.content)

    def xClose(self) -> None:
        """Nothing is kept open."""

    def xLock(self, level: int) -> None:
        """Nobody else is there."""

    def xUnlock(self, level: int) -> None:
        """Nobody else is there."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return 0
