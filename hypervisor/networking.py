"""The guests' network on one machine: a bridge of our own with isolated ports, or user-mode networking.

Every root folder has its own bridge and its own /24 out of 10.64.0.0/10, so that several servers on one
machine never touch one another's; names carry the owner's tag. Nothing is routed outwards, a guest may only
answer who speaks to it, and no interface but our own is changed. A rate cap is a token bucket on the tap
(towards the guest) and, through an ifb, on what comes from the guest.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hypervisor.errors import CapacityError, HypervisorError, RemoteError, SoftwareMissingError

POOL = ipaddress.ip_network("10.64.0.0/10")
SUBNET_COUNT = 1 << 14  # the /24s of the pool
GUESTS_MAX = 250  # of 254 addresses, one is the bridge's
USER_MODE_ADDRESS = "10.0.2.15/24"
# A burst of 20 ms at the full rate, and never less than a few packets; a queue of 100 ms beyond it.
BURST_MS, BURST_MIN_BYTES, LATENCY_MS = 20, 16_384, 100
_TIMEOUT_S = 20
_LOCK_PATH = "/run/xenonode-network.lock"


def mac_address(owner: str, index: int) -> str:
    """Unique within a machine as long as owner tags are; QEMU's locally administered prefix."""
    return f"52:54:00:{owner[0:2]}:{owner[2:4]}:{index:02x}"


