"""Below the drivers nothing reaches for a clock, for entropy or for a thread: a simulated run must be repeatable.

Reads the source. What is allowed is listed with its reason; an entry that nothing needs any more fails too.
"""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("dht", "summaries", "hypervisor", "xenonode")
EXEMPT = ("xenonode/cli/",)  # the command line stands above the drivers

# Dotted names, as imported, that are forbidden, and the rule each breaks. "x.*" is every name in x.
FORBIDDEN = {
    "time.*": "clock",
    "datetime.datetime.now": "clock",
    "datetime.datetime.utcnow": "clock",
    "datetime.datetime.today": "clock",
    "datetime.date.today": "clock",
    "random.*": "entropy",
    "os.urandom": "entropy",
    "os.getrandom": "entropy",
    "uuid.uuid1": "entropy",
    "uuid.uuid4": "entropy",
    "secrets.*": "entropy",
    "nacl.utils.random": "entropy",
    "numpy.random.*": "entropy",
    "threading.*": "thread",
    "_thread.*": "thread",
    "concurrent.futures.*": "thread",
    "multiprocessing.*": "thread",
    "asyncio.to_thread": "thread",
}
HARMLESS = {"random.Random", "time.struct_time", "numpy.random.Generator"}  # types; Random() without a seed is caught
METHODS = {"run_in_executor": "thread"}  # on any loop

# (file, rule): why it may.
ALLOWED: dict[tuple[str, str], str] = {
    ("xenonode/env.py", "clock"): "LiveEnv is the one place where the system's clock is read",
    ("xenonode/env.py", "entropy"): "LiveEnv is the one place where the system's entropy is read",
    ("dht/identity.py", "entropy"): "key files are made by the command line, never by a simulated node",
    ("hypervisor/embedded.py", "clock"): "runs in the hypervisor's own process, and waits for another process's lock",
    ("hypervisor/host_process.py", "clock"): "the hypervisor's own process, which no simulation runs",
    ("hypervisor/host_process.py", "thread"): "the hypervisor's own process: libvirt's calls block",
    ("hypervisor/libvirt_adapter.py", "clock"): "runs in the hypervisor's own process: guests end in their own time",
    ("hypervisor/libvirt_adapter.py", "thread"): "runs in the hypervisor's own process: calls come from its workers",
    ("hypervisor/libvirt_driver.py", "clock"): "runs in the hypervisor's own process: libvirt has to be polled",
    ("hypervisor/libvirt_driver.py", "thread"): "runs in the hypervisor's own process: libvirt's event loop blocks",
    ("hypervisor/reaper.py", "clock"): "runs in the hypervisor's own process, which no simulation runs",
    ("hypervisor/reaper.py", "thread"): "runs in the hypervisor's own process, beside libvirt's own threads",
    ("xenonode/simulation/campaign/pool.py", "clock"): "drives simulations from outside, and says what they cost",
    ("xenonode/simulation/campaign/pool.py", "thread"): "a process for each simulation; inside, each has one thread",
    ("xenonode/corp/store.py", "thread"): "SQLite waits for the disk; a simulated loop runs these calls in place",
}


def names(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name stands for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                found[name.asname or name.name.split(".")[0]] = name.name if name.asname else name.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for name in node.names:
                found[name.asname or name.name] = f"{node.module}.{name.name}"
    return found


def dotted(node: ast.AST, imported: dict[str, str]) -> str | None:
    """Return the full name of an expression such as datetime.datetime.now, if it starts at an import."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in imported:
        return None
    return ".".join([imported[node.id], *reversed(parts)])


def rule_of(name: str) -> str | None:
    """Return the rule that using a name breaks."""
    if any(name == harmless or name.startswith(f"{harmless}.") for harmless in HARMLESS):
        return None
    if name in FORBIDDEN:
        return FORBIDDEN[name]
    pieces = name.split(".")
    prefixes = (".".join(pieces[:count]) for count in range(1, len(pieces)))
    return next((FORBIDDEN[f"{prefix}.*"] for prefix in prefixes if f"{prefix}.*" in FORBIDDEN), None)


def is_set(node: ast.AST) -> bool:
    """Say whether an expression is plainly a set."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")


