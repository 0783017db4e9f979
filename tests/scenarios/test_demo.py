"""The demonstration as a user runs it: two at once, each keeps its promises; interrupted, it leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .live import ROOT, environment, leftovers, need_hosting

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]
WHOLE_S = 600
"""One takes 75 s by itself on two cores, two at once about twice that; other work may share the machine."""
MOMENT_S = 300
SERVERS = 8
INTERRUPTED = 130
MOMENTS = (("servers start", " 2. ", 3.0), ("boot", "is starting", 3.0), ("burn", " 9. ", 8.0))
"""What the story says before a moment, and how long after that Ctrl-C comes at most."""


class Demo:
    """One demonstration under way, in a folder of its own for temporary files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.told: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "scripts/demo.py", "--json", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env=environment(folder, {"TMPDIR": str(folder)}), start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.own: Path | None = None

    def until(self, words: str) -> None:
        """Wait until the story says so."""
        deadline = time.monotonic() + MOMENT_S
        while not any(words in line for line in list(self.told)):
            assert time.monotonic() < deadline and self._process.poll() is None, "".join(self.told)
            time.sleep(0.05)
        self._find()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Its status and what it printed on standard output."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + WHOLE_S
        while self._process.poll() is None:
            assert time.monotonic() < deadline, "".join(self.told)
            self._find()
            time.sleep(0.1)
        self._reader.join()
        return self._process.returncode, self._process.stdout.read()

    def leftovers(self) -> list[str]:
        """What it left on this machine."""
        assert self.own is not None
        servers = [self.own / f"server-{number + 1}" for number in range(SERVERS)]
        return [*map(str, self.folder.iterdir()), *leftovers(self.own, servers)]

    def kill(self) -> None:
        """End it if it still runs, in order if it will."""
        if self._process.poll() is None:
            self.interrupt()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _find(self) -> None:
        self.own = self.own or next(self.folder.glob("xenonode-demo-*"), None)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.told.append(line)
            self._find()  # whoever waits for another demonstration must not miss this one's folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Demo, int, str]]]:
    """Two demonstrations that ran at the same time, with their statuses and outputs."""
    need_hosting()
    folder = tmp_path_factory.mktemp("pair")
    demos = [Demo(folder / f"seed-{seed}", "--seed", str(seed)) for seed in (7, 8)]
    try:
        yield [(demo, *demo.end()) for demo in demos]
    finally:
        for demo in demos:
            demo.kill()


@pytest.fixture(params=(0, 1), ids=("first", "second"))
def outcome(pair: list[tuple[Demo, int, str]], request: pytest.FixtureRequest) -> Any:
    """What one of the two printed as its last line."""
    demo, status, out = pair[request.param]
    assert status == 0, "".join(demo.told)
    return json.loads(out.splitlines()[-1])


def test_every_promised_key_is_there_and_says_something_true(outcome: dict[str, Any]) -> None:
    assert outcome["servers"] == SERVERS and outcome["adverts"] == SERVERS and outcome["dimensions"] >= 8
    search = outcome["search"]
    assert set(search) == {"query", "matches", "expected", "rpcs", "rounds", "ms", "aps", "leaves", "pruned"}
    assert 0 < search["matches"] == search["expected"] < SERVERS
    assert all(search[name] >= 0 for name in ("rpcs", "rounds", "ms", "aps", "leaves", "pruned"))
    assert search["rpcs"] > 0 and search["rounds"] > 0 and search["leaves"] > 0
    session = outcome["session"]
    assert set(session) == {"server", "adapter", "environment", "boot_s", "ssh_s", "kernel"}
    assert len(bytes.fromhex(session["server"])) == 32 and session["adapter"] == "qemu:///embed"
    assert session["boot_s"] > 0 and session["ssh_s"] > 0
    assert session["environment"].startswith("os.linux") and session["kernel"][0].isdigit()
    qos = outcome["qos"]
    assert abs(qos["measured_ms_per_s"] - qos["agreed_ms_per_s"]) <= 0.1 * qos["agreed_ms_per_s"]


def test_every_meter_of_the_bill_ran(outcome: dict[str, Any]) -> None:
    usage = outcome["usage"]
    assert set(usage) == {"cpu_ns", "memory_byte_s", "net_rx", "net_tx", "disk"}
    assert all(type(value) is int and value > 0 for value in usage.values())
    assert usage["disk"] >= 4 * 2**20  # what the story writes to it
    assert usage["cpu_ns"] >= 1_000_000_000 and usage["memory_byte_s"] >= 10 * 2**27


def test_the_bill_adds_up_and_the_ledger_balances(outcome: dict[str, Any]) -> None:
    bill, ledger = outcome["bill"], outcome["ledger"]
    assert set(bill) == {"order", "captured", "released", "currency"} and bill["currency"] == "USD"
    assert 0 < bill["captured"] <= bill["order"] == bill["captured"] + bill["released"]
    assert set(ledger) == {"debits", "credits", "balanced"}
    assert ledger["balanced"] is True and ledger["debits"] == ledger["credits"] > 0


def test_two_at_once_leave_nothing_behind(pair: list[tuple[Demo, int, str]]) -> None:
    assert [demo.leftovers() for demo, _, _ in pair] == [[], []]
    assert {len([line for line in demo.told if "..." in line or "…" in line]) for demo, _, _ in pair} == {0}


@pytest.mark.parametrize(("moment", "words", "most_s"), MOMENTS, ids=[name for name, _, _ in MOMENTS])
def test_ctrl_c_ends_it_with_nothing_left_behind(moment: str, words: str, most_s: float, tmp_path: Path) -> None:
    need_hosting()
    demo = Demo(tmp_path / "demo")
    try:
        demo.until(words)
        time.sleep(random.Random(moment).uniform(0, most_s))
        assert demo.leftovers()  # what is looked for can be seen while it runs
        demo.interrupt()
        status, out = demo.end()
        assert (status, out) == (INTERRUPTED, ""), "".join(demo.told)
        assert "nothing was left behind" in demo.told[-1]
        assert demo.leftovers() == []
    finally:
        demo.kill()
