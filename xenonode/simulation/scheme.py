"""A signature scheme for simulations: keyed BLAKE2b in the shape of Ed25519, a hundred times as fast.

Decides: keys and signatures of a simulated world. A signature can be made only through the `Signer` that the scheme
generated (its secret is derived from the world's secret), so simulated liars cannot forge; it proves nothing outside
of the process. Researchers who want real signatures hand `dht.identity.ED25519` to the world instead.
"""

from __future__ import annotations

import functools
import hashlib
import hmac

from xenonode.simulation.errors import SimulationError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
REMEMBERED_KEYS = 65_536  # derived secrets kept; above the members of the largest world with signatures (50,000)


class SimulatedSigner:
    """One member's key."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, public_key: bytes, secret: bytes) -> None:
        self.public_key = public_key
        self._secret = secret

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return hashlib.blake2b(message, key=self._secret).digest()


class SimulatedScheme:
    """Keys of one simulated world, all derived from its seed."""

    name = "simulated-blake2b"

    def __init__(self, world_seed: bytes) -> None:
        self._world_secret = hashlib.blake2b(world_seed, person=b"xeno-sim-world").digest()
        self._secret = functools.lru_cache(maxsize=REMEMBERED_KEYS)(self._derive_secret)

    def generate(self, seed: bytes) -> SimulatedSigner:
        """Return the signer of a 32-byte seed; the same seed gives the same key."""
        if len(seed) != KEY_BYTES:
            raise SimulationError(f"a key seed has {KEY_BYTES} bytes, not {len(seed)}")
        public_key = hashlib.blake2b(seed, digest_size=KEY_BYTES, person=b"xeno-sim-public").digest()
        return SimulatedSigner(public_key, self._secret(public_key))

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Say whether `signature` is the key holder's for `message`; never raises for bytes of any length."""
        if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        return hmac.compare_digest(hashlib.blake2b(message, key=self._secret(public_key)).digest(), signature)

    def _derive_secret(self, public_key: bytes) -> bytes:
        return hashlib.blake2b(public_key, key=self._world_secret, person=b"xeno-sim-secret").digest()


class SimulatedKeyExchange:
    """Key agreement shaped as `dht.identity.KeyExchange`: both ends get the same secret; it keeps nobody out."""

    def public(self, secret: bytes) -> bytes:
        """Return the public part of a secret."""
        return hashlib.blake2b(secret, digest_size=KEY_BYTES, person=b"xeno-sim-dh").digest()

    def shared(self, secret: bytes, peer_public: bytes) -> bytes | None:
        """Return the common secret, or None when the peer's part is no key."""
        if len(peer_public) != KEY_BYTES:
            return None
        both = sorted((self.public(secret), peer_public))
        return hashlib.blake2b(both[0] + both[1], digest_size=KEY_BYTES, person=b"xeno-sim-shared").digest()
