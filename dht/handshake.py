"""The handshake: two strangers prove who they are and agree on the keys of a session.

Decides what HELLO, WELCOME and COOKIE say and when they hold. Leaves sending, time-outs and tables to
`endpoint`, and what a credential is to the `member_check` that is handed in. Pure.

    initiator                                             responder
    HELLO  [ephemeral, cookie, flags, credential,
            signature, padding to 1,200 B]        ------>
                                                  <------  COOKIE [cookie]      only under load; then HELLO again
                                                  <------  WELCOME [session, ephemeral, flags, credential, signature,
                                                                    answer, if the padding held a question (`early`)]
    first REQUEST under the session's key         ------>  only now is the initiator's address proved

Signed ephemeral Diffie-Hellman: HELLO's signature covers all of HELLO but cookie and padding, WELCOME's covers
HELLO's digest and the question that it answers as well, so that neither can be moved to another conversation.
HELLO is padded, so the WELCOME that an unproved address draws is never longer than what provoked it. The
cookie (as in RFC 9147, section 5.1) binds the address to a secret that rotates, so that under a flood nothing
is computed for spoofed addresses.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from . import early, wire
from .contact import Address, pack_address
from .datagram import COOKIE, HELLO, MAX_BODY_BYTES, WELCOME, network_key, seal
from .errors import LocalError, PeerIdentityError, RemoteError
from .identity import KEY_BYTES, SIGNATURE_BYTES, KeyExchange, Scheme, Signer

COOKIE_BYTES = 16
# A cookie lives for one to two epochs: long enough for the slowest retry, short enough to be useless later.
COOKIE_EPOCH_MS = 60_000
# The rest of HELLO takes 150 B; a credential is about 300 B. It must fit WELCOME as well.
MAX_CREDENTIAL_BYTES = 900
_CLIENT_FLAG = 1
# Members that are one object each; beyond that all are met anew: 4 MB, and all of a large simulated network.
MAX_MEMBERS = 16_384


@dataclass(frozen=True, slots=True)
class Member:
    """What a checked credential says of its holder; only one that `serves` may hold and answer for others."""

    public_key: bytes
    issuer_nonce: bytes
    entity: str
    expires_ms: int
    serves: bool


_members: dict[Member, Member] = {}


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """A finished handshake: who is there, both session numbers and both keys."""

    member: Member
    is_client: bool
    own_session: int
    peer_session: int
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A HELLO that waits for its WELCOME."""

    session: int
    secret: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    fields: list[object] = field(repr=False)
    question: bytes = field(default=b"", repr=False)


