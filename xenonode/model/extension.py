"""A schema that grows: one dimension more, signed by XenoCorp, in a chain that begins at the network file's schema.

Decides what may follow a schema: the next epoch, which names the hash of what it follows and adds one ordered dimension
at the end. All tries that are there keep the epoch under which they were opened, and so their keys, zones and rows;
only the new one has the new epoch. Other breakpoints of a dimension that exists are no extension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dht import wire
from summaries.dimension import Dimension
from summaries.errors import SummariesError
from summaries.schema import Schema
from xenonode.model.entity import Trust
from xenonode.model.errors import MessageError
from xenonode.model.message import Message, require
from xenonode.model.schema import schema_hash

BREAKPOINTS_MAX = 255
"""One for each bin of a zone; more would only balance a trie better, and make this longer than a few datagrams."""


@dataclass(frozen=True, slots=True)
class SchemaExtension(Message):
    """See the module. Searches read the new trie from `search_from_ms` on, when every advert had time to be there."""

    TYPE: ClassVar[str] = "schema_extension"
    MAX_BYTES: ClassVar[int] = 8_192
    epoch: int
    previous: bytes
    dimension: bytes
    published_ms: int
    search_from_ms: int

    def __post_init__(self) -> None:
        require(1 < self.epoch < 1 << 32, "an extension's epoch is from 2 to 2^32-1")
        require(len(self.previous) == 32, "an extension follows something that is named by its hash")
        require(0 < len(self.dimension) <= 4_096, "an extension's dimension takes at most 4 KiB")
        require(0 <= self.published_ms <= self.search_from_ms, "an extension is published before it is searched")

    @classmethod
    def of(
        cls, schema: Schema, previous: bytes, dimension: Dimension, published_ms: int, search_from_ms: int
    ) -> SchemaExtension:
        """The message that adds a dimension to `schema`."""
        encoded = wire.encode(dimension.to_fields())  # type: ignore[arg-type]  # strings, integers and lists of them
        return cls(schema.epoch + 1, previous, encoded, published_ms, search_from_ms)


def extended(
    schema: Schema, previous: bytes, raw: bytes, trust: Trust, now_ms: int
) -> tuple[Schema, bytes, SchemaExtension]:
    """The schema that follows, and the hash by which it is named. Raises RemoteError for what may not follow."""
    extension, envelope = SchemaExtension.open(raw, trust.scheme)
    trust.issued(envelope, now_ms)
    if extension.epoch != schema.epoch + 1 or extension.previous != previous:
        raise MessageError(f"schema extension {extension.epoch} does not follow epoch {schema.epoch}")
    try:
        dimension = Dimension.from_fields(wire.decode(extension.dimension, max_bytes=4_096))
        require(dimension.kind == "ordered", "an extension adds an ordered dimension")
        require(len(dimension.breakpoints) <= BREAKPOINTS_MAX, "an extension has at most 255 breakpoints")
        return Schema(extension.epoch, (*schema.dimensions, dimension)), schema_hash(raw), extension
    except SummariesError as error:
        raise MessageError(f"schema extension: {error}") from error
