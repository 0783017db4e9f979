"""Upgrading a ledger: the backup comes first, the books are checked last, and nothing happens without need."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from xenonode.corp.database import SCHEMA_HEAD, create_database, open_database, stored_version
from xenonode.corp.errors import FoundingError, SchemaVersionError
from xenonode.corp.founding import LEDGER_FILE
from xenonode.corp.upgrading import upgrade
from xenonode.errors import XenoError
from xenonode.folder import StateFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return StateFolder(tmp_path / "corp").prepare().path


def test_an_older_ledger_is_backed_up_and_brought_to_the_programs_version(folder: Path) -> None:
    (folder / LEDGER_FILE).touch()
    found = upgrade(folder)
    assert (found.before, found.after) == ("none", SCHEMA_HEAD)
    assert found.backup is not None and stored_version(found.backup) is None
    open_database(folder / LEDGER_FILE).close()


def test_a_ledger_of_this_version_is_left_alone(folder: Path) -> None:
    create_database(folder / LEDGER_FILE)
    assert upgrade(folder).backup is None


def test_a_newer_ledger_is_refused(folder: Path) -> None:
    create_database(folder / LEDGER_FILE)
    with closing(open_database(folder / LEDGER_FILE)) as database, database.connection.begin():
        database.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaVersionError, match="newer"):
        upgrade(folder)


def test_a_backup_is_never_overwritten(folder: Path) -> None:
    (folder / LEDGER_FILE).touch()
    backup = upgrade(folder).backup
    assert backup is not None
    (folder / LEDGER_FILE).write_bytes(b"")
    with pytest.raises(FoundingError, match="never overwritten"):
        upgrade(folder)
    assert stored_version(folder / LEDGER_FILE) is None


def test_a_ledger_in_use_is_not_upgraded(folder: Path) -> None:
    (folder / LEDGER_FILE).touch()
    with StateFolder(folder).lock(), pytest.raises(XenoError, match="in use"):
        upgrade(folder)


def test_without_a_ledger_the_next_step_is_told(folder: Path) -> None:
    with pytest.raises(FoundingError) as caught:
        upgrade(folder)
    assert "corp init" in caught.value.next_step
