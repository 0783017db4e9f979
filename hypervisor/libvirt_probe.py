"""What one machine can do through libvirt, found out and never taken from a setting: the promises of adapter.py.

An ability that could not be tried (on Xen: disk caps, the console) is not promised.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hypervisor.adapter import Ability, Capabilities, OfferedImage
from hypervisor.libvirt_driver import LibvirtConnection
from hypervisor.networking import BridgeNetwork

TEST_IMAGE = OfferedImage("micro", (("os", "linux", "0"),), 16 << 20)


def probe(
    uri: str, connection: LibvirtConnection, network: BridgeNetwork | None, offered: tuple[OfferedImage, ...]
) -> Capabilities:
    """Of the machine behind `connection`; without a `network`, guests get user-mode networking."""
    memory_bytes, cpus = connection.memory_bytes_and_cpus()
    if connection.driver == "test":
        abilities = {Ability.PAUSE, Ability.SAVE, Ability.MEMORY_METER, Ability.RESIZE_MEMORY}
        notices = ("libvirt's test driver: guests run no code",)
        return Capabilities(uri, "simulated", cpus, memory_bytes, frozenset(abilities), (TEST_IMAGE,), notices)
    abilities = {
        Ability.CPU_METER, Ability.MEMORY_METER, Ability.RESIZE_MEMORY, Ability.DISK, Ability.DISK_METER,
        Ability.PAUSE, Ability.SAVE, Ability.RECONCILE, Ability.SSH,
    }  # fmt: skip
    if connection.driver != "qemu":
        if os.geteuid() == 0:
            abilities.add(Ability.NET_METER)
        return Capabilities(uri, "xen", cpus, memory_bytes, frozenset(abilities), offered)
    # libvirt counts the first memory node's boot-time size, which hot-added memory outgrows.
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kind = connection.qemu_kind()
    cpu, cpu_notices = _cpu_abilities()
    net, net_notices = _net_abilities(network)
    abilities |= {Ability.DISK_CAP, Ability.CONSOLE} | cpu | net
    slow = ("no KVM on this processor: guests run under emulation, many times slower",) if kind == "qemu" else ()
    virtualisation = "kvm" if kind == "kvm" else "emulated"
    return Capabilities(
        uri, virtualisation, cpus, memory_bytes, frozenset(abilities), offered, slow + cpu_notices + net_notices
    )


def _cpu_abilities() -> tuple[set[Ability], tuple[str, ...]]:
    if os.geteuid() == 0 and _has_cpu_control():
        return {Ability.CPU_QUOTA}, ()
    return set(), ("not root, or no cpu control group: CPU shares cannot be held",)


def _net_abilities(network: BridgeNetwork | None) -> tuple[set[Ability], tuple[str, ...]]:
    if network is None or os.geteuid() != 0 or not network.can_bridge():
        return set(), ("user-mode networking: traffic is not measured, ssh goes through forwarded ports",)
    if network.can_guard():
        return {Ability.NET_METER, Ability.NET_CAP}, ()
    return {Ability.NET_METER}, (
        "no traffic control (tbf, u32, mirred, ifb): no network caps; guests reach this machine's services",
    )


def _has_cpu_control() -> bool:
    """Whether CPU time can be limited by control group, of either version."""
    first = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cgroup.procs")
    if any(path.exists() for path in first):
        return True
    with contextlib.suppress(OSError):
        return "cpu" in Path("/sys/fs/cgroup/cgroup.controllers").read_text("utf-8").split()
    return False
