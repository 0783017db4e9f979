"""What this machine still lacks: checks with a verdict each and the next step where it is not good.

Decides what is good, worth a warning, or wrong for a role; it changes nothing. A client needs no hypervisor, so what
hosting needs is only a warning there. Clocks are compared with XenoCorp's, over a control connection.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dht.identity import Scheme
from hypervisor import guest_image, image
from hypervisor.errors import HypervisorError
from xenonode.config import ClientConfig, Config, CorpConfig, ServerConfig
from xenonode.control.client import connect
from xenonode.control.errors import ControlError
from xenonode.control.tls_transport import TlsTransport
from xenonode.env import Env
from xenonode.errors import ConfigError
from xenonode.folder import StateFolder
from xenonode.model.entity import CLOCK_TOLERANCE_MS, Address, Network, Trust
from xenonode.setting_tables import Role
from xenonode.settings import FILE_MAX_BYTES

Level = Literal["ok", "warn", "fail"]
COMMAND_TIMEOUT_S = 10
CLOCK_WARN_MS = 10_000
"""A synchronised clock is right to a second; at ten nothing keeps it, long before signing stops."""
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `xenonode doctor`."""

    check: str
    level: Level
    message: str
    next_step: str = ""


def examine(config: Config | ConfigError, role: Role, scheme: Scheme) -> list[Finding]:
    """Every check that needs no network, in a fixed order; a configuration that was refused is one finding."""
    findings = [_python(), _packages()]
    cache = config.images if isinstance(config, ServerConfig) else guest_image.default_cache()
    hosting = [_libvirt(), _qemu(), _virtualisation(), _tun(), _cgroups(), _guest_image(cache)]
    findings += hosting if role == "server" else [_softened(each) for each in hosting]
    if isinstance(config, ConfigError):
        return [*findings, Finding("configuration", "fail", config.message, config.next_step)]
    findings += [_folder(config), *_keys(config), *_ports(config)]
    if not isinstance(config, CorpConfig):
        findings.append(network_file(config.network, scheme))
    return findings


def clock(ours_ms: int, theirs_ms: int, round_trip_ms: int) -> Finding:
    """Our clock against XenoCorp's, which was read at some moment of the round trip."""
    skew_ms = ours_ms - theirs_ms
    certain_ms = max(0, abs(skew_ms) - round_trip_ms)
    which = "ahead of" if skew_ms > 0 else "behind"
    if certain_ms > CLOCK_TOLERANCE_MS:
        text = f"this clock is {certain_ms // 1000} s {which} XenoCorp's: nothing can be signed"
        return Finding("clock", "fail", text, "set the clock, e.g. with 'timedatectl set-ntp true'")
    if certain_ms > CLOCK_WARN_MS:
        text = f"this clock is {certain_ms // 1000} s {which} XenoCorp's"
        return Finding("clock", "warn", text, "let it be synchronised, e.g. with 'timedatectl set-ntp true'")
    return Finding("clock", "ok", f"within {abs(skew_ms) + round_trip_ms} ms of XenoCorp's")


