"""Upgrading a ledger: back up, migrate, and check that the books still balance. Only ever at the operator's word.

Decides the order and what a failure leaves: the backup is whole and on the disk before anything changes, and is never
removed. Leaves the migrations themselves to `migrations`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from xenonode.corp.books import Books
from xenonode.corp.database import SCHEMA_HEAD, open_database, stored_version, upgrade_database
from xenonode.corp.errors import FoundingError
from xenonode.corp.founding import LEDGER_FILE
from xenonode.corp.statements import audit_books
from xenonode.folder import StateFolder


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What an upgrade did; no backup where the ledger was at this program's version already."""

    before: str
    after: str
    backup: Path | None


def upgrade(folder: Path) -> Upgraded:
    """Bring the ledger in XenoCorp's folder to this program's version; XenoCorp must not run. Raises XenoError."""
    path = folder / LEDGER_FILE
    if not path.is_file():
        raise FoundingError(f"there is no ledger at {path}", "run: xenonode corp init")
    with StateFolder(folder).lock():
        before = stored_version(path)
        if before is not None and before >= SCHEMA_HEAD:
            open_database(path).close()  # refuses a newer one in its own words
            return Upgraded(before, before, None)
        named = before or "none"
        backup = path.with_name(f"{path.name}.before-upgrade-of-{named}")
        _back_up(path, backup)
        upgrade_database(path)
        _check(path, backup)
        return Upgraded(named, SCHEMA_HEAD, backup)


def _back_up(path: Path, backup: Path) -> None:
    try:
        os.close(os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise FoundingError(f"{backup} exists; a backup is never overwritten", "move it elsewhere") from None
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    for each in (backup, backup.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check(path: Path, backup: Path) -> None:
    database = open_database(path)
    try:
        report = audit_books(Books(database.connection))
    finally:
        database.close()
    if report.faults:
        text = f"after the upgrade the books do not balance: {report.faults[0]}"
        raise FoundingError(text, f"put {backup} back in the place of {path}, and report this")
