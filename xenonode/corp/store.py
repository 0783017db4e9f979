"""The store: one writer that makes units of work durable before anybody hears of them.

Work that waits while the disk is busy is committed together (group commit), each unit in a savepoint of its own,
so that a refused one takes nothing back from its neighbours. A unit is a plain function of `Books`; it must be
repeatable, since after a failed write its caller will send it again. In simulation the same work runs inline.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError

from xenonode.corp.books import Books
from xenonode.corp.database import Database
from xenonode.corp.errors import BusyError, CorpLocalError, DamagedError, RefusedError, UnavailableError
from xenonode.corp.soundness import is_damage
from xenonode.corp.transfers import Transfer

LOGGER = logging.getLogger("xenonode.corp")
T = TypeVar("T")
Work = Callable[[Books], T]
GROUP_MAX = 128
"""Units in one commit: measured, groups of 128 reach most of the throughput that batches of 1,000 do."""
WAITING_MAX = 4_096
"""Units that may wait: about a second's worth at the measured 5,000/s; beyond it a caller is told to come back."""


@dataclass(slots=True)
class _Unit:
    work: Work[Any]
    done: asyncio.Future[Any] | None = None
    result: Any = None
    error: Exception | None = None
    posted: list[Transfer] = field(default_factory=list)


class Store:
    """Runs units of work in order. `threaded` keeps the disk off the event loop; simulation runs inline."""

    def __init__(
        self, database: Database, *, threaded: bool, on_transfer: Callable[[Transfer], None] | None = None
    ) -> None:
        self._database = database
        self._on_transfer = on_transfer
        self._waiting: deque[_Unit] = deque()
        self._current: asyncio.Future[Any] | None = None  # the last unit of the group being committed
        self._closed = False
        self._damaged: DamagedError | None = None
        # One thread, because SQLite has one writer; it only ever runs `_commit`.
        self._executor = ThreadPoolExecutor(1, "corp-ledger") if threaded else None

    async def run(self, work: Work[T]) -> T:
        """The result of `work` once it is durable. Raises what `work` raised, UnavailableError or BusyError."""
        if self._closed:
            raise CorpLocalError("the ledger is closed")
        if self._executor is None:
            return self._run_now(work)
        if len(self._waiting) >= WAITING_MAX:
            raise BusyError(len(self._waiting))
        unit = _Unit(work, asyncio.get_running_loop().create_future())
        self._waiting.append(unit)
        self._next_group()
        result: T = await asyncio.shield(unit.done) if unit.done else unit.result
        return result

    def run_inline(self, work: Work[T]) -> T:
        """The same, here and now, of a store without a thread; for tools and tests."""
        if self._executor is not None:
            raise CorpLocalError("this ledger has a writer of its own", "await run() instead")
        return self._run_now(work)

    def _run_now(self, work: Work[T]) -> T:
        unit = _Unit(work)
        self._commit([unit])
        self._tell(unit)
        if unit.error is not None:
            raise unit.error
        result: T = unit.result
        return result

    async def close(self) -> None:
        """Finish what waits, then close the file."""
        self._closed = True
        while (last := self._waiting[-1].done if self._waiting else self._current) is not None:
            await asyncio.wait([last])
        if self._executor is not None:
            self._executor.shutdown()
        self._database.close()

    def _next_group(self) -> None:
        if self._current is not None or not self._waiting or self._executor is None:
            return
        group = [self._waiting.popleft() for _ in range(min(GROUP_MAX, len(self._waiting)))]
        self._current = group[-1].done
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._commit, group)
        running.add_done_callback(lambda future: self._committed(group, future))

    def _committed(self, group: list[_Unit], running: asyncio.Future[None]) -> None:
        self._current = None
        self._next_group()
        failure = running.exception()
        for unit in group:
            self._tell(unit)
            if unit.done is None or unit.done.done():
                continue
            if (error := unit.error or failure) is not None:
                unit.done.set_exception(error)
                unit.done.exception()  # a caller that was cancelled leaves nobody to retrieve it
            else:
                unit.done.set_result(unit.result)

    def _tell(self, unit: _Unit) -> None:
        if self._on_transfer is not None and unit.error is None:
            for transfer in unit.posted:
                self._on_transfer(transfer)

    def _commit(self, group: list[_Unit]) -> None:
        """Run a group in one transaction; if that cannot be written, none of it happened."""
        connection = self._database.connection
        if self._damaged is not None:  # what is written over damage may be lost with it
            for unit in group:
                unit.error = self._damaged
            return
        try:
            with connection.begin():
                for unit in group:
                    self._run(unit)
        except DBAPIError as raised:
            if connection.in_transaction():
                connection.rollback()
            error = _first(raised)
            failure: RefusedError = UnavailableError(str(error.orig))
            if is_damage(error):
                failure = self._damaged = DamagedError(str(error.orig))
                LOGGER.critical("the ledger's file is damaged, and nothing is booked any more: %s", error.orig)
            for unit in group:
                unit.error = failure

    def _run(self, unit: _Unit) -> None:
        connection = self._database.connection
        books = Books(connection)
        try:
            with connection.begin_nested():
                unit.result = unit.work(books)
        except IntegrityError as error:
            # The rules should have refused it before; the database's own constraints are the second lock.
            unit.error = RefusedError("ledger", f"the ledger's constraints refuse it: {error.orig}", "report this")
        except DBAPIError:
            raise  # the disk, not the request: the whole group fails
        except Exception as error:  # whatever it is belongs to this unit's caller alone
            unit.error = error
        else:
            unit.posted = books.posted


def _first(error: DBAPIError) -> DBAPIError:
    """What went wrong before the others: SQLite rolls some errors back itself, and then its savepoint is missed."""
    first, each = error, error.__context__
    while each is not None:  # what a driver's own error was raised for lies between
        if isinstance(each, DBAPIError):
            first = each
        each = each.__context__
    return first
