"""X.509 for TLS only: XenoCorp's certificate authority, members' leaf certificates, and TLS 1.3 contexts.

Decides: the form of certificates, how long they live, and what OpenSSL is told. A certificate repeats what XenoCorp's
credential grants; identity is the Ed25519 key inside, and names in it are for people. Leaves to others: who is given
one (XenoCorp's registry), connections (`tls_transport`). The home of `cryptography`.
Source: RFC 8446 (TLS 1.3), RFC 8410 (Ed25519 in X.509), RFC 5280; the lifetimes are the platform's.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import datetime
import hashlib
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xenonode.control.errors import LocalError

KEY_BYTES = 32
DAY_MS = 86_400_000
LEAF_LIFETIME_MS = 7 * DAY_MS  # renewed at half-life, so that members outlive an outage of XenoCorp's of days
AUTHORITY_LIFETIME_MS = 120 * DAY_MS  # the issuing key rotates after 90 days, with 30 days' overlap
SKEW_MS = 120_000  # clocks may differ by two minutes
NO_CERTIFICATE = "PEER_DID_NOT_RETURN_A_CERTIFICATE"  # OpenSSL's name for it
HANDSHAKE_TIMEOUT_S = 5.0  # two round trips and two signatures; longer is a peer that stalls
MAX_HANDSHAKES = 256  # of one port at a time; at 1 ms of CPU each, what a core does in a quarter of a second
MAX_NAME_CHARACTERS = 64  # X.520's upper bound of a common name
CONNECTION_BUFFER_BYTES = 32_768
"""What asyncio gives each connection to decrypt into: two records of TLS (RFC 8446, section 5.1), instead of its own
256 KiB. These live from a stranger's first byte on, and after a handshake that failed until the garbage collector comes
by: 1,800 of them raised a server's memory by 112 MB."""
asyncio.sslproto.SSLProtocol.max_size = CONNECTION_BUFFER_BYTES


@dataclass(frozen=True, slots=True)
class Authority:
    """XenoCorp as an issuer of certificates. Made again from the same seed and name, it vouches for the same leaves."""

    seed: bytes = field(repr=False)
    name: str
    certificate_pem: bytes


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """A member's key seed and the certificate issued for it."""

    seed: bytes = field(repr=False)
    certificate_pem: bytes

    def __post_init__(self) -> None:
        key = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        if certificate_key(self.certificate_pem) != key:
            raise LocalError("the certificate was issued for another key; renew it with this one")


def make_authority(seed: bytes, *, name: str, now_ms: int, lifetime_ms: int = AUTHORITY_LIFETIME_MS) -> Authority:
    """Make XenoCorp's certificate authority from its Ed25519 seed."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    builder = _builder(name, name, key.public_key(), key.public_key(), now_ms, lifetime_ms)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
    return Authority(seed, name, builder.sign(key, None).public_bytes(Encoding.PEM))


def issue(
    authority: Authority, public_key: bytes, *, name: str, now_ms: int, lifetime_ms: int = LEAF_LIFETIME_MS
) -> bytes:
    """Issue a leaf certificate (PEM) for a member's Ed25519 key; LocalError if the key is none."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError as error:
        raise LocalError(f"not an Ed25519 public key: {error}") from error
    issuer = Ed25519PrivateKey.from_private_bytes(authority.seed)
    builder = _builder(name, authority.name, key, issuer.public_key(), now_ms, lifetime_ms)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=False), critical=True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return builder.add_extension(purposes, critical=False).sign(issuer, None).public_bytes(Encoding.PEM)


def certificate_key(certificate: bytes) -> bytes:
    """Return the Ed25519 public key in a certificate (PEM or DER); LocalError if it holds another kind."""
    pem = certificate.startswith(b"-----")
    loaded = x509.load_pem_x509_certificate(certificate) if pem else x509.load_der_x509_certificate(certificate)
    key = loaded.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise LocalError("the certificate holds no Ed25519 key")
    return key.public_bytes_raw()


def certificate_expires_ms(certificate_pem: bytes) -> int:
    """Return when a certificate stops being valid."""
    expiry = x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc
    return int(expiry.timestamp()) * 1_000


