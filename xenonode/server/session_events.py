"""What can happen to a session, and what can be done about it: the core's inputs and outputs.

Events come from the driver, effects go to it; both are plain values. Each event that reports an effect's
completion is named after what is then true (`Paused`), each effect after what to do (`PauseGuest`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypervisor.environment import Usage as Sample
from xenonode.model.money import Settlement
from xenonode.model.resources import Resources
from xenonode.model.session import Receipt, SessionCommand, UsageRecord
from xenonode.server.metering import Instant

AuditValue = str | int | bytes | list[str]


@dataclass(frozen=True, slots=True)
class Order:
    """Which client's command an effect belongs to."""

    id: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What the hypervisor showed of a guest, and when it was asked."""

    sample: Sample
    at: Instant


# Events ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Validated:
    """Every check of the agreement passed, and the server signed it."""

    server_agreement: bytes


@dataclass(frozen=True, slots=True)
class LaunchBegan:
    """The hypervisor is about to be asked for the environment."""


@dataclass(frozen=True, slots=True)
class Booted:
    """The environment answers; `start` is the signed Start record, `reading` the meter's baseline."""

    start: bytes
    reading: Reading


@dataclass(frozen=True, slots=True)
class Relocated:
    """The environment is reached elsewhere: `start` is the Start record, signed anew."""

    start: bytes


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The environment could not be launched."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """A reading of the guest."""

    reading: Reading


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed, and nothing was read."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The hypervisor no longer knows the guest."""


@dataclass(frozen=True, slots=True)
class Commanded:
    """The client's signed command arrived."""

    command: SessionCommand
    id: bytes


@dataclass(frozen=True, slots=True)
class Paused:
    """The guest stands still."""

    reading: Reading | None
    order: Order | None


@dataclass(frozen=True, slots=True)
class Resumed:
    """The guest runs again."""

    reading: Reading | None
    order: Order | None


@dataclass(frozen=True, slots=True)
class Resized:
    """The guest has these resources now."""

    resources: Resources
    reading: Reading | None
    order: Order | None


@dataclass(frozen=True, slots=True)
class Amended:
    """The amendment for a command was signed."""

    amendment: bytes
    order: Order


@dataclass(frozen=True, slots=True)
class UsageSigned:
    """A usage record was signed."""

    record: UsageRecord
    id: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Receipted:
    """The client's receipt arrived."""

    receipt: Receipt
    raw: bytes


@dataclass(frozen=True, slots=True)
class ClaimMade:
    """A claim was signed, and waits to be sent."""

    id: bytes
    raw: bytes
    plan: MakeClaim


@dataclass(frozen=True, slots=True)
class ClaimSettled:
    """XenoCorp settled the pending claim."""

    settlement: Settlement
    raw: bytes


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """XenoCorp refused the pending claim for good."""

    reason: str


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The reservation of a session that never ran is on its way back to the client, durably."""


@dataclass(frozen=True, slots=True)
class StopOrdered:
    """The server ends the session, by its owner's order or of itself."""

    reason: str
    by_owner: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """The guest is no more; `reading` is the last one, if there was one to be had."""

    reading: Reading | None


@dataclass(frozen=True, slots=True)
class Restarted:
    """The server came back and asked the hypervisor; `reading` is None where the guest is not there."""

    reading: Reading | None
    cpu_ms_per_s: int | None = None
    memory_bytes: int | None = None


Event = (
    Validated
    | LaunchBegan
    | Booted
    | Relocated
    | BootFailed
    | Sampled
    | Tick
    | Vanished
    | Commanded
    | Paused
    | Resumed
    | Resized
    | Amended
    | UsageSigned
    | Receipted
    | ClaimMade
    | ClaimSettled
    | ClaimRefused
    | GaveUp
    | StopOrdered
    | Gone
    | Restarted
)

# Effects --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Save:
    """Make the session's new state durable before anything else is done or shown."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Write an entry into the audit log."""

    kind: str
    body: Mapping[str, AuditValue]


@dataclass(frozen=True, slots=True)
class Advertise:
    """What is available changed."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Create the environment, replacing one of the same name that never got ready."""


@dataclass(frozen=True, slots=True)
class PauseGuest:
    """Have the hypervisor pause the guest."""

    order: Order | None


@dataclass(frozen=True, slots=True)
class ResumeGuest:
    """Have the hypervisor resume the guest."""

    order: Order | None


@dataclass(frozen=True, slots=True)
class ResizeGuest:
    """Have the hypervisor change the guest's share, if admission control agrees."""

    resources: Resources
    order: Order | None


@dataclass(frozen=True, slots=True)
class TearDown:
    """Take a last reading, stop the guest and remove it."""


@dataclass(frozen=True, slots=True)
class SignAmendment:
    """Sign that a command took effect."""

    order: Order


@dataclass(frozen=True, slots=True)
class SignUsage:
    """Sign this record, with the audit log's head filled in."""

    record: UsageRecord


@dataclass(frozen=True, slots=True)
class MakeClaim:
    """Sign a claim for this usage record."""

    usage: bytes
    receipt: bytes | None
    seq: int
    final: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Sign that XenoCorp may return the reservation at once: nothing was used of it, and nothing will be."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the client that its command or receipt does nothing, and why."""

    code: str
    message: str
    next_step: str


Effect = (
    Save
    | Audit
    | Advertise
    | Launch
    | PauseGuest
    | ResumeGuest
    | ResizeGuest
    | TearDown
    | SignAmendment
    | SignUsage
    | MakeClaim
    | GiveUp
    | Refuse
)
