"""What XenoCorp refuses, and why: every refusal has a code for programs, a sentence, and a next step for people."""

from __future__ import annotations

from dht.errors import LocalError, RemoteError
from xenonode.control.errors import LEDGER_DAMAGED, UNAVAILABLE
from xenonode.errors import XenoError


class CorpError(XenoError):
    """Anything that XenoCorp will not do."""


class CorpLocalError(CorpError, LocalError):
    """Our own misuse or our own disk: the operator has to act."""


class SchemaVersionError(CorpLocalError):
    """The database was written by an older or newer program; the next step names the command to run."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message, next_step, "schema_version")


class FoundingError(CorpLocalError):
    """A folder cannot become, or is not, a XenoCorp's folder."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message, next_step, "founding")


class DamagedLedgerError(CorpLocalError):
    """The ledger's file does not say any more what was written into it; the operator has to restore it."""

    def __init__(self, path: object, what: str) -> None:
        super().__init__(
            f"the ledger{f' {path}' if path else ''} is damaged: {what}",
            "keep the file as evidence, restore XenoCorp's whole folder from its last backup, "
            "and compare with members' receipts what was booked since",
            LEDGER_DAMAGED,
        )


class RefusedError(CorpError, RemoteError):
    """A request that cannot be granted; nothing changed but what the message says."""

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        super().__init__(message, next_step, code)


class UnavailableError(RefusedError):
    """The ledger could not be written; nothing of the request was kept, and a repeat is safe."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            UNAVAILABLE,
            f"the ledger cannot be written just now: {reason}; nothing was changed",
            "send the same request again later; a repeat is never booked twice",
        )


class DamagedError(RefusedError):
    """The ledger's file was found damaged while it was in use; nothing is booked any more."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            LEDGER_DAMAGED,
            f"XenoCorp's ledger is damaged: {reason}; nothing is booked until its operator has restored it",
            "send the same request again when XenoCorp is back; a repeat is never booked twice",
        )


class BusyError(RefusedError):
    """More requests wait than the store's queue may hold."""

    def __init__(self, waiting: int) -> None:
        super().__init__("busy", f"{waiting} requests are waiting already", "ask again in a second")
