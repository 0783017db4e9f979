"""A small live network for tests: real processes, sockets, money and (where a test starts one) guests.

`Live` starts what the demonstration starts, and runs the program as its users do. `leftovers` finds what outlived it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hypervisor import guest_image
from hypervisor.embedded import owner_tag
from xenonode import config
from xenonode.client import Client, Operator
from xenonode.demo.network import DemoNetwork, remove_outside
from xenonode.demo.plan import DemoPlan, Place, make_plan
from xenonode.demo.processes import Process
from xenonode.env import LiveEnv

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
SEED = 7
MUST_HOST = "XENO_TESTS_MUST_HOST"
"""Set by .ci/run: there the stories with real guests may not be skipped."""
COMMAND_TIMEOUT_S = 120
"""A command takes a second or two; a busy machine gets much longer, for no test here is about speed."""
MACHINE_STATE = Path("/var/lib/xenonode")
RESTRICTED = 65534
"""nobody: a user who owns nothing."""


def need_hosting() -> None:
    """Skip where this machine cannot host, since a XenoServer refuses to start there; in CI that is a failure."""
    lacking = [
        why
        for is_there, why in (
            (find_spec("libvirt") is not None, "a server needs libvirt"),
            (find_spec("libcloud") is not None, "the servers are drawn from the catalogue"),
            (os.geteuid() == 0, "a metered server needs root"),
            (shutil.which("qemu-system-x86_64") is not None, "a metered server needs QEMU"),
            (guest_image.image_folder(guest_image.default_cache()).exists(), "scripts/build_guest_image was not run"),
        )
        if not is_there
    ]
    if lacking and os.environ.get(MUST_HOST):
        pytest.fail(f"{MUST_HOST} is set, and this machine cannot host: {'; '.join(lacking)}")
    if lacking:
        pytest.skip("; ".join(lacking))


@dataclass(frozen=True)
class Answer:
    """What one command did."""

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, where it succeeded."""
        assert self.status == 0, self
        return json.loads(self.out)

    def refusal(self, *words: str, status: int = 1) -> dict[str, str]:
        """The refusal that it must be: in plain words, with a next step, and without a traceback."""
        assert self.status == status, self
        assert "Traceback" not in self.err + self.out, self
        assert self.out == "", self
        fields: dict[str, str] = json.loads(self.err)
        assert fields["code"] != "unexpected" and fields["message"] and fields["next_step"], self
        for word in words:
            assert word.lower() in f"{fields['message']} {fields['next_step']}".lower(), (word, self)
        return fields


class Live:
    """See the module. Everything runs in one loop, which only turns during `run`."""

    def __init__(self, folder: Path, servers: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.plan: DemoPlan = make_plan(folder, servers, SEED)
        self.network = DemoNetwork(self.plan)
        self.env = LiveEnv()
        self._runner = asyncio.Runner()
        self._clients: list[Client] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the network's own loop."""
        return self._runner.run(work)

    def start(self) -> None:
        """XenoCorp, then all servers."""
        self.run(self.network.start_corp())
        self.run(self.network.start_servers())

    def process(self, place: Place) -> Process:
        """The process that runs at a place."""
        return self.network.processes[place.name]

    async def member(self, credit: str = "") -> Client:
        """The network's client, registered, with money if wanted."""
        client = await Client.open(config.load(self.plan.client.config, "client"), self.env)
        self._clients.append(client)
        credential = await client.member.register()
        if credit:
            operator = await self.operator()
            await operator.credit(credential.entity, credit)
            await operator.close()
        return client

    async def operator(self) -> Operator:
        """XenoCorp's operator."""
        return await Client.open_operator(config.load(self.plan.corp.config, "corp"), self.env)

    async def audit(self) -> dict[str, Any]:
        """What the ledger's own check finds."""
        operator = await self.operator()
        try:
            return await operator.audit()
        finally:
            await operator.close()

    def another(self, place: Place, name: str, **settings: object) -> Path:
        """A configuration like a place's, for a folder of its own, with other settings (dots as `__`)."""
        folder = self.folder / name
        loaded = _toml(place.config)
        loaded |= {"folder": folder, **{name.replace("__", "."): value for name, value in settings.items()}}
        path = self.folder / f"{name}.toml"
        config.save(path, loaded)
        return path

    def command(
        self,
        *arguments: str,
        config: Path | None = None,
        environ: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> Answer:
        """One command of the program, to its end, as the client if no other configuration is named."""
        path = self.plan.client.config if config is None else config
        interpreter, paths = (sys.executable, {}) if user is None else readable_interpreter(user)
        done = subprocess.run(
            [interpreter, "-m", "xenonode.cli", *arguments, "--config", str(path), "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            cwd=ROOT,
            env=environment(self.folder, {**paths, **(environ or {})}),
            user=user,
            group=user,
            extra_groups=None if user is None else (),
        )
        return Answer(arguments, done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        """Stop all of it."""
        try:
            for client in self._clients:
                self.run(client.close())
        finally:
            self.run(self.network.stop())
            self._runner.close()
            for place in self._servers():
                remove_outside(place)

    def leftovers(self) -> list[str]:
        """What is left of it on this machine, besides its folder."""
        return leftovers(self.folder, self._servers())

    def _servers(self) -> list[Path]:
        """Folders of all servers, those of `another` too, whether they ever ran or not."""
        return sorted(path for path in self.folder.iterdir() if path.is_dir())


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which the program neither reads this user's settings nor writes into this user's folders."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XENONODE_")}
    return {**kept, "XDG_STATE_HOME": f"{folder}/xdg", "XDG_CONFIG_HOME": f"{folder}/xdg", **(more or {})}


@functools.cache
def readable_interpreter(user: int) -> tuple[str, dict[str, str]]:
    """A Python that this user may run, with the packages of ours; skips the test where there is none."""
    packages = sysconfig.get_path("purelib")
    for interpreter in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{packages}"}
        with contextlib.suppress(OSError):
            trial = [interpreter, "-c", "import xenonode.cli.main"]
            done = subprocess.run(
                trial, env={**os.environ, **paths}, user=user, group=user, extra_groups=(), capture_output=True
            )
            if done.returncode == 0:
                return interpreter, paths
    pytest.skip("no Python here that an unprivileged user may run")


def leftovers(folder: Path, servers: Sequence[Path]) -> list[str]:
    """Processes, network devices and machine folders that belong to servers in these folders, or to `folder`."""
    tags = [owner_tag(server / "hypervisor") for server in servers]
    found = [f"device {name}" for name in sorted(os.listdir("/sys/class/net")) if any(tag in name for tag in tags)]
    found += [str(path) for tag in tags if (path := MACHINE_STATE / f"hypervisor-{tag}").exists()]
    found += [f"process {pid}: {line[:200]}" for pid, line in processes((str(folder), *tags))]
    return found


async def until(holds: Callable[[], Any], within_s: float = 90) -> Any:
    """Wait until `holds()` (or what it awaits) is true; its value."""
    async with asyncio.timeout(within_s):
        while True:
            found = holds()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.05)


def processes(words: Iterable[str]) -> list[tuple[int, str]]:
    """Running processes (not this one, nor those that started it) whose command line holds one of these words."""
    ours, pid = set(), os.getpid()
    while pid:
        ours.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(word in line for word in words):
            found.append((int(entry.name), line))
    return found


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _toml(path: Path) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tomllib.loads(path.read_text()).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": each for inner, each in value.items()}
        elif name != "version":
            flat[name] = value
    return flat
