"""Plain DHT values: an envelope that binds a payload to one overlay, one key, one sequence number.

Decides which envelopes an overlay may hold under a key. An advert, or any other envelope with an integer
`seq` and `expires_ms`, may lie under any key; a plain value only where its owner put it, so that nobody
can move it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .envelope import Envelope, open_envelope, seal
from .errors import EnvelopeError, LocalError
from .identity import NODE_ID_BYTES, Scheme, Signer

RECORD_TYPE = "dht-record"
# What fits one datagram beside its header, MAC and positions.
MAX_RECORD_BYTES = 1_000
# A record may not outlive this from now; republishing it with a new expiry is its owner's business.
MAX_LIFE_MS = 7 * 24 * 3_600_000
# Clock skew that is tolerated.
MAX_SKEW_MS = 120_000


@dataclass(frozen=True, slots=True)
class Record:
    """A checked envelope with what a shelf needs to know of it."""

    envelope: Envelope
    seq: int
    expires_ms: int

    @property
    def owner(self) -> bytes:
        """The key that signed it."""
        return self.envelope.key

    @property
    def raw(self) -> bytes:
        """Its wire form."""
        return self.envelope.raw


def seal_record(signer: Signer, dimension: str, key: bytes, seq: int, expires_ms: int, payload: bytes) -> bytes:
    """Sign a plain value for one key of one overlay; at most 1,000 bytes with its envelope."""
    body = {"overlay": dimension, "key": key, "seq": seq, "expires_ms": expires_ms, "payload": payload}
    raw = seal(signer, RECORD_TYPE, body).raw
    if len(raw) > MAX_RECORD_BYTES:
        raise LocalError(f"a record of {len(raw)} bytes; at most {MAX_RECORD_BYTES} fit (use the store for more)")
    return raw


def open_record(raw: bytes, scheme: Scheme, dimension: str, key: bytes, now_ms: int) -> Record:
    """The record in `raw`, if it may lie under this key of this overlay now."""
    envelope = open_envelope(raw, scheme, max_bytes=MAX_RECORD_BYTES)
    body = envelope.body
    seq, expires_ms = body.get("seq"), body.get("expires_ms")
    if type(seq) is not int or seq < 0 or type(expires_ms) is not int:
        raise EnvelopeError("a record needs a sequence number and an expiry")
    if envelope.type == RECORD_TYPE and (body.get("overlay") != dimension or body.get("key") != key):
        raise EnvelopeError("a record of another overlay or key")
    if expires_ms <= now_ms:
        raise EnvelopeError("an expired record")
    if expires_ms > now_ms + MAX_LIFE_MS + MAX_SKEW_MS:
        raise EnvelopeError("a record that would live for more than a week")
    return Record(envelope, seq, expires_ms)


def check_key(key: bytes) -> bytes:
    """The key itself, if it is one."""
    if len(key) != NODE_ID_BYTES:
        raise LocalError("a key of an overlay is 20 bytes")
    return key
