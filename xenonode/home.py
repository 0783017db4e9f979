"""A role's home: its key, the disk that its state is on, and how it connects to others.

The one seam, beside `Env`, that tells a live node from a simulated one: live, a locked folder, key files and TLS;
simulated, a disk in memory and signed hellos. Everything above gets a `Home` and does not know which.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from dht.errors import KeyFileError
from dht.identity import Ed25519Signer, Signer, create_key, load_key
from xenonode.control.errors import LocalError
from xenonode.control.stream import Transport
from xenonode.control.tls import TlsIdentity
from xenonode.control.tls_transport import TlsTransport
from xenonode.errors import XenoError
from xenonode.folder import StateFolder
from xenonode.server.disk import Disk, FolderDisk

KEY_FILE = "node.key"
OPERATOR_CERTIFICATE, AUTHORITY = "operator", "authority"
"""Files in XenoCorp's state, from which its operator's commands connect."""
CONTROL_FILE = "control"
"""In the state of a server that follows its address: where control connections are taken now, for the owner's use."""


class Home(Protocol):
    """See the module."""

    @property
    def signer(self) -> Signer:
        """The role's own key."""

    @property
    def disk(self) -> Disk:
        """Where its state is."""

    def transport(self, certificate: bytes, authorities: Sequence[bytes]) -> Transport:
        """Connect and listen with this certificate; without one (empty), connect anonymously."""

    def renew(self, transport: Transport, certificate: bytes) -> None:
        """Let a transport in use prove a newer certificate from now on."""

    def leave(self) -> None:
        """Let go of the home, so that another process may enter."""


class LiveHome:
    """A folder on this machine: `keys/node.key` (made at the first use) and `state/`. Only one process enters."""

    def __init__(self, folder: Path, *, exclusive: bool = True, signer: Signer | None = None) -> None:
        state = StateFolder(folder).prepare()
        self._lock = contextlib.ExitStack()
        if exclusive:
            self._lock.enter_context(state.lock())
        try:
            self._signer = signer or _own_key(state.subfolder("keys") / KEY_FILE)
            self.disk: Disk = FolderDisk(state.subfolder("state"))
        except BaseException:
            self._lock.close()
            raise

    @property
    def signer(self) -> Signer:
        """The role's own key."""
        return self._signer

    def transport(self, certificate: bytes, authorities: Sequence[bytes]) -> Transport:
        """TLS 1.3 with the role's certificate."""
        return TlsTransport(self._identity(certificate) if certificate else None, authorities)

    def renew(self, transport: Transport, certificate: bytes) -> None:
        """Take a newer certificate into use."""
        assert isinstance(transport, TlsTransport)
        transport.renew(self._identity(certificate))

    def leave(self) -> None:
        """Release the folder's lock."""
        self._lock.close()

    def _identity(self, certificate: bytes) -> TlsIdentity:
        assert isinstance(self._signer, Ed25519Signer)
        try:
            return TlsIdentity(self._signer.seed, certificate)
        except LocalError as error:
            raise XenoError(str(error), "run: xenonode register", "certificate") from error


def _own_key(path: Path) -> Signer:
    try:
        return load_key(path) if path.exists() or path.is_symlink() else create_key(path)
    except KeyFileError as error:
        next_step = "a key that others could read is no longer yours alone: if in doubt, register a new one"
        raise XenoError(str(error), next_step, "key_file") from error
