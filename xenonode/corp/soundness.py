"""Whether a ledger's file still says what was written into it, before XenoCorp trusts it and while it does.

SQLite keeps no checksums of its pages, so a bit that rots on the disk is read as if it had been written. Decides what
every start looks at: SQLite's own structure (pages, trees, indexes, constraints), then the books themselves, recomputed
from their transfers. What neither can see is told in DECISIONS.rst. Leaves restoring to the operator: a damaged ledger
is never mended by guessing, and never written to again.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from xenonode.corp.books import Books
from xenonode.corp.errors import DamagedLedgerError
from xenonode.corp.statements import audit_books

CORRUPT, NOT_A_DATABASE = 11, 26
"""SQLite's result codes for a file that contradicts itself, and for one that is none."""


def is_damage(error: DBAPIError) -> bool:
    """Whether the database complains of its file's content, not of the disk or of the statement."""
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    # Python's own complaint of a text that is none has no code.
    return code in (CORRUPT, NOT_A_DATABASE) or "Could not decode to UTF-8" in str(error.orig)


def check_file(connection: Connection, path: str | Path) -> None:
    """Read the whole file as SQLite sees it. Raises DamagedLedgerError."""
    try:
        found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    except DBAPIError as error:
        raise DamagedLedgerError(path, str(error.orig)) from error
    finally:
        connection.rollback()
    if found != "ok":
        raise DamagedLedgerError(path, str(found))


def check_books(books: Books) -> None:
    """Recompute every balance and order from the transfers. Raises DamagedLedgerError."""
    try:
        report = audit_books(books)
    except DBAPIError as error:
        if is_damage(error):
            raise DamagedLedgerError("", str(error.orig)) from error
        raise  # the store knows what that means
    except Exception as error:  # what rotted may be anything: a kind that there is not, an order that is none
        raise DamagedLedgerError("", f"a record makes no sense: {error!r:.200}") from error
    if not report.balanced:
        raise DamagedLedgerError("", report.faults[0])
