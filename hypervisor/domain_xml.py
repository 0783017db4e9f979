"""A libvirt domain from validated fields: the only place where XML is made, and nothing hands XML in.

Text reaches XML through an element tree, so a hostile name could only ever be text; the plan checks it all
the same. QEMU's shape (q35, virtio, no USB, no graphics, no passthrough) was measured to boot in 2.5-3.5 s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree as tree

from hypervisor.errors import InvalidSpecError

METADATA_NAMESPACE = "urn:xenonode:guest:1"
# CFS may run a guest for quota in each period; 100 ms is the kernel's default period.
PERIOD_US = 100_000
KERNEL_ARGUMENTS = "console={console} panic=1 quiet mitigations=off no_timer_check cryptomgr.notests init_on_alloc=0"
KINDS = ("kvm", "qemu", "xen", "test")

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")
_DEVICE = re.compile(r"[a-z][a-z0-9]{0,14}\Z")  # Linux interface names have at most 15 characters
_MAC = re.compile(r"52:54:00(?::[0-9a-f]{2}){3}\Z")
_PATH = re.compile(r"/[A-Za-z0-9._/+@-]{1,400}\Z")


@dataclass(frozen=True, slots=True)
class BridgePort:
    """A tap on our bridge; isolated ports cannot reach one another."""

    bridge: str
    tap: str
    mac: str

    def __post_init__(self) -> None:
        _check("bridge", _DEVICE, self.bridge)
        _check("tap", _DEVICE, self.tap)
        _check("mac", _MAC, self.mac)


@dataclass(frozen=True, slots=True)
class ForwardedPort:
    """User-mode networking: one TCP port of the host leads to the guest's ssh, and nothing leads out."""

    host: str
    port: int
    mac: str

    def __post_init__(self) -> None:
        _check("host", re.compile(r"\d{1,3}(?:\.\d{1,3}){3}\Z"), self.host)
        _check("mac", _MAC, self.mac)
        if not 1024 <= self.port <= 65535:
            raise InvalidSpecError(f"port {self.port} cannot be forwarded", "choose one of 1024..65535")


@dataclass(frozen=True, slots=True)
class DomainPlan:
    kind: str
    owner: str
    id: str
    memory_bytes: int
    memory_max_bytes: int
    virtual_cpus: int
    cpu_ms_per_s: int | None = None  # None where no quota can be set
    kernel_path: str = ""
    initrd_path: str = ""
    console_path: str = ""
    disk_path: str = ""
    disk_byte_per_s: int = 0
    network: BridgePort | ForwardedPort | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidSpecError(f"{self.kind!r} is no kind of domain", f"use {', '.join(KINDS)}")
        _check("owner", _WORD, self.owner)
        _check("id", _WORD, self.id)
        for path in (self.kernel_path, self.initrd_path, self.console_path, self.disk_path):
            if path and (not _PATH.match(path) or ".." in path.split("/")):
                raise InvalidSpecError(
                    f"{path!r} cannot be a guest's file", "keep guests in a folder with a plain path"
                )
        if not 0 < self.memory_bytes <= self.memory_max_bytes or self.virtual_cpus < 1 or self.disk_byte_per_s < 0:
            raise InvalidSpecError("amounts are out of bounds", "this is a fault of the adapter")


def domain_name(owner: str, id: str) -> str:
    return f"xeno-{owner}-{id}"


