"""A simulated role's home: a disk that outlives crashes, a key from the world's seed, signed hellos.

Decides what stands in the place of TLS certificates: a text that names its holder, which the hello does not need,
but whose absence still means an anonymous connection. Leaves all else to what the home is handed to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dht.identity import Signer
from hypervisor.hostkeys import host_key, public_line
from xenonode.control.hello import HelloTransport
from xenonode.control.stream import Transport
from xenonode.env import Env
from xenonode.simulation.disk import SimulatedDisk

AUTHORITY_TEXT = b"simulated authority"


class SimulatedHome:
    """The home of one incarnation; hand the same disk to the next one (implements xenonode.home.Home)."""

    def __init__(self, env: Env, disk: SimulatedDisk, signer: Signer | None = None) -> None:
        self.signer: Signer = signer or env.scheme.generate(env.seed("node key"))
        self.disk = disk
        disk.begin_life()
        self._env = env

    def transport(self, certificate: bytes, authorities: Sequence[bytes]) -> Transport:
        """Hellos signed with this home's key; anonymous ones without a certificate."""
        signer = self.signer if certificate else None
        return HelloTransport(self._env.scheme, signer, self._env.rng("hello"))

    def renew(self, transport: Transport, certificate: bytes) -> None:
        """Nothing: a hello proves the key itself."""

    def leave(self) -> None:
        """Nothing: nobody else could enter."""


def certify(key: bytes, entity: str, role: str, not_before_ms: int, expires_ms: int) -> bytes:
    """What a member shows instead of an X.509 certificate."""
    return f"simulated certificate of {key.hex()} {entity} {role} {not_before_ms} {expires_ms}".encode()


def login_key(path: Path, env: Env) -> str:
    """A client's ssh key from the seed; no file is written."""
    return public_line(host_key(env.seed("ssh")))
