"""The contract of adapter.py on libvirt, call by call: Xen, KVM/QEMU and test:///default, chosen by URI.

Here are the rules of a guest's life and what is remembered of it; libvirt_driver.py talks to libvirt, libvirt_probe.py
finds out what the machine can do, guest_files.py and guest_record.py keep what lies on the disk. It runs in the small
process of host_process.py, because libvirt blocks, and remote.py makes the asynchronous Hypervisor of it. Guests are
transient domains that carry our owner tag; what must outlive them stands in their record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor import hostkeys, injection, libvirt_driver, networking
from hypervisor.adapter import Ability, Capabilities, Effect, Handle, Running
from hypervisor.cpu_priority import favour_guests
from hypervisor.domain_xml import BridgePort, DomainPlan, ForwardedPort, domain_xml
from hypervisor.embedded import QemuUser
from hypervisor.environment import Action, EnvironmentSpec, State, Usage, after
from hypervisor.errors import AlreadyExistsError, CapacityError, InvalidSpecError, UnknownGuestError
from hypervisor.guest_files import GuestFiles
from hypervisor.guest_record import GuestRecord, GuestRecords, add_base, never_fall
from hypervisor.image import Image
from hypervisor.libvirt_driver import LibvirtConnection, if_it_lives, translated
from hypervisor.libvirt_probe import probe

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


class LibvirtHost:
    """One owner's guests on one libvirt connection; calls may come from several threads."""

    def __init__(self, settings: HostSettings, now_ms: Callable[[], int]) -> None:
        self._settings, self._now_ms = settings, now_ms
        self._records = GuestRecords(settings.folder / "guests")
        self._network = networking.BridgeNetwork(settings.owner, settings.folder / "network.json")
        self._allocating = threading.Lock()
        self._locks: dict[str, threading.RLock] = {}
        self._capabilities: Capabilities | None = None
        self._images = {image.manifest.id: image for image in settings.images}
        self._connection = LibvirtConnection(settings.uri, settings.owner)

    def probe(self) -> Capabilities:
        if self._capabilities is None:
            network = None if self._settings.user_network else self._network
            offered = tuple(image.manifest.offered() for image in self._settings.images)
            with translated("probe the machine"):
                self._capabilities = probe(self._settings.uri, self._connection, network, offered)
        return self._capabilities

    def learn(self) -> None:
        """Make libvirt ask QEMU what it can do, now, so that the answer can be shared."""
        self._connection.learn()

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
                with translated(f"start {spec.name}"):
                    self._start(spec, record)
            except BaseException:
                self._forget(record)
                raise
            return record.handle

    def _allocate(self, spec: EnvironmentSpec) -> GuestRecord:
        """Give the guest its place in the network, and remember it before anything of it exists."""
        with self._allocating:
            ids = self._records.ids()
            if spec.name in ids or self._connection.find(spec.name) is not None:
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
        self._connection.start(domain_xml(plan))
        if plan.cpu_ms_per_s is not None:
            favour_guests()
        self._guard(record)

    def _guard(self, record: GuestRecord) -> None:
        if Ability.NET_CAP in self.probe().abilities:
            self._network.guard(record.index, record.spec.net_bit_per_s)

    def _plan(self, spec: EnvironmentSpec, record: GuestRecord) -> DomainPlan:
        owner, quota = self._settings.owner, Ability.CPU_QUOTA in self.probe().abilities
        if self._connection.driver == "test":
            return DomainPlan("test", owner, spec.name, spec.memory_bytes, spec.memory_max_bytes, spec.virtual_cpus)
        image = self._images[spec.image]
        files = self._files(spec.name)
        mac = networking.mac_address(owner, record.index)
        if self._bridged:
            port: BridgePort | ForwardedPort = BridgePort(self._network.bridge, self._network.tap(record.index), mac)
            inside = injection.GuestNetwork(f"{record.handle.ssh_host}/24", self._network.gateway())
        else:
            port = ForwardedPort(record.handle.ssh_host, record.handle.ssh_port, mac)
            inside = injection.GuestNetwork(networking.USER_MODE_ADDRESS)
        files.make(image.initramfs_path.read_bytes() + injection.archive(spec, inside), spec.disk_bytes)
        return DomainPlan(
            "xen" if self._connection.driver != "qemu" else self._connection.qemu_kind(),
            owner,
            spec.name,
            spec.memory_bytes,
            spec.memory_max_bytes,
            spec.virtual_cpus,
            spec.boot_cpu_ms_per_s if quota else None,
            str(files.share_kernel(image, self._settings.folder)),
            str(files.initrd),
            str(files.console),
            str(files.disk) if spec.disk_bytes else "",
            spec.disk_byte_per_s,
            port,
        )

    def resize(self, id: str, *, cpu_ms_per_s: int | None = None, memory_bytes: int | None = None) -> Effect:
        capabilities = self.probe()
        with self._guest(id, "resize") as record:
            if cpu_ms_per_s is not None:
                capabilities.require(Ability.CPU_QUOTA, "limit CPU")
            if memory_bytes is not None:
                capabilities.require(Ability.RESIZE_MEMORY, "resize memory")
            record.spec.check_resize(cpu_ms_per_s, memory_bytes)
            after(self._state(record), Action.RESIZE)
            domain = self._connection.domain(id)
            if cpu_ms_per_s is not None:
                libvirt_driver.set_cpu(domain, cpu_ms_per_s)
            return Effect(
                None if cpu_ms_per_s is None else libvirt_driver.cpu_of(domain),
                None if memory_bytes is None else libvirt_driver.set_memory(domain, memory_bytes),
            )

    def pause(self, id: str) -> None:
        self.probe().require(Ability.PAUSE, "pause")
        with self._guest(id, "pause") as record:
            after(self._state(record), Action.PAUSE)
            self._connection.domain(id).suspend()

    def resume(self, id: str) -> None:
        self.probe().require(Ability.PAUSE, "resume")
        with self._guest(id, "resume") as record:
            after(self._state(record), Action.RESUME)
            self._connection.domain(id).resume()

    def save(self, id: str) -> None:
        self.probe().require(Ability.SAVE, "save")
        with self._guest(id, "save") as record:
            after(self._state(record), Action.SAVE)
            domain = self._connection.domain(id)
            if self._state(record) is State.RUNNING:
                domain.suspend()  # what is counted below is then all that this life will have used
            last = dataclasses.replace(self._measure(record, domain), state=State.SAVED)
            domain.save(str(self._files(id).saved))
            self._records.store(dataclasses.replace(record, state=State.SAVED, base=last, last=last))

    def restore(self, id: str) -> None:
        self.probe().require(Ability.SAVE, "restore")
        with self._guest(id, "restore") as record:
            after(self._state(record), Action.RESTORE)
            saved = self._files(id).saved
            if self._bridged:
                self._network.ensure()
            self._connection.restore(saved)
            if self._state(record) is State.PAUSED:
                self._connection.domain(id).resume()
            self._guard(record)
            self._records.store(dataclasses.replace(record, state=State.RUNNING))
            saved.unlink(missing_ok=True)

    def stop(self, id: str, *, grace_ms: int = 10_000) -> Usage:
        with self._guest(id, "stop") as record:
            state = self._state(record)
            after(state, Action.STOP)
            last = self._usage(record)
            domain = self._connection.find(id)
            if domain is not None:
                if state is State.RUNNING and grace_ms > 0:
                    last = self._await_end(record, domain, grace_ms, last)
                with if_it_lives():
                    last = self._measure(record, domain)
                self._connection.end(id)
            return self._ended(record, last, State.STOPPED)

    def _await_end(self, record: GuestRecord, domain: Any, grace_ms: int, last: Usage) -> Usage:
        deadline = time.monotonic() + grace_ms / 1000
        # Without a guest that listens, asking fails or does nothing; the bound above then forces the end.
        with if_it_lives():
            domain.shutdown()
            while time.monotonic() < deadline and domain.isActive():
                last = self._measure(record, domain)
                time.sleep(libvirt_driver.POLL_S)
        return last

    def _ended(self, record: GuestRecord, last: Usage, state: State) -> Usage:
        """Keep what an ended guest has used, and give back its network."""
        final = dataclasses.replace(
            last, at_ms=self._now_ms(), state=state, memory_bytes=None if last.memory_bytes is None else 0
        )
        self._records.store(dataclasses.replace(record, state=state, last=final))
        self._files(record.spec.name).saved.unlink(missing_ok=True)
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
        self._connection.end(id)
        self._unguard(record)
        with self._allocating:
            self._records.remove(id)
            self._connection.crashed.discard(id)
            self._locks.pop(id, None)
            if self._connection.driver != "test" and self._bridged and not self._records.ids():
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
        domain = self._connection.find(id)
        state = self._state(record)
        if domain is not None:
            with if_it_lives():
                usage = self._measure(record, domain)
                self._files(id).cut_console()
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
            disk = domain.blockStats("vda" if self._connection.driver == "qemu" else "xvda")
        current = Usage(
            self._now_ms(),
            libvirt_driver.state_of(domain),
            int(info[4]) if Ability.CPU_METER in abilities else None,
            libvirt_driver.memory_of(domain) if Ability.MEMORY_METER in abilities else None,
            net[0],
            net[4],
            disk[1],
            disk[3],
        )
        return never_fall(record.last, add_base(record.base, current))

    def console(self, id: str, *, max_bytes: int = 65_536) -> bytes:
        self.probe().require(Ability.CONSOLE, "read a console")
        with self._guest(id, "read the console of"):
            return self._files(id).read_console(max_bytes)

    def reconcile(self) -> list[Running]:
        found = []
        for id in self._records.ids():
            # What it wrote while nobody measured it; whatever else is wrong with it, the disk is not to fill up.
            self._files(id).cut_console()
            with contextlib.suppress(UnknownGuestError), self._guest(id, "look at") as record:
                domain = self._connection.find(id)
                usage = self._usage(record)
                cpu = memory = None
                if domain is not None:
                    with if_it_lives():
                        memory = libvirt_driver.memory_of(domain)
                        cpu = libvirt_driver.cpu_of(domain) if Ability.CPU_QUOTA in self.probe().abilities else None
                found.append(Running(record.handle, usage.state, cpu, memory))
        return found

    def close(self) -> None:
        self._connection.close()

    # -- helpers

    @contextlib.contextmanager
    def _guest(self, id: str, action: str) -> Iterator[GuestRecord]:
        """One guest's record under its lock, so that calls for one guest follow one another."""
        if not _ID.match(id):
            raise UnknownGuestError("that is no environment's id", "reconcile() lists those there are")
        with self._guest_lock(id), translated(f"{action} {id}"):
            record = self._records.load(id)
            if record is None:
                raise UnknownGuestError(f"there is no environment {id}", "reconcile() lists those there are")
            yield record

    def _files(self, id: str) -> GuestFiles:
        return GuestFiles(self._records.folder(id), self._settings.user)

    def _guest_lock(self, id: str) -> threading.RLock:
        with self._allocating:
            return self._locks.setdefault(id, threading.RLock())

    def _state(self, record: GuestRecord) -> State:
        """What libvirt says, and for a guest that libvirt no longer has, what we know of its end."""
        if record.state in (State.STOPPED, State.CRASHED):
            return record.state  # an ended guest never comes back, though libvirt may still be clearing up
        domain = self._connection.find(record.spec.name)
        if domain is not None:
            with if_it_lives():
                return libvirt_driver.state_of(domain)
        if record.spec.name in self._connection.crashed:
            return State.CRASHED
        if record.state is State.SAVED:
            return State.SAVED
        return State.STOPPED
