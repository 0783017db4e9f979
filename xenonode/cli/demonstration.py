"""`scripts/demo`: runs the story, tells it as it happens, and says at the end what to try next."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hypervisor.errors import HypervisorError
from xenonode.control.errors import ControlError
from xenonode.demo.plan import make_plan
from xenonode.demo.story import Story, Teller
from xenonode.errors import XenoError

SERVERS_LEAST = 8
DEFAULT_SEED = 7
INTERRUPTED = 130
WIDTH_WHEN_PIPED = 200
"""A pipe has no width; rich would guess 80 and cut the tables."""


class ConsoleTeller(Teller):
    """Tells the story to a person, with the time that has passed."""

    def __init__(self, console: Console) -> None:
        self._console, self._chapter, self._began_s = console, 0, 0.0

    def step(self, text: str) -> None:
        """A new chapter."""
        now_s = asyncio.get_running_loop().time()
        self._began_s = self._began_s or now_s
        self._chapter += 1
        self._console.print(f"\n[bold]{self._chapter:2}. {escape(text)}[/] [dim]({now_s - self._began_s:.0f} s)[/]")

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(f"    {escape(text)}")

    def table(self, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """A table."""
        shown = Table(*columns, box=None, pad_edge=True, padding=(0, 2, 0, 2), header_style="dim")
        for row in rows:
            shown.add_row(*map(escape, row))
        self._console.print(shown)


def main() -> None:
    """Parse, run, and end with status 0 only if all of it held."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="From an empty machine to a paid session in a real guest: a XenoCorp, eight XenoServers and a "
        "client over real sockets; cleans up after itself.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument(
        "--servers", type=int, default=SERVERS_LEAST, help=f"how many XenoServers (at least {SERVERS_LEAST})"
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="which catalogue rows the servers are made from")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and state")
    arguments = parser.parse_args()
    if arguments.servers < SERVERS_LEAST:
        parser.error(f"--servers must be at least {SERVERS_LEAST}")
    if os.geteuid() != 0:
        parser.error("guests with CPU shares can be hosted by root only: run this as root, or with sudo")
    sys.exit(run(arguments.servers, arguments.seed, arguments.json, arguments.keep))


def run(servers: int, seed: int, as_json: bool, keep: bool) -> int:
    """The whole demonstration in a new folder; its exit status."""
    terminal = (sys.stderr if as_json else sys.stdout).isatty()
    width = None if terminal else WIDTH_WHEN_PIPED
    console = Console(stderr=as_json, highlight=False, soft_wrap=not terminal, width=width)
    folder = Path(tempfile.mkdtemp(prefix="xenonode-demo-"))
    kept = keep
    try:
        story = Story(make_plan(folder, servers, seed), ConsoleTeller(console))
        asyncio.run(_tell(story))
    except (XenoError, ControlError, HypervisorError) as error:
        console.print(f"\n[bold red]error:[/] {escape(error.message)}")
        if error.next_step:
            console.print(f"next: {escape(error.next_step)}")
        console.print(f"logs and state are kept in {folder}")
        kept = True
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("\nstopped; nothing was left behind")
        return INTERRUPTED
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    console.print(
        f"\nAll of it held, in {story.outcome.seconds:.0f} s; every process has ended and nothing was left behind."
    )
    if keep:
        console.print(f"Logs and state are in {folder}")
    console.print(
        "Next: run a network of your own, step by step, with README.rst; begin with '.venv/bin/xenonode --help'."
    )
    if as_json:
        print(json.dumps(asdict(story.outcome)), flush=True)
    return 0


async def _tell(story: Story) -> None:
    task = asyncio.ensure_future(story.tell())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    finally:
        # A second Ctrl-C must not cut the cleaning short: it takes seconds, and guests would be left.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(story.clean_up())
