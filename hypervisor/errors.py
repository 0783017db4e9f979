"""What can go wrong below an environment, and what a person should do next.

`LocalError` is our own misuse: asking for what was not declared, or for a guest that is not there.
`RemoteError` is the machine's: software missing, a right missing, a guest or its hypervisor failing.
Each error has a `code`, so that it can cross the pipe from the hypervisor's own process unchanged.
"""

from __future__ import annotations


class HypervisorError(Exception):
    """Root of the tree; `next_step` tells the owner of the machine what to do."""

    code = "hypervisor"

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}. Next: {self.next_step}" if self.next_step else self.message


class LocalError(HypervisorError):
    code = "local"


class RemoteError(HypervisorError):
    code = "remote"


class UnsupportedError(LocalError):
    """The adapter did not declare the ability; nothing was done."""

    code = "unsupported"


class InvalidSpecError(LocalError):
    """A field of a specification or call is outside what may reach a hypervisor."""

    code = "invalid_spec"


class UnknownGuestError(LocalError):
    code = "unknown_guest"


class AlreadyExistsError(LocalError):
    code = "already_exists"


class StateError(LocalError):
    """The guest's state does not allow the action (see environment.TRANSITIONS)."""

    code = "state"


class SoftwareMissingError(RemoteError):
    """libvirt, its Python binding, QEMU or another program is not installed."""

    code = "software_missing"


class PrivilegeError(RemoteError):
    code = "privilege"


class CapacityError(RemoteError):
    """The machine has not got what was asked for (memory, addresses, ports, disk)."""

    code = "capacity"


class ImageError(RemoteError):
    """An image is missing, is not what its manifest says, or has a form that is refused."""

    code = "image"


class GuestFailedError(RemoteError):
    """The guest did not start, or did not answer within its bound."""

    code = "guest_failed"


class ConnectionLostError(RemoteError):
    """The process that talks to the hypervisor has ended; guests go on running."""

    code = "connection_lost"


def _tree(root: type[HypervisorError]) -> dict[str, type[HypervisorError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


ERRORS_BY_CODE = _tree(HypervisorError)


def from_code(code: str, message: str, next_step: str) -> HypervisorError:
    """Rebuild an error that crossed the pipe; an unknown code becomes a RemoteError."""
    return ERRORS_BY_CODE.get(code, RemoteError)(message, next_step)
