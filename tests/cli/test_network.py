"""The program against a real XenoCorp in a process of its own: register, pay in, order, account, audit, stop."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xenonode.cli import main
from xenonode.cli.network import key_of
from xenonode.errors import XenoError

PROGRAM = [sys.executable, "-m", "xenonode.cli"]


class Bench:
    """A XenoCorp that serves, and a client's configuration beside it."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        udp, control = free_port(), free_port()
        self.corp = folder / "corp.toml"
        self.corp.write_text(
            f"version = 1\nfolder = '{folder}/corp'\nudp = '{host}:{udp}'\ncontrol = '{host}:{control}'\n"
        )
        self.client = folder / "client.toml"
        self.client.write_text(
            f"version = 1\nfolder = '{folder}/client'\nnetwork = '{folder}/corp/network.xeno'\n[owner]\n"
            "legal_name = 'Ada'\ncountry = 'GB'\nemail = 'ada@example.org'\nproof_reference = 'passport 1'\n"
        )
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("XENONODE_")}
        self.environ |= {"XDG_STATE_HOME": f"{folder}/state", "XDG_CONFIG_HOME": f"{folder}/config"}

    def run(self, config: Path, *arguments: str) -> tuple[int, str, str]:
        """One command in this process, which spares the second that a new interpreter takes to begin."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.run([*arguments, "--config", str(config), "--json"])
        return status, out.getvalue(), err.getvalue()

    def answer(self, config: Path, *arguments: str) -> Any:
        status, out, err = self.run(config, *arguments)
        assert (status, err) == (0, "")
        return json.loads(out)

    def refusal(self, config: Path, *arguments: str) -> dict[str, str]:
        status, out, err = self.run(config, *arguments)
        assert (status, out) == (1, "")
        fields: dict[str, str] = json.loads(err)
        assert fields["code"] != "unexpected" and fields["message"] and fields["next_step"]
        return fields


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port that nobody has, below those that the system gives to sockets of other tests meanwhile."""
    for port in random.sample(range(21_500, 32_000), 100):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@pytest.fixture(autouse=True)
