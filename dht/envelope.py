"""Signed envelopes: everything that a third party may have to judge.

Decides what is signed, what opens, and which of two envelopes is newer. Leaves what a body means to
whoever defines its type. The signature covers the type, so that a right signature on another type is
worth nothing. Wire form: [1, type, key, body, signature]; Ed25519 over "XENO1\\0" | type | "\\0" | body;
the id is the first 16 bytes of SHA-256 of what is signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from . import wire
from .errors import EnvelopeError, LocalError, WireError
from .identity import KEY_BYTES, SIGNATURE_BYTES, Scheme, Signer

VERSION = 1
# Type names are short words; the bound keeps a hostile one out of logs.
MAX_TYPE_LENGTH = 48
# Whether a text is a type is looked at once for so many of them; the platform has some forty.
_TYPES_KNOWN = 256
_TYPE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_./")


@dataclass(frozen=True, slots=True)
class Envelope:
    """One signed message; only `seal` and `open_envelope` make them, so it is checked by construction."""

    type: str
    key: bytes
    body: Mapping[str, Any]
    signature: bytes
    raw: bytes = field(repr=False)
    id: bytes = field(default=b"", compare=False)

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", envelope_id(self.type, self.body))

    @property
    def seq(self) -> int:
        """The body's sequence number, 0 when it has none."""
        seq = self.body.get("seq", 0)
        return seq if type(seq) is int else 0

    def compact(self) -> Envelope:
        """The same for who keeps many: its body is read from `raw` anew whenever it is asked for.

        What was decoded weighs five times as much as the bytes do, and most envelopes are kept for these alone.
        """
        return replace(self, body=_Unread(self.raw))


class _Unread(Mapping[str, Any]):
    """The body in an envelope's bytes."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def _read(self) -> Mapping[str, Any]:
        fields: Any = wire.decode(self._raw, max_bytes=len(self._raw))
        return _as_body(fields[3])

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def seal(
    signer: Signer, type: str, body: Mapping[str, Any], *, max_bytes: int = wire.MAX_VALUE_BYTES
) -> Envelope:
    """Sign `body` as a message of this type."""
    if not _is_type(type):
        raise LocalError(f"not a type of envelope: {type!r}")
    encoded = wire.encode(dict(body))
    signed = _signed(type, encoded)
    signature = signer.sign(signed)
    plain = wire.decode(encoded, max_bytes=max_bytes)
    raw = wire.encode([VERSION, type, signer.public_key, plain, signature])
    return Envelope(type, signer.public_key, _as_body(plain), signature, raw, _digest(signed))


def open_envelope(
    raw: bytes, scheme: Scheme, expected: str | None = None, *, max_bytes: int = wire.MAX_VALUE_BYTES
) -> Envelope:
    """The envelope in `raw`, if it is canonical, of the expected type, and signed by the key it names."""
    try:
        fields = wire.decode(raw, max_bytes=max_bytes)
    except WireError as error:
        raise EnvelopeError(str(error)) from None
    if not isinstance(fields, list) or len(fields) != 5:
        raise EnvelopeError("an envelope has five fields")
    version, type, key, body, signature = fields
    if version != VERSION or isinstance(version, bool):
        raise EnvelopeError(f"envelope version {str(version)[:24]!r}; this node knows {VERSION}")
    if not isinstance(type, str) or not _is_type(type):
        raise EnvelopeError("the type of an envelope is a short lower-case word")
    if expected is not None and type != expected:
        raise EnvelopeError(f"an envelope of type {type!r} where {expected!r} is expected")
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise EnvelopeError("the key of an envelope is 32 bytes")
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise EnvelopeError("the signature of an envelope is 64 bytes")
    if not isinstance(body, dict):
        raise EnvelopeError("the body of an envelope is a map")
    # What was decoded is canonical, so the body's bytes are the ones between the key and the signature.
    head_bytes = 2 + len(type) + (1 if len(type) < 32 else 2) + 2 + KEY_BYTES
    signed = _signed(type, raw[head_bytes : -2 - SIGNATURE_BYTES])
    if not scheme.verify(key, signed, signature):
        raise EnvelopeError(f"an envelope of type {type!r} with a wrong signature")
    return Envelope(type, key, body, signature, bytes(raw), _digest(signed))


def supersedes(new: Envelope, old: Envelope) -> bool:
    """Whether `new` takes the place of `old`: same signer and type, higher sequence number."""
    return new.key == old.key and new.type == old.type and new.seq > old.seq


def contradicts(one: Envelope, other: Envelope) -> bool:
    """Whether the two prove a fraud: one signer, one type, one sequence number, two bodies."""
    same = one.key == other.key and one.type == other.type
    return same and "seq" in one.body and one.seq == other.seq and one.id != other.id


def envelope_id(type: str, body: Mapping[str, Any]) -> bytes:
    """The id that an envelope of this type and body has, whoever signs it."""
    return _digest(_signed(type, wire.encode(dict(body))))


def _signed(type: str, encoded_body: bytes) -> bytes:
    return b"XENO1\0%b\0%b" % (type.encode(), encoded_body)


def _digest(signed: bytes) -> bytes:
    return hashlib.sha256(signed).digest()[:16]


def _as_body(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise LocalError("the body of an envelope is a map")
    return value


@lru_cache(maxsize=_TYPES_KNOWN)
def _is_type(type: str) -> bool:
    return 0 < len(type) <= MAX_TYPE_LENGTH and _TYPE_CHARACTERS.issuperset(type)
