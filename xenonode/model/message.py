"""Messages: frozen dataclasses that parties sign, store and send.

Decides how a message turns into the plain fields that `dht.wire` encodes and back, from the
dataclass's own annotations, so that a type is written down once. Leaves signatures to `dht.envelope`.

A field is an `int`, `str`, `bytes`, `bool`, an optional of these, a `tuple[T, ...]`, a fixed tuple, or
another dataclass. Nested dataclasses travel as positional lists (an advert must fit a datagram);
the message itself is a map with its `version`. Fields that a reader does not know are ignored, since
the signature is over the bytes and not over what the reader understood; a newer version is refused.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from dht import wire
from dht.envelope import Envelope, open_envelope, seal
from dht.identity import Scheme, Signer
from xenonode.model.errors import MessageError, ModelError

INT64_MAX = 2**63 - 1
ITEMS_MAX = 256
"""Most items of one list in a message; the largest real one, a network file's seeds, has tens."""


class Message:
    """Base of every signed message; subclasses are frozen dataclasses with a TYPE of their own."""

    __slots__ = ()
    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = wire.MAX_VALUE_BYTES

    def to_fields(self) -> dict[str, Any]:
        """Plain fields, ready for `dht.wire.encode`."""
        fields: dict[str, Any] = {"version": self.VERSION}
        for name, _ in _annotations(type(self)):
            fields[name] = _plain(getattr(self, name))
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The message with these fields. Raises MessageError, naming the field."""
        version = fields.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise MessageError(f"{cls.TYPE}: no version")
        if version > cls.VERSION:
            raise MessageError(f"{cls.TYPE}: version {version} is newer than {cls.VERSION}; upgrade this program")
        values = {}
        for name, hint in _annotations(cls):
            if name not in fields:
                raise MessageError(f"{cls.TYPE}: field {name} is missing")
            values[name] = _typed(fields[name], hint, f"{cls.TYPE}.{name}")
        try:
            return cls(**values)
        except ModelError as error:
            raise MessageError(f"{cls.TYPE}: {error}") from error

    def seal(self, signer: Signer) -> Envelope:
        """Sign this message."""
        return seal(signer, self.TYPE, self.to_fields(), max_bytes=self.MAX_BYTES)

    @classmethod
    def open(cls, raw: bytes, scheme: Scheme, *, signed_by: bytes | None = None) -> tuple[Self, Envelope]:
        """Check a signed message and read it. Raises RemoteError where signature, type or fields do not fit."""
        if not isinstance(raw, bytes):  # it may come out of another's answer, unchecked
            raise MessageError(f"{cls.TYPE}: expected bytes, got {type(raw).__name__}")
        envelope = open_envelope(raw, scheme, expected=cls.TYPE, max_bytes=cls.MAX_BYTES)
        if signed_by is not None and envelope.key != signed_by:
            raise MessageError(f"{cls.TYPE}: signed by {envelope.key.hex()[:16]}, not by {signed_by.hex()[:16]}")
        return cls.from_fields(envelope.body), envelope


_known: dict[Any, tuple[tuple[str, Any], ...]] = {}


def _annotations(cls: Any) -> tuple[tuple[str, Any], ...]:
    """Names and types of a dataclass's fields, read once: reading them takes longer than a signature check."""
    found = _known.get(cls)
    if found is None:
        hints = typing.get_type_hints(cls)
        found = _known[cls] = tuple((field.name, hints[field.name]) for field in dataclasses.fields(cls))
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return [_plain(getattr(value, name)) for name, _ in _annotations(type(value))]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` as `hint` says, strictly: no coercion but list to tuple and list to dataclass."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
        return _typed(value, hint, where)
    if origin is tuple:
        return _typed_tuple(value, typing.get_args(hint), where)
    if dataclasses.is_dataclass(hint):
        names = _annotations(hint)
        if not isinstance(value, list) or len(value) < len(names):
            raise MessageError(f"{where}: expected a list of {len(names)}")
        items = [_typed(item, each, f"{where}.{name}") for item, (name, each) in zip(value, names)]
        try:
            return typing.cast(Any, hint)(*items)
        except ModelError as error:
            raise MessageError(f"{where}: {error}") from error
    if type(value) is not hint:
        raise MessageError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {type(value).__name__}")
    if hint is int and not -INT64_MAX <= value <= INT64_MAX:
        raise MessageError(f"{where}: {value} is beyond 64 bits")
    return value


def _typed_tuple(value: Any, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise MessageError(f"{where}: expected a list")
    if len(hints) == 2 and hints[1] is Ellipsis:
        if len(value) > ITEMS_MAX:
            raise MessageError(f"{where}: {len(value)} items, more than {ITEMS_MAX}")
        return tuple(_typed(item, hints[0], f"{where}[{index}]") for index, item in enumerate(value))
    if len(value) != len(hints):
        raise MessageError(f"{where}: expected {len(hints)} items")
    return tuple(_typed(item, hint, f"{where}[{index}]") for index, (item, hint) in enumerate(zip(value, hints)))


def require(condition: bool, what: str) -> None:
    """State an invariant in `__post_init__`. Raises ModelError."""
    if not condition:
        raise ModelError(what)
