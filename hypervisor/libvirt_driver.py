"""libvirt itself: the connection, its guests by our name, and its errors as ours; nothing else imports the binding.

What a guest is to us (records, files, the rules of its life) is libvirt_adapter.py's; here is only what libvirt says
and does. Synchronous, because libvirt blocks. CPU is changed by quota and never by unplugging a CPU, which ended QEMU
when tried.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypervisor.domain_xml import domain_name, quota_us, share_ms_per_s
from hypervisor.embedded import has_virtualisation
from hypervisor.environment import State
from hypervisor.errors import (
    GuestFailedError,
    HypervisorError,
    PrivilegeError,
    RemoteError,
    SoftwareMissingError,
    UnsupportedError,
)

try:
    import libvirt
except ImportError:  # a client installs without it; LibvirtConnection says what to do
    libvirt = None

BALLOON_WAIT_S = 8.0  # measured 0.06-0.2 s on a quiet machine
END_WAIT_S = 15.0  # 0.2 s measured, 1-2 s where no init reaps
POLL_S = 0.05
_INSTALL = (
    "apt-get install libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86 and pip install 'xenonode[libvirt]'"
)

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


@contextlib.contextmanager
def translated(action: str) -> Iterator[None]:
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


def if_it_lives() -> contextlib.AbstractContextManager[None]:
    """For a question to a guest that may be ending at this moment: libvirt's refusal is then no error."""
    return contextlib.suppress(libvirt.libvirtError)


class LibvirtConnection:
    """One owner's guests on one libvirt; calls may come from several threads.

    `driver` is libvirt's word: "qemu", "xen" or "test". `crashed` are the ids of guests that were seen to crash.
    """

    def __init__(self, uri: str, owner: str) -> None:
        self._owner = owner
        self._connection = _open(uri)
        self.driver = str(self._connection.getType()).lower()
        self.crashed: set[str] = set()
        with if_it_lives():
            self._connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None)

    def memory_bytes_and_cpus(self) -> tuple[int, int]:
        info = self._connection.getInfo()
        return int(info[1]) << 20, int(info[2])

    def qemu_kind(self) -> str:
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
        if self.driver == "qemu":
            try:
                self._connection.getDomainCapabilities(None, "x86_64", "q35", "qemu")
            except libvirt.libvirtError as error:
                raise SoftwareMissingError(f"QEMU cannot be used ({error})", _INSTALL) from None

    def start(self, xml: str) -> None:
        self._connection.createXML(xml, 0)

    def restore(self, saved: Path) -> None:
        self._connection.restore(str(saved))

    def find(self, id: str) -> Any | None:
        try:
            return self._connection.lookupByName(domain_name(self._owner, id))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def domain(self, id: str) -> Any:
        domain = self.find(id)
        if domain is None:
            raise GuestFailedError(f"{id} has ended", "start another environment")
        return domain

    def end(self, id: str) -> None:
        """Force the end, and wait until libvirt has let go of the guest's files and network."""
        domain = self.find(id)
        if domain is None:
            return
        with if_it_lives():
            domain.destroy()
        deadline = time.monotonic() + END_WAIT_S
        while self.find(id) is not None:
            if time.monotonic() > deadline:
                raise GuestFailedError(f"{id} does not end", "try again, then end its process by hand")
            time.sleep(POLL_S)

    def close(self) -> None:
        with if_it_lives():
            self._connection.close()

    def _on_event(self, connection: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        prefix = domain_name(self._owner, "")
        failed = (libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail in failed and domain.name().startswith(prefix):
            self.crashed.add(domain.name().removeprefix(prefix))


def _open(uri: str) -> Any:
    if libvirt is None:
        raise SoftwareMissingError("libvirt's Python binding is not installed", _INSTALL)
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_ACCESS_DENIED):
            raise PrivilegeError(f"{uri} refuses us ({error})", "join the libvirt group") from None
        raise SoftwareMissingError(f"{uri} cannot be opened ({error})", _INSTALL) from None


def state_of(domain: Any) -> State:
    return _STATES.get(domain.state()[0], State.RUNNING)


def set_cpu(domain: Any, cpu_ms_per_s: int) -> None:
    domain.setSchedulerParametersFlags({"global_quota": quota_us(cpu_ms_per_s)}, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def cpu_of(domain: Any) -> int | None:
    """The share that is set, in ms per second; None where none is."""
    quota = domain.schedulerParametersFlags(libvirt.VIR_DOMAIN_AFFECT_LIVE).get("global_quota", 0)
    return share_ms_per_s(quota) if quota > 0 else None


def set_memory(domain: Any, memory_bytes: int) -> int:
    """Set the balloon and wait for the guest to follow; what it has reached when the wait ends."""
    domain.setMemoryFlags(memory_bytes // 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    deadline = time.monotonic() + BALLOON_WAIT_S
    while (reached := memory_of(domain)) != memory_bytes // 1024 * 1024 and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return reached


def memory_of(domain: Any) -> int:
    """The balloon's own word: info() follows it with a delay."""
    with contextlib.suppress(libvirt.libvirtError, KeyError):
        return int(domain.memoryStats()["actual"]) * 1024
    return int(domain.info()[2]) * 1024
