"""The errors of control connections, and the codes that travel."""

from __future__ import annotations

MAX_TEXT_CHARACTERS = 2_000  # of a message or a next step that a peer may make us show; a screenful

# Codes made by this package; handlers add their own.
UNREACHABLE = "unreachable"  # no connection, or it was lost before the answer came
TIMEOUT = "timeout"
WRONG_KEY = "wrong_key"
CERTIFICATE_EXPIRED = "certificate_expired"
CERTIFICATE_REFUSED = "certificate_refused"
CERTIFICATE_REQUIRED = "certificate_required"
BAD_PEER = "bad_peer"  # the peer speaks another protocol, or breaks this one
BAD_REQUEST = "bad_request"
UNKNOWN_METHOD = "unknown_method"
BUSY = "busy"
INTERNAL = "internal"
# Codes of XenoCorp's that say nothing about what it was asked for.
UNAVAILABLE = "unavailable"
LEDGER_DAMAGED = "ledger_damaged"


class LocalError(Exception):
    """We were used wrongly: a value that no frame can carry, a key of the wrong size."""


class RemoteError(Exception):
    """The other end misbehaved; it never stops a node."""


class FrameError(RemoteError):
    """Bytes that are no frame, a frame that is no message, or a frame cut short."""


class StreamLostError(RemoteError):
    """The connection broke. `reason` is the system's or the TLS library's word for it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class IdleError(RemoteError):
    """Nothing came for too long."""


class SlowFrameError(RemoteError):
    """A frame was begun and not finished in time (slow-loris)."""


class ControlError(Exception):
    """A refusal that a user can read: what happened (`message`), what to do (`next_step`), and a code for programs.

    Handlers raise it to refuse; callers get the same error, whether the peer refused or could not be reached.
    """

    def __init__(self, code: str, message: str, next_step: str = "") -> None:
        super().__init__(f"{message} {next_step}".strip())
        self.code = code[:MAX_TEXT_CHARACTERS]
        self.message = message[:MAX_TEXT_CHARACTERS]
        self.next_step = next_step[:MAX_TEXT_CHARACTERS]