def offences(path: str, text: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, rule, what) for everything in a module that a simulation could not repeat."""
    tree = ast.parse(text, path)
    imported = names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = dotted(node, imported)
            rule = None if name is None else rule_of(name)
            if rule is not None:
                yield node.lineno, rule, str(name)
            elif isinstance(node, ast.Attribute) and node.attr in METHODS:
                yield node.lineno, METHODS[node.attr], node.attr
        elif isinstance(node, ast.ImportFrom) and any(name.name == "*" for name in node.names):
            yield node.lineno, "import", f"from {node.module} import *"
        elif isinstance(node, ast.Call) and not node.args and not node.keywords:
            if dotted(node.func, imported) == "random.Random":
                yield node.lineno, "entropy", "random.Random() without a seed"
        elif isinstance(node, ast.For | ast.AsyncFor) and is_set(node.iter):
            yield node.lineno, "set order", "a loop over a set"


def broken() -> dict[tuple[str, str], list[str]]:
    """Return what the source does, by (file, rule)."""
    found: dict[tuple[str, str], list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(EXEMPT):
                continue
            for line, rule, what in offences(name, path.read_text(encoding="utf-8")):
                found.setdefault((name, rule), []).append(f"{name}:{line}: {what} ({rule})")
    return found


def test_nothing_below_the_drivers_reaches_for_a_clock_entropy_or_threads() -> None:
    found = broken()
    assert [line for key, lines in found.items() if key not in ALLOWED for line in lines] == []


def test_every_exception_is_still_needed_and_has_its_reason() -> None:
    assert sorted(set(ALLOWED) - set(broken())) == []
    assert all(len(reason) > 20 for reason in ALLOWED.values())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("import time\ntime.time()", "clock"),
        ("from time import monotonic as m\nm()", "clock"),
        ("import time as t\nf = t.sleep", "clock"),
        ("import datetime\ndatetime.datetime.now(datetime.UTC)", "clock"),
        ("from datetime import datetime\ndatetime.utcnow()", "clock"),
        ("import random\nrandom.shuffle([])", "entropy"),
        ("from random import choice\nchoice([1])", "entropy"),
        ("import random\nrng = random.SystemRandom()", "entropy"),
        ("import random\nrng = random.Random()", "entropy"),
        ("import os\nos.urandom(4)", "entropy"),
        ("from uuid import uuid4\nuuid4()", "entropy"),
        ("import numpy as np\nnp.random.default_rng()", "entropy"),
        ("import nacl.utils\nnacl.utils.random(3)", "entropy"),
        ("import threading\nlock = threading.Lock()", "thread"),
        ("from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor()", "thread"),
        ("import asyncio\nasyncio.to_thread(f)", "thread"),
        ("import asyncio\nasyncio.get_running_loop().run_in_executor(None, f)", "thread"),
        ("for x in {1, 2}:\n    pass", "set order"),
        ("for x in set(y):\n    pass", "set order"),
        ("from random import *", "import"),
    ],
)
def test_a_planted_offence_is_found(text: str, rule: str) -> None:
    assert rule in {found for _, found, _ in offences("planted.py", text)}


def test_what_is_repeatable_is_left_alone() -> None:
    text = """
import asyncio, datetime, os, random, uuid
def f(rng: random.Random, loop: asyncio.AbstractEventLoop, now_ms):
    rng.shuffle([1]); loop.time(); now_ms(); uuid.UUID(int=3)
    random.Random(5).random()
    time = 3
    datetime.datetime.fromtimestamp(0, datetime.UTC)
    for x in sorted({1, 2}):
        os.path.join("a")
"""
    assert list(offences("fine.py", text)) == []