def own_folders(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads this user's settings or writes into this user's folders."""
    for name in list(os.environ):
        if name not in bench.environ:
            monkeypatch.delenv(name)
    for name, value in bench.environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    pytest.importorskip("libcloud", reason="the first schema is drawn from the catalogue")
    made = Bench(tmp_path_factory.mktemp("network"))
    with serving(made):
        yield made


@contextlib.contextmanager
def serving(made: Bench) -> Iterator[None]:
    """XenoCorp's process."""
    made.answer(made.corp, "corp", "init")
    process = subprocess.Popen(
        [*PROGRAM, "corp", "serve", "--config", str(made.corp), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=made.environ,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    while not said.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, "XenoCorp ended before it served"
        said += line
    assert json.loads(said)["pid"] == process.pid
    yield
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_money_is_paid_in_ordered_released_and_accounted_for(bench: Bench) -> None:
    assert bench.refusal(bench.client, "order", "list")["next_step"] == "run: xenonode register"
    entity = bench.answer(bench.client, "register")["entity"]
    assert bench.answer(bench.client, "register")["entity"] == entity
    assert bench.refusal(bench.client, "order", "create", "5", "USD")["code"] == "no_funds"
    credited = bench.answer(bench.corp, "corp", "credit", entity, "100", "USD")
    assert credited["balance_nano"] == 100 * 10**9
    order = bench.answer(bench.client, "order", "create", "5", "USD", "--expires-in", "1h")
    assert order["free_nano"] == 5 * 10**9
    assert [each["order"] for each in bench.answer(bench.client, "order", "list")] == [order["order"]]
    released = bench.answer(bench.client, "order", "release", order["order"][:8])
    assert (released["free_nano"], released["released_nano"]) == (0, 5 * 10**9)
    statement = bench.answer(bench.client, "statement")
    assert (statement["balance_nano"], statement["ringfenced_nano"]) == (100 * 10**9, 0)
    assert bench.answer(bench.corp, "corp", "audit")["balanced"] is True


def test_a_search_with_no_servers_is_complete_and_empty(bench: Bench) -> None:
    bench.answer(bench.client, "register")
    found = bench.answer(bench.client, "search", "cores >= 1")
    assert (found["servers"], found["complete"]) == ([], True)
    assert bench.refusal(bench.client, "search", "cores >>= 1")["code"] == "query"
    assert bench.refusal(bench.client, "advert", "show", "abcd")["code"] == "unknown_server"


def test_a_market_without_servers_counts_none_exactly(bench: Bench) -> None:
    bench.answer(bench.client, "register")
    told = bench.answer(bench.client, "market", "cores >= 1", "--by", "region")
    assert told["count"] == {"least": 0, "most": 0, "exact": True} and told["groups"] == {}
    assert bench.refusal(bench.client, "market", "coars >= 1")["message"].endswith("did you mean cores?")
    for wanted in ("cores >= 1 order by price.cpu", "cores >= 1 limit 3"):
        refused = bench.refusal(bench.client, "market", wanted)
        assert refused["code"] == "query" and "no order and no limit" in refused["message"]


def test_a_plan_that_no_server_fits_says_whom_it_lacks(bench: Bench, tmp_path: Path) -> None:
    bench.answer(bench.client, "register")
    plan = tmp_path / "plan.toml"
    plan.write_text('[[member]]\nname = "web"\ncpu = "100 ms/s"\n')
    refused = bench.refusal(bench.client, "place", str(plan))
    assert refused["code"] == "no_placement" and "'web'" in refused["message"]
    plan.write_text('[[member]]\nname = "web"\ncpu = "100 ms"\n')
    assert "member 'web': cpu: unit 'ms'" in bench.refusal(bench.client, "place", str(plan))["message"]


def test_a_saved_search_is_run_again_and_forgotten(bench: Bench) -> None:
    bench.answer(bench.client, "register")
    bench.answer(bench.client, "search", "cores >= 1", "--save", "all")
    [listed] = bench.answer(bench.client, "saved", "list")
    assert (listed["name"], listed["query"], listed["servers"]) == ("all", "cores >= 1", [])
    found = bench.answer(bench.client, "search", "--saved", "all", "--within", "all")
    assert (found["query"], found["complete"]) == ("cores >= 1", True)
    made = bench.answer(bench.client, "saved", "combine", "none", "difference", "all", "all")
    assert made == {"name": "none", "servers": 0, "complete": True}
    assert "did you mean all" in bench.refusal(bench.client, "search", "--saved", "al")["next_step"]
    assert bench.answer(bench.client, "saved", "remove", "all") == {"removed": "all"}
    assert bench.run(bench.client, "search", "--saved", "none")[0] == 2


def test_the_operator_adds_a_dimension_and_a_client_hears_of_it(bench: Bench) -> None:
    bench.answer(bench.client, "register")
    refused = bench.refusal(bench.corp, "corp", "schema", "add-dimension", "uptme")
    assert refused["next_step"] == "did you mean uptime?"
    added = bench.answer(bench.corp, "corp", "schema", "add-dimension", "uptime", "--search-in", "1s")
    assert (added["epoch"], added["dimensions"][-1]["name"], added["dimensions"][-1]["epoch"]) == (2, "uptime", 2)
    assert bench.answer(bench.corp, "corp", "schema", "show") == added
    assert "is one already" in bench.refusal(bench.corp, "corp", "schema", "add-dimension", "uptime")["message"]
    found = bench.answer(bench.client, "search", "uptime >= 1 h", "--explain")
    assert found["complete"]
    assert bench.answer(bench.client, "lookup", "x", "--dimension", "uptime")["found"]


def test_a_traced_lookup_tells_whom_it_asked_and_metrics_are_prometheus_text(bench: Bench) -> None:
    bench.answer(bench.client, "register")
    told = bench.answer(bench.client, "lookup", "any text", "--trace", "--dimension", "cores")
    [hop] = told["hops"]  # XenoCorp is alone
    assert told["asked"] == 1 and [each["node_id"] for each in told["found"]] == [hop["node_id"]]
    assert hop["took_ms"] >= 0 and "contacts" in hop["answer"]
    assert bench.refusal(bench.client, "lookup", "x", "--dimension", "luck")["code"] == "bad_request"
    metrics = bench.answer(bench.client, "metrics")
    assert metrics["alarm"] == "" and 'xeno_dht_requests_total{overlay="cores",kind="find"}' in metrics["text"]


def test_doctor_reads_the_network_file_and_compares_the_clocks(bench: Bench) -> None:
    findings = {each["check"]: each["level"] for each in json.loads(bench.run(bench.client, "doctor")[1])}
    assert (findings["network file"], findings["clock"]) == ("ok", "ok")


def test_a_second_xenocorp_in_the_folder_is_told_who_holds_it(bench: Bench) -> None:
    log = logging.getLogger()
    before = log.level, list(log.handlers)
    assert "in use by process" in bench.refusal(bench.corp, "corp", "serve")["message"]
    assert (log.level, log.handlers) == before


def test_a_key_file_that_others_can_read_is_refused(bench: Bench, tmp_path: Path) -> None:
    copy = tmp_path / "client.toml"
    copy.write_text(bench.client.read_text().replace("/client'", "/careless'"))
    bench.answer(copy, "status")
    [key] = bench.client.parent.glob("careless/keys/*.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o644)
    assert str(key) in bench.refusal(copy, "status")["message"]
    key.unlink()
    key.mkdir()
    assert bench.refusal(copy, "status")["code"] == "key_file"


def test_no_text_is_no_key() -> None:
    assert key_of("ab" * 20) == b"\xab" * 20 and len(key_of("any text")) == 20
    with pytest.raises(XenoError, match="no key"):
        key_of("  ")


def test_a_value_is_published_and_read_by_its_writers_key_and_name(bench: Bench, tmp_path: Path) -> None:
    bench.answer(bench.client, "register")
    there, back = tmp_path / "there", tmp_path / "back"
    for value in (b"small", bytes(range(256)) * 200):
        there.write_bytes(value)
        told = bench.answer(bench.client, "value", "put", "thing", str(there), "--expires-in", "1h")
        assert (told["size_bytes"], told["holders"]) == (len(value), 1)
        for owner in ("me", told["owner"]):
            assert bench.answer(bench.client, "value", "get", owner, "thing", str(back))["size_bytes"] == len(value)
            assert back.read_bytes() == value
    endless = bench.refusal(bench.client, "value", "put", "thing", "/dev/zero")
    assert endless["code"] == "value_size"
    there.write_bytes(bytes(65_536))
    assert "server publish" in bench.refusal(bench.client, "value", "put", "thing", str(there))["next_step"]
    assert bench.refusal(bench.client, "value", "put", "n" * 65, str(back))["code"] == "bad_request"
    late = bench.refusal(bench.client, "value", "put", "thing", str(back), "--expires-in", "8d")
    assert late["code"] == "bad_request"
    assert bench.refusal(bench.client, "value", "get", "me", "nothing", str(back))["code"] == "no_value"
    unread = bench.refusal(bench.client, "value", "get", "x" * 64, "thing", str(back))
    assert unread["code"] == "bad_request"
    assert back.read_bytes() == value  # what cannot be read overwrites nothing


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_a_client_finds_its_way_in_a_network_of_ipv6(tmp_path: Path) -> None:
    pytest.importorskip("libcloud", reason="the first schema is drawn from the catalogue")
    made = Bench(tmp_path, "[::1]")
    with serving(made):
        made.answer(made.client, "register")
        [hop] = made.answer(made.client, "lookup", "any text", "--trace")["hops"]
        assert hop["address"].startswith("[::1]:")
