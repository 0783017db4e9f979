"""Two hosts with network stacks of their own, 1 % loss, reordering and an MTU of 1,280 between them, and a NAT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dht.namespaces import can_make_namespaces

HERE = Path(__file__).parent / "namespaces"
ROOT = Path(__file__).parents[2]
MTU = 1_280
LOSS_PPM, REORDER_PPM = 10_000, 50_000
LEFT, RIGHT, OUTER = "10.77.1.2", "10.77.2.2", "10.77.3.3"
LEFT_ROUTER, RIGHT_ROUTER = "10.77.1.1", "10.77.2.1"
PORT = 7_400
SIZES = (100, 5_000, 65_536)


pytestmark = pytest.mark.skipif(not can_make_namespaces(), reason="needs root and `ip netns`")


class Hosts:
    """Three namespaces: left, wire, right."""

    def __init__(self) -> None:
        self.names = {role: f"xeno-{os.getpid()}-{role}" for role in ("left", "wire", "right")}
        self.running: list[subprocess.Popen[str]] = []

    def ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def make(self) -> None:
        """Two pairs of interfaces; no address resolution, since the wire forwards to the one host on its other side."""
        for name in self.names.values():
            self.ip("netns", "add", name)
        for number, (role, address) in enumerate((("left", LEFT), ("right", RIGHT)), start=1):
            space, wire = self.names[role], self.names["wire"]
            device, far = f"xn{os.getpid() % 100_000}{role[0]}", f"xw{os.getpid() % 100_000}{role[0]}"
            self.ip(
                "link", "add", device, "netns", space, "address", f"02:00:00:00:00:0{number}", "type", "veth",
                "peer", "name", far, "netns", wire,
            )  # fmt: skip
            self.ip("-n", space, "link", "set", "lo", "up")
            self.ip("-n", space, "link", "set", device, "mtu", str(MTU), "up")
            self.ip("-n", wire, "link", "set", far, "mtu", str(MTU), "up")
            self.ip("-n", space, "addr", "add", f"{address}/32", "dev", device)
            self.ip("-n", space, "route", "add", "10.77.0.0/16", "dev", device, "src", address)
            for there in {LEFT, RIGHT, OUTER} - {address}:
                self.ip("-n", space, "neigh", "add", there, "lladdr", "02:00:00:00:00:0f", "dev", device)

    def start(self, role: str, program: str, *arguments: object) -> subprocess.Popen[str]:
        """A program of this folder in a namespace, when it says that it is ready."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[role], sys.executable, str(HERE / program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.running.append(process)
        return process

    def wire(self, *translation: str) -> subprocess.Popen[str]:
        """The wire, forwarding."""
        left, right = (f"xw{os.getpid() % 100_000}{side}" for side in "lr")
        macs = ("02:00:00:00:00:01", "02:00:00:00:00:02")
        process = self.start("wire", "wire.py", left, right, *macs, LOSS_PPM, REORDER_PPM, *translation)
        assert _line(process) == "ready"
        return process

    def remove(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.make()
        yield made
    finally:
        made.remove()


class Router(Hosts):
    """Three namespaces: left, a router of the kernel's own (nftables: masquerade, and perhaps forwarding), right."""

    def make(self) -> None:
        for name in self.names.values():
            self.ip("netns", "add", name)
        for role, inner, outer in (("left", LEFT, LEFT_ROUTER), ("right", RIGHT, RIGHT_ROUTER)):
            space, router = self.names[role], self.names["wire"]
            device, far = f"xn{os.getpid() % 100_000}{role[0]}", f"xw{os.getpid() % 100_000}{role[0]}"
            self.ip("link", "add", device, "netns", space, "type", "veth", "peer", "name", far, "netns", router)
            for where, each, address in ((space, device, inner), (router, far, outer)):
                self.ip("-n", where, "addr", "add", f"{address}/24", "dev", each)
                self.ip("-n", where, "link", "set", each, "up")
                self.ip("-n", where, "link", "set", "lo", "up")
        # Right knows no way to left: home networks are nobody's business.
        self.ip("-n", self.names["left"], "route", "add", "default", "via", LEFT_ROUTER)

    def translate(self, *forwarded: int) -> None:
        """Translate as home routers do, and forward these UDP ports to left."""
        outside = f"xw{os.getpid() % 100_000}r"
        forwards = "".join(f'iifname "{outside}" udp dport {port} dnat to {LEFT}\n' for port in forwarded)
        rules = (
            "table ip home {\n"
            f"chain before {{ type nat hook prerouting priority dstnat;\n{forwards}}}\n"
            f'chain after {{ type nat hook postrouting priority srcnat;\noifname "{outside}" masquerade\n}}\n'
            "chain through { type filter hook forward priority filter; policy drop;\n"
            f'ct state established,related accept\niifname != "{outside}" accept\nct status dnat accept\n}}\n}}\n'
        )
        run = ["ip", "netns", "exec", self.names["wire"]]
        subprocess.run([*run, "nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)
        subprocess.run([*run, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)


@pytest.fixture
def router() -> Iterator[Router]:
    made = Router()
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _told(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=90)
    lines = output.strip().splitlines()
    assert process.returncode == 0 and lines, f"it ended with {process.returncode}"
    return dict(json.loads(lines[-1]))


def _exchange(hosts: Hosts, wire: subprocess.Popen[str], *flags: str) -> tuple[dict[str, Any], ...]:
    """Right begins a network, left joins it; each reads what the other published."""
    sizes = ",".join(map(str, SIZES))
    right = hosts.start("right", "host.py", "right", RIGHT, PORT, "left", "-", 0, sizes)
    assert _line(right) == "ready"
    left = hosts.start("left", "host.py", "left", LEFT, PORT, "right", RIGHT, PORT, sizes, *flags)
    told = _told(left)
    return told, _told(right), _told(wire)


def test_two_hosts_exchange_64_kib_over_a_bad_wire(hosts: Hosts) -> None:
    left, right, wire = _exchange(hosts, hosts.wire())
    assert wire["lost"] > 0 and wire["held_back"] > 0
    assert not wire.get("fragments") and wire["largest"] <= MTU
    for told in (left, right):
        assert sorted(map(int, told["read"])) == sorted(SIZES), (left, right, wire)
        assert not told["faults"]
    assert left["contacts"] == [[RIGHT, PORT]] and right["contacts"] == [[LEFT, PORT]]


def test_a_client_behind_a_nat_publishes_and_reads(hosts: Hosts) -> None:
    left, right, wire = _exchange(hosts, hosts.wire(LEFT, OUTER), "client")
    assert sorted(map(int, left["read"])) == sorted(SIZES), (left, right, wire)
    assert sorted(map(int, right["read"])) == sorted(SIZES), (left, right, wire)
    assert right["contacts"] == []  # a client is nobody's contact
    assert not left["faults"] and not right["faults"]


def _examined(hosts: Hosts, *forwarded: str) -> dict[str, Any]:
    """What a server behind a translator finds out, with ten nodes on the other side."""
    hosts.wire(LEFT, OUTER, *forwarded)
    right = hosts.start("right", "host.py", "right", RIGHT, PORT, "left", "-", 0, "100", "swarm")
    assert _line(right) == "ready"
    left = hosts.start("left", "host.py", "left", LEFT, PORT, "right", RIGHT, PORT, "100", "examine")
    told = _told(left)
    assert not told["faults"] and not _told(right)["faults"]
    return told


def test_a_server_behind_a_nat_finds_out_and_is_told_what_to_do(hosts: Hosts) -> None:
    told = _examined(hosts)
    assert told["reachability"] == "unreachable" and told["observed"][0] == OUTER, told
    assert OUTER in told["advice"] and "forward this UDP port under the same number" in told["advice"]


def test_a_server_whose_port_is_forwarded_is_reachable_through_the_nat(hosts: Hosts) -> None:
    told = _examined(hosts, str(PORT))
    assert told["reachability"] == "mapped" and told["observed"] == [OUTER, PORT], told


def test_a_server_behind_a_router_that_forwards_its_port_joins_and_is_found_by_strangers(router: Router) -> None:
    router.translate(PORT)
    right = router.start("right", "host.py", "right", RIGHT, PORT, "left", "-", 0, "100", "swarm")
    assert _line(right) == "ready"
    left = router.start("left", "host.py", "left", LEFT, PORT, "right", RIGHT, PORT, "100", "examine", "join")
    assert _line(left) == "joined"
    seen, told = _told(right), _told(left)
    assert told["reachability"] == "mapped" and told["observed"] == [RIGHT_ROUTER, PORT], told
    assert len(told["contacts"]) >= 10 and seen["found"] == [[RIGHT_ROUTER, PORT]], (told, seen)
    assert not told["faults"] and not seen["faults"]


def test_a_server_behind_a_router_that_does_not_forward_is_told_what_to_open(router: Router) -> None:
    router.translate()
    right = router.start("right", "host.py", "right", RIGHT, PORT, "left", "-", 0, "100", "swarm")
    assert _line(right) == "ready"
    told = _told(router.start("left", "host.py", "left", LEFT, PORT, "right", RIGHT, PORT, "100", "examine"))
    assert told["reachability"] == "unreachable" and told["observed"] == [RIGHT_ROUTER, PORT], told
    assert RIGHT_ROUTER in told["advice"] and "forward this UDP port under the same number" in told["advice"]
    assert not told["faults"] and not _told(right)["faults"]
