"""As much of Python's database interface as SQLAlchemy's SQLite dialect uses, on apsw: its VFS can be ours.

Decides how apsw's errors and cursors look to SQLAlchemy. The standard library's module brings an SQLite of its own,
whose files nobody can put in place of; apsw brings another copy of the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apsw

from xenonode.simulation.ledger.files import LedgerDisk


class Warning(Exception):  # the names are PEP 249's
    """A warning."""


class Error(Exception):
    """Root of the errors."""

    sqlite_errorcode = 0


class InterfaceError(Error):
    """The driver was used wrongly."""


class DatabaseError(Error):
    """Whatever the database says."""


class DataError(DatabaseError):
    """A value out of range."""


class OperationalError(DatabaseError):
    """The disk, not the statement."""


class IntegrityError(DatabaseError):
    """A constraint."""


class InternalError(DatabaseError):
    """Not raised here."""


class ProgrammingError(DatabaseError):
    """A statement that is none."""


class NotSupportedError(DatabaseError):
    """Not raised here."""


class Driver:
    """Looks like a database module to SQLAlchemy; every connection is on one simulated disk."""

    paramstyle = "qmark"
    threadsafety = 1
    apilevel = "2.0"
    sqlite_version_info = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    sqlite_version = apsw.sqlite_lib_version()
    Warning, Error, InterfaceError, DatabaseError, DataError = Warning, Error, InterfaceError, DatabaseError, DataError
    OperationalError, IntegrityError, InternalError = OperationalError, IntegrityError, InternalError
    ProgrammingError, NotSupportedError = ProgrammingError, NotSupportedError
    Binary = bytes

    def __init__(self, disk: LedgerDisk) -> None:
        self._disk = disk

    def connect(self, name: str, **options: Any) -> Connection:
        """Open a file; options are for other drivers. SQLite is its only user, and needs no shared memory."""
        opened = apsw.Connection(name, vfs=self._disk.vfs.name)
        list(opened.execute("PRAGMA locking_mode = EXCLUSIVE"))
        return Connection(opened)


class Connection:
    """One open database."""

    isolation_level = None

    def __init__(self, opened: apsw.Connection) -> None:
        self._opened = opened

    def cursor(self) -> Cursor:
        """For statements."""
        return Cursor(self._opened)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Cursor:
        """A statement on a cursor of its own."""
        return self.cursor().execute(statement, values)

    def create_function(self, name: str, count: int, function: Callable[..., Any], **options: Any) -> None:
        """Let statements call a function."""
        self._opened.create_scalar_function(name, function, count, **options)

    def commit(self) -> None:
        """End the transaction, if there is one."""
        if self._opened.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        if self._opened.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        self._opened.close(True)


class Cursor:
    """One statement after the other, each with all its rows at once."""

    arraysize = 1

    def __init__(self, opened: apsw.Connection) -> None:
        self._opened = opened
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self.description: tuple[Any, ...] | None = None
        self.rowcount, self.lastrowid = -1, 0

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Cursor:
        """Run it."""
        cursor = self._opened.cursor()
        self.description = None

        def begun(each: Any, text: str, bound: Any) -> bool:
            self.description = tuple((*column, None, None, None, None, None)[:7] for column in each.getdescription())
            return True

        cursor.exec_trace = begun
        before = self._opened.total_changes()
        try:
            self._rows = iter(list(cursor.execute(statement, tuple(values))))
        except apsw.Error as error:
            raise _translated(error) from error
        if not self.description:
            self.description = None
        changed = self._opened.total_changes() - before
        self.rowcount = self._opened.changes() if changed else (-1 if self.description else 0)
        self.lastrowid = self._opened.last_insert_rowid()
        return self

    def executemany(self, statement: str, many: Iterable[Sequence[Any]]) -> Cursor:
        """Run it for each of many."""
        total = 0
        for values in many:
            total += max(0, self.execute(statement, values).rowcount)
        self.rowcount = total
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""
        return next(self._rows, None)

    def fetchmany(self, count: int | None = None) -> list[tuple[Any, ...]]:
        """Some rows."""
        return [row for _, row in zip(range(count or self.arraysize), self._rows)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rest."""
        return list(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def close(self) -> None:
        """Nothing is kept."""
        self._rows = iter(())


def _translated(error: apsw.Error) -> Error:
    translated = _named(error)
    translated.sqlite_errorcode = getattr(error, "extendedresult", 0)
    return translated


def _named(error: apsw.Error) -> Error:
    if isinstance(error, apsw.ConstraintError):
        return IntegrityError(str(error))
    if isinstance(error, apsw.SQLError):
        return OperationalError(str(error))
    if isinstance(error, (apsw.IOError, apsw.FullError, apsw.BusyError, apsw.ReadOnlyError)):
        return OperationalError(str(error))
    return DatabaseError(str(error))
