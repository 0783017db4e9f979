"""ssh host keys for guests: made from a seed, read from OpenSSH's text, written as dropbear wants them.

The key is made before the guest boots, so its public half can stand in the signed start record and the
client can verify strictly. Only Ed25519, unencrypted: the key lives exactly as long as the guest.
Source: OpenSSH's PROTOCOL.key; dropbear's ed25519.c (buf_put_ed25519_priv_key).
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hypervisor.errors import InvalidSpecError

_MAGIC = b"openssh-key-v1\0"
_TYPE = b"ssh-ed25519"
_BEGIN = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
_END = "-----END OPENSSH PRIVATE KEY-----\n"


def host_key(seed: bytes) -> str:
    """OpenSSH private key text of the Ed25519 key with this 32-byte secret seed."""
    if len(seed) != 32:
        raise InvalidSpecError("an Ed25519 seed has 32 bytes", "hand in 32 random bytes")
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    # OpenSSH uses the check only to see whether a pass-phrase was right, so it need not be secret.
    check = hashlib.sha256(b"xeno-hostkey-check" + public).digest()[:4]
    private = check + check + _string(_TYPE) + _string(public) + _string(seed + public) + _string(b"")
    private += bytes(range(1, 1 + -len(private) % 8))
    blob = _MAGIC + _string(b"none") + _string(b"none") + _string(b"") + (1).to_bytes(4, "big")
    blob += _string(_string(_TYPE) + _string(public)) + _string(private)
    text = base64.b64encode(blob).decode()
    return _BEGIN + "".join(text[at : at + 70] + "\n" for at in range(0, len(text), 70)) + _END


def public_line(private_text: str) -> str:
    """The public line, "ssh-ed25519 AAAA...", of an OpenSSH private key."""
    _, public = _parse(private_text)
    return f"ssh-ed25519 {base64.b64encode(_string(_TYPE) + _string(public)).decode()}"


def dropbear_key(private_text: str) -> bytes:
    """The same key in the form of dropbear's host key file."""
    seed, public = _parse(private_text)
    return _string(_TYPE) + _string(seed + public)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, count: int) -> bytes:
        if count > len(self._data):
            raise ValueError("too short")
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def string(self) -> bytes:
        return self.take(int.from_bytes(self.take(4), "big"))


def _parse(private_text: str) -> tuple[bytes, bytes]:
    """(seed, public key) of an unencrypted Ed25519 key."""
    try:
        if not private_text.startswith(_BEGIN) or not private_text.rstrip("\n").endswith(_END.rstrip("\n")):
            raise ValueError("no OpenSSH frame")
        body = private_text[len(_BEGIN) : private_text.rindex(_END.rstrip("\n"))]
        outer = _Reader(base64.b64decode(body.replace("\n", ""), validate=True))
        if outer.take(len(_MAGIC)) != _MAGIC or outer.string() != b"none" or outer.string() != b"none":
            raise ValueError("encrypted, or not openssh-key-v1")
        outer.string()
        if int.from_bytes(outer.take(4), "big") != 1:
            raise ValueError("more than one key")
        outer.string()
        inner = _Reader(outer.string())
        inner.take(8)
        if inner.string() != _TYPE:
            raise ValueError("not an Ed25519 key")
        public, secret = inner.string(), inner.string()
        if len(public) != 32 or len(secret) != 64 or secret[32:] != public:
            raise ValueError("halves do not fit")
        derived = Ed25519PrivateKey.from_private_bytes(secret[:32]).public_key()
        if derived.public_bytes(Encoding.Raw, PublicFormat.Raw) != public:
            raise ValueError("halves do not fit")
    except (ValueError, binascii.Error) as error:
        raise InvalidSpecError(
            f"this ssh host key cannot be used ({error})",
            "make one with hostkeys.host_key, or ssh-keygen -t ed25519 -N ''",
        ) from None
    return secret[:32], public