class _ServerObject(ssl.SSLObject):
    """A server's TLS session that tells the client why a handshake failed.

    asyncio drops the alert that OpenSSL has written when `do_handshake` raises, so a client with an expired
    certificate would see a closed connection and no reason. Asking for more input first makes asyncio send it; the
    error follows at the client's next byte or end, or at the handshake's time-out.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        context = self.context
        assert isinstance(context, _ServerContext)
        if self not in context.begun:
            context.begin(self)
        try:
            super().do_handshake()
            context.begun.pop(self, None)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            context.begun.pop(self, None)
            context.failed(error.reason or "unknown")
            if isinstance(error, ssl.SSLCertVerificationError) or error.reason == NO_CERTIFICATE:
                raise ssl.SSLWantReadError from error
            raise


class _ServerContext(ssl.SSLContext):
    sslobject_class = _ServerObject
    failed: Callable[[str], None]
    # Handshakes that go on, oldest first, and when they began. Weak, because nobody tells us of a connection that is
    # lost in mid-handshake: it frees its place when asyncio lets go of it, or else after the time-out.
    begun: WeakKeyDictionary[ssl.SSLObject, float]

    def begin(self, session: ssl.SSLObject) -> None:
        """Count a handshake, or refuse it: whoever stalls in one has proved nothing yet."""
        now_s = asyncio.get_running_loop().time()
        while self.begun and (oldest := next(iter(self.begun.items())))[1] < now_s - HANDSHAKE_TIMEOUT_S:
            del self.begun[oldest[0]]  # asyncio has timed it out
        if len(self.begun) >= MAX_HANDSHAKES:
            self.failed("too many at once")
            raise ssl.SSLError("too many handshakes at once")
        self.begun[session] = now_s


def server_context(
    identity: TlsIdentity, authorities: Sequence[bytes], *, anonymous: bool, failed: Callable[[str], None]
) -> ssl.SSLContext:
    """Return a server's context: TLS 1.3, clients' certificates checked, and required unless `anonymous`."""
    context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.failed, context.begun = failed, WeakKeyDictionary()
    context.verify_mode = ssl.CERT_OPTIONAL if anonymous else ssl.CERT_REQUIRED
    context.num_tickets = 0  # no resumption: every connection proves a certificate that is valid now
    return _prepare(context, identity, authorities)


def client_context(identity: TlsIdentity | None, authorities: Sequence[bytes]) -> ssl.SSLContext:
    """Return a client's context. Without authorities the certificate is not checked: then the key must be pinned."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # identity is the key, compared by the transport; names and addresses change
    context.verify_mode = ssl.CERT_REQUIRED if authorities else ssl.CERT_NONE
    return _prepare(context, identity, authorities)


def _prepare(context: ssl.SSLContext, identity: TlsIdentity | None, authorities: Sequence[bytes]) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    for certificate_pem in authorities:
        context.load_verify_locations(cadata=certificate_pem.decode("ascii"))
    if identity is not None:
        load_identity(context, identity)
    return context


def load_identity(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    """Let a context prove this identity; a context in use proves it from the next handshake on."""
    # The ssl module loads keys from files only; this one lives in memory and never has a name on a disk.
    key = Ed25519PrivateKey.from_private_bytes(identity.seed)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.memfd_create("certificate")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(key_pem + identity.certificate_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _builder(
    name: str, issuer: str, key: Ed25519PublicKey, issuer_key: Ed25519PublicKey, now_ms: int, lifetime_ms: int
) -> x509.CertificateBuilder:
    begins_ms = now_ms - SKEW_MS
    serial = hashlib.sha256(key.public_bytes_raw() + now_ms.to_bytes(8)).digest()[:16]
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(int.from_bytes(serial) >> 1 or 1)
        .not_valid_before(_date(begins_ms))
        .not_valid_after(_date(now_ms + lifetime_ms))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _name(text: str) -> x509.Name:
    if not 0 < len(text) <= MAX_NAME_CHARACTERS:
        raise LocalError(f"a certificate's name has 1 to {MAX_NAME_CHARACTERS} characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _date(when_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(when_ms // 1_000, datetime.UTC)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
