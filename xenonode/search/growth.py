"""The schema as one node knows it: the network file's, and the chain of extensions that it has heard of.

Decides which schema governs a dimension's trie (the one under which it was opened), which dimensions a search may read
already, and what to tell others who ask what follows. Bytes are all it takes and gives; `news` carries them.
"""

from __future__ import annotations

from dht import wire
from dht.errors import RemoteError
from summaries.schema import Schema
from xenonode.model.entity import Trust
from xenonode.model.extension import extended

STORED_MAX_BYTES = 1 << 18
"""Thirty-two dimensions at the most, of which each takes some kilobytes."""


class Growth:
    """See the module."""

    def __init__(self, schema: Schema, trust: Trust) -> None:
        self.newest, self.head = schema, trust.network.schema_hash
        self._trust = trust
        self._of = dict.fromkeys((dimension.name for dimension in schema.dimensions), schema)
        self._searched: list[tuple[int, Schema]] = [(0, schema)]
        self._followers: dict[bytes, bytes] = {}  # by the hash of what each follows

    def of(self, dimension: str) -> Schema:
        """The schema under which a dimension's trie was opened."""
        return self._of[dimension]

    def searchable(self, now_ms: int) -> Schema:
        """The newest schema of whose dimensions all are ready to be searched."""
        ready = self.newest
        for from_ms, schema in self._searched:
            if from_ms > now_ms:
                break
            ready = schema
        return ready

    def search_from_ms(self, dimension: str) -> int:
        """When searches begin to read a dimension's trie; 0 for those of the beginning."""
        return next(from_ms for from_ms, schema in self._searched if dimension in schema.by_name)

    def take(self, raw: bytes, now_ms: int) -> str:
        """Add what follows; the name of the new dimension. Raises RemoteError, and then nothing has changed."""
        previous = self.head
        schema, self.head, extension = extended(self.newest, previous, raw, self._trust, now_ms)
        self.newest = schema
        name = schema.dimensions[-1].name
        self._of[name] = schema
        # Never before an earlier one: a schema is searched with all the dimensions before it.
        self._searched.append((max(extension.search_from_ms, self._searched[-1][0]), schema))
        self._followers[previous] = raw
        return name

    def after(self, head: bytes) -> bytes:
        """What follows the schema of this hash; empty where we know of nothing."""
        return self._followers.get(head, b"")

    def stored(self) -> bytes:
        """All extensions, for the next start."""
        return wire.encode(list(self._followers.values()))

    def restore(self, stored: bytes, now_ms: int) -> list[str]:
        """Take in what an earlier run stored, as far as it is good; the dimensions that it adds."""
        names: list[str] = []
        try:
            chain = wire.decode(stored, max_bytes=STORED_MAX_BYTES) if stored else []
            raws = [raw for raw in chain if isinstance(raw, bytes)] if isinstance(chain, list) else []
            names.extend(self.take(raw, now_ms) for raw in raws)
        except RemoteError:
            pass  # a damaged file: the network tells the rest again
        return names
