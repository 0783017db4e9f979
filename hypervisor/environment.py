"""What an execution environment is asked to be, what it has used, and the life it can lead.

Knows CPU and memory, not agreements: who pays, and what was promised, is decided above.

A guest's life (the poster's "new execution environment is launched for the client"):

                 create              stop, or it powers off
      (nothing) -------> RUNNING ------------------------------> STOPPED
                        |  ^   ^ \\                                ^  ^
                  pause |  |    \\  \\ crash                        |  |
                        v  | resume\\  `----> CRASHED             |  |
                       PAUSED ------ \\ -------------- stop -------'  |
                        |   \\        |                               |
                   save |    `-------+--- (save also from RUNNING)   |
                        v    restore |                               |
                       SAVED --------'---------------- stop ---------'

      destroy leads from every state to (nothing).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from hypervisor.errors import InvalidSpecError, StateError

MIB = 1024 * 1024
# Names reach file names, cgroups and XML: 40 characters hold a session id in hex with a prefix.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\Z")
_HOSTNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_AUTHORIZED_KEY = re.compile(
    r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]+={0,2}(?: [ -~]*)?\Z"
)
_HOST_KEY_HEADER = "-----BEGIN OPENSSH PRIVATE KEY-----\n"

# Bounds on what one environment may ask for; far above any one machine of today, below any overflow.
CPU_MAX_MS_PER_S = 1024 * 1000
CPU_MIN_MS_PER_S = 10  # the scheduler's smallest quota is 1 ms in a period of 100 ms
MEMORY_MAX_BYTES = 1 << 44
MEMORY_MIN_BYTES = 16 * MIB
DISK_MAX_BYTES = 1 << 44
NET_MAX_BIT_PER_S = 1 << 40
AUTHORIZED_KEYS_MAX = 32
AUTHORIZED_KEY_MAX_CHARS = 8192  # an RSA key of 16,384 bits takes 2,800
HOST_KEY_MAX_CHARS = 4096


class State(enum.StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SAVED = "saved"
    STOPPED = "stopped"
    CRASHED = "crashed"


class Action(enum.StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    SAVE = "save"
    RESTORE = "restore"
    STOP = "stop"
    RESIZE = "resize"


TRANSITIONS: dict[tuple[State, Action], State] = {
    (State.RUNNING, Action.PAUSE): State.PAUSED,
    (State.PAUSED, Action.RESUME): State.RUNNING,
    (State.RUNNING, Action.SAVE): State.SAVED,
    (State.PAUSED, Action.SAVE): State.SAVED,
    (State.SAVED, Action.RESTORE): State.RUNNING,
    (State.RUNNING, Action.STOP): State.STOPPED,
    (State.PAUSED, Action.STOP): State.STOPPED,
    (State.SAVED, Action.STOP): State.STOPPED,
    (State.STOPPED, Action.STOP): State.STOPPED,
    (State.CRASHED, Action.STOP): State.STOPPED,
    (State.RUNNING, Action.RESIZE): State.RUNNING,
}


def after(state: State, action: Action) -> State:
    """The state that an action leads to; StateError when the table has no such step."""
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        allowed = ", ".join(sorted(step for (source, step) in TRANSITIONS if source is state)) or "destroy"
        raise StateError(f"cannot {action} an environment that is {state}", f"allowed: {allowed}, destroy") from None


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """One environment, as asked of a hypervisor. Zero means: none asked for, or the default named here.

    The guest starts with `boot_cpu_ms_per_s` (default: the agreed `cpu_ms_per_s`) and keeps it until
    the first resize of its CPU: `readiness.start` does both, so that a slow share boots in bearable time.
    """

    name: str
    image: str
    cpu_ms_per_s: int
    memory_bytes: int
    memory_max_bytes: int = 0  # ceiling for later resizes; default memory_bytes
    cpu_max_ms_per_s: int = 0  # ceiling for later resizes (whole virtual CPUs are given); default: the larger share
    disk_bytes: int = 0  # size of a scratch disk
    disk_byte_per_s: int = 0  # cap on the disk's rate, each way
    net_bit_per_s: int = 0  # cap on the network's rate, each way
    authorized_keys: tuple[str, ...] = ()
    ssh_host_key: str = field(default="", repr=False)  # OpenSSH private key text, Ed25519 (hostkeys.host_key)
    hostname: str = ""  # default: the name
    boot_cpu_ms_per_s: int = 0

    def __post_init__(self) -> None:
        if not self.memory_max_bytes:
            object.__setattr__(self, "memory_max_bytes", self.memory_bytes)
        if not self.hostname:
            object.__setattr__(self, "hostname", self.name)
        if not self.boot_cpu_ms_per_s:
            object.__setattr__(self, "boot_cpu_ms_per_s", self.cpu_ms_per_s)
        if not self.cpu_max_ms_per_s:
            object.__setattr__(self, "cpu_max_ms_per_s", max(self.cpu_ms_per_s, self.boot_cpu_ms_per_s))
        _match("name", _NAME, self.name)
        _match("image", _IMAGE, self.image)
        _match("hostname", _HOSTNAME, self.hostname)
        _bound("cpu_ms_per_s", self.cpu_ms_per_s, CPU_MIN_MS_PER_S, CPU_MAX_MS_PER_S)
        _bound("boot_cpu_ms_per_s", self.boot_cpu_ms_per_s, self.cpu_ms_per_s, CPU_MAX_MS_PER_S)
        _bound("cpu_max_ms_per_s", self.cpu_max_ms_per_s, self.boot_cpu_ms_per_s, CPU_MAX_MS_PER_S)
        _bound("memory_bytes", self.memory_bytes, MEMORY_MIN_BYTES, MEMORY_MAX_BYTES)
        _bound("memory_max_bytes", self.memory_max_bytes, self.memory_bytes, MEMORY_MAX_BYTES)
        _bound("disk_bytes", self.disk_bytes, 0, DISK_MAX_BYTES)
        _bound("disk_byte_per_s", self.disk_byte_per_s, 0, DISK_MAX_BYTES)
        _bound("net_bit_per_s", self.net_bit_per_s, 0, NET_MAX_BIT_PER_S)
        if len(self.authorized_keys) > AUTHORIZED_KEYS_MAX:
            raise InvalidSpecError(f"more than {AUTHORIZED_KEYS_MAX} authorized keys", "hand in fewer")
        for key in self.authorized_keys:
            if len(key) > AUTHORIZED_KEY_MAX_CHARS:
                raise InvalidSpecError("an authorized key is too long", "hand in the text of one .pub file")
            _match("authorized_keys", _AUTHORIZED_KEY, key)
        if self.ssh_host_key and (
            len(self.ssh_host_key) > HOST_KEY_MAX_CHARS or not self.ssh_host_key.startswith(_HOST_KEY_HEADER)
        ):
            raise InvalidSpecError("ssh_host_key is not an OpenSSH private key", "make one with hostkeys.host_key")

    @property
    def virtual_cpus(self) -> int:
        """Whole CPUs that the guest sees; its share of them is held by quota."""
        return -(-self.cpu_max_ms_per_s // 1000)

    def check_resize(self, cpu_ms_per_s: int | None, memory_bytes: int | None) -> None:
        """Refuse a resize beyond the ceilings that were set when the environment was created."""
        if cpu_ms_per_s is not None:
            _bound("cpu_ms_per_s", cpu_ms_per_s, CPU_MIN_MS_PER_S, self.cpu_max_ms_per_s)
        if memory_bytes is not None:
            _bound("memory_bytes", memory_bytes, MEMORY_MIN_BYTES, self.memory_max_bytes)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one environment has used since it was created; None means it cannot be measured here, never 0.

    Counters only grow, over pause, save, restore and a restart of our own processes. `memory_bytes` is the
    memory it holds at `at_ms` (the balloon, not the host's resident set): metering.MemoryMeter integrates it.
    Receive and transmit are as the guest sees them.
    """

    at_ms: int
    state: State
    cpu_ns: int | None = None
    memory_bytes: int | None = None
    net_rx_bytes: int | None = None
    net_tx_bytes: int | None = None
    disk_read_bytes: int | None = None
    disk_written_bytes: int | None = None

    def __post_init__(self) -> None:
        for counter in (self.cpu_ns, self.memory_bytes, *self.traffic):
            if counter is not None and counter < 0:
                raise InvalidSpecError("a counter is below zero", "this is a fault of the adapter")

    @property
    def traffic(self) -> tuple[int | None, int | None, int | None, int | None]:
        return (self.net_rx_bytes, self.net_tx_bytes, self.disk_read_bytes, self.disk_written_bytes)


def _match(what: str, pattern: re.Pattern[str], value: str) -> None:
    if not isinstance(value, str) or not pattern.match(value):
        raise InvalidSpecError(f"{what} {value[:60]!r} is not allowed", f"it must match {pattern.pattern}")


def _bound(what: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidSpecError(f"{what} {value!r} is outside {low}..{high}", "ask for an amount inside these bounds")
