"""Keys, node ids, signatures and key agreement: who somebody is, and how that is proved.

Decides what a valid key, signature and key file are. Leaves what is signed to `envelope` and who may be
a member to whoever issues credentials. `Scheme` and `KeyExchange` are protocols, so that a simulator can
put cheap keyed hashes in the place of Ed25519 (RFC 8032) and X25519 (RFC 7748).

A node id is SHA-256("xeno-nid1" | dimension | key | issuer nonce)[:20]. The issuer adds the nonce,
because ids that a member picks itself can be ground towards a key.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import nacl.bindings
import nacl.exceptions
import nacl.pwhash
import nacl.secret
import nacl.utils

from .errors import KeyFileError, LocalError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
NODE_ID_BYTES = 20
_ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
_NO_KEY = bytes(KEY_BYTES)
_KEY_FILE_PLAIN = b"xenonode key 1\n"
_KEY_FILE_SEALED = b"xenonode sealed key 1\n"
# A key file holds a seed, in clear (hex) or sealed; nothing legitimate is larger.
_MAX_KEY_FILE_BYTES = 1_024


class Signer(Protocol):
    """Somebody who can sign; the secret stays inside."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


class Scheme(Protocol):
    """One way of signing, and of checking signatures."""

    @property
    def name(self) -> str: ...

    def generate(self, seed: bytes) -> Signer: ...

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool: ...


class KeyExchange(Protocol):
    """One way for two peers to agree on a secret that no listener learns."""

    def public(self, secret: bytes) -> bytes: ...

    def shared(self, secret: bytes, peer_public: bytes) -> bytes | None:
        """The common secret, or None when the peer's part is degenerate."""
        ...


@dataclass(frozen=True, slots=True)
class Ed25519Signer:
    """An Ed25519 key pair; `repr` shows the public half only."""

    public_key: bytes
    _secret_key: bytes

    def sign(self, message: bytes) -> bytes:
        return nacl.bindings.crypto_sign(message, self._secret_key)[:SIGNATURE_BYTES]

    @property
    def seed(self) -> bytes:
        """The secret itself, for a TLS library that must hold it; it goes nowhere else."""
        return self._secret_key[:KEY_BYTES]

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.public_key.hex()[:16]}…)"


class Ed25519:
    """The live scheme."""

    name = "ed25519"

    def generate(self, seed: bytes) -> Signer:
        """The key pair that belongs to a 32-byte seed."""
        if len(seed) != KEY_BYTES:
            raise LocalError("a seed is 32 bytes")
        return Ed25519Signer(*nacl.bindings.crypto_sign_seed_keypair(seed))

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is the key's own; all-zero keys and malleable signatures (S >= L) never are."""
        if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES or public_key == _NO_KEY:
            return False
        if int.from_bytes(signature[32:], "little") >= _ED25519_ORDER:
            return False
        try:
            nacl.bindings.crypto_sign_open(signature + message, public_key)
        except nacl.exceptions.BadSignatureError:
            return False
        return True


class X25519:
    """The live key exchange."""

    def public(self, secret: bytes) -> bytes:
        return nacl.bindings.crypto_scalarmult_base(secret)

    def shared(self, secret: bytes, peer_public: bytes) -> bytes | None:
        if len(peer_public) != KEY_BYTES:
            return None
        try:
            return nacl.bindings.crypto_scalarmult(secret, peer_public)
        except nacl.exceptions.RuntimeError:
            return None


ED25519: Scheme = Ed25519()
X25519_EXCHANGE: KeyExchange = X25519()


def node_id(dimension: str, public_key: bytes, issuer_nonce: bytes) -> bytes:
    """The 20-byte id that a member has in one dimension's overlay."""
    digest = hashlib.sha256()
    for part in (b"xeno-nid1", dimension.encode(), public_key, issuer_nonce):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()[:NODE_ID_BYTES]


def create_key(path: str | os.PathLike[str], *, passphrase: str | None = None, seed: bytes | None = None) -> Signer:
    """Make a key and its file: never over an existing one, 0600, in a folder that is 0700.

    With a passphrase the seed is sealed (argon2id, then secretbox).
    """
    target = Path(path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_folder(target.parent)
    secret = nacl.utils.random(KEY_BYTES) if seed is None else seed
    signer = ED25519.generate(secret)
    if passphrase is None:
        content = _KEY_FILE_PLAIN + secret.hex().encode() + b"\n"
    else:
        salt = nacl.utils.random(nacl.pwhash.argon2id.SALTBYTES)
        sealed = nacl.secret.SecretBox(_stretch(passphrase, salt)).encrypt(secret)
        content = _KEY_FILE_SEALED + (salt + bytes(sealed)).hex().encode() + b"\n"
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{target} exists; a key is never overwritten: choose another path, or load it") from None
    except OSError as error:
        raise KeyFileError(f"cannot create {target}: {error.strerror}") from None
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    return signer


def load_key(path: str | os.PathLike[str], *, passphrase: str | None = None) -> Signer:
    """The key in a file that nobody else can read or replace."""
    target = Path(path)
    _check_folder(target.parent)
    try:
        handle = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError(f"there is no key file at {target}; create one first") from None
    except OSError as error:
        raise KeyFileError(f"cannot read {target}: {error.strerror} (a link is not accepted)") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{target} is not a file; give the path of the key file itself")
        if status.st_uid != os.geteuid():
            raise KeyFileError(f"{target} belongs to another user; use a key of your own, or chown it")
        if status.st_mode & 0o077:
            raise KeyFileError(f"{target} can be read by others; run: chmod 600 {target}")
        content = os.read(handle, _MAX_KEY_FILE_BYTES)
    finally:
        os.close(handle)
    return ED25519.generate(_seed_in(content, target, passphrase))


def _seed_in(content: bytes, target: Path, passphrase: str | None) -> bytes:
    broken = KeyFileError(f"{target} is not a key file of this version; restore it from your backup")
    try:
        if content.startswith(_KEY_FILE_PLAIN):
            seed = bytes.fromhex(content.removeprefix(_KEY_FILE_PLAIN).decode().strip())
        elif content.startswith(_KEY_FILE_SEALED):
            sealed = bytes.fromhex(content.removeprefix(_KEY_FILE_SEALED).decode().strip())
            if passphrase is None:
                raise KeyFileError(f"{target} is sealed; give its passphrase")
            salt, box = sealed[: nacl.pwhash.argon2id.SALTBYTES], sealed[nacl.pwhash.argon2id.SALTBYTES :]
            seed = nacl.secret.SecretBox(_stretch(passphrase, salt)).decrypt(box)
        else:
            raise broken
    except nacl.exceptions.CryptoError:
        raise KeyFileError(f"{target} does not open with this passphrase") from None
    except ValueError:
        raise broken from None
    if len(seed) != KEY_BYTES:
        raise broken
    return seed


def _stretch(passphrase: str, salt: bytes) -> bytes:
    return nacl.pwhash.argon2id.kdf(
        nacl.secret.SecretBox.KEY_SIZE,
        passphrase.encode(),
        salt,
        opslimit=nacl.pwhash.argon2id.OPSLIMIT_INTERACTIVE,
        memlimit=nacl.pwhash.argon2id.MEMLIMIT_INTERACTIVE,
    )


def _check_folder(folder: Path) -> None:
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        raise KeyFileError(f"there is no folder {folder}; create a key first") from None
    if status.st_uid != os.geteuid():
        raise KeyFileError(f"the folder {folder} belongs to another user; keep keys in a folder of your own")
    if status.st_mode & 0o077:
        raise KeyFileError(f"the folder {folder} is open to others; run: chmod 700 {folder}")
