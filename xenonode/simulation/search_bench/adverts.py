"""The adverts that a search benchmark is about: machines of the catalogue, partly leased, as points and signed bytes.

Decides how availability churned (each amount by itself, in 64ths of the whole, as a history of leases leaves it) and
which environments are offered. The signature is the simulator's: verifying is not what is measured.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from random import Random
from typing import Any, cast

from dht import wire
from dht.contact import pack_address
from summaries.bulk import Advertised
from summaries.point import Point
from summaries.schema import Schema
from xenonode import catalogue
from xenonode.first_schema import ENVIRONMENTS
from xenonode.simulation.scheme import SimulatedScheme

ADVERT_BYTES = 810  # a signed advert with its credential: four simulated machines' took 795 to 825
NOW_MS = 1_700_000_000_000
AVAILABLE = ("cpu.available", "memory.available", "disk.available", "net.available")
REST_BYTES = ADVERT_BYTES - 64 - 46  # beside the signature, and what changes
LIFE_S = 450  # search.md's TTL: nothing expires during a benchmark, whose time stands still
SHARES = 64
OWNERS = 400


class AdvertSet:
    """Adverts of `count` servers; the same for the same seed."""

    def __init__(
        self, schema: Schema, seed: int, count: int, now_ms: int = NOW_MS, life_s: int = LIFE_S
    ) -> None:
        self._rng = rng = Random(seed)
        self.schema = schema
        self._scheme = SimulatedScheme(seed.to_bytes(32, "big"))
        self._signer = self._scheme.generate(bytes(32))
        self.adverts: list[Advertised] = []
        self.by_id: dict[int, Point] = {}
        self._by_raw: dict[bytes, Point] = {}
        self.current: dict[bytes, bytes] = {}  # a server's contact -> its current advert
        for number, shape in enumerate(catalogue.adverts(rng, count)):
            offered = rng.sample(ENVIRONMENTS, rng.choice((1, 1, 2, 3)))
            attributes = dict(catalogue.sample_attributes(rng, shape, f"owner-{rng.randrange(OWNERS)}", offered))
            _churn(rng, attributes)
            contact = pack_address((f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 4_000))
            point = Point.from_attributes(
                schema,
                id=rng.getrandbits(64),
                seq=now_ms + rng.randrange(150_000),
                expires_s=now_ms // 1000 + life_s,
                attributes=attributes,
                contact=contact,
            )
            raw = self._seal(point)
            self.adverts.append((point, raw))
            self.by_id[point.id] = self._by_raw[raw] = point
            self.current[contact] = raw

    def renew(self, place: int, now_ms: int, *, churned: bool) -> None:
        """A server signs its next advert; if `churned`, with other amounts available."""
        old, _ = self.adverts[place]
        attributes = dict(old.attributes)
        if churned:
            _churn(self._rng, attributes)
        point = Point.from_attributes(
            self.schema, id=old.id, seq=max(old.seq + 1, now_ms), expires_s=now_ms // 1000 + LIFE_S,
            attributes=attributes, contact=old.contact,
        )  # fmt: skip
        raw = self._seal(point)
        self.adverts[place] = point, raw
        self.by_id[point.id] = self._by_raw[raw] = point
        self.current[point.contact] = raw

    def verify(self, raw: bytes, now_ms: int) -> Point | None:
        """What a holder and a searcher ask of an advert."""
        point = self._by_raw.get(raw)
        if point is None or point.expires_s <= now_ms // 1000:
            return None
        return point if self._scheme.verify(self._signer.public_key, raw[64:], raw[:64]) else None

    def _seal(self, point: Point) -> bytes:
        amounts = [cast(int, point.attributes[name]) for name in AVAILABLE]
        # As a real one: what changes are its times and amounts, whose length is their own, and the signature.
        body = wire.pack([point.id, point.seq, point.expires_s, *amounts]) + bytes(REST_BYTES)
        return self._signer.sign(body) + body


def _churn(rng: Random, attributes: MutableMapping[str, Any]) -> None:
    for name in AVAILABLE:
        free = max(0, min(SHARES, round(rng.betavariate(0.8, 0.8) * SHARES)))
        attributes[name] = attributes[name.replace("available", "total")] * free // SHARES
