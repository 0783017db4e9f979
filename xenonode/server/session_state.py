"""What a server knows of one session, and the life a session can lead.

                       validated          launch began
        REQUESTED ----------------> AGREED ----------------> STARTING
                                      |                       |    |
                                      |           stop, failed|    | booted
                                      |                       |    v
                                      |  stop                 |  RUNNING <------. resumed
                                      |                       |    |  `--------. |
                                      |                       |    |    paused v |
                                      |                       |    |         PAUSED
                                      v                       v    v stop       | stop
                                      STOPPING <------------------'-------------'
                                         | gone
                                         +--------> STOPPED    asked for, lease or money at its end, no receipts
                                         `--------> FAILED     did not boot, crashed, or vanished

    After STOPPED or FAILED the session is settled: final usage record, the client's receipt or a bounded wait
    for it, final claim, settlement. Then it is closed, and kept only to be asked about.

`TRANSITIONS` is that drawing as data; `session_core` moves by it and by nothing else. A record is one plain
value, so that the journal stores it whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from xenonode.model.message import Message
from xenonode.model.money import Reservation
from xenonode.model.resources import Resources, due_nano
from xenonode.model.session import Agreement
from xenonode.server import metering
from xenonode.server.errors import LocalError
from xenonode.server.metering import Meter

REQUESTED: Final = "requested"
AGREED: Final = "agreed"
STARTING: Final = "starting"
RUNNING: Final = "running"
PAUSED: Final = "paused"
STOPPING: Final = "stopping"
STOPPED: Final = "stopped"
FAILED: Final = "failed"

LIVE = (RUNNING, PAUSED)
ENDED = (STOPPED, FAILED)
HOLDING = (AGREED, STARTING, RUNNING, PAUSED, STOPPING)
"""States in which a session keeps capacity."""

TRANSITIONS: Final[dict[tuple[str, str], str]] = {
    (REQUESTED, "validated"): AGREED,
    (AGREED, "launch began"): STARTING,
    (STARTING, "launch began"): STARTING,
    (STARTING, "booted"): RUNNING,
    (RUNNING, "paused"): PAUSED,
    (PAUSED, "resumed"): RUNNING,
    (AGREED, "stop"): STOPPING,
    (STARTING, "stop"): STOPPING,
    (RUNNING, "stop"): STOPPING,
    (PAUSED, "stop"): STOPPING,
    (STOPPING, "gone"): STOPPED,
    (STOPPING, "gone after failure"): FAILED,
}

ISSUED_KEPT = 8
"""Usage records that a receipt may still name; a client that is further behind signs the newest instead."""
SETTLEMENTS_KEPT = 8
"""Settlements kept for the client to see; each states the cumulative sum, so older ones add nothing."""
NOT_CLAIMED, CLAIMED_UNSIGNED, CLAIMED_COSIGNED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Issued:
    """A usage record that was signed and may be shown."""

    id: bytes
    seq: int
    due_nano: int
    until_ms: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class PendingClaim:
    """A signed claim on its way to XenoCorp; it is repeated byte for byte until there is an answer."""

    id: bytes
    raw: bytes
    seq: int
    cosigned: bool
    final: bool


@dataclass(frozen=True, slots=True)
class Session(Message):
    """One session as its server's journal keeps it (never sent, never sealed)."""

    TYPE: ClassVar[str] = "session_record"
    id: bytes
    agreement: Agreement
    reservation: Reservation
    client_agreement: bytes
    server_agreement: bytes
    image: str
    state: str
    reason: str
    failed: bool
    agreed_ms: int
    launches: int
    resources: Resources
    start: bytes | None
    meter: Meter | None
    issued: tuple[Issued, ...]
    final_signed: bool
    receipt: bytes | None
    receipt_usage: bytes | None
    receipt_seq: int
    receipt_due_nano: int
    receipt_ms: int
    paused_by_client: bool
    exposed_ms: int | None
    command_seq: int
    command: bytes | None
    amendment: bytes | None
    ended_ms: int | None
    claim: PendingClaim | None
    claimed_seq: int
    claimed_final: int
    claimed_ms: int
    settled_nano: int
    settlements: tuple[bytes, ...]
    note: str
    closed: bool

    @property
    def due_nano(self) -> int:
        """What is due for all that was used so far."""
        return 0 if self.meter is None else due_nano(metering.usage(self.meter), self.agreement.prices)

    @property
    def unsigned_nano(self) -> int:
        """What was used without a receipt: the server's exposure."""
        return self.due_nano - self.receipt_due_nano

    @property
    def last_issued(self) -> Issued | None:
        """The newest usage record."""
        return self.issued[-1] if self.issued else None


def requested(
    id: bytes, agreement: Agreement, reservation: Reservation, client_agreement: bytes, image: str, now_ms: int
) -> Session:
    """A session at the beginning of its life."""
    return Session(
        id=id,
        agreement=agreement,
        reservation=reservation,
        client_agreement=client_agreement,
        server_agreement=b"",
        image=image,
        state=REQUESTED,
        reason="",
        failed=False,
        agreed_ms=now_ms,
        launches=0,
        resources=agreement.resources,
        start=None,
        meter=None,
        issued=(),
        final_signed=False,
        receipt=None,
        receipt_usage=None,
        receipt_seq=0,
        receipt_due_nano=0,
        receipt_ms=now_ms,
        paused_by_client=False,
        exposed_ms=None,
        command_seq=0,
        command=None,
        amendment=None,
        ended_ms=None,
        claim=None,
        claimed_seq=0,
        claimed_final=NOT_CLAIMED,
        claimed_ms=now_ms,
        settled_nano=0,
        settlements=(),
        note="",
        closed=False,
    )


def after(state: str, happening: str) -> str:
    """The state that a happening leads to. Raises LocalError where the table has no such step."""
    try:
        return TRANSITIONS[state, happening]
    except KeyError:
        raise LocalError(f"a session that is {state} cannot take the step '{happening}'") from None
