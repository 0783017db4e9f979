"""Advertisement: a server's signed offer: identity, owner, location, resources in total and available, prices.

Decides what an advert says and which attributes a search sees in it; the search itself is `summaries`.
An advert with its credential inside fits one datagram, and proves itself to whoever holds a copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from dht.contact import admits
from dht.envelope import Envelope
from xenonode.model.entity import Address, Credential, Trust
from xenonode.model.errors import MessageError
from xenonode.model.message import Message, require
from xenonode.model.resources import Prices, Resources

ENVIRONMENTS_MAX = 4
FEATURES_MAX = 8
LIFETIME_MAX_MS = 15 * 60_000
"""An advert lives at most 15 minutes, so that a replayed one soon proves nothing."""
SEQ_MAX = 2**62
AdvertAttribute = int | str | tuple[str, ...] | tuple[tuple[str, str, str], ...] | tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class OfferedEnvironment:
    """What can run in a session: an operating system or an execution platform, and its version."""

    kind: str
    name: str
    version: str

    def __post_init__(self) -> None:
        require(self.kind in ("os", "platform"), f"kind of environment {self.kind!r} is neither os nor platform")
        require(0 < len(self.name) <= 24 and self.name.islower(), f"environment {self.name!r} needs a lower-case name")
        require(0 < len(self.version) <= 32, "an environment's version must have 1 to 32 characters")

    def __str__(self) -> str:
        return f"{self.kind}.{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Location:
    """A network coordinate (Vivaldi with height) in microseconds of round-trip time."""

    x_us: int
    y_us: int
    z_us: int
    height_us: int

    def __post_init__(self) -> None:
        for value in (self.x_us, self.y_us, self.z_us, self.height_us):
            require(abs(value) <= 10_000_000, "a coordinate must lie within 10 s of the origin")
        require(self.height_us >= 0, "height must not be negative")


@dataclass(frozen=True, slots=True)
class Advert(Message):
    """See the module. `gone` with a higher seq withdraws it (a tombstone)."""

    TYPE: ClassVar[str] = "advert"
    seq: int
    issued_ms: int
    expires_ms: int
    gone: bool
    credential: bytes
    country: str
    region: str
    location: Location
    udp: Address
    control: Address
    cores: int
    total: Resources
    available: Resources
    prices: Prices
    environments: tuple[OfferedEnvironment, ...]
    features: tuple[str, ...]
    started_ms: int
    schema_epoch: int

    def __post_init__(self) -> None:
        require(0 <= self.seq <= SEQ_MAX, f"seq must be in 0..{SEQ_MAX}")
        require(self.issued_ms < self.expires_ms <= self.issued_ms + LIFETIME_MAX_MS, "an advert lives 1 ms to 15 min")
        lacking = self.total.lacks(self.available)
        require(not lacking, f"more available than there is in total: {', '.join(lacking)}")
        require(1 <= self.cores <= 4096, "cores must be in 1..4096")
        require(len(self.environments) <= ENVIRONMENTS_MAX, f"at most {ENVIRONMENTS_MAX} environments")
        require(len(self.features) <= FEATURES_MAX, f"at most {FEATURES_MAX} features")
        require(all(0 < len(feature) <= 16 for feature in self.features), "a feature has 1 to 16 characters")
        require(len(self.country) == 2 and len(self.region) <= 24, "country has 2 letters, region at most 24")

    def attributes(self, owner: str) -> Mapping[str, AdvertAttribute]:
        """Every attribute that a query can name, in integers; `owner` is the credential's entity."""
        total, available, prices = self.total, self.available, self.prices
        return {
            "cpu.total": total.cpu_ms_per_s,
            "cpu.available": available.cpu_ms_per_s,
            "cores": self.cores,
            "memory.total": total.memory_bytes,
            "memory.available": available.memory_bytes,
            "disk.total": total.disk_bytes,
            "disk.available": available.disk_bytes,
            "net.total": total.net_bit_per_s,
            "net.available": available.net_bit_per_s,
            "price.cpu": prices.cpu_nano_per_hour,
            "price.memory": prices.memory_nano_per_gib_hour,
            "price.disk": prices.disk_nano_per_gib_hour,
            "price.net": prices.net_nano_per_gib,
            "currency": prices.currency,
            "country": self.country,
            "region": self.region,
            "owner": owner,
            "feature": self.features,
            "uptime": max(0, (self.issued_ms - self.started_ms) // 1000),
            "environments": tuple((each.kind, each.name, each.version) for each in self.environments),
            "location": (self.location.x_us, self.location.y_us, self.location.z_us, self.location.height_us),
        }


@dataclass(frozen=True, slots=True)
class VerifiedAdvert:
    """An advert whose signature, credential and dates were checked, with the envelope that proves it."""

    advert: Advert
    credential: Credential
    envelope: Envelope

    @property
    def server_key(self) -> bytes:
        """The server's public key."""
        return self.envelope.key

    @property
    def row_id(self) -> int:
        """64-bit id of the server in summaries."""
        return advert_row_id(self.envelope.key)

    @property
    def attributes(self) -> Mapping[str, AdvertAttribute]:
        """What a query sees."""
        return self.advert.attributes(self.credential.entity)


def advert_row_id(server_key: bytes) -> int:
    """64-bit id of a server in summaries: unforgeable enough to be fair, verified against the key on every read."""
    return int.from_bytes(hashlib.sha256(b"xeno-row1" + server_key).digest()[:8], "big")


def verify_advert(raw: bytes, trust: Trust, now_ms: int, *, allow_gone: bool = False) -> VerifiedAdvert:
    """Check an advert whole: signature, its server's credential, dates, addresses. Raises RemoteError."""
    advert, envelope = Advert.open(raw, trust.scheme)
    credential = trust.credential(advert.credential, now_ms, roles=("server",))
    if credential.key != envelope.key:
        raise MessageError("advert: signed by another key than its credential names")
    if advert.expires_ms <= now_ms:
        raise MessageError(f"advert: expired {(now_ms - advert.expires_ms) // 1000} s ago")
    if advert.issued_ms > now_ms + 120_000:
        raise MessageError("advert: issued in the future; a clock is wrong")
    for address in (advert.udp, advert.control):
        if not admits(address.host, trust.network.profile):
            raise MessageError(f"advert: {address} is no address for a network of profile {trust.network.profile!r}")
    if advert.gone and not allow_gone:
        raise MessageError("advert: withdrawn")
    return VerifiedAdvert(advert, credential, envelope.compact())
