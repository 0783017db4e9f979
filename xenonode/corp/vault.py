"""The vault: who an entity is in the real world, sealed at rest and erasable.

Registrations are kept apart from the ledger, where clients have pseudonyms only. The secret comes from a key of
its own, so that a copy of the database alone shows no name; what lets XenoCorp recognise the same registration
or the same person again is a keyed digest. Erasing removes all three.
"""

from __future__ import annotations

import hashlib
import random

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from dht import wire
from dht.identity import Signer
from xenonode.corp.errors import CorpLocalError
from xenonode.model.entity import Registration

_NONCE_BYTES = 12
_DETAILS = ("role", "legal_name", "country", "email", "proof_reference")


class Vault:
    """Seals registrations with a secret that only the vault's key gives."""

    def __init__(self, key: Signer) -> None:
        # Ed25519 signatures are deterministic (RFC 8032), so the key's own signature is a secret to derive from.
        self._secret = hashlib.sha256(key.sign(b"xeno-vault1")).digest()
        self._cipher = ChaCha20Poly1305(self._secret)

    def seal(self, registration: Registration, entity: str, rng: random.Random) -> bytes:
        """The registration, unreadable without this vault's key; bound to its entity."""
        nonce = rng.randbytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, wire.encode(registration.to_fields()), entity.encode())

    def open(self, sealed: bytes, entity: str) -> Registration:
        """What was sealed for this entity. Raises CorpLocalError when it was altered or the key is another."""
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], entity.encode())
        except InvalidTag:
            next_step = "restore the vault key from your backup"
            raise CorpLocalError(f"the registration of {entity} does not open with this key", next_step) from None
        fields = wire.decode(plain)
        if not isinstance(fields, dict):
            raise CorpLocalError(f"the registration of {entity} is no message")
        return Registration.from_fields(fields)

    def digest(self, registration: Registration) -> bytes:
        """The same for the same details, whenever they were sent; says nothing without the key."""
        return self._keyed([getattr(registration, name) for name in _DETAILS])

    def person(self, registration: Registration) -> bytes:
        """The same for the same real-world identity, whatever key and role it registers."""
        name = " ".join(registration.legal_name.casefold().split())
        return self._keyed([name, registration.country, registration.email.casefold().strip()])

    def _keyed(self, parts: list[str]) -> bytes:
        return hashlib.blake2b(wire.encode(list(parts)), key=self._secret, digest_size=32).digest()
