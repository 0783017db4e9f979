"""The contract of adapter.py on libvirt, call by call: Xen, KVM/QEMU and test:///default, chosen by URI.

Synchronous, because libvirt blocks: it runs in the small process of host_process.py, and remote.py makes the
asynchronous Hypervisor of it. Guests are transient domains that carry our owner tag; what must outlive them
stands in guest_record.py. CPU is changed by quota and never by unplugging a CPU, which ended QEMU when tried.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor import hostkeys, injection, networking
from hypervisor.adapter import Ability, Capabilities, Effect, Handle, OfferedImage, Running
from hypervisor.cpu_priority import favour_guests
from hypervisor.domain_xml import (
    BridgePort,
    DomainPlan,
    ForwardedPort,
    domain_name,
    domain_xml,
    quota_us,
    share_ms_per_s,
)
from hypervisor.embedded import QemuUser, has_virtualisation
from hypervisor.environment import Action, EnvironmentSpec, State, Usage, after
from hypervisor.errors import (
    AlreadyExistsError,
    CapacityError,
    GuestFailedError,
    HypervisorError,
    InvalidSpecError,
    PrivilegeError,
    RemoteError,
    SoftwareMissingError,
    UnknownGuestError,
    UnsupportedError,
)
from hypervisor.guest_record import GuestRecord, GuestRecords, add_base, never_fall
from hypervisor.image import Image

try:
    import libvirt
except ImportError:  # a client installs without it; connect() says what to do
    libvirt = None

CONSOLE_MAX_BYTES = 1 << 20  # a guest may write without end; the host keeps this much
BALLOON_WAIT_S = 8.0  # measured 0.06-0.2 s on a quiet machine
END_WAIT_S = 15.0  # 0.2 s measured, 1-2 s where no init reaps
POLL_S = 0.05
TEST_IMAGE = OfferedImage("micro", (("os", "linux", "0"),), 16 << 20)
_INSTALL = (
    "apt-get install libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86 and pip install 'xenonode[libvirt]'"
)
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class HostSettings:
    """`folder` holds the guests' files; `owner` is the tag of eight hex digits.

    `user_network` asks for user-mode networking even where a bridge could be made; its forwarded ports listen
    on `forward_host`.
    """

    uri: str
    folder: Path
    owner: str
    user: QemuUser
    images: tuple[Image, ...] = ()
    user_network: bool = False
    forward_host: str = "127.0.0.1"


def start_events() -> None:
    """libvirt's own event loop, which the embedded driver needs; once a process, before connecting."""
    if libvirt is None:
        raise SoftwareMissingError("libvirt's Python binding is not installed", _INSTALL)
    libvirt.registerErrorHandler(lambda context, error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def loop() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=loop, name="libvirt-events", daemon=True).start()


