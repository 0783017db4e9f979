"""Session messages: quote, agreement, start, usage, receipt, and changes to a running session.

Source: the poster's "Create sessions" and "Deploy" panels: creation follows a positive admission control
decision and establishes an agreement on the resources to be provided and the payment to be made.
An agreement is one body that both parties seal; its id is the id of the client's envelope.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from xenonode.model.advert import OfferedEnvironment
from xenonode.model.entity import Address
from xenonode.model.message import Message, require
from xenonode.model.money import ID_BYTES
from xenonode.model.resources import Prices, Resources, Usage

QUOTE_HOLD_MS = 60_000
RECEIPT_PERIOD_MS = 60_000
EXPOSURE_PERMILLE = 50
EXPOSURE_TIME_MS = 5 * 60_000
_HOST_KEY = re.compile(r"[a-z0-9@.-]{1,64} [A-Za-z0-9+/]{16,1024}={0,3}\Z")


def exposure_limit_nano(amount_nano: int, rate_cap_nano_per_hour: int) -> int:
    """Most that may be used without a receipt: 5 % of the reservation, or 5 min at its rate cap if that is less.

    It is each side's worst loss, so both compute it with this function; at least one nano-unit.
    """
    share = amount_nano * EXPOSURE_PERMILLE // 1000
    return max(1, min(share, rate_cap_nano_per_hour * EXPOSURE_TIME_MS // 3_600_000))


@dataclass(frozen=True, slots=True)
class QuoteRequest(Message):
    """A client asks a server: may I have this, and at what price?"""

    TYPE: ClassVar[str] = "quote_request"
    nonce: bytes
    server: bytes
    resources: Resources
    environment: OfferedEnvironment
    lease_ms: int
    made_ms: int

    def __post_init__(self) -> None:
        require(len(self.nonce) == ID_BYTES, "nonce must have 16 bytes")
        require(len(self.server) == 32, "a server is named by its key of 32 bytes")
        require(self.resources.cpu_ms_per_s > 0 and self.resources.memory_bytes > 0, "a session needs CPU and memory")


@dataclass(frozen=True, slots=True)
class Quote(Message):
    """Admission control's yes: these resources at these prices, held for a while."""

    TYPE: ClassVar[str] = "quote"
    request: bytes
    client: bytes
    advert: bytes
    advert_seq: int
    resources: Resources
    environment: OfferedEnvironment
    image_sha256: bytes
    prices: Prices
    held_until_ms: int


@dataclass(frozen=True, slots=True)
class Refusal(Message):
    """Admission control's no, with every reason, so that a client can change what must change."""

    TYPE: ClassVar[str] = "refusal"
    request: bytes
    client: bytes
    reasons: tuple[str, ...]
    made_ms: int


@dataclass(frozen=True, slots=True)
class Agreement(Message):
    """What both parties sign before anything is launched."""

    TYPE: ClassVar[str] = "agreement"
    client: bytes
    server: bytes
    reservation: bytes
    quote: bytes
    advert: bytes
    advert_seq: int
    resources: Resources
    environment: OfferedEnvironment
    image_sha256: bytes
    prices: Prices
    receipt_period_ms: int
    exposure_nano: int
    audit_policy: str
    authorized_keys: tuple[str, ...]
    hostname: str
    made_ms: int

    def __post_init__(self) -> None:
        require(len(self.client) == 32 and len(self.server) == 32, "parties are named by keys of 32 bytes")
        require(1_000 <= self.receipt_period_ms <= 3_600_000, "the receipt period lies in 1 s..1 h")
        require(0 < len(self.authorized_keys) <= 8, "1 to 8 ssh keys")
        for key in self.authorized_keys:
            require(0 < len(key) <= 2048 and key.isprintable(), "an ssh key must be one printable line")
        require(self.audit_policy == "standard", f"audit policy {self.audit_policy!r} is unknown")


@dataclass(frozen=True, slots=True)
class Start(Message):
    """The server's word that the environment runs, where to log in, and which host key to expect there.

    Without a host there is no ssh to log in with.
    """

    TYPE: ClassVar[str] = "start"
    agreement: bytes
    environment_id: str
    ssh_host: str
    ssh_port: int
    ssh_host_key: str
    started_ms: int

    def __post_init__(self) -> None:
        require(len(self.agreement) == ID_BYTES, "an agreement's id has 16 bytes")
        printable = 0 < len(self.environment_id) <= 128 and self.environment_id.isprintable()
        require(printable, "an environment's id has 1 to 128 printable characters")
        if self.ssh_host or self.ssh_port:
            there = Address.parse(f"[{self.ssh_host}]:{self.ssh_port}")
            require(there is not None, "ssh needs a literal address and a port, or neither of them")
        if self.ssh_host or self.ssh_host_key:
            # It becomes a line of a known_hosts file, where a second line would be a second host.
            require(bool(_HOST_KEY.match(self.ssh_host_key)), "an ssh host key is its type and its base64, on one line")
        require(self.started_ms >= 0, "a session cannot start before 1970")


@dataclass(frozen=True, slots=True)
class UsageRecord(Message):
    """What a session has used from its start until now, in a chain: each names the one before."""

    TYPE: ClassVar[str] = "usage"
    agreement: bytes
    seq: int
    usage: Usage
    due_nano: int
    until_ms: int
    previous: bytes | None
    log_head: bytes
    final: bool

    def __post_init__(self) -> None:
        require(self.seq >= 1, "seq begins at 1")
        require(self.due_nano >= 0, "what is due must not be negative")
        require((self.previous is None) == (self.seq == 1), "each usage record but the first names the one before")


@dataclass(frozen=True, slots=True)
class Receipt(Message):
    """The client's word on a usage record: accepted, or why not."""

    TYPE: ClassVar[str] = "receipt"
    agreement: bytes
    usage: bytes
    seq: int
    accepted: bool
    reason: str
    made_ms: int


@dataclass(frozen=True, slots=True)
class SessionCommand(Message):
    """A client's signed order about a running session: resize, pause, resume or stop; seq makes a replay harmless."""

    TYPE: ClassVar[str] = "session_command"
    agreement: bytes
    seq: int
    action: str
    resources: Resources | None
    made_ms: int

    def __post_init__(self) -> None:
        require(self.action in ("resize", "pause", "resume", "stop"), f"action {self.action!r} is unknown")
        require((self.resources is not None) == (self.action == "resize"), "resize, and only resize, names resources")


@dataclass(frozen=True, slots=True)
class Amendment(Message):
    """The server's word that a command took effect, and what the session has from then on."""

    TYPE: ClassVar[str] = "amendment"
    agreement: bytes
    command: bytes
    resources: Resources
    state: str
    effective_ms: int
