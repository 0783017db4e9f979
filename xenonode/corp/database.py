"""One SQLite database file: how it is opened, which version it has, how it is brought to this program's.

SQLite runs with WAL, synchronous FULL and BEGIN IMMEDIATE, so that a commit that returned is on the disk (I8).
Upgrades are never implicit: `open_database` refuses an older schema and names the command to run.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from xenonode.corp.errors import DamagedLedgerError, FoundingError, SchemaVersionError
from xenonode.corp.soundness import check_file, is_damage

SCHEMA_HEAD = "0002"
"""The migration that this program's tables are at; a test compares it with the migrations themselves."""
MEMORY = ":memory:"
BUSY_MS = 5_000
"""How long to wait for another reader of the file, such as a backup tool."""
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {BUSY_MS}")


class Database:
    """An open database with one connection, which one thread at a time may use."""

    def __init__(self, engine: Engine, connection: Connection, lock: int | None) -> None:
        self.connection = connection
        self._engine = engine
        self._lock = lock

    def close(self) -> None:
        """Close the file and give up its lock."""
        self.connection.close()
        self._engine.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def create_database(path: str | Path) -> None:
    """Make a new database at this program's version; never over an existing one. Raises FoundingError."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise FoundingError(f"{path} exists; a ledger is never overwritten", "choose another folder") from None
    except OSError as error:
        raise FoundingError(f"cannot create {path}: {error.strerror}", "choose a folder of your own") from None
    upgrade_database(path)


def upgrade_database(path: str | Path) -> None:
    """Run every migration that the database lacks. Back it up first."""
    engine = _engine(str(path))
    try:
        with engine.connect() as connection:
            _migrate(connection)
    finally:
        engine.dispose()


def open_database(path: str | Path, *, exclusive: bool = True, driver: Any = None) -> Database:
    """Open a database of exactly this program's version; ":memory:" is created on the spot.

    `exclusive` takes a lock beside the file, so that two XenoCorps never write one ledger. A simulation, whose
    crashed nodes close nothing, leaves it out, and may bring a `driver` (a database module) with files of its own.
    Raises SchemaVersionError, FoundingError or DamagedLedgerError.
    """
    in_memory = str(path) == MEMORY
    if not in_memory and driver is None and not Path(path).is_file():
        raise FoundingError(f"there is no ledger at {path}", "run: xenonode corp init")
    lock = _take_lock(Path(path)) if exclusive and not in_memory else None
    engine = _engine(str(path), driver)
    try:
        connection = engine.connect()
        if in_memory or (driver is not None and version(connection) is None):
            _migrate(connection)
        _check_version(connection, path)
        if not in_memory:
            check_file(connection, path)
    except BaseException as error:
        engine.dispose()
        if lock is not None:
            os.close(lock)
        if isinstance(error, DBAPIError) and is_damage(error):
            raise DamagedLedgerError(path, str(error.orig)) from error
        if isinstance(error, UnicodeDecodeError):  # in one of its own words
            raise DamagedLedgerError(path, str(error)) from error
        raise
    return Database(engine, connection, lock)


def version(connection: Connection) -> str | None:
    """The migration that a database is at; None when it has none of our tables."""
    if not inspect(connection).has_table("alembic_version"):
        connection.rollback()
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    connection.rollback()
    return str(found) if found is not None else None


def stored_version(path: Path) -> str | None:
    """The migration that a database file is at."""
    engine = _engine(str(path))
    try:
        with engine.connect() as connection:
            return version(connection)
    except DBAPIError as error:
        if is_damage(error):
            raise DamagedLedgerError(path, str(error.orig)) from error
        raise
    finally:
        engine.dispose()


def _check_version(connection: Connection, path: str | Path) -> None:
    found = version(connection)
    if found == SCHEMA_HEAD:
        return
    if found is None or found < SCHEMA_HEAD:
        raise SchemaVersionError(
            f"the ledger {path} is at version {found or 'none'}, and this program needs {SCHEMA_HEAD}",
            "back the file up, then run: xenonode corp upgrade",
        )
    raise SchemaVersionError(
        f"the ledger {path} is at version {found}, newer than {SCHEMA_HEAD}", "upgrade this program"
    )


def _migrate(connection: Connection) -> None:
    # Alembic takes long to import and is needed only here.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "xenonode.corp:migrations")
    config.attributes["connection"] = connection
    with connection.begin():
        command.upgrade(config, "head")


def _engine(path: str, driver: Any = None) -> Engine:
    engine = create_engine(
        "sqlite+pysqlite:///" + path,
        module=driver,
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver's own BEGIN is deferred; a writer that starts as a reader can fail half-way.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _take_lock(path: Path) -> int:
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise FoundingError(f"another process has the ledger {path} open", "stop it first") from None
    return handle
