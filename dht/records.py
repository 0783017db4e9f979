"""The records of one dimension's DHT: what is stored at the nodes nearest to a key, and read from there.

Decides what is stored whole and what in parts, and which answers make up a value. Leaves who is near a key to
`overlay`, what is held and refused to `shelf`, storing again and repair to `publishing`, questions to `reading`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from .chunking import Download
from .contact import Contact
from .errors import LocalError, RemoteError
from .publishing import REPLICAS, Publishing
from .reading import ReadingWalk
from .record import Record, check_key, open_record, seal_value
from .shelf import KNOWN, STORED, Shelf

if TYPE_CHECKING:
    from .overlay import Overlay


class Records:
    """`put`, `get` and their like, for values and sets; `shelf` has what lies here, `publishing` what is on its way."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._endpoint = overlay.endpoint
        self.shelf = Shelf()
        self.shelf.on_contradiction = self._endpoint.contradictions.note
        self.publishing = Publishing(overlay)

    @property
    def holdings(self) -> tuple[int, int]:
        """How many records are on the shelf, and their bytes."""
        return len(self.shelf), self.shelf.used_bytes

    async def put(self, key: bytes, envelope_raw: bytes, expires_ms: int, *, republish: bool = True) -> int:
        """Store a signed record at the nodes nearest to a key; how many of them (we too) hold it now.

        `record.seal_record` makes plain values; any envelope with integer `seq` and `expires_ms` will do.
        It is stored again at half of its remaining life, until it expires or a newer one takes its place.
        """
        now_ms = self._endpoint.now_ms()
        try:
            record = open_record(envelope_raw, self._endpoint.scheme, self._overlay.dimension, check_key(key), now_ms)
        except RemoteError as error:
            raise LocalError(f"this record cannot be stored: {error}") from None
        if record.expires_ms != expires_ms:
            raise LocalError("the expiry that is asked for is not the one that is signed")
        return await self._store(key, record, republish)

    async def put_value(
        self,
        key: bytes,
        payload: bytes,
        expires_ms: int,
        *,
        seq: int,
        name: str | None = None,
        republish: bool = True,
    ) -> int:
        """Sign and store a value of up to 64 KiB, in parts where it must be; how many nodes hold it now.

        Under a plain key it joins the set of all owners' values; with a `name` and `record.owned_key` nobody
        else can write there. LocalError for more than 64 KiB says what to do instead.
        """
        raw, blob = seal_value(
            self._endpoint.signer, self._overlay.dimension, check_key(key), seq, expires_ms, payload, name=name
        )
        try:
            record = open_record(raw, self._endpoint.scheme, self._overlay.dimension, key, self._endpoint.now_ms())
        except RemoteError as error:
            raise LocalError(f"this value cannot be stored: {error}") from None
        return await self._store(key, replace(record, blob=blob), republish)

    def _store(self, key: bytes, record: Record, republish: bool) -> asyncio.Future[int]:
        if republish:
            self.publishing.publish(key, record)
        future: asyncio.Future[int] = self._endpoint.loop.create_future()
        self.publishing.store(key, record, lambda count: None if future.done() else future.set_result(count))
        return future

    async def get_value(self, key: bytes, owner: bytes, *, holders: int = 1, disjoint: int = 1) -> bytes | None:
        """One owner's value, checked and whole, or None; with one holder it may be a copy of up to 5 minutes."""
        own = self.shelf.get_of(check_key(key), owner, self._endpoint.now_ms())
        if own is not None and max(holders, disjoint) <= 1:
            return own.payload
        known = [own] if own is not None else []
        for wanted in dict.fromkeys((max(holders, disjoint), REPLICAS)):
            records, tellers = await self._read(key, wanted, disjoint, known, owner)
            for record in records:
                payload = await self._whole(key, record, tellers.get(record.envelope.id, []))
                if payload is not None:
                    return payload
            if not records:
                return None
        return None

    async def get_set(self, key: bytes, *, holders: int = 2, disjoint: int = 1) -> dict[bytes, bytes]:
        """All owners' values under a key, by owner; of each the newest that `holders` nodes know."""
        known = self.shelf.get(check_key(key), self._endpoint.now_ms())
        records, tellers = await self._read(key, max(holders, disjoint), disjoint, known)
        values: dict[bytes, bytes] = {}
        for record in records:
            payload = await self._whole(key, record, tellers.get(record.envelope.id, []))
            if payload is not None:
                values[record.owner] = payload
        return values

    async def _read(
        self, key: bytes, holders: int, disjoint: int, known: list[Record], owner: bytes = b""
    ) -> tuple[list[Record], dict[bytes, list[Contact]]]:
        future: asyncio.Future[list[Record]] = self._endpoint.loop.create_future()
        walk = ReadingWalk(
            self._overlay,
            key,
            lambda records: None if future.done() else future.set_result(records),
            holders=holders,
            disjoint=disjoint,
            owner=owner,
        )
        for record in known:
            walk.add(record)
        walk.begin()
        return await future, walk.tellers

    async def _whole(self, key: bytes, record: Record, holders: list[Contact]) -> bytes | None:
        if record.manifest is None:
            return record.payload
        own = self.shelf.get_of(key, record.owner, self._endpoint.now_ms())
        if own is not None and own.envelope.id == record.envelope.id:
            return own.payload
        future: asyncio.Future[bytes | None] = self._endpoint.loop.create_future()

        def done(payload: bytes | None) -> None:
            if not future.done():
                future.set_result(payload)

        Download(self._overlay, key, record, holders, done).begin()
        return await future

    def take(self, key: bytes, record: Record, now_ms: int, *, limited: bool = True) -> str:
        """Put a record onto our own shelf; the shelf's word for what became of it."""
        if not record.account and record.owner == self._endpoint.member.public_key:
            record = replace(record, account=self._endpoint.member.entity)
        outcome = self.shelf.put(key, record, now_ms, limited=limited)
        if outcome in (STORED, KNOWN):
            self.publishing.note_stored(key, now_ms)
        return outcome

    def unpublish(self, key: bytes, owner: bytes | None = None) -> None:
        """Stop storing our record under this key again; the copies out there run out."""
        self.publishing.unpublish(key, owner or self._endpoint.signer.public_key)

    async def get(self, key: bytes, *, holders: int = 1, disjoint: int = 1) -> list[bytes]:
        """The records under a key, the newest of each owner, as `holders` of the nodes near it hold them."""
        own = self.shelf.get(check_key(key), self._endpoint.now_ms())
        if own and max(holders, disjoint) <= 1:
            return [record.raw for record in own]
        records, _ = await self._read(key, holders, disjoint, own)
        return [record.raw for record in records]

    def upkeep(self, now_ms: int) -> None:
        """Store again what is due, and where we serve have enough of the others hold what lies here."""
        if not self._endpoint.is_client:
            self.publishing.replace_gone()
            self.publishing.welcome(now_ms)
            self.publishing.repair(now_ms)
        self.publishing.republish(now_ms)
