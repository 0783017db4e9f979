"""Running a role in the foreground: progress for people, a structured log in the folder, and a clean end.

SIGTERM and SIGINT stop it in order; guests live on, and the next start finds them again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from xenonode.cli.command import Run
from xenonode.folder import StateFolder

LOG_MAX_BYTES = 8 * 2**20
LOG_FILES = 5


ADDRESS_LOG = "xenonode.address"
"""What of the log is shown at the terminal as well: how others reach this node."""


class Node(Protocol):
    """What runs: a XenoCorp or a XenoServer."""

    def status(self) -> dict[str, object]:
        """What `xenonode status` shows of it."""

    async def close(self) -> None:
        """Stop in order."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, where, what; and the fields that were given as `extra`."""

    _own = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time_ms": int(record.created * 1000),
            "level": record.levelname.lower(),
            "name": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in self._own}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _Told(logging.Handler):
    """Warnings, shown to whoever started the node."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.WARNING)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        """One of them."""
        try:
            self._run.output.note(f"warning: {record.getMessage()}")
        except OSError:  # the terminal is gone, and the node goes on
            self.handleError(record)


async def serve_until_stopped(run: Run, folder: Path, name: str, start: Callable[[], Awaitable[Node]]) -> None:
    """Start a node, say so, and keep it until a signal; then stop it in order."""
    state = StateFolder(folder).prepare()
    log, told = _log_file(state.file("log.jsonl")), _Told(run)
    with _handling(logging.getLogger(), log), _handling(logging.getLogger(ADDRESS_LOG), told):
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        run.output.note(f"{name} starts; state and log are in {folder}")
        node = await _unless(stopped, start())
        if node is None:
            return
        run.output.note(f"{name} runs as process {os.getpid()}; Ctrl-C stops it")
        if run.output.as_json:
            run.output.json({"pid": os.getpid(), **node.status()})
        else:
            for field, value in node.status().items():
                if isinstance(value, str | int) and value != "":
                    run.output.note(f"  {field}: {value}")
        try:
            await stopped.wait()
        finally:
            run.output.note(f"{name} stops")
            await node.close()
        run.output.note(f"{name} has stopped; environments go on running")


async def _unless(stopped: asyncio.Event, starting: Awaitable[Node]) -> Node | None:
    """The started node, or None when a signal came first; the start is then cancelled and cleans up after itself."""
    work = asyncio.ensure_future(starting)
    waiter = asyncio.ensure_future(stopped.wait())
    await asyncio.wait((work, waiter), return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if work.done():
        return work.result()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return None


def _log_file(path: Path) -> logging.Handler:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_MAX_BYTES, backupCount=LOG_FILES)
    os.chmod(path, 0o600)
    handler.setFormatter(JsonLines())
    handler.setLevel(logging.INFO)
    return handler


@contextmanager
def _handling(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    """What is logged in here, from the handler's level on, goes to it, too; after it the logger is as it was."""
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(handler.level, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
