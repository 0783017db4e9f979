"""A ledger whose file rotted is refused with what to do, at its start and in use; nothing is written over it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random

import pytest

from xenonode.corp.database import create_database, open_database
from xenonode.corp.errors import DamagedError, DamagedLedgerError
from xenonode.corp.soundness import check_books
from xenonode.corp.store import Store
from xenonode.corp.transfers import credited

TRANSFERS = 200


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    create_database(path)
    database = open_database(path)
    store = Store(database, threaded=False)
    for number in range(TRANSFERS):
        transfer = credited(f"client-{number % 7}", "USD", 100 + number, f"event {number}", number)
        store.run_inline(lambda books, transfer=transfer: books.post([transfer]))  # type: ignore[misc]
    database.close()
    return path


def look(path: Path) -> None:
    """What a start looks at. Raises DamagedLedgerError."""
    database = open_database(path)
    try:
        Store(database, threaded=False).run_inline(check_books)
    finally:
        database.close()


def test_a_sound_ledger_is_opened(ledger: Path) -> None:
    look(ledger)


def test_an_amount_that_rotted_is_seen_in_the_books(ledger: Path) -> None:
    with sqlite3.connect(ledger) as connection:  # what a flipped bit of a cell comes to
        connection.execute("UPDATE account SET credits_nano = credits_nano | 1048576 WHERE credits_nano > 0")
    with pytest.raises(DamagedLedgerError) as caught:
        look(ledger)
    assert "its transfers make" in caught.value.message
    assert "restore XenoCorp's whole folder from its last backup" in caught.value.next_step


@pytest.mark.parametrize("seed", range(6))
def test_pages_that_rotted_are_refused_in_words_and_never_crash_the_program(ledger: Path, seed: int) -> None:
    rng, data = Random(seed), bytearray(ledger.read_bytes())
    for _ in range(400):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    ledger.write_bytes(data)
    with pytest.raises(DamagedLedgerError) as caught:
        look(ledger)
    assert caught.value.code == "ledger_damaged"


def test_a_file_that_is_no_database_is_refused(ledger: Path) -> None:
    ledger.write_bytes(b"no database at all" * 1_000)
    with pytest.raises(DamagedLedgerError, match="not a database"):
        open_database(ledger)


def test_a_ledger_that_rots_in_use_books_nothing_any_more(ledger: Path) -> None:
    database = open_database(ledger)
    store = Store(database, threaded=False)
    page_bytes = 4_096
    data = bytearray(ledger.read_bytes())
    for start in range(page_bytes, len(data), page_bytes):  # all but the first
        data[start : start + 64] = bytes(64)
    ledger.write_bytes(data)
    database.connection.exec_driver_sql("PRAGMA shrink_memory")  # or the old pages might still be in memory
    database.connection.rollback()
    refused = []
    for number in range(3):
        transfer = credited("client-1", "USD", 1, f"late {number}", number)
        with pytest.raises(DamagedError) as caught:
            store.run_inline(lambda books, transfer=transfer: books.post([transfer]))  # type: ignore[misc]
        refused.append(caught.value)
    assert "until its operator has restored it" in refused[0].message
    assert refused[1] is refused[2]  # not even tried
    database.close()


def test_a_text_that_rotted_is_damage_and_no_moment_of_trouble(ledger: Path) -> None:
    """SQLite finds nothing wrong with it; Python cannot read it, and has no code for that."""
    data = ledger.read_bytes()
    assert b"event 57" in data
    ledger.write_bytes(data.replace(b"event 57", b"ev\xa0nt 57"))
    with pytest.raises(DamagedLedgerError):
        look(ledger)