class BridgeNetwork:
    """One owner's bridge; all calls need the right to administer the network."""

    def __init__(self, owner: str, state_path: Path) -> None:
        self._owner, self._state_path = owner, state_path
        self.bridge = f"xb{owner}"

    def tap(self, index: int) -> str:
        return f"xt{self._owner}{index:02x}"

    def _ifb(self, index: int) -> str:
        return f"xi{self._owner}{index:02x}"

    @property
    def _sink(self) -> str:
        return f"xs{self._owner}"

    def address(self, index: int) -> str:
        return str(self._subnet()[index + 1])

    def gateway(self) -> str:
        return str(self._subnet()[1])

    def ensure(self) -> None:
        """Make the bridge if it is not there, on a subnet that nothing else on this machine uses."""
        with _machine_lock():
            subnet = self._choose()
            self._state_path.write_text(json.dumps({"subnet": str(subnet)}), "utf-8")
            if not _exists(self.bridge):
                _run("ip", "link", "add", "name", self.bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
                with contextlib.suppress(OSError):
                    Path(f"/proc/sys/net/ipv6/conf/{self.bridge}/disable_ipv6").write_text("1")
                _run("ip", "addr", "add", f"{subnet[1]}/24", "dev", self.bridge)
            _run("ip", "link", "set", self.bridge, "up")

    def remove(self) -> None:
        """Take the bridge away; call when no guest is left."""
        with _machine_lock():
            for device in (self.bridge, self._sink):
                _quietly("ip", "link", "del", device)

    def guard(self, index: int, net_bit_per_s: int) -> None:
        """Let a running guest only answer, from its own address; with a rate, hold its traffic to it, each way.

        A guest runs anybody's code, and this machine's own services are one address away: of what comes from the
        guest, ARP, TCP that acknowledges and ping's answers pass, and all else ends in a queue of no length.
        """
        tap, ifb, sink = self.tap(index), self._ifb(index), self._sink
        self.unguard(index)
        _quietly("tc", "qdisc", "del", "dev", tap, "root")
        _quietly("tc", "qdisc", "del", "dev", tap, "ingress")
        if not _exists(sink):
            _run("ip", "link", "add", "name", sink, "type", "ifb")
            _run("tc", "qdisc", "add", "dev", sink, "root", "pfifo", "limit", "0")
            _run("ip", "link", "set", sink, "up")
        if net_bit_per_s:
            _run("ip", "link", "add", "name", ifb, "type", "ifb")
            _run("ip", "link", "set", ifb, "up")
            for device in (tap, ifb):
                _run(*_token_bucket(device, net_bit_per_s))
        _run("tc", "qdisc", "add", "dev", tap, "handle", "ffff:", "ingress")
        for filter in guest_filters(tap, self.address(index), ifb if net_bit_per_s else "", sink):
            _run(*filter)

    def unguard(self, index: int) -> None:
        """Remove what guarding left behind (the tap itself goes with the guest)."""
        _quietly("ip", "link", "del", self._ifb(index))

    def can_bridge(self) -> bool:
        """Whether we may make a bridge here (root in a container often may not), tried and removed again."""
        trial = f"xp{self._owner}b"
        try:
            _quietly("ip", "link", "del", trial)
            _run("ip", "link", "add", "name", trial, "type", "bridge")
        except HypervisorError:
            return False
        finally:
            _quietly("ip", "link", "del", trial)
        return True

    def can_guard(self) -> bool:
        """Whether this kernel has what guards and caps need, tried on an interface of our own that is then removed."""
        first, second = f"xp{self._owner}0", f"xp{self._owner}1"
        try:
            for device in (first, second):
                _quietly("ip", "link", "del", device)
                _run("ip", "link", "add", "name", device, "type", "ifb")
            _run(*_token_bucket(first, 1_000_000))
            _run("tc", "qdisc", "add", "dev", second, "root", "pfifo", "limit", "0")
            _run("tc", "qdisc", "add", "dev", first, "handle", "ffff:", "ingress")
            for filter in guest_filters(first, "10.64.0.2", "", second):
                _run(*filter)
        except HypervisorError:
            return False
        finally:
            for device in (first, second):
                _quietly("ip", "link", "del", device)
        return True

    def _subnet(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(json.loads(self._state_path.read_text("utf-8"))["subnet"])

    def _choose(self) -> ipaddress.IPv4Network:
        taken = taken_networks(_run("ip", "-j", "addr"), _run("ip", "-j", "route"), self.bridge)
        with contextlib.suppress(OSError, ValueError, KeyError):
            kept = self._subnet()
            if _exists(self.bridge) or not any(kept.overlaps(other) for other in taken):
                return kept
        return choose_subnet(self._owner, taken)


def choose_subnet(owner: str, taken: list[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first free /24, starting at a place that the owner's tag (hex) names."""
    start = int(owner, 16) % SUBNET_COUNT
    for step in range(SUBNET_COUNT):
        number = (start + step) % SUBNET_COUNT
        subnet = ipaddress.IPv4Network((int(POOL.network_address) + (number << 8), 24))
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise CapacityError("no subnet is left for guests", f"free a /24 of {POOL}")


def taken_networks(addresses_json: str, routes_json: str, own_bridge: str) -> list[ipaddress.IPv4Network]:
    """Every IPv4 network that an interface or a route of this machine names, but those of our own bridge."""
    found = [
        f"{info['local']}/{info['prefixlen']}"
        for link in json.loads(addresses_json)
        for info in link.get("addr_info", [])
        if info.get("family") == "inet" and link.get("ifname") != own_bridge
    ]
    found += [
        route["dst"]
        for route in json.loads(routes_json or "[]")
        if route.get("dst") not in (None, "default") and route.get("dev") != own_bridge
    ]
    return [ipaddress.IPv4Network(network, strict=False) for network in found]


def free_port(host: str) -> int:
    """A TCP port that is free now; the caller must cope with losing the race for it."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _exists(device: str) -> bool:
    """Asked of our own network namespace, which /sys need not show."""
    try:
        return socket.if_nametoindex(device) > 0
    except OSError:
        return False


def _token_bucket(device: str, net_bit_per_s: int) -> list[str]:
    burst = max(BURST_MIN_BYTES, net_bit_per_s * BURST_MS // 8000)
    rate = ["rate", f"{net_bit_per_s}bit", "burst", f"{burst}b", "latency", f"{LATENCY_MS}ms"]
    return ["tc", "qdisc", "add", "dev", device, "root", "tbf", *rate]


def guest_filters(tap: str, address: str, ifb: str, sink: str) -> list[list[str]]:
    """What may come from a guest, first match first: commands for tc. `ifb` is where capped traffic goes."""
    # No IP options and no fragments, so that the TCP and ICMP headers are where they are looked for.
    plain = ["match", "ip", "src", f"{address}/32", "match", "u8", "0x45", "0xff", "at", "0"]
    plain += ["match", "u16", "0", "0x3fff", "at", "6"]
    acknowledging = ["match", "u8", "6", "0xff", "at", "9", "match", "u8", "0x10", "0x10", "at", "33"]
    echo_reply = ["match", "u8", "1", "0xff", "at", "9", "match", "u8", "0", "0xff", "at", "20"]
    everything = ["match", "u32", "0", "0"]
    go_on = ["flowid", ":1"]
    onward = _to(ifb) if ifb else go_on
    rules = (
        ("arp", "1", everything + go_on),
        ("ip", "2", plain + acknowledging + onward),
        ("ip", "3", plain + echo_reply + onward),
        ("all", "9", everything + _to(sink)),
    )
    start = ["tc", "filter", "add", "dev", tap, "parent", "ffff:", "protocol"]
    return [[*start, protocol, "prio", rank, "u32", *rule] for protocol, rank, rule in rules]


def _to(device: str) -> list[str]:
    return ["action", "mirred", "egress", "redirect", "dev", device]


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=_environment())
    except FileNotFoundError:
        raise SoftwareMissingError(f"{command[0]} is not installed", "apt-get install iproute2") from None
    except subprocess.TimeoutExpired:
        raise RemoteError(f"{' '.join(command[:3])} did not end", "look at the machine's network set-up") from None
    if done.returncode:
        raise RemoteError(f"{' '.join(command)} failed: {done.stderr.strip()}", "look at the machine's network set-up")
    return done.stdout


def _quietly(*command: str) -> None:
    """For what may be absent already."""
    with contextlib.suppress(HypervisorError):
        _run(*command)


def _environment() -> dict[str, str]:
    # /sbin is not on every service's path, and ip and tc live there.
    return {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"}


@contextlib.contextmanager
def _machine_lock() -> Iterator[None]:
    """Servers on one machine choose their subnets one after another."""
    with open(_LOCK_PATH, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
