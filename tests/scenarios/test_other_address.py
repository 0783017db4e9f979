"""A server process whose address changes while it runs, and one whose router forwards another port, seen from outside.

Two network namespaces, with a router's between them where a test wants one: XenoCorp, three servers and a client in
the one, the server in question in the other. The hypervisor is libvirt's test driver, since no guest is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.dht.namespaces import can_make_namespaces

ROOT = Path(__file__).parents[2]
UDP, CONTROL = 7_410, 7_411
CORP, NEIGHBOURS, CLIENT = 1, (11, 12, 13), 20
OLD, NEW = "10.66.0.50", "10.66.0.60"
INNER, ROUTER = "10.67.0.2", "10.67.0.1"
OTHER, OTHER_ROUTER, OTHER_NEXT = "10.68.0.50", "10.69.0.1", "10.68.0.1"
STARTED_S, FOUND_S = 180.0, 120.0
"""For machines that are busy: it takes seconds. The simulator's test has the bound of half a minute."""


pytestmark = pytest.mark.skipif(
    shutil.which("nft") is None or find_spec("libvirt") is None or not can_make_namespaces(),
    reason="needs root, `ip netns`, nft and libvirt",
)


class Place:
    """The namespaces `net` (everybody else), `home` (the server), `router` and `other`, and what runs in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = {role: f"xeno-{os.getpid()}-{role}" for role in ("net", "home", "router", "other")}
        self.running: list[subprocess.Popen[str]] = []
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("XENONODE_")}
        self.environ |= {"XDG_STATE_HOME": f"{folder}/state", "XDG_CONFIG_HOME": f"{folder}/config"}

    def ip(self, role: str, *arguments: str) -> None:
        subprocess.run(["ip", "-n", self.names[role], *arguments], check=True, capture_output=True)

    def cable(self, left: str, right: str, device: str) -> None:
        """A pair of interfaces of one name, up; the second at `left` has a 2 behind it."""
        here = device + "2" * (right == "other")
        ends = ("name", here, "netns", self.names[left], "type", "veth", "peer", "name", device)
        subprocess.run(["ip", "link", "add", *ends, "netns", self.names[right]], check=True, capture_output=True)
        self.ip(left, "link", "set", here, "up")
        self.ip(right, "link", "set", device, "up")

    def make(self, outside: str) -> None:
        """All of it; `outside` is who has the address that the others see, the server itself or its router."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        for role in self.names:
            self.ip(role, "link", "set", "lo", "up")
        self.cable("net", outside, "out")
        for last in (CORP, *NEIGHBOURS, CLIENT):
            self.ip("net", "addr", "add", f"10.66.0.{last}/24", "dev", "out")
        self.ip(outside, "addr", "add", f"{OLD}/24", "dev", "out")

    def translate(self, forwarded: int) -> None:
        """A router as in a home, which forwards control, and this UDP port to the server's."""
        self.cable("home", "router", "in")
        self.ip("home", "addr", "add", f"{INNER}/24", "dev", "in")
        self.ip("router", "addr", "add", f"{ROUTER}/24", "dev", "in")
        self.ip("home", "route", "add", "default", "via", ROUTER)
        self._rules("router", forwarded)

    def second_way(self) -> None:
        """Another router at another provider, not used yet."""
        self.cable("net", "other", "out")
        self.cable("home", "other", "in")
        self.ip("net", "addr", "add", f"{OTHER_NEXT}/24", "dev", "out2")
        self.ip("other", "addr", "add", f"{OTHER}/24", "dev", "out")
        self.ip("other", "route", "add", "10.66.0.0/24", "via", OTHER_NEXT)
        self.ip("other", "addr", "add", f"{OTHER_ROUTER}/24", "dev", "in")
        self.ip("other", "route", "add", f"{INNER}/32", "dev", "in")
        self.ip("home", "addr", "add", "10.69.0.2/24", "dev", "in2")
        self._rules("other", UDP)

    def take_second_way(self) -> None:
        """The first router fails."""
        self.ip("router", "link", "set", "out", "down")
        self.ip("home", "route", "replace", "default", "via", OTHER_ROUTER, "dev", "in2")

    def _rules(self, role: str, forwarded: int) -> None:
        rules = (
            "table ip home {\nchain before { type nat hook prerouting priority dstnat;\n"
            f'iifname "out" udp dport {forwarded} dnat to {INNER}:{UDP}\n'
            f'iifname "out" tcp dport {CONTROL} dnat to {INNER}:{CONTROL}\n}}\n'
            'chain after { type nat hook postrouting priority srcnat;\noifname "out" masquerade\n}\n'
            "chain through { type filter hook forward priority filter; policy drop;\n"
            'ct state established,related accept\niifname != "out" accept\nct status dnat accept\n}\n}\n'
        )
        run = ["ip", "netns", "exec", self.names[role]]
        subprocess.run([*run, "nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)
        subprocess.run([*run, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)

    def change_address(self, outside: str) -> None:
        self.ip(outside, "addr", "del", f"{OLD}/24", "dev", "out")
        self.ip(outside, "addr", "add", f"{NEW}/24", "dev", "out")

    # -- programs ----------------------------------------------------------------------------------------

    def config(self, name: str, text: str) -> Path:
        path = self.folder / f"{name}.toml"
        owner = f'[owner]\nlegal_name = "{name}"\ncountry = "GB"\nemail = "a@example.org"\nproof_reference = "{name}"\n'
        network = f"network = '{self.folder}/corp/network.xeno'\n" if name != "corp" else ""
        head = f"version = 1\nfolder = '{self.folder}/{name}'\n{network}"
        path.write_text(head + text + (owner if name != "corp" else ""))
        return path

    def server(self, name: str, host: str, more: str = "") -> Path:
        return self.config(
            name,
            f'udp = "{host}:{UDP}"\ncontrol = "{host}:{CONTROL}"\nregion = "{name}"\nhypervisor = "test:///default"\n'
            f'{more}[share]\ncpu = "1000 ms/s"\nmemory = "1 GiB"\n'
            '[prices]\ncpu = "0.02 USD/h"\nmemory = "0.004 USD/GiB/h"\n',
        )

    def _command(self, role: str, arguments: tuple[object, ...]) -> list[str]:
        program = [sys.executable, "-m", "xenonode.cli", *map(str, arguments)]
        return ["ip", "netns", "exec", self.names[role], *program]

    def start(self, role: str, *arguments: object) -> subprocess.Popen[str]:
        """A program that serves; its words go into a file."""
        with open(self.folder / f"{len(self.running)}.out", "w", encoding="utf-8") as words:
            process = subprocess.Popen(
                self._command(role, arguments), stdout=words, stderr=words, text=True, env=self.environ, cwd=ROOT
            )
        self.running.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        return (self.folder / f"{self.running.index(process)}.out").read_text()

    def serving(self, *processes: subprocess.Popen[str]) -> None:
        for process in processes:
            until(lambda: "runs as process" in self.said(process) or process.poll() is not None, STARTED_S)  # noqa: B023
            assert process.poll() is None, self.said(process)

    def answer(self, role: str, *arguments: object) -> Any:
        command = self._command(role, (*arguments, "--json"))
        done = subprocess.run(command, capture_output=True, text=True, env=self.environ, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def begin(self) -> None:
        """XenoCorp, three servers, and a client that is a member."""
        corp = self.config("corp", f'udp = "10.66.0.{CORP}:7400"\ncontrol = "10.66.0.{CORP}:7401"\n')
        self.answer("net", "corp", "init", "--config", corp)
        self.serving(self.start("net", "corp", "serve", "--config", corp))
        others = [self.server(f"neighbour-{last}", f"10.66.0.{last}") for last in NEIGHBOURS]
        self.serving(*[self.start("net", "join", "--config", path) for path in others])
        self.client = self.config("client", f'udp = "10.66.0.{CLIENT}:7420"\n')
        self.answer("net", "register", "--config", self.client)

    def found_at(self) -> tuple[str, bool]:
        """Where a search finds the server, or nowhere; and whether its answer was whole."""
        answer = self.answer("net", "search", 'region = "home"', "--config", self.client)
        hosts = [each["advert"]["control"].rpartition(":")[0] for each in answer["servers"]]
        return (hosts or [""])[0], answer["complete"]

    def known_at(self) -> dict[str, set[str]]:
        """By dimension, the addresses that a client meets in its overlay."""
        found: dict[str, set[str]] = {}
        for each in self.answer("net", "peers", "--config", self.client):
            found.setdefault(each["dimension"], set()).add(each["address"])
        return found

    def is_known_at_the_new_address_alone(self) -> bool:
        known = self.known_at().values()
        return len(known) == 11 and all(f"{NEW}:{UDP}" in each and f"{OLD}:{UDP}" not in each for each in known)

    def remove(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def until(is_so: Callable[[], bool], within_s: float) -> float:
    """How long it took."""
    began_s = time.monotonic()
    while not is_so():
        assert time.monotonic() < began_s + within_s, "it did not come to pass"
        time.sleep(0.3)
    return time.monotonic() - began_s


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        made.remove()


def test_a_running_server_goes_on_at_its_new_address_and_is_found_there_in_all_overlays(place: Place) -> None:
    place.make("home")
    place.begin()
    config = place.server("home", OLD, 'advertise = "auto"\n')
    server = place.start("home", "join", "--config", config)
    place.serving(server)
    until(lambda: place.found_at() == (OLD, True), FOUND_S)
    place.change_address("home")
    until(lambda: place.found_at() == (NEW, True), FOUND_S)
    until(place.is_known_at_the_new_address_alone, FOUND_S)
    assert server.poll() is None and f"has the address {NEW} now" in place.said(server)
    assert "xeno_dht" in place.answer("net", "metrics", f"{NEW}:{CONTROL}", "--config", place.client)["text"]
    assert place.answer("home", "server", "sessions", "--config", config) == []
    # Its owner, who finds it at the new address too, takes it out of a dimension and in again; nobody is missed.
    dimensions = place.answer("home", "server", "dimensions", "--config", config)
    assert [each["joined"] for each in dimensions] == [True] * 11
    left = place.answer("home", "server", "leave", "price.net", "--config", config)
    assert not left["joined"] and not left["adverts_not_taken"] and not left["records_not_taken"]
    everybody = place.answer("net", "search", "price.net >= 0 USD/GiB", "--config", place.client)
    assert everybody["complete"] and len(everybody["servers"]) == 1 + len(NEIGHBOURS)
    assert place.answer("home", "server", "enter", "price.net", "--config", config)["joined"]
    # Started again with the old address in its configuration, it begins at the one that there is.
    server.send_signal(signal.SIGINT)
    server.wait(60)
    place.serving(place.start("home", "join", "--config", config))
    until(lambda: place.found_at() == (NEW, True), FOUND_S)


def test_a_running_server_is_found_where_its_machine_gets_out_now(place: Place) -> None:
    """Its own address stays; the address that others see is another router's from one moment to the next."""
    place.make("router")
    place.translate(UDP)
    place.second_way()
    place.begin()
    server = place.start("home", "join", "--config", place.server("home", INNER, 'advertise = "auto"\n'))
    place.serving(server)
    until(lambda: place.found_at() == (OLD, True), FOUND_S)
    place.take_second_way()
    took_s = until(lambda: place.found_at() == (OTHER, True), FOUND_S)
    assert f"others see this node at {OTHER}:{UDP} now" in place.said(server), took_s
    assert "xeno_dht" in place.answer("net", "metrics", f"{OTHER}:{CONTROL}", "--config", place.client)["text"]


def test_a_server_whose_port_is_forwarded_under_another_number_is_refused_each_time(place: Place) -> None:
    place.make("router")
    place.translate(17_410)
    place.begin()
    config = place.server("home", INNER, f'advertise = "{OLD}"\n')
    for _ in range(2):  # the router remembers the former run, and lets in whom that wrote to
        refused = place.start("home", "join", "--config", config)
        assert refused.wait(STARTED_S) == 1
        assert f"under the same number ({UDP} to {UDP}, no other" in place.said(refused)
