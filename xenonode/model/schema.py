"""The published schema: the list of dimensions, signed by XenoCorp, that every node must agree on.

Carries the fields of `summaries.schema.Schema` as canonical bytes, so that the hash in the network file
names one exact text. Leaves what the dimensions mean to `summaries`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Self

from dht import wire
from dht.datagram import overlay_tags
from dht.errors import LocalError
from summaries.copying import MAX_GROUPS
from summaries.schema import Schema
from summaries.trie import MAX_TRIES
from xenonode.model.entity import Trust
from xenonode.model.errors import MessageError
from xenonode.model.message import Message, require

SCHEMA_BYTES_MAX = 1 << 20
"""Eleven dimensions of 4,096 breakpoints take about 200 KB."""
SCHEMAS_REMEMBERED_MAX = 4
"""This epoch's and the last one's; the many nodes of a simulation share one object (some 300 kB)."""


@dataclass(frozen=True, slots=True)
class PublishedSchema(Message):
    """One epoch's schema; a later one has a higher epoch.

    Version 2 says how many groups of holders a root has, version 3 which dimensions have several tries. Where a version
    says all it is written as before; peers that know it alone would not publish to what they do not know of, and are to
    refuse.
    """

    TYPE: ClassVar[str] = "schema"
    VERSION: ClassVar[int] = 3
    MAX_BYTES: ClassVar[int] = 2 * SCHEMA_BYTES_MAX
    epoch: int
    leaf_capacity: int
    encoded: bytes
    published_ms: int
    root_groups: int = 1
    tries: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        require(0 < len(self.encoded) <= SCHEMA_BYTES_MAX, "a schema has at most 1 MiB")
        require(2 <= self.leaf_capacity <= 4096, "a leaf holds 2 to 4,096 adverts")
        require(1 <= self.root_groups <= MAX_GROUPS, f"a root has 1 to {MAX_GROUPS} groups of holders")
        names = [name for name, _ in self.tries]
        require(names == sorted(set(names)), "dimensions with several tries are named once each, in their order")
        counts = [count for _, count in self.tries]
        require(all(2 <= count <= MAX_TRIES for count in counts), f"a dimension named has 2 to {MAX_TRIES} tries")

    @classmethod
    def of(
        cls, schema: Schema, leaf_capacity: int, published_ms: int, root_groups: int = 1,
        tries: Mapping[str, int] = MappingProxyType({}),
    ) -> PublishedSchema:  # fmt: skip
        """The message that publishes `schema`; every holder splits a leaf at the same capacity."""
        encoded = wire.encode(schema.to_fields())  # type: ignore[arg-type]
        return cls(schema.epoch, leaf_capacity, encoded, published_ms, root_groups, tuple(sorted(tries.items())))

    def to_fields(self) -> dict[str, Any]:
        """Plain fields: those of the first version that says all."""
        fields = super(PublishedSchema, self).to_fields()
        if not self.tries:
            del fields["tries"]
            fields["version"] = 2
            if self.root_groups == 1:
                del fields["root_groups"]
                fields["version"] = 1
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The message with these fields, of any version. Raises MessageError, naming the field."""
        told = dict(fields)
        if told.get("version") == 1:
            told["root_groups"] = 1
        if told.get("version") in (1, 2):
            told["tries"] = []
        return super(PublishedSchema, cls).from_fields(told)

    @property
    def schema(self) -> Schema:
        """The dimensions. Raises RemoteError."""
        schema = _decoded(self.encoded)
        if schema.epoch != self.epoch:
            raise MessageError("schema: its epoch is not the one it was published under")
        return schema


@lru_cache(maxsize=SCHEMAS_REMEMBERED_MAX)
def _decoded(encoded: bytes) -> Schema:
    return Schema.from_fields(wire.decode(encoded, max_bytes=SCHEMA_BYTES_MAX))


def schema_hash(raw: bytes) -> bytes:
    """What the network file says of a published schema."""
    return hashlib.sha256(raw).digest()


def read_schema(raw: bytes, trust: Trust, now_ms: int) -> PublishedSchema:
    """Check a published schema against the network file. Raises RemoteError."""
    if schema_hash(raw) != trust.network.schema_hash:
        raise MessageError("schema: not the one that the network file names; ask XenoCorp for a newer network file")
    published, envelope = PublishedSchema.open(raw, trust.scheme)
    trust.issued(envelope, now_ms)
    check_tags(published, trust.network.network_id)
    return published


def check_tags(published: PublishedSchema, network_id: bytes) -> None:
    """Refuse dimensions whose overlays could not be told apart on a socket. Raises MessageError."""
    try:
        overlay_tags(network_id, [dimension.name for dimension in published.schema.dimensions])
    except LocalError as error:
        raise MessageError(f"schema: {error}") from None
