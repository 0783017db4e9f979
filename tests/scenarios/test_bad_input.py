"""What people, machines and strangers get wrong, against a live network: told clearly, with nothing lost.

The program runs as its users run it. Each refusal is words and a next step, a status that is not zero, no traceback.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervisor.embedded import has_virtualisation
from xenonode.config import save
from xenonode.demo.plan import free_ports

from .live import RESTRICTED, Live, need_hosting

pytestmark = pytest.mark.timeout(600)
CREDIT = "10 USD"
HOUR_S = 3600
USAGE = 2
"""The program's status for wrong arguments."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """XenoCorp, two servers, and a client with money."""
    need_hosting()
    made = Live(tmp_path_factory.mktemp("bad"), servers=2)
    try:
        made.start()
        entity = made.command("register").json["entity"]
        assert made.command("corp", "credit", entity, *CREDIT.split(), config=made.plan.corp.config).json
        yield made
    finally:
        made.close()
    assert made.leftovers() == []


@pytest.fixture
def their() -> Iterator[Path]:
    """A folder that everybody may enter; a test's own folders are closed to others."""
    with tempfile.TemporaryDirectory(prefix="xenonode-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def money(live: Live) -> tuple[int, int]:
    """Balance and ring-fenced money of the client; the ledger balances."""
    assert live.command("corp", "audit", config=live.plan.corp.config).json["balanced"] is True
    found = live.command("statement").json
    return found["balance_nano"], found["ringfenced_nano"]


# -- questions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("velocity >= 3", "velocity"),
        ("cpu.available >= 5 bananas", "bananas"),
        ("memory.available between [2 GiB, 1 GiB]", "least is above its most"),
        ("cores >= ", "end of the query"),
        ("(cores >= 1", ")"),
        ("near(no-such-host-1, 50 ms)", "no-such-host-1"),
        ("cores >= 1 limit 0", "limit"),
        ("(" * 10_000 + "cores >= 1" + ")" * 10_000, "nested deeper"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_its_word(live: Live, query: str, word: str) -> None:
    live.command("search", query).refusal(word if word != ")" else "")


# -- money -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "word", "status"),
    [
        (("-1", "USD"), "-1", USAGE),
        (("0", "USD"), "", USAGE),
        (("1e400", "USD"), "1e400", USAGE),
        (("nan", "USD"), "nan", USAGE),
        (("5", "XXX"), "XXX", USAGE),
        (("0.1234567891", "USD"), "nine", USAGE),
        (("99999999999999999999", "USD"), "", USAGE),
        (("5",), "currency", USAGE),
        (("11", "USD"), "10.00 USD", 1),
        (("0.000001", "USD"), "0.01 USD", 1),
        (("5", "EUR"), "EUR", 1),
    ],
)
def test_an_order_that_cannot_be_is_refused_and_moves_no_money(
    live: Live, amount: tuple[str, ...], word: str, status: int
) -> None:
    live.command("order", "create", *amount).refusal(word, status=status)
    assert live.command("order", "list").json == []


def test_a_session_without_an_order_or_beyond_it_is_refused(live: Live) -> None:
    server = live.plan.servers[0].control
    small = ("--cpu", "100 ms/s", "--memory", "128 MiB")
    live.command("session", "create", server, *small).refusal("--order", status=USAGE)
    live.command("session", "create", server, *small, "--order", "ab" * 16).refusal("order")
    order = live.command("order", "create", "0.01", "USD").json["order"]
    day = ("--lease", "24 h")
    live.command("session", "create", server, *small, *day, "--order", order).refusal("0.01 USD", "larger order")
    huge = ("--cpu", "900 s/s", "--memory", "128 MiB")
    live.command("session", "create", server, *huge, "--order", order).refusal(status=USAGE)
    large = ("--cpu", "64000 ms/s", "--memory", "900 GiB")
    live.command("session", "create", server, *large, "--order", order).refusal("refuses", "cpu")
    live.command("session", "create", server, *small, "--order", order, "--environment", "os.vms").refusal(
        "os.vms", status=USAGE
    )
    live.command("session", "show", "abcd").refusal("session list")
    state = live.command("order", "release", order).json
    assert (state["free_nano"], state["captured_nano"]) == (0, 0)
    assert money(live) == (10 * 10**9, 0)


# -- this machine ----------------------------------------------------------------------------------------


def test_a_machine_without_the_hypervisor_software_is_told_what_to_install(live: Live, tmp_path: Path) -> None:
    config = newcomer(live, "no-libvirt")
    (tmp_path / "libvirt.py").write_text("raise ImportError('no libvirt here')\n")
    hidden = {"PYTHONPATH": str(tmp_path)}
    live.command("join", config=config, environ=hidden).refusal("libvirt", "install")
    doctor = live.command("doctor", "server", config=config, environ=hidden)
    assert doctor.status == 1 and "no libvirt here" in doctor.out
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for path in Path(folder).iterdir():
            link = tools / path.name
            if not path.name.startswith(("qemu", "kvm")) and not link.exists():
                link.symlink_to(path)
    config = newcomer(live, "no-qemu")
    path_only = {"PATH": str(tools)}
    live.command("join", config=config, environ=path_only).refusal("qemu", "install")
    doctor = live.command("doctor", "server", config=config, environ=path_only)
    assert doctor.status == 1 and "is not installed" in doctor.out


def test_a_machine_without_kvm_emulates_and_says_so(live: Live) -> None:
    status = live.process(live.plan.servers[0]).status
    kvm = has_virtualisation(Path("/proc/cpuinfo").read_text()) and os.access("/dev/kvm", os.R_OK | os.W_OK)
    assert status["virtualisation"] == ("kvm" if kvm else "emulated")
    assert kvm or any("emulation" in notice for notice in status["notices"])
    findings = {each["check"]: each for each in json.loads(live.command("doctor").out)}
    assert (findings["virtualisation"]["level"] == "ok") is kvm


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_privileges_a_client_works_and_a_server_says_what_it_lacks(live: Live, their: Path) -> None:
    def moved(source: Path, name: str) -> Path:
        """A configuration of ours, with its folder and the network file where an unprivileged user can reach them."""
        folder = their / name
        folder.mkdir(mode=0o700)
        os.chown(folder, RESTRICTED, RESTRICTED)
        values = source.read_text().replace(str(live.folder / name), str(folder))
        config = their / f"{name}.toml"
        config.write_text(values.replace(str(live.plan.corp.folder / "network.xeno"), str(their / "network.xeno")))
        return config

    (their / "network.xeno").write_bytes((live.plan.corp.folder / "network.xeno").read_bytes())
    as_them: dict[str, Any] = {"user": RESTRICTED, "environ": {"HOME": str(their), "XDG_STATE_HOME": str(their)}}
    client = moved(newcomer(live, "poor-client", client=True), "poor-client")
    assert live.command("register", config=client, **as_them).json["role"] == "client"
    assert len(live.command("search", "cores >= 1", config=client, **as_them).json["servers"]) == 2
    live.command("status", **as_them).refusal("client.toml")  # another user's
    server = moved(newcomer(live, "poor-server"), "poor-server")
    live.command("join", config=server, **as_them).refusal()


@pytest.mark.parametrize(("kind", "setting"), [(socket.SOCK_DGRAM, "udp"), (socket.SOCK_STREAM, "control")])
def test_a_port_in_use_is_named_with_its_setting(live: Live, kind: int, setting: str) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        for role, command in (("corp", ("corp", "serve")), ("server", ("join",))):
            name = f"{role}-{setting}"
            config = newcomer(live, name, {setting: f"127.0.0.1:{port}"}) if role == "server" else None
            if config is None:
                config = live.folder / f"{name}.toml"
                other = "control" if setting == "udp" else "udp"
                addresses = {setting: f"127.0.0.1:{port}", other: f"127.0.0.1:{free_ports(1)[0]}"}
                save(config, {"folder": live.folder / name, **addresses})
                assert live.command("corp", "init", config=config).json
            live.command(*command, config=config).refusal(str(port), f"{setting} =")
            again = {setting: f"127.0.0.1:{free_ports(1)[0]}"}
            assert (live.folder / name).exists() and again


def test_a_key_file_that_others_can_read_is_refused(live: Live) -> None:
    config = newcomer(live, "careless", client=True)
    assert live.command("status", config=config).json["registered"] is False
    [key] = (live.folder / "careless" / "keys").glob("*.key")
    key.chmod(0o644)
    for command in (("status",), ("register",), ("search", "cores >= 1")):
        live.command(*command, config=config).refusal(str(key))
    key.chmod(0o600)
    assert live.command("status", config=config).json["registered"] is False


# -- time ------------------------------------------------------------------------------------------------


@pytest.fixture
def at(tmp_path: Path) -> Any:
    """An environment in which the program's clock is so many seconds ahead."""

    def ahead(seconds: int) -> dict[str, str]:
        folder = tmp_path / f"clock{seconds}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            f"import time\n_real = time.time_ns\ntime.time_ns = lambda: _real() + {seconds} * 10**9\n"
        )
        return {"PYTHONPATH": str(folder)}

    return ahead


