"""The adverts that one node has verified: each checked once, however many leaves and searches it stands in.

Decides which signed bytes are an advert of this network, and the point that a summary sees in it. Two adverts of one
server with one sequence number prove a lie, whoever shows them and wherever they turn up: every holder and every client
verifies here, so it is met here.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

from dht.contact import pack_address
from dht.envelope import Envelope
from dht.errors import RemoteError
from summaries.errors import MessageError
from summaries.point import RAW, Point
from summaries.schema import Schema
from xenonode.model.advert import VerifiedAdvert, verify_advert
from xenonode.model.entity import Trust

ADVERTS_REMEMBERED_MAX = 65_536
"""As many as the rows that one holder keeps (`summaries.keeping.MAX_ROWS`): 4.4 kB each, 290 MB when full."""


class _Known(dict[bytes, tuple[VerifiedAdvert, Point]]):
    """What was verified for one network and schema; and which advert each server signed under each number."""

    def __init__(self) -> None:
        super().__init__()
        self.signed: dict[tuple[bytes, int], Envelope] = {}

    def remember(self, raw: bytes, verified: VerifiedAdvert, point: Point) -> Envelope:
        """Keep it; and say what its server signed under its number first."""
        if len(self) >= ADVERTS_REMEMBERED_MAX:
            self.forget(next(iter(self)))
        self[raw] = verified, point
        return self.signed.setdefault((verified.server_key, verified.advert.seq), verified.envelope)

    def forget(self, raw: bytes) -> None:
        verified, _ = self.pop(raw)
        place = verified.server_key, verified.advert.seq
        if place in self.signed and self.signed[place].raw == raw:
            del self.signed[place]


_KNOWN: WeakValueDictionary[tuple[bytes, bytes, int], _Known] = WeakValueDictionary()
"""Shared by the nodes of one process, of which only a simulation has several: bytes prove the same to all of them."""


class Adverts:
    """Signed bytes to verified adverts and points, remembered."""

    def __init__(
        self,
        trust: Trust,
        schema: Schema,
        contradicted: Callable[[Envelope, Envelope], None] = lambda one, other: None,
    ) -> None:
        self._trust, self._schema, self._contradicted = trust, schema, contradicted
        network = trust.network
        self._known = _KNOWN.setdefault((network.root_key, network.schema_hash, schema.epoch), _Known())

    def __len__(self) -> int:
        return len(self._known)

    def verify(self, raw: bytes, now_ms: int) -> tuple[VerifiedAdvert, Point]:
        """The advert in these bytes, tombstones included. Raises RemoteError."""
        found = self._known.get(raw)
        if found is None:
            verified = verify_advert(raw, self._trust, now_ms, allow_gone=True)
            found = verified, self._point(verified)
            first = self._known.remember(raw, *found)
            if first.id != verified.envelope.id:
                self._contradicted(first, verified.envelope)
        elif found[0].advert.expires_ms <= now_ms:
            self._known.forget(raw)
            return self.verify(raw, now_ms)  # refused now, in the same words as if it were new
        elif found[0].advert.issued_ms > now_ms:
            verify_advert(raw, self._trust, now_ms, allow_gone=True)  # another's clock, or ours before, was ahead
        return found

    def point(self, raw: bytes, now_ms: int) -> Point | None:
        """What a holder asks: the point of a good advert, None for anything else."""
        try:
            return self.verify(raw, now_ms)[1]
        except (RemoteError, MessageError):
            return None

    def values(self, attribute: str) -> list[int]:
        """What the adverts known here say of an attribute with an order, each server's newest."""
        newest: dict[int, Point] = {}
        for _, point in self._known.values():
            if not point.gone and (point.id not in newest or newest[point.id].seq < point.seq):
                newest[point.id] = point
        return [point.number(attribute) for _, point in sorted(newest.items())]

    def _point(self, verified: VerifiedAdvert) -> Point:
        advert = verified.advert
        point = Point.from_attributes(
            self._schema,
            id=verified.row_id,
            seq=advert.seq,
            expires_s=advert.expires_ms // 1000,
            attributes=verified.attributes,
            contact=pack_address(advert.udp.pair),
            gone=advert.gone,
        )
        point.derived[RAW] = verified.envelope.raw  # one object for who remembers it and for all rows
        return point