class LibvirtHost:
    """One owner's guests on one libvirt connection; calls may come from several threads."""

    def __init__(self, settings: HostSettings, now_ms: Callable[[], int]) -> None:
        self._settings, self._now_ms = settings, now_ms
        self._records = GuestRecords(settings.folder / "guests")
        self._network = networking.BridgeNetwork(settings.owner, settings.folder / "network.json")
        self._allocating = threading.Lock()
        self._locks: dict[str, threading.RLock] = {}
        self._crashed: set[str] = set()
        self._capabilities: Capabilities | None = None
        self._images = {image.manifest.id: image for image in settings.images}
        self._connection = self._connect()
        self._driver = str(self._connection.getType()).lower()
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None)

    # -- what the machine can do

    def probe(self) -> Capabilities:
        if self._capabilities is None:
            with _translated("probe the machine"):
                self._capabilities = self._probe()
        return self._capabilities

    def _probe(self) -> Capabilities:
        info = self._connection.getInfo()
        memory_bytes, cpus = int(info[1]) << 20, int(info[2])
        if self._driver == "qemu":
            # libvirt counts the first memory node's boot-time size, which hot-added memory outgrows.
            memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        offered = tuple(image.manifest.offered() for image in self._settings.images)
        if self._driver == "test":
            abilities = {Ability.PAUSE, Ability.SAVE, Ability.MEMORY_METER, Ability.RESIZE_MEMORY}
            notices = ("libvirt's test driver: guests run no code",)
            return Capabilities(
                self._settings.uri, "simulated", cpus, memory_bytes, frozenset(abilities), (TEST_IMAGE,), notices
            )
        abilities = {
            Ability.CPU_METER, Ability.MEMORY_METER, Ability.RESIZE_MEMORY, Ability.DISK, Ability.DISK_METER,
            Ability.DISK_CAP, Ability.PAUSE, Ability.SAVE, Ability.CONSOLE, Ability.RECONCILE, Ability.SSH,
        }  # fmt: skip
        notices_found: list[str] = []
        if self._driver != "qemu":
            # Xen: caps and console are set through other calls, which could not be tried; they are not declared.
            abilities -= {Ability.DISK_CAP, Ability.CONSOLE}
            if os.geteuid() == 0:
                abilities.add(Ability.NET_METER)
            return Capabilities(self._settings.uri, "xen", cpus, memory_bytes, frozenset(abilities), offered)
        kind = self._qemu_kind()
        if kind == "qemu":
            notices_found.append("no KVM on this processor: guests run under emulation, many times slower")
        if os.geteuid() == 0 and _has_cpu_control():
            abilities.add(Ability.CPU_QUOTA)
        else:
            notices_found.append("not root, or no cpu control group: CPU shares cannot be held")
        if not self._settings.user_network and os.geteuid() == 0 and self._network.can_bridge():
            abilities.add(Ability.NET_METER)
            if self._network.can_guard():
                abilities.add(Ability.NET_CAP)
            else:
                notices_found.append(
                    "no traffic control (tbf, u32, mirred, ifb): no network caps; guests reach this machine's services"
                )
        else:
            notices_found.append("user-mode networking: traffic is not measured, ssh goes through forwarded ports")
        virtualisation = "kvm" if kind == "kvm" else "emulated"
        return Capabilities(
            self._settings.uri, virtualisation, cpus, memory_bytes, frozenset(abilities), offered, tuple(notices_found)
        )

    def _qemu_kind(self) -> str:
        """ "kvm" only where a guest really boots on it: /dev/kvm alone proves nothing."""
        if not has_virtualisation(Path("/proc/cpuinfo").read_text("utf-8")):
            return "qemu"
        try:
            self._connection.getDomainCapabilities(None, "x86_64", "q35", "kvm")
        except libvirt.libvirtError:
            return "qemu"
        return "kvm"

    def learn(self) -> None:
        """Make libvirt ask QEMU what it can do, now, so that the answer can be shared."""
        if self._driver == "qemu":
            try:
                self._connection.getDomainCapabilities(None, "x86_64", "q35", "qemu")
            except libvirt.libvirtError as error:
                raise SoftwareMissingError(f"QEMU cannot be used ({error})", _INSTALL) from None

    # -- a guest's life

    def create(self, spec: EnvironmentSpec) -> Handle:
        capabilities = self.probe()
        capabilities.require_for(spec)
        offered = capabilities.image(spec.image)
        if spec.memory_bytes < offered.memory_min_bytes:
            raise InvalidSpecError(f"{spec.image} needs {offered.memory_min_bytes} bytes", "ask for more memory")
        if Ability.SSH in capabilities.abilities and not spec.ssh_host_key:
            raise InvalidSpecError("the guest has no ssh host key", "make one with hostkeys.host_key")
        with self._guest_lock(spec.name):
            record = self._allocate(spec)
            try:
                with _translated(f"start {spec.name}"):
                    self._start(spec, record)
            except BaseException:
                self._forget(record)
                raise
            return record.handle

    def _allocate(self, spec: EnvironmentSpec) -> GuestRecord:
        """Give the guest its place in the network, and remember it before anything of it exists."""
        with self._allocating:
            ids = self._records.ids()
            if spec.name in ids or self._find(spec.name) is not None:
                raise AlreadyExistsError(f"{spec.name} is there already", "choose another name, or destroy it first")
            taken = {record.index for id in ids if (record := self._records.load(id)) is not None}
            index = next((index for index in range(1, networking.GUESTS_MAX + 1) if index not in taken), None)
            if index is None:
                raise CapacityError(f"{networking.GUESTS_MAX} guests are there already", "destroy one")
            record = GuestRecord(spec, self._address(spec, index), index, State.RUNNING)
            self._records.store(record)
            return record

    def _address(self, spec: EnvironmentSpec, index: int) -> Handle:
        key = hostkeys.public_line(spec.ssh_host_key) if spec.ssh_host_key else ""
        if Ability.SSH not in self.probe().abilities:
            return Handle(spec.name, "", 0, key)
        if not self._bridged:
            host = self._settings.forward_host
            return Handle(spec.name, host, networking.free_port(host), key)
        self._network.ensure()
        return Handle(spec.name, self._network.address(index), 22, key)

    @property
    def _bridged(self) -> bool:
        return Ability.NET_METER in self.probe().abilities

    def _start(self, spec: EnvironmentSpec, record: GuestRecord) -> None:
        plan = self._plan(spec, record)
        self._connection.createXML(domain_xml(plan), 0)
        if plan.cpu_ms_per_s is not None:
            favour_guests()
        self._guard(record)

    def _guard(self, record: GuestRecord) -> None:
        if Ability.NET_CAP in self.probe().abilities:
            self._network.guard(record.index, record.spec.net_bit_per_s)

    def _plan(self, spec: EnvironmentSpec, record: GuestRecord) -> DomainPlan:
        owner, quota = self._settings.owner, Ability.CPU_QUOTA in self.probe().abilities
        if self._driver == "test":
            return DomainPlan("test", owner, spec.name, spec.memory_bytes, spec.memory_max_bytes, spec.virtual_cpus)
        image = self._images[spec.image]
        folder = self._records.folder(spec.name)
        mac = networking.mac_address(owner, record.index)
        if self._bridged:
            port: BridgePort | ForwardedPort = BridgePort(self._network.bridge, self._network.tap(record.index), mac)
            inside = injection.GuestNetwork(f"{record.handle.ssh_host}/24", self._network.gateway())
        else:
            port = ForwardedPort(record.handle.ssh_host, record.handle.ssh_port, mac)
            inside = injection.GuestNetwork(networking.USER_MODE_ADDRESS)
        initrd = image.initramfs_path.read_bytes() + injection.archive(spec, inside)
        self._write(folder / "initrd", initrd)
        self._write(folder / "console.log", b"")
        disk = ""
        if spec.disk_bytes:
            disk = str(folder / "disk.raw")
            self._write(folder / "disk.raw", b"")
            os.truncate(folder / "disk.raw", spec.disk_bytes)
        return DomainPlan(
            "xen" if self._driver != "qemu" else self._qemu_kind(),
            owner,
            spec.name,
            spec.memory_bytes,
            spec.memory_max_bytes,
            spec.virtual_cpus,
            spec.boot_cpu_ms_per_s if quota else None,
            self._kernel(image),
            str(folder / "initrd"),
            str(folder / "console.log"),
            disk,
            spec.disk_byte_per_s,
            port,
        )

    def _kernel(self, image: Image) -> str:
        """The image's kernel in our own folder, which QEMU's user can reach; a link where that is possible."""
        target = self._settings.folder / f"kernel-{image.manifest.kernel.sha256[:16]}"
        if not target.exists():
            fresh = target.with_suffix(f".{threading.get_ident()}.new")
            try:
                os.link(image.kernel_path, fresh)
            except OSError:
                fresh.write_bytes(image.kernel_path.read_bytes())
                fresh.chmod(0o644)
            fresh.replace(target)
        return str(target)

    def _write(self, path: Path, data: bytes) -> None:
        with path.open("wb") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(data)
            if os.geteuid() == 0:
                os.fchown(stream.fileno(), self._settings.user.user_id, self._settings.user.group_id)

    def resize(self, id: str, *, cpu_ms_per_s: int | None = None, memory_bytes: int | None = None) -> Effect:
        capabilities = self.probe()
        with self._guest(id, "resize") as record:
            if cpu_ms_per_s is not None:
                capabilities.require(Ability.CPU_QUOTA, "limit CPU")
            if memory_bytes is not None:
                capabilities.require(Ability.RESIZE_MEMORY, "resize memory")
            record.spec.check_resize(cpu_ms_per_s, memory_bytes)
            after(self._state(record), Action.RESIZE)
            domain = self._domain(id)
            cpu = None if cpu_ms_per_s is None else self._set_cpu(domain, cpu_ms_per_s)
            memory = None if memory_bytes is None else self._set_memory(domain, memory_bytes)
            return Effect(cpu, memory)

    def _set_cpu(self, domain: Any, cpu_ms_per_s: int) -> int | None:
        domain.setSchedulerParametersFlags({"global_quota": quota_us(cpu_ms_per_s)}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        return self._cpu(domain)

    def _cpu(self, domain: Any) -> int | None:
        if Ability.CPU_QUOTA not in self.probe().abilities:
            return None
        quota = domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE).get("global_quota", 0)
        return share_ms_per_s(quota) if quota > 0 else None

    def _set_memory(self, domain: Any, memory_bytes: int) -> int:
        """Set the balloon and wait for the guest to follow; what it has reached when the wait ends."""
        domain.setMemoryFlags(memory_bytes // 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        deadline = time.monotonic() + BALLOON_WAIT_S
        while (reached := self._memory(domain)) != memory_bytes // 1024 * 1024 and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return reached

    def _memory(self, domain: Any) -> int:
        with contextlib.suppress(libvirt.libvirtError, KeyError):
            return int(domain.memoryStats()["actual"]) * 1024
        return int(domain.info()[2]) * 1024

    def pause(self, id: str) -> None:
        self.probe().require(Ability.PAUSE, "pause")
        with self._guest(id, "pause") as record:
            after(self._state(record), Action.PAUSE)
            self._domain(id).suspend()

    def resume(self, id: str) -> None:
        self.probe().require(Ability.PAUSE, "resume")
        with self._guest(id, "resume") as record:
            after(self._state(record), Action.RESUME)
            self._domain(id).resume()

    def save(self, id: str) -> None:
        self.probe().require(Ability.SAVE, "save")
        with self._guest(id, "save") as record:
            after(self._state(record), Action.SAVE)
            domain = self._domain(id)
            if self._state(record) is State.RUNNING:
                domain.suspend()  # what is counted below is then all that this life will have used
            last = dataclasses.replace(self._measure(record, domain), state=State.SAVED)
            domain.save(str(self._records.folder(id) / "saved"))
            self._records.store(dataclasses.replace(record, state=State.SAVED, base=last, last=last))

    def restore(self, id: str) -> None:
        self.probe().require(Ability.SAVE, "restore")
        with self._guest(id, "restore") as record:
            after(self._state(record), Action.RESTORE)
            saved = self._records.folder(id) / "saved"
            if self._bridged:
                self._network.ensure()
            self._connection.restore(str(saved))
            if self._state(record) is State.PAUSED:
                self._domain(id).resume()
            self._guard(record)
            self._records.store(dataclasses.replace(record, state=State.RUNNING))
            saved.unlink(missing_ok=True)

    def stop(self, id: str, *, grace_ms: int = 10_000) -> Usage:
        with self._guest(id, "stop") as record:
            state = self._state(record)
            after(state, Action.STOP)
            last = self._usage(record)
            domain = self._find(id)
            if domain is not None:
                if state is State.RUNNING and grace_ms > 0:
                    last = self._await_end(record, domain, grace_ms, last)
                with contextlib.suppress(libvirt.libvirtError):
                    last = self._measure(record, domain)
                self._end(id, domain)
            return self._ended(record, last, State.STOPPED)

    def _end(self, id: str, domain: Any) -> None:
        """Force the end, and wait until libvirt has let go of the guest's files and network."""
        with contextlib.suppress(libvirt.libvirtError):
            domain.destroy()
        deadline = time.monotonic() + END_WAIT_S
        while self._find(id) is not None:
            if time.monotonic() > deadline:
                raise GuestFailedError(f"{id} does not end", "try again, then end its process by hand")
            time.sleep(POLL_S)

    def _await_end(self, record: GuestRecord, domain: Any, grace_ms: int, last: Usage) -> Usage:
        deadline = time.monotonic() + grace_ms / 1000
        # Without a guest that listens, asking fails or does nothing; the bound above then forces the end.
        with contextlib.suppress(libvirt.libvirtError):
            domain.shutdown()
            while time.monotonic() < deadline and domain.isActive():
                last = self._measure(record, domain)
                time.sleep(POLL_S)
        return last

    def _ended(self, record: GuestRecord, last: Usage, state: State) -> Usage:
        """Keep what an ended guest has used, and give back its network."""
        final = dataclasses.replace(
            last, at_ms=self._now_ms(), state=state, memory_bytes=None if last.memory_bytes is None else 0
        )
        self._records.store(dataclasses.replace(record, state=state, last=final))
        (self._records.folder(record.spec.name) / "saved").unlink(missing_ok=True)
        self._unguard(record)
        return final

    def destroy(self, id: str) -> Usage:
        with self._guest(id, "destroy") as record:
            last = self._usage(record)
            self._forget(record)
            return dataclasses.replace(last, memory_bytes=None if last.memory_bytes is None else 0)

    def _forget(self, record: GuestRecord) -> None:
        """Take away all that a guest has on this machine; the record goes last."""
        id = record.spec.name
        domain = self._find(id)
        if domain is not None:
            self._end(id, domain)
        self._unguard(record)
        with self._allocating:
            self._records.remove(id)
            self._crashed.discard(id)
            self._locks.pop(id, None)
            if self._driver != "test" and self._bridged and not self._records.ids():
                self._network.remove()

    def _unguard(self, record: GuestRecord) -> None:
        if Ability.NET_CAP in self.probe().abilities:
            self._network.unguard(record.index)

    # -- what guests use, and which there are

    def usage(self, ids: Sequence[str]) -> dict[str, Usage]:
        found = {}
        for id in ids:
            with contextlib.suppress(UnknownGuestError), self._guest(id, "measure") as record:
                found[id] = self._usage(record)
        return found

    def _usage(self, record: GuestRecord) -> Usage:
        id = record.spec.name
        domain = self._find(id)
        state = self._state(record)
        if domain is not None:
            with contextlib.suppress(libvirt.libvirtError):
                usage = self._measure(record, domain)
                self._cut_console(id)
                self._records.note(id, usage)
                return usage
        last = record.last or Usage(self._now_ms(), state, *self._zeros())
        if state is State.SAVED:
            return dataclasses.replace(
                last, at_ms=self._now_ms(), memory_bytes=None if last.memory_bytes is None else 0
            )
        if record.state is not state:  # it ended by itself since we last looked
            return self._ended(record, last, state)
        return dataclasses.replace(last, at_ms=self._now_ms(), state=state)

    def _zeros(self) -> tuple[int | None, ...]:
        abilities = self.probe().abilities
        return tuple(0 if ability in abilities else None for ability in (Ability.CPU_METER, Ability.MEMORY_METER))

    def _measure(self, record: GuestRecord, domain: Any) -> Usage:
        """All counters of a live guest, from the hypervisor alone."""
        abilities = self.probe().abilities
        info = domain.info()
        net: Sequence[int | None] = (None,) * 8
        disk: Sequence[int | None] = (None,) * 5
        if Ability.NET_METER in abilities:
            net = domain.interfaceStats(self._network.tap(record.index))
        if Ability.DISK_METER in abilities and record.spec.disk_bytes:
            disk = domain.blockStats("vda" if self._driver == "qemu" else "xvda")
        current = Usage(
            self._now_ms(),
            _STATES.get(info[0], State.RUNNING),
            int(info[4]) if Ability.CPU_METER in abilities else None,
            # Asked of the balloon itself: info() follows it with a delay.
            self._memory(domain) if Ability.MEMORY_METER in abilities else None,
            net[0],
            net[4],
            disk[1],
            disk[3],
        )
        return never_fall(record.last, add_base(record.base, current))

    def console(self, id: str, *, max_bytes: int = 65_536) -> bytes:
        self.probe().require(Ability.CONSOLE, "read a console")
        with (
            self._guest(id, "read the console of") as record,
            (self._records.folder(record.spec.name) / "console.log").open("rb") as stream,
        ):
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - max(0, min(max_bytes, CONSOLE_MAX_BYTES))))
            return stream.read() if max_bytes > 0 else b""

    def _cut_console(self, id: str) -> None:
        path = self._records.folder(id) / "console.log"
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > CONSOLE_MAX_BYTES:
                with path.open("r+b") as stream:
                    stream.seek(-CONSOLE_MAX_BYTES // 2, os.SEEK_END)
                    tail = stream.read()
                    stream.truncate(0)
                with path.open("ab") as stream:
                    stream.write(tail)

    def reconcile(self) -> list[Running]:
        found = []
        for id in self._records.ids():
            # What it wrote while nobody measured it; whatever else is wrong with it, the disk is not to fill up.
            self._cut_console(id)
            with contextlib.suppress(UnknownGuestError), self._guest(id, "look at") as record:
                domain = self._find(id)
                usage = self._usage(record)
                cpu = memory = None
                if domain is not None:
                    with contextlib.suppress(libvirt.libvirtError):
                        cpu, memory = self._cpu(domain), self._memory(domain)
                found.append(Running(record.handle, usage.state, cpu, memory))
        return found

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    # -- helpers

    def _connect(self) -> Any:
        if libvirt is None:
            raise SoftwareMissingError("libvirt's Python binding is not installed", _INSTALL)
        try:
            return libvirt.open(self._settings.uri)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_ACCESS_DENIED):
                raise PrivilegeError(f"{self._settings.uri} refuses us ({error})", "join the libvirt group") from None
            raise SoftwareMissingError(f"{self._settings.uri} cannot be opened ({error})", _INSTALL) from None

    def _on_event(self, connection: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        prefix = domain_name(self._settings.owner, "")
        failed = (libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail in failed and domain.name().startswith(prefix):
            self._crashed.add(domain.name().removeprefix(prefix))

    @contextlib.contextmanager
    def _guest(self, id: str, action: str) -> Iterator[GuestRecord]:
        """One guest's record under its lock, so that calls for one guest follow one another."""
        if not _ID.match(id):
            raise UnknownGuestError("that is no environment's id", "reconcile() lists those there are")
        with self._guest_lock(id), _translated(f"{action} {id}"):
            record = self._records.load(id)
            if record is None:
                raise UnknownGuestError(f"there is no environment {id}", "reconcile() lists those there are")
            yield record

    def _guest_lock(self, id: str) -> threading.RLock:
        with self._allocating:
            return self._locks.setdefault(id, threading.RLock())

    def _find(self, id: str) -> Any | None:
        try:
            return self._connection.lookupByName(domain_name(self._settings.owner, id))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _domain(self, id: str) -> Any:
        domain = self._find(id)
        if domain is None:
            raise GuestFailedError(f"{id} has ended", "start another environment")
        return domain

    def _state(self, record: GuestRecord) -> State:
        """What libvirt says, and for a guest that libvirt no longer has, what we know of its end."""
        if record.state in (State.STOPPED, State.CRASHED):
            return record.state  # an ended guest never comes back, though libvirt may still be clearing up
        domain = self._find(record.spec.name)
        if domain is not None:
            with contextlib.suppress(libvirt.libvirtError):
                return _STATES.get(domain.state()[0], State.RUNNING)
        if record.spec.name in self._crashed:
            return State.CRASHED
        if record.state is State.SAVED:
            return State.SAVED
        return State.STOPPED


# libvirt's numbers for virDomainState: running, blocked, paused, shutting down, shut off, crashed, suspended.
_STATES = {
    1: State.RUNNING,
    2: State.RUNNING,
    3: State.PAUSED,
    4: State.RUNNING,
    5: State.STOPPED,
    6: State.CRASHED,
    7: State.PAUSED,
}


def _has_cpu_control() -> bool:
    """Whether CPU time can be limited by control group, of either version."""
    first = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cgroup.procs")
    if any(path.exists() for path in first):
        return True
    with contextlib.suppress(OSError):
        return "cpu" in Path("/sys/fs/cgroup/cgroup.controllers").read_text("utf-8").split()
    return False


@contextlib.contextmanager
def _translated(action: str) -> Iterator[None]:
    """libvirt's errors as ours."""
    try:
        yield
    except HypervisorError:
        raise
    except OSError as error:
        raise RemoteError(f"cannot {action}: {error}", "look at the disk's space and the folder's rights") from error
    except libvirt.libvirtError as error:
        code = error.get_error_code()
        if code == libvirt.VIR_ERR_NO_SUPPORT:
            raise UnsupportedError(f"cannot {action}: {error}", "use another hypervisor") from error
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            raise GuestFailedError(f"cannot {action}: the guest has ended", "start another environment") from error
        raise RemoteError(f"cannot {action}: {error}", "look at the guest's console and the host's log") from error
