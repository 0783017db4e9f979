"""Who takes part: registrations, credentials, issuing keys, and the network file.

Source: the poster's "Register" panel (registration binds an entity to a real-world identity). A credential
carries the issuer's nonce, from which node ids are derived, so that no member can choose its place in a DHT.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import ClassVar

from dht.envelope import Envelope
from dht.identity import Scheme
from xenonode.model.errors import MessageError
from xenonode.model.message import Message, require

ROLES = ("client", "server", "corp")
PROFILES = ("local", "public")
CLOCK_TOLERANCE_MS = 120_000
"""Clocks may differ by two minutes; beyond it, signing stops and says so."""
_COUNTRY = re.compile(r"[A-Z]{2}\Z")


@dataclass(frozen=True, slots=True)
class Registration(Message):
    """An entity's request to become a member; signed with the key that is to be registered."""

    TYPE: ClassVar[str] = "registration"
    role: str
    legal_name: str
    country: str
    email: str
    proof_reference: str
    network_id: bytes
    requested_ms: int

    def __post_init__(self) -> None:
        require(self.role in ROLES, f"role {self.role!r} is not one of {', '.join(ROLES)}")
        require(0 < len(self.legal_name.strip()) <= 200, "legal name must have 1 to 200 characters")
        require(bool(_COUNTRY.match(self.country)), f"country {self.country!r} is no ISO 3166 code of two letters")
        require("@" in self.email and len(self.email) <= 254, f"e-mail {self.email!r} is no address")
        require(0 < len(self.proof_reference.strip()) <= 200, "the proof's reference must have 1 to 200 characters")


@dataclass(frozen=True, slots=True)
class Credential(Message):
    """XenoCorp's word that a key belongs to a registered entity."""

    TYPE: ClassVar[str] = "credential"
    serial: int
    entity: str
    key: bytes
    role: str
    issuer_nonce: bytes
    not_before_ms: int
    expires_ms: int
    quota_class: int

    def __post_init__(self) -> None:
        require(len(self.key) == 32, "key must have 32 bytes")
        require(len(self.issuer_nonce) == 16, "issuer nonce must have 16 bytes")
        require(self.role in ROLES, f"role {self.role!r} is not one of {', '.join(ROLES)}")
        require(self.not_before_ms < self.expires_ms, "a credential must not end before it begins")
        require(0 < len(self.entity) <= 32, "entity must have 1 to 32 characters")


@dataclass(frozen=True, slots=True)
class Issuer(Message):
    """The root key's word that an issuing key may sign credentials and money messages for a while."""

    TYPE: ClassVar[str] = "issuer"
    key: bytes
    not_before_ms: int
    expires_ms: int

    def __post_init__(self) -> None:
        require(len(self.key) == 32, "key must have 32 bytes")
        require(self.not_before_ms < self.expires_ms, "an issuing key must not end before it begins")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a socket is: host (a literal address) and port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        require(0 < self.port < 65536, f"port {self.port} is not in 1..65535")
        require(0 < len(self.host) <= 45, "host must be a literal address")

    @classmethod
    def parse(cls, text: str) -> Address | None:
        """HOST:PORT, with a literal host and a port that there is; None for anything else."""
        host, _, port = text.rpartition(":")
        try:
            return cls(str(ip_address(host.strip("[]"))), int(port))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def pair(self) -> tuple[str, int]:
        """As the socket functions take it."""
        return (self.host, self.port)


@dataclass(frozen=True, slots=True)
class Network(Message):
    """The network file: what a node must know before it can join; handed out of band, signed by the root key."""

    TYPE: ClassVar[str] = "network"
    network_id: bytes
    profile: str
    root_key: bytes
    corp_key: bytes
    corp_control: Address
    seeds: tuple[Address, ...]
    issuers: tuple[bytes, ...]
    schema_hash: bytes
    issued_ms: int

    def __post_init__(self) -> None:
        require(len(self.network_id) == 16, "network id must have 16 bytes")
        require(self.profile in PROFILES, f"profile {self.profile!r} is not one of {', '.join(PROFILES)}")
        require(len(self.root_key) == 32 and len(self.corp_key) == 32, "keys must have 32 bytes")
        require(0 < len(self.seeds) <= 64, "a network needs 1 to 64 seeds")
        require(0 < len(self.issuers) <= 4, "a network needs 1 to 4 issuing keys")
        require(len(self.schema_hash) == 32, "schema hash must have 32 bytes")


CREDENTIALS_REMEMBERED_MAX = 65_536
"""Credentials whose signature was checked once: about 40 MB when full, and each check saves an Ed25519 verify."""


class Trust:
    """Whom to believe: the issuing keys that the network's root key vouches for."""

    def __init__(self, network: Network, scheme: Scheme) -> None:
        self.network = network
        self.scheme = scheme
        self._checked: dict[bytes, tuple[Credential, Envelope]] = {}
        self._issuers: dict[bytes, Issuer] = {}
        for raw in network.issuers:
            issuer, _ = Issuer.open(raw, scheme, signed_by=network.root_key)
            self._issuers[issuer.key] = issuer

    def issued(self, envelope: Envelope, now_ms: int) -> None:
        """Check that a valid issuing key signed this. Raises MessageError."""
        issuer = self._issuers.get(envelope.key)
        if issuer is None:
            raise MessageError(f"{envelope.type}: {envelope.key.hex()[:16]} is no issuing key of this network")
        _within(f"issuing key of {envelope.type}", issuer.not_before_ms, issuer.expires_ms, now_ms)

    def until_ms(self, issuing_key: bytes) -> int:
        """When an issuing key ends. Raises MessageError for a key that is none."""
        if issuing_key not in self._issuers:
            raise MessageError(f"{issuing_key.hex()[:16]} is no issuing key of this network")
        return self._issuers[issuing_key].expires_ms

    def credential(self, raw: bytes, now_ms: int, roles: Sequence[str] = ROLES) -> Credential:
        """Check a credential: issuer, dates and role. Raises RemoteError with what to do."""
        checked = self._checked.get(raw)
        if checked is None:
            read, signed = Credential.open(raw, self.scheme)
            checked = read, signed.compact()
            if len(self._checked) >= CREDENTIALS_REMEMBERED_MAX:
                self._checked.pop(next(iter(self._checked)))
            self._checked[raw] = checked
        credential, envelope = checked
        self.issued(envelope, now_ms)
        _within("credential", credential.not_before_ms, credential.expires_ms, now_ms)
        if credential.role not in roles:
            raise MessageError(f"credential: role {credential.role} may not do this; needed: {', '.join(roles)}")
        return credential


def _within(what: str, not_before_ms: int, expires_ms: int, now_ms: int) -> None:
    if now_ms < not_before_ms - CLOCK_TOLERANCE_MS:
        wait_s = (not_before_ms - now_ms) // 1000
        raise MessageError(f"{what} is not valid yet: it begins in {wait_s} s; check the clock")
    if now_ms >= expires_ms:
        raise MessageError(f"{what} expired {(now_ms - expires_ms) // 1000} s ago; renew it with 'xenonode register'")
