"""Signatures that one node has found genuine: they are as genuine when they come again.

Decides what need not be computed twice. Only what is genuine is remembered, by a digest over all that it depends on
(key, message and signature), so that one changed bit is another entry and is computed. A reader meets the same record
at each of its holders, whoever stores it again hands it to them once more, and its publisher has just signed it.
"""

from __future__ import annotations

from hashlib import blake2b

from .aging import Aging
from .identity import KEY_BYTES, SIGNATURE_BYTES, Scheme, Signer

# The records that a node deals with at one time, in some 40 KB.
MAX_REMEMBERED = 256
# A liar may look for two texts with one digest, of which only the one that it signed is genuine: 16 would be 64 bits.
_DIGEST_BYTES = 32


class Remembered:
    """A scheme that computes each genuine signature once."""

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._genuine: Aging[bytes, None] = Aging()

    @property
    def name(self) -> str:
        """The scheme's own."""
        return self._scheme.name

    def generate(self, seed: bytes) -> Signer:
        """The scheme's own."""
        return self._scheme.generate(seed)

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """What the scheme says, or said before."""
        if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            # Else bytes that moved between key, signature and message would be another case with the same digest.
            return self._scheme.verify(public_key, message, signature)
        digest = blake2b(public_key + signature + message, digest_size=_DIGEST_BYTES).digest()
        if digest in self._genuine:
            return True
        if not self._scheme.verify(public_key, message, signature):
            return False
        self._genuine[digest] = None
        if len(self._genuine) > MAX_REMEMBERED:
            self._genuine.pop_oldest()
        return True