async def ask_clock(path: Path, env: Env) -> Finding:
    """Ask the XenoCorp of a network file what time it is."""
    try:
        network, _ = Network.open(path.read_bytes(), env.scheme)  # noqa: ASYNC240 (one small file, nothing waits)
    except (OSError, ValueError):
        return Finding("clock", "warn", "not compared: no network file", "see the line 'network file'")
    try:
        before_ms = env.now_ms()
        transport = TlsTransport(None, ())
        connection = await connect(*network.corp_control.pair, network.corp_key, transport=transport)
        try:
            theirs_ms = int((await connection.call("info", {}))["time_ms"])
        finally:
            await connection.close()
    except ControlError as error:
        return Finding("clock", "warn", f"not compared: {error}", error.next_step)
    after_ms = env.now_ms()
    return clock((before_ms + after_ms) // 2, theirs_ms, max(0, after_ms - before_ms))


def network_file(path: Path, scheme: Scheme) -> Finding:
    """Whether the network file is there, whole, and signed by the root key and issuing keys that it names."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_MAX_BYTES)
        network, envelope = Network.open(raw, scheme)
        Trust(network, scheme)
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}"
        return Finding("network file", "fail", text, "ask the operator of XenoCorp for network.xeno; set network = ...")
    except ValueError as error:
        return Finding("network file", "fail", f"{path}: {error}", "ask the operator of XenoCorp for a whole copy")
    if envelope.key != network.root_key:
        text = f"{path} is not signed by the root key that it names"
        return Finding("network file", "fail", text, "do not use it; ask the operator of XenoCorp for the right one")
    seeds = ", ".join(str(each) for each in network.seeds)
    return Finding("network file", "ok", f"network {network.network_id.hex()[:16]} ({network.profile}), seeds {seeds}")


def _softened(finding: Finding) -> Finding:
    if finding.level != "fail":
        return finding
    return Finding(finding.check, "warn", finding.message + " (only a server needs it)", finding.next_step)


def _python() -> Finding:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", "ok", f"Python {version}")
    return Finding("python", "warn", f"Python {version} is untested; 3.11 to 3.13 are tested", "use one of these")


def _packages() -> Finding:
    missing = []
    try:
        needed = importlib.metadata.requires("xenonode") or []
    except importlib.metadata.PackageNotFoundError:
        return Finding("packages", "fail", "XenoNode itself is not installed here", "pip install -e .")
    plain = [each for each in needed if "extra ==" not in each]
    for each in plain:
        found = _NAME.match(each)
        try:
            importlib.metadata.version(found[0] if found else each)
        except importlib.metadata.PackageNotFoundError:
            missing.append(each)
    if missing:
        return Finding("packages", "fail", f"not installed: {', '.join(missing)}", "pip install --upgrade xenonode")
    return Finding("packages", "ok", f"all {len(plain)} that are needed are installed")


def _libvirt() -> Finding:
    try:
        import libvirt
    except ImportError as error:
        next_step = "apt-get install libvirt-dev pkg-config gcc python3-dev, then pip install 'xenonode[libvirt]'"
        return Finding("libvirt", "fail", f"the libvirt bindings cannot be loaded: {error}", next_step)
    number = libvirt.getVersion()
    text = f"libvirt {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    return Finding("libvirt", "ok", text)


def _qemu() -> Finding:
    name = f"qemu-system-{platform.machine()}"
    path = shutil.which(name)
    if path is None:
        return Finding("qemu", "fail", f"{name} is not installed", "apt-get install qemu-system-x86 qemu-utils")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("qemu", "fail", f"{path} does not run: {error}", "reinstall it")
    if done.returncode:
        return Finding("qemu", "fail", f"{path} ends with status {done.returncode}", "reinstall it")
    return Finding("qemu", "ok", done.stdout.splitlines()[0] if done.stdout else path)


def _virtualisation() -> Finding:
    flags = _read("/proc/cpuinfo")
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", flags, re.MULTILINE):
        text = "no vmx or svm in /proc/cpuinfo: guests run under emulation (TCG), several times slower"
        return Finding("virtualisation", "warn", text, "for speed, use a host with hardware virtualisation switched on")
    if not os.path.exists("/dev/kvm"):
        return Finding("virtualisation", "warn", "no /dev/kvm: guests run under emulation (TCG)", "modprobe kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        text = "/dev/kvm may not be opened by this user: guests run under emulation (TCG)"
        return Finding("virtualisation", "warn", text, "add the user to the group kvm, then log in anew")
    return Finding("virtualisation", "ok", "KVM")


def _tun() -> Finding:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        text = f"/dev/net/tun cannot be opened ({error.strerror}): guests get user-mode networking without counters"
        return Finding("tun", "warn", text, "run as root, or: modprobe tun")
    if os.geteuid() != 0:
        text = "only root may make network devices: guests get user-mode networking without counters"
        return Finding("tun", "warn", text, "run the server as root to meter and cap network traffic")
    return Finding("tun", "ok", "/dev/net/tun opens, so guests get a metered network")


def _cgroups() -> Finding:
    mounts = _read("/proc/mounts")
    unified = re.search(r"^\S+ (\S+) cgroup2 ", mounts, re.MULTILINE)
    cpu = re.search(r"^\S+ (\S+) cgroup \S*\bcpu\b", mounts, re.MULTILINE)
    if cpu and os.access(cpu[1], os.W_OK):
        return Finding("cgroups", "ok", f"version 1, CPU controller at {cpu[1]}")
    if unified and "cpu" in _read(f"{unified[1]}/cgroup.controllers").split() and os.access(unified[1], os.W_OK):
        return Finding("cgroups", "ok", f"version 2 at {unified[1]}")
    text = "no CPU controller that this user may use: CPU shares cannot be enforced"
    return Finding("cgroups", "warn", text, "run the server as root on a host with cgroups")


def _guest_image(cache: Path) -> Finding:
    folder = guest_image.image_folder(cache)
    if not folder.exists():
        return Finding("guest image", "fail", f"not built yet ({folder})", "scripts/build_guest_image")
    try:
        image.load_image(folder)
    except HypervisorError as error:
        return Finding("guest image", "fail", str(error), f"rm -r {folder}, then scripts/build_guest_image")
    return Finding("guest image", "ok", str(folder))


def _folder(config: Config) -> Finding:
    path = config.folder
    try:
        found = path.stat()
    except FileNotFoundError:
        return Finding("folder", "ok", f"{path} does not exist yet; it will be made")
    except OSError as error:
        return Finding("folder", "fail", f"{path}: {error.strerror}", "choose another with folder = ...")
    if not stat.S_ISDIR(found.st_mode):
        return Finding("folder", "fail", f"{path} is no folder", "choose another with folder = ...")
    if found.st_uid != os.geteuid():
        text = f"{path} belongs to user {found.st_uid}"
        return Finding("folder", "fail", text, f"run as that user, or: chown -R {os.geteuid()} {path}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        return Finding("folder", "fail", f"{path} is open to others", f"chmod 0700 {path}")
    holder = StateFolder(path).holder()
    return Finding("folder", "ok", f"{path}" + (f", in use by process {holder}" if holder else ""))


def _keys(config: Config) -> Iterator[Finding]:
    try:
        found = sorted(each for each in config.folder.rglob("*.key"))
    except OSError:
        return  # the folder's own line has said it
    for path in found:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            text = f"{path} is no regular file"
            yield Finding("key file", "fail", text, "move it away; restore the key from your backup")
        elif stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid != os.geteuid():
            text = f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}): treat the key as known"
            yield Finding("key file", "fail", text, f"chmod 0600 {path}, and register a new key if others had access")
        else:
            yield Finding("key file", "ok", f"{path}, mode {stat.S_IMODE(status.st_mode):04o}")


def _ports(config: Config) -> Iterator[Finding]:
    holder = StateFolder(config.folder).holder()
    if config.udp is not None:
        yield _port("udp", config.udp, socket.SOCK_DGRAM, holder)
    if not isinstance(config, ClientConfig):
        yield _port("control", config.control, socket.SOCK_STREAM, holder)


def _port(name: str, address: Address, kind: int, holder: int | None) -> Finding:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address.pair)
        except OSError as error:
            if holder is not None:
                return Finding(f"port {name}", "ok", f"{address} is in use while process {holder} runs here")
            text = f"{address} cannot be used: {error.strerror}"
            return Finding(f"port {name}", "fail", text, f"stop what uses it (ss -lnp), or set {name} = ...")
    return Finding(f"port {name}", "ok", f"{address} is free")


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
