"""Plain DHT values: an envelope that binds a payload to one overlay, one key, one sequence number.

Decides which envelopes an overlay may hold under a key. An advert, or any other envelope with an integer
`seq` and `expires_ms`, may lie under any key; a plain value only where its owner put it, so that nobody
can move it. Under one key each owner has one record: a set keyed by publisher. A value of one writer lies under
`owned_key(owner, name)`, which no other key can sign for, and is refused to everybody else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from .chunks import Manifest, manifest_of
from .envelope import Envelope, open_envelope, seal
from .errors import EnvelopeError, LocalError, WireError
from .identity import NODE_ID_BYTES, Scheme, Signer

RECORD_TYPE = "dht-record"
# What fits one datagram beside its header, MAC and positions.
MAX_RECORD_BYTES = 1_000
# A record may not outlive this from now; republishing it with a new expiry is its owner's business.
MAX_LIFE_MS = 7 * 24 * 3_600_000
# Clock skew that is tolerated.
MAX_SKEW_MS = 120_000
# Names of values of one writer.
MAX_NAME_LENGTH = 64
# How the account of records begins that a member brought for owners whom the holder does not know.
BROUGHT_BY = "by "


@dataclass(frozen=True, slots=True)
class Record:
    """A checked envelope with what a shelf needs to know of it; `blob` is the payload of one in parts.

    `account` is who answers for it at one holder: the owner's entity where that is known. It is no part of the record.
    """

    envelope: Envelope
    seq: int
    expires_ms: int
    manifest: Manifest | None = None
    sole: bool = False
    blob: bytes = field(default=b"", repr=False)
    account: str = field(default="", compare=False)

    @property
    def owner(self) -> bytes:
        """The key that signed it."""
        return self.envelope.key

    @property
    def is_brought(self) -> bool:
        """Whether somebody else than its owner answers for it."""
        return self.account.startswith(BROUGHT_BY)

    @property
    def payer(self) -> str:
        """Whose quotas it counts in: its account's, or those of its owner's key alone."""
        return self.account or self.owner.hex()

    @property
    def raw(self) -> bytes:
        """Its wire form."""
        return self.envelope.raw

    @property
    def payload(self) -> bytes:
        """The value: inline, or put together from parts."""
        if self.manifest is not None:
            return self.blob
        payload = self.envelope.body.get("payload", b"")
        return payload if type(payload) is bytes else b""


def owned_key(dimension: str, owner: bytes, name: str) -> bytes:
    """The key under which only `owner` may write the value of this name."""
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise LocalError(f"a name has 1 to {MAX_NAME_LENGTH} characters")
    digest = hashlib.sha256(b"xeno-own1")
    for part in (dimension.encode(), owner, name.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()[:NODE_ID_BYTES]


def seal_record(
    signer: Signer, dimension: str, key: bytes, seq: int, expires_ms: int, payload: bytes, *, name: str | None = None
) -> bytes:
    """Sign a plain value for one key of one overlay; at most 1,000 bytes with its envelope.

    With a `name` it is the value of one writer, and `key` must be its `owned_key`.
    """
    raw = _seal(signer, dimension, key, seq, expires_ms, name, {"payload": payload})
    if len(raw) > MAX_RECORD_BYTES:
        raise LocalError(
            f"a record of {len(raw)} bytes; at most {MAX_RECORD_BYTES} fit a datagram (Overlay.put_value takes 64 KiB)"
        )
    return raw


def seal_value(
    signer: Signer, dimension: str, key: bytes, seq: int, expires_ms: int, payload: bytes, *, name: str | None = None
) -> tuple[bytes, bytes]:
    """Sign a value of up to 64 KiB: the envelope, and the payload that it does not hold itself (or nothing)."""
    raw = _seal(signer, dimension, key, seq, expires_ms, name, {"payload": payload}) if len(payload) < 1_000 else b""
    if raw and len(raw) <= MAX_RECORD_BYTES:
        return raw, b""
    manifest = manifest_of(payload)
    described: dict[str, int | bytes] = {"size_bytes": manifest.size_bytes, "hashes": manifest.digest}
    return _seal(signer, dimension, key, seq, expires_ms, name, described), payload


def open_record(raw: bytes, scheme: Scheme, dimension: str, key: bytes, now_ms: int) -> Record:
    """The record in `raw`, if it may lie under this key of this overlay now."""
    envelope = open_envelope(raw, scheme, max_bytes=MAX_RECORD_BYTES)
    body = envelope.body
    seq, expires_ms = body.get("seq"), body.get("expires_ms")
    if type(seq) is not int or seq < 0 or type(expires_ms) is not int:
        raise EnvelopeError("a record needs a sequence number and an expiry")
    if expires_ms <= now_ms:
        raise EnvelopeError("an expired record")
    if expires_ms > now_ms + MAX_LIFE_MS + MAX_SKEW_MS:
        raise EnvelopeError("a record that would live for more than a week")
    if envelope.type != RECORD_TYPE:
        return Record(envelope, seq, expires_ms)
    if body.get("overlay") != dimension or body.get("key") != key:
        raise EnvelopeError("a record of another overlay or key")
    name = body.get("name")
    if name is not None and (
        type(name) is not str
        or not 0 < len(name) <= MAX_NAME_LENGTH
        or owned_key(dimension, envelope.key, name) != key
    ):
        raise EnvelopeError("a value of one writer under another's key")
    return Record(envelope, seq, expires_ms, _manifest_in(envelope), name is not None)


def check_key(key: bytes) -> bytes:
    """The key itself, if it is one."""
    if len(key) != NODE_ID_BYTES:
        raise LocalError("a key of an overlay is 20 bytes")
    return key


def _manifest_in(envelope: Envelope) -> Manifest | None:
    size_bytes, digest = envelope.body.get("size_bytes"), envelope.body.get("hashes")
    if size_bytes is None and digest is None:
        return None
    if type(size_bytes) is not int or type(digest) is not bytes:
        raise EnvelopeError("a manifest needs a size and the digest of its hashes")
    try:
        return Manifest(size_bytes, digest)
    except WireError as error:
        raise EnvelopeError(str(error)) from None


def _seal(
    signer: Signer,
    dimension: str,
    key: bytes,
    seq: int,
    expires_ms: int,
    name: str | None,
    value: dict[str, int | bytes],
) -> bytes:
    body = {"overlay": dimension, "key": key, "seq": seq, "expires_ms": expires_ms, **value}
    if name is not None:
        if owned_key(dimension, signer.public_key, name) != key:
            raise LocalError("the value of one writer lies under its owned_key")
        body["name"] = name
    return seal(signer, RECORD_TYPE, body).raw