def quota_us(cpu_ms_per_s: int) -> int:
    """The share as microseconds in each period."""
    return cpu_ms_per_s * (PERIOD_US // 1000)


def share_ms_per_s(quota: int) -> int:
    return quota // (PERIOD_US // 1000)


def domain_xml(plan: DomainPlan) -> str:
    """The whole domain as XML."""
    domain = tree.Element("domain", {"type": plan.kind})
    _text(domain, "name", domain_name(plan.owner, plan.id))
    # Registered prefixes are global; spelling the attribute out keeps this function free of side effects.
    metadata = tree.SubElement(domain, "metadata")
    tree.SubElement(metadata, "xeno:guest", {"xmlns:xeno": METADATA_NAMESPACE, "owner": plan.owner, "id": plan.id})
    _text(domain, "memory", str(plan.memory_max_bytes // 1024), unit="KiB")
    _text(domain, "currentMemory", str(plan.memory_bytes // 1024), unit="KiB")
    _text(domain, "vcpu", str(plan.virtual_cpus))
    if plan.kind in ("kvm", "qemu"):
        _qemu(domain, plan)
    elif plan.kind == "xen":
        _xen(domain, plan)
    else:
        _text(tree.SubElement(domain, "os"), "type", "hvm")
    return tree.tostring(domain, encoding="unicode")


def _qemu(domain: tree.Element, plan: DomainPlan) -> None:
    if plan.cpu_ms_per_s is not None:
        tune = tree.SubElement(domain, "cputune")
        _text(tune, "global_period", str(PERIOD_US))
        _text(tune, "global_quota", str(quota_us(plan.cpu_ms_per_s)))
    system = tree.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    _boot(system, plan, "ttyS0")
    tree.SubElement(tree.SubElement(domain, "features"), "acpi")
    # The emulator can give the guest all that it knows; the processor all that it has.
    tree.SubElement(domain, "cpu", {"mode": "maximum" if plan.kind == "qemu" else "host-passthrough"})
    _endings(domain)
    devices = tree.SubElement(domain, "devices")
    tree.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    if plan.disk_path:
        _disk(devices, plan, "virtio", "vda")
    if isinstance(plan.network, BridgePort):
        _bridge_port(devices, plan.network, "virtio")
    serial = tree.SubElement(devices, "serial", {"type": "file"})
    # Appending lets the host cut the file short while the guest writes to it.
    tree.SubElement(serial, "source", {"path": plan.console_path, "append": "on"})
    tree.SubElement(serial, "target", {"port": "0"})
    tree.SubElement(devices, "memballoon", {"model": "virtio"})
    if isinstance(plan.network, ForwardedPort):
        port = plan.network
        domain.set("xmlns:qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
        line = tree.SubElement(domain, "qemu:commandline")
        forward = f"user,id=net0,restrict=on,ipv6=off,hostfwd=tcp:{port.host}:{port.port}-10.0.2.15:22"
        # Slot 0x10 is one that libvirt leaves free on the root bus.
        card = f"virtio-net-pci,netdev=net0,mac={port.mac},romfile=,bus=pcie.0,addr=0x10"
        for argument in ("-netdev", forward, "-device", card):
            tree.SubElement(line, "qemu:arg", {"value": argument})


def _xen(domain: tree.Element, plan: DomainPlan) -> None:
    system = tree.SubElement(domain, "os")
    _text(system, "type", "xenpvh", arch="x86_64", machine="xenpvh")
    _boot(system, plan, "hvc0")
    _endings(domain)
    devices = tree.SubElement(domain, "devices")
    if plan.disk_path:
        _disk(devices, plan, "xen", "xvda")
    if isinstance(plan.network, BridgePort):
        _bridge_port(devices, plan.network, None)
    console = tree.SubElement(devices, "console", {"type": "pty"})
    tree.SubElement(console, "target", {"type": "xen", "port": "0"})


def _boot(system: tree.Element, plan: DomainPlan, console: str) -> None:
    _text(system, "kernel", plan.kernel_path)
    _text(system, "initrd", plan.initrd_path)
    _text(system, "cmdline", KERNEL_ARGUMENTS.format(console=console))


def _endings(domain: tree.Element) -> None:
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)


def _disk(devices: tree.Element, plan: DomainPlan, bus: str, target: str) -> None:
    disk = tree.SubElement(devices, "disk", {"type": "file", "device": "disk"})
    # The format is spelt out: a guest that writes a qcow2 header must not choose what the host opens.
    tree.SubElement(disk, "driver", {"name": "qemu", "type": "raw"})
    tree.SubElement(disk, "source", {"file": plan.disk_path})
    tree.SubElement(disk, "target", {"dev": target, "bus": bus})
    if plan.disk_byte_per_s:
        tune = tree.SubElement(disk, "iotune")
        _text(tune, "read_bytes_sec", str(plan.disk_byte_per_s))
        _text(tune, "write_bytes_sec", str(plan.disk_byte_per_s))


def _bridge_port(devices: tree.Element, port: BridgePort, model: str | None) -> None:
    interface = tree.SubElement(devices, "interface", {"type": "bridge"})
    tree.SubElement(interface, "mac", {"address": port.mac})
    tree.SubElement(interface, "source", {"bridge": port.bridge})
    tree.SubElement(interface, "target", {"dev": port.tap})
    if model is not None:
        tree.SubElement(interface, "model", {"type": model})
    tree.SubElement(interface, "port", {"isolated": "yes"})


def _text(parent: tree.Element, tag: str, text: str, **attributes: str) -> None:
    tree.SubElement(parent, tag, attributes).text = text


def _check(what: str, pattern: re.Pattern[str], value: str) -> None:
    if not pattern.match(value):
        raise InvalidSpecError(f"{what} {value[:60]!r} is not allowed", f"it must match {pattern.pattern}")