class Handshaker:
    """One node's side of all its handshakes."""

    def __init__(
        self,
        signer: Signer,
        credential: bytes,
        member_check: Callable[[bytes, int], Member],
        scheme: Scheme,
        exchange: KeyExchange,
        *,
        network_id: bytes,
        rng: random.Random,
        client: bool,
    ) -> None:
        if len(credential) > MAX_CREDENTIAL_BYTES:
            raise LocalError(f"a credential of {len(credential)} bytes; at most {MAX_CREDENTIAL_BYTES} fit a datagram")
        self.credential = credential
        self.network_key = network_key(network_id)
        self.network_tag = int.from_bytes(self.network_key[:4], "big")
        self._signer = signer
        self._member_check = member_check
        self._scheme = scheme
        self._exchange = exchange
        self._rng = rng
        self._flags = _CLIENT_FLAG if client else 0
        self._cookie_secret = rng.randbytes(32)

    def renew(self, credential: bytes, now_ms: int) -> Member:
        """Show this credential from now on, if it is a valid one of our own key."""
        member = self._member_check(credential, now_ms)
        if member.public_key != self._signer.public_key or len(credential) > MAX_CREDENTIAL_BYTES:
            raise LocalError("the new credential is of another key, or too large")
        self.credential = credential
        return member

    def hello(self, session: int, question: bytes = b"") -> Outgoing:
        """Begin a handshake; `session` is the number under which we want to be answered, `question` an early one."""
        secret = self._rng.randbytes(KEY_BYTES)
        ephemeral = self._exchange.public(secret)
        digest = self._hello_digest(session, ephemeral, self._flags, self.credential)
        signature = self._signer.sign(b"xeno-hello1\0" + digest)
        return Outgoing(session, secret, digest, [ephemeral, b"", self._flags, self.credential, signature], question)

    def hello_datagram(self, outgoing: Outgoing, cookie: bytes = b"") -> bytes:
        """The HELLO to send, padded to a full datagram."""
        fields = list(outgoing.fields)
        fields[1] = cookie
        bare = len(wire.pack([*fields, b""]))
        # A byte string of more than 255 bytes has a head that is one byte longer.
        room = MAX_BODY_BYTES - bare
        padding = early.padding(outgoing.question, room if room < 256 else room - 1)
        return seal(HELLO, self.network_tag, outgoing.session, 0, wire.pack([*fields, padding]), self.network_key)

    def answer(
        self,
        session: int,
        body: bytes,
        own_session: int,
        address: Address,
        now_ms: int,
        *,
        demand_cookie: bool,
        read: Callable[[Member, bytes, int], bytes] | None = None,
    ) -> tuple[bytes, SessionKeys | None]:
        """The datagram that answers a HELLO, and the half-open session when that is a WELCOME.

        `read(member, question, room)` answers what a HELLO asks early in so many bytes, or with nothing.
        """
        fields = wire.unpack(body)
        if len(fields) != 6:
            raise RemoteError("a HELLO has six fields")
        ephemeral, cookie, flags, credential, signature, padding = fields
        _expect_bytes(ephemeral, KEY_BYTES)
        _expect_bytes(signature, SIGNATURE_BYTES)
        _expect_credential(credential)
        if type(flags) is not int or flags not in (0, _CLIENT_FLAG) or type(cookie) is not bytes:
            raise RemoteError("a HELLO with unknown flags or no cookie")
        if demand_cookie and not self._is_cookie(cookie, address, session, now_ms):
            demanded = self._cookie(address, session, now_ms // COOKIE_EPOCH_MS)
            return seal(COOKIE, self.network_tag, session, 0, wire.pack([demanded]), self.network_key), None
        hello_digest = self._hello_digest(session, ephemeral, flags, credential)
        member = _interned(self._member_check(credential, now_ms))
        if not self._scheme.verify(member.public_key, b"xeno-hello1\0" + hello_digest, signature):
            raise PeerIdentityError("a HELLO that its credential's key did not sign")
        secret = self._rng.randbytes(KEY_BYTES)
        own_ephemeral = self._exchange.public(secret)
        digest = self._welcome_digest(hello_digest, own_session, own_ephemeral, self._flags, self.credential)
        fields = [own_session, own_ephemeral, self._flags, self.credential, bytes(SIGNATURE_BYTES)]
        question = early.question_in(padding) if read is not None else b""
        room = MAX_BODY_BYTES - len(wire.pack(fields)) - early.ANSWER_HEAD_BYTES
        answer = read(member, question, room) if read is not None and question else b""
        if answer:
            digest = early.bound(digest, question, answer)
            fields.append(answer)
        fields[4] = self._signer.sign(b"xeno-welcome1\0" + digest)
        first, second = self._keys(secret, ephemeral, digest)
        keys = SessionKeys(member, _is_client(flags, member), own_session, session, second, first)
        return seal(WELCOME, self.network_tag, session, 0, wire.pack(fields), self.network_key), keys

    def cookie_in(self, body: bytes) -> bytes:
        """The cookie that a COOKIE asks us to repeat."""
        fields = wire.unpack(body)
        if len(fields) != 1:
            raise RemoteError("a COOKIE has one field")
        return _expect_bytes(fields[0], COOKIE_BYTES)

    def finish(self, outgoing: Outgoing, body: bytes, now_ms: int) -> tuple[SessionKeys, bytes | None]:
        """The session that a WELCOME opens, and the answer to what was asked early, if it has one."""
        fields = wire.unpack(body)
        if len(fields) != 5 and not (len(fields) == 6 and outgoing.question):
            raise RemoteError("a WELCOME has five fields, and an answer where something was asked")
        peer_session, ephemeral, flags, credential, signature = fields[:5]
        answer = fields[5] if len(fields) == 6 else None
        if answer is not None and type(answer) is not bytes:
            raise RemoteError("an answer is bytes")
        _expect_bytes(ephemeral, KEY_BYTES)
        _expect_bytes(signature, SIGNATURE_BYTES)
        _expect_credential(credential)
        if type(flags) is not int or flags not in (0, _CLIENT_FLAG):
            raise RemoteError("a WELCOME with unknown flags")
        if type(peer_session) is not int or not 0 <= peer_session < 2**64:
            raise RemoteError("a WELCOME without a session")
        digest = self._welcome_digest(outgoing.digest, peer_session, ephemeral, flags, credential)
        if answer is not None:
            digest = early.bound(digest, outgoing.question, answer)
        member = _interned(self._member_check(credential, now_ms))
        if not self._scheme.verify(member.public_key, b"xeno-welcome1\0" + digest, signature):
            raise PeerIdentityError("a WELCOME that its credential's key did not sign")
        first, second = self._keys(outgoing.secret, ephemeral, digest)
        keys = SessionKeys(member, _is_client(flags, member), outgoing.session, peer_session, first, second)
        return keys, answer

    def _keys(self, secret: bytes, ephemeral: bytes, digest: bytes) -> tuple[bytes, bytes]:
        """The initiator's and the responder's sending key (HKDF's shape, with BLAKE2b as the keyed hash)."""
        shared = self._exchange.shared(secret, ephemeral)
        if shared is None:
            raise PeerIdentityError("a degenerate ephemeral key")
        material = hashlib.blake2b(shared, key=digest, digest_size=64, person=b"xeno-session1").digest()
        return material[:32], material[32:]

    def _hello_digest(self, session: int, ephemeral: bytes, flags: int, credential: bytes) -> bytes:
        head = self.network_key + session.to_bytes(8, "big") + bytes((flags,)) + ephemeral
        return hashlib.sha256(head + credential).digest()

    def _welcome_digest(self, hello: bytes, session: int, ephemeral: bytes, flags: int, credential: bytes) -> bytes:
        head = hello + session.to_bytes(8, "big") + bytes((flags,)) + ephemeral
        return hashlib.sha256(head + credential).digest()

    def _cookie(self, address: Address, session: int, epoch: int) -> bytes:
        bound = epoch.to_bytes(8, "big", signed=True) + session.to_bytes(8, "big") + pack_address(address)
        return hashlib.blake2b(bound, key=self._cookie_secret, digest_size=COOKIE_BYTES).digest()

    def _is_cookie(self, cookie: bytes, address: Address, session: int, now_ms: int) -> bool:
        epoch = now_ms // COOKIE_EPOCH_MS
        return any(hmac.compare_digest(cookie, self._cookie(address, session, each)) for each in (epoch, epoch - 1))


def _interned(member: Member) -> Member:
    """The one object that stands for this member in all nodes of this process, of which simulators have thousands."""
    if len(_members) >= MAX_MEMBERS:
        _members.clear()
    return _members.setdefault(member, member)


def _is_client(flags: int, member: Member) -> bool:
    """Whether a peer serves nothing: by its own word, or because its credential does not let it."""
    return flags == _CLIENT_FLAG or not member.serves


def _expect_bytes(value: object, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise RemoteError(f"a handshake without {length} bytes where they belong")
    return value


def _expect_credential(value: object) -> None:
    if not isinstance(value, bytes) or len(value) > MAX_CREDENTIAL_BYTES:
        raise RemoteError("a handshake without a credential of a bearable size")
