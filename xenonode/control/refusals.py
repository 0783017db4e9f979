"""What a user is told when a peer cannot be used: one place for the words, whatever the transport."""

from __future__ import annotations

from dht.contact import address_text
from xenonode.control.errors import (
    CERTIFICATE_EXPIRED,
    CERTIFICATE_REFUSED,
    CERTIFICATE_REQUIRED,
    TIMEOUT,
    UNREACHABLE,
    WRONG_KEY,
    ControlError,
)


def unreachable(host: str, port: int, reason: str) -> ControlError:
    """Return the error for a peer that cannot be reached."""
    text = f"Nobody could be reached at {address_text((host, port))} ({reason})."
    return ControlError(UNREACHABLE, text, "Check the address and that the peer is running, then try again.")


def wrong_key(expected_key: bytes, found_key: bytes) -> ControlError:
    """Return the error for a peer that is somebody else."""
    text = f"The peer's key is {found_key.hex()[:16]}, but {expected_key.hex()[:16]} was expected."
    return ControlError(WRONG_KEY, text, "Do not send it anything; look up the peer's address again.")


def explain_loss(reason: str) -> ControlError | None:
    """Return what a TLS alert about our own certificate means, if `reason` is one."""
    if "CERTIFICATE_EXPIRED" in reason:
        text = "Your certificate has expired."
        return ControlError(CERTIFICATE_EXPIRED, text, "Renew it with XenoCorp; check your clock too.")
    if "CERTIFICATE_REQUIRED" in reason:
        text = "The server admits members only, and you showed no certificate."
        return ControlError(CERTIFICATE_REQUIRED, text, "Register with XenoCorp first.")
    if "ALERT" in reason:
        text = f"The server refused your certificate ({reason})."
        return ControlError(CERTIFICATE_REFUSED, text, "Check whose platform you registered with.")
    return None


def lost(peer: str) -> ControlError:
    """Return the error for a peer that vanished between question and answer."""
    text = f"The connection to {peer} was lost before it answered."
    return ControlError(UNREACHABLE, text, "It may have acted: repeat the same request, with the same ids.")


def late(peer: str, method: str, timeout_ms: int) -> ControlError:
    """Return the error for an answer that did not come in time."""
    text = f"{peer} did not answer {method} within {timeout_ms} ms."
    return ControlError(TIMEOUT, text, "It may have acted: repeat the same request, with the same ids.")
