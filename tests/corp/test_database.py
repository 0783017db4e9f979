"""The database: versions, migrations, and what its own constraints refuse."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from xenonode.corp import transfers
from xenonode.corp.database import MEMORY, SCHEMA_HEAD, Database, create_database, open_database, upgrade_database
from xenonode.corp.errors import BusyError, CorpLocalError, FoundingError, SchemaVersionError
from xenonode.corp.schema import metadata
from xenonode.corp.store import Store


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    create_database(tmp_path / "ledger.sqlite")
    return tmp_path / "ledger.sqlite"


def execute(path: Path, statement: str) -> None:
    database = open_database(path)
    with database.connection.begin():
        database.connection.execute(text(statement))
    database.close()


def test_the_migrations_make_exactly_the_tables_of_the_schema() -> None:
    database = open_database(MEMORY)
    context = MigrationContext.configure(database.connection, opts={"compare_type": True})
    assert compare_metadata(context, metadata) == []
    database.close()


def test_the_head_that_the_program_names_is_the_migrations_own() -> None:
    config = Config()
    config.set_main_option("script_location", "xenonode.corp:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_HEAD


@pytest.mark.parametrize(("found", "says"), [("0000", "xenonode corp upgrade"), ("9999", "upgrade this program")])
def test_another_version_is_refused_with_what_to_do(ledger: Path, found: str, says: str) -> None:
    execute(ledger, f"UPDATE alembic_version SET version_num = '{found}'")
    with pytest.raises(SchemaVersionError) as caught:
        open_database(ledger)
    assert found in caught.value.message and says in caught.value.next_step


def test_a_file_that_is_no_ledger_is_refused_and_upgrading_makes_it_one(tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    path.touch()
    with pytest.raises(SchemaVersionError):
        open_database(path)
    upgrade_database(path)
    open_database(path).close()


def test_a_ledger_is_never_overwritten_nor_opened_twice(ledger: Path, tmp_path: Path) -> None:
    with pytest.raises(FoundingError, match="never overwritten"):
        create_database(ledger)
    with pytest.raises(FoundingError, match="no ledger"):
        open_database(tmp_path / "absent")
    first = open_database(ledger)
    with pytest.raises(FoundingError, match="another process"):
        open_database(ledger)
    first.close()
    open_database(ledger).close()


def test_the_database_syncs_fully_and_checks_foreign_keys(ledger: Path) -> None:
    database = open_database(ledger)
    values = {
        name: database.connection.execute(text(f"PRAGMA {name}")).scalar()
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    database.close()


@pytest.fixture
def used() -> Database:
    database = open_database(MEMORY)
    store = Store(database, threaded=False)
    store.run_inline(lambda books: books.post([transfers.credited("client-1", "USD", 100, "one", 5)]))
    return database


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transfer SET amount_nano = 1",
        "DELETE FROM transfer",
        "DELETE FROM account",
        "UPDATE account SET credits_nano = credits_nano - 1 WHERE kind = 'client'",
        "UPDATE account SET debits_nano = 101 WHERE kind = 'client'",
        "UPDATE account SET kind = 'external'",
        "UPDATE account SET credits_nano = 'much' WHERE kind = 'client'",
        "INSERT INTO transfer VALUES (9, 'x', 'credit', 'client:client-1:USD', 'client:client-1:USD', 'USD', 1, '', 1)",
        "INSERT INTO transfer VALUES (9, 'x', 'credit', 'external:USD', 'client:client-1:USD', 'EUR', 1, '', 1)",
        "INSERT INTO transfer VALUES (9, 'x', 'credit', 'external:USD', 'client:client-1:USD', 'USD', 0, '', 1)",
        "INSERT INTO transfer SELECT 9, id, kind, debit, credit, currency, amount_nano, reference, 1 FROM transfer",
    ],
)
def test_the_database_itself_refuses_what_must_not_be(used: Database, statement: str) -> None:
    with pytest.raises(DBAPIError), used.connection.begin():
        used.connection.execute(text(statement))


def test_a_refused_unit_takes_nothing_back_from_its_neighbours_and_leaves_nothing() -> None:
    async def run() -> list[object]:
        store = Store(open_database(MEMORY), threaded=True)

        def book(name: str, amount: int):  # type: ignore[no-untyped-def]
            def work(books):  # type: ignore[no-untyped-def]
                books.post([transfers.credited("client-1", "USD", amount, name, 5)])
                if name == "bad":
                    raise ValueError("changed my mind")
                return name

            return work

        names = ("first", "second", "bad", "third")
        found = await asyncio.gather(*(store.run(book(name, 7)) for name in names), return_exceptions=True)
        sums = await store.run(lambda books: [balance.nano for balance in books.balances()])
        await store.close()
        return [*found, sums]

    first, second, bad, third, sums = asyncio.run(run())
    assert (first, second, third) == ("first", "second", "third") and isinstance(bad, ValueError)
    assert sums == [21, -21]


def test_more_waiting_units_than_the_queue_holds_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenonode.corp.store.WAITING_MAX", 3)

    async def run() -> list[object]:
        store = Store(open_database(MEMORY), threaded=True)
        with pytest.raises(CorpLocalError, match="writer of its own"):
            store.run_inline(lambda books: None)
        found = await asyncio.gather(*(store.run(lambda books: "done") for _ in range(9)), return_exceptions=True)
        await store.close()
        with pytest.raises(CorpLocalError, match="closed"):
            await store.run(lambda books: None)
        return list(found)

    found = asyncio.run(run())
    assert found.count("done") == 4 and sum(isinstance(each, BusyError) for each in found) == 5
