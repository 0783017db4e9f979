"""XenoCorp's ledger on a disk whose power fails in mid-write: what was acknowledged is there, and nothing half."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from xenonode.corp.books import Books
from xenonode.corp.database import open_database
from xenonode.corp.errors import UnavailableError
from xenonode.corp.statements import audit_books
from xenonode.corp.store import Store
from xenonode.corp.transfers import credited
from xenonode.simulation.ledger import LedgerDisk, make_ledger

FAILURES = 25
TOGETHER = 3
"""Transfers in one unit of work: all of them are there, or none."""


def opened(disk: LedgerDisk) -> Store:
    return Store(open_database("ledger", exclusive=False, driver=disk.driver), threaded=False)


def work(number: int, books: Books) -> None:
    books.post([credited("alice", "USD", 1 + part, f"event {number}.{part}", 1) for part in range(TOGETHER)])


def booked(store: Store) -> set[str]:
    return {transfer.reference for transfer in store.run_inline(lambda books: list(books.transfers()))}


@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_outlives_every_loss_of_power(seed: int) -> None:
    rng, disk = Random(seed), make_ledger(seed)
    store = opened(disk)
    acknowledged: set[int] = set()
    number = 0
    for _ in range(FAILURES):
        disk.set_trap(rng.randrange(60), disk.lose_power)
        life = disk.life
        while disk.life == life:
            number += 1
            try:
                store.run_inline(partial(work, number))
            except UnavailableError:
                assert disk.life != life, "only a loss of power refuses here"
            else:
                if disk.life == life:
                    acknowledged.add(number)
        store = opened(disk)
        held = booked(store)
        for each in range(1, number + 1):
            parts = {f"event {each}.{part}" for part in range(TOGETHER)}
            assert parts <= held or (each not in acknowledged and not parts & held), f"unit {each}"
        report = store.run_inline(audit_books)
        assert report.balanced, report.faults
    assert disk.lost_writes and disk.torn_writes and len(acknowledged) > FAILURES


def test_without_flushes_the_same_disk_loses_what_was_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof above would see it: a disk that only says that it flushed loses acknowledged work."""
    disk = make_ledger(1)
    store = opened(disk)
    monkeypatch.setattr(disk, "flush", lambda file, life: None)
    for number in range(1, 30):
        store.run_inline(partial(work, number))
    disk.lose_power()
    assert len(booked(opened(disk))) < 29 * TOGETHER


def test_a_full_disk_refuses_and_loses_nothing() -> None:
    disk = make_ledger(2)
    store = opened(disk)
    store.run_inline(partial(work, 1))
    disk.full = True
    with pytest.raises(UnavailableError):
        store.run_inline(partial(work, 2))
    disk.full = False
    store.run_inline(partial(work, 3))
    assert disk.refused and booked(store) == {f"event {number}.{part}" for number in (1, 3) for part in range(TOGETHER)}


def test_a_request_in_which_sqlite_rolled_back_by_itself_is_refused_with_what_was_wrong() -> None:
    """As it does for a disk that is full in the midst of a transaction; the savepoint is gone then, too."""
    store = opened(make_ledger(3))
    store.run_inline(partial(work, 1))

    def fails(books: Books) -> None:
        work(2, books)
        books.connection.exec_driver_sql("ROLLBACK")
        books.connection.exec_driver_sql("SELECT * FROM nowhere")

    with pytest.raises(UnavailableError, match="no such table: nowhere"):
        store.run_inline(fails)
    store.run_inline(partial(work, 3))
    assert booked(store) == {f"event {number}.{part}" for number in (1, 3) for part in range(TOGETHER)}