@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])
def test_a_clock_an_hour_off_signs_nothing_and_says_so(live: Live, at: Any, seconds: int) -> None:
    direction = "ahead" if seconds > 0 else "behind"
    before = money(live)
    client = newcomer(live, f"clock-client-{direction}", client=True)
    live.command("register", config=client, environ=at(seconds)).refusal("clock", direction)
    server = newcomer(live, f"clock-server-{direction}")
    live.command("join", config=server, environ=at(seconds + 1)).refusal("clock", direction)
    live.command("order", "create", "1", "USD", environ=at(seconds + 2)).refusal("clock")
    doctor = live.command("doctor", environ=at(seconds + 3))
    assert doctor.status == 1 and f"{direction}" in doctor.out
    assert money(live) == before


def test_an_expired_credential_is_refused_and_registering_is_the_next_step(live: Live, at: Any) -> None:
    before, later = money(live), at(8 * 24 * HOUR_S)
    for command in (("search", "cores >= 1"), ("order", "create", "1", "USD"), ("statement",)):
        live.command(*command, environ=later).refusal("register")
    assert money(live) == before


# -- helpers ---------------------------------------------------------------------------------------------


def newcomer(live: Live, name: str, more: dict[str, object] | None = None, *, client: bool = False) -> Path:
    """A configuration for a folder of its own, with ports of its own."""
    if client:
        return live.another(live.plan.client, name, udp=f"127.0.0.1:{free_ports(1)[0]}")
    addresses = {"udp": f"127.0.0.1:{free_ports(1)[0]}", "control": f"127.0.0.1:{free_ports(1)[0]}", **(more or {})}
    owner = {"owner__legal_name": f"{name} Ltd"}
    return live.another(live.plan.servers[0], name, **addresses, **owner)
