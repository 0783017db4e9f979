"""Members: registering entities, giving and renewing their credentials.

One key is one entity. The issuer's nonce is drawn once per key and kept at every renewal, so that node ids,
which derive from it, neither move nor can be chosen. A key in use that is registered with other details is
refused and noted. On a public network the operator approves first (`applicants`); everywhere so many new keys are
taken from one place. Source: the poster's "Register" panel.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from dht.identity import Signer
from dht.limits import Allowance, Places
from xenonode.corp import fraud, schema
from xenonode.corp.applicants import Applicants
from xenonode.corp.books import Books, stored_body
from xenonode.corp.errors import RefusedError
from xenonode.corp.terms import Terms
from xenonode.corp.vault import Vault
from xenonode.model.entity import CLOCK_TOLERANCE_MS, Credential, Registration

ISSUER_NONCE_BYTES = 16
Certify = Callable[[bytes, str, str, int, int], bytes]
"""Makes the X.509 form of a credential: key, entity, role, not before, expiry to PEM."""
LOCAL_KEYS, PUBLIC_KEYS = Allowance(10, 4_096), Allowance(1 / 60, 64)
"""New keys from one place: a machine that holds thousands of nodes; and one that strangers register from, where each
key is an operator's minute."""
_MEMBER, _IDENTITY = schema.member, schema.identity


@dataclass(frozen=True, slots=True)
class Member:
    """An entity, its key, and its newest grant."""

    key: bytes
    entity: str
    role: str
    issuer_nonce: bytes
    serial: int
    quota_class: int
    credential: bytes
    certificate: bytes


class Registry:
    """Grants membership. Randomness is drawn from `rng` inside the writer, so one at a time."""

    def __init__(
        self, issuing: Signer, vault: Vault, rng: random.Random, terms: Terms, certify: Certify | None
    ) -> None:
        self._issuing = issuing
        self._vault = vault
        self._rng = rng
        self._terms = terms
        self._certify = certify
        self._budget = Places(PUBLIC_KEYS if terms.approval else LOCAL_KEYS)
        self.applicants = Applicants(vault, rng)

    def register(
        self, books: Books, registration: Registration, key: bytes, place: str, now_ms: int
    ) -> Member | RefusedError:
        """The grant for a key: a new one, or the same again for the same details. A refusal to keep is returned."""
        known = find(books, key)
        if known is not None:
            row = books.connection.execute(select(_IDENTITY).where(_IDENTITY.c.entity == known.entity)).one_or_none()
            if row is not None and row.digest == self._vault.digest(registration):
                return self._fresh(books, known, now_ms)
            claimed = self._vault.digest(registration)
            fraud.note_bounded(books, "key_in_use", key, known.entity.encode(), claimed, now_ms)
            return RefusedError(
                "key_in_use",
                f"this key is registered already, as {known.entity}, with other details",
                "register a new key; this attempt was noted",
            )
        if not self._budget.take(place, now_ms / 1000):
            message = "too many keys were registered from your part of the network lately"
            raise RefusedError("too_many", message, "try again in some minutes")
        if self._terms.approval:
            return self.applicants.ask(books, registration, key, place, now_ms)
        return self._admit(books, registration, key, now_ms)

    def approve(self, books: Books, prefix: str, now_ms: int) -> Member:
        """Admit the applicant whose key begins so, at the operator's word. Raises RefusedError."""
        key, registration = self.applicants.take(books, prefix)
        return self._admit(books, registration, key, now_ms)

    def _admit(self, books: Books, registration: Registration, key: bytes, now_ms: int) -> Member:
        person = self._vault.person(registration)
        count = select(func.count()).select_from(_IDENTITY).where(_IDENTITY.c.person == person)
        limit = self._terms.keys_per_entity
        if books.connection.execute(count).scalar_one() >= limit:
            raise RefusedError(
                "too_many_keys", f"one entity may register {limit} keys", "use one of them, or ask for more"
            )
        nonce = self._rng.randbytes(ISSUER_NONCE_BYTES)
        entity = _pseudonym(books, registration.role, key, nonce)
        member = self._admitted(books, key, entity, registration.role, nonce, now_ms)
        sealed = self._vault.seal(registration, entity, self._rng)
        digest = self._vault.digest(registration)
        books.connection.execute(insert(_IDENTITY).values(entity=entity, person=person, digest=digest, sealed=sealed))
        return member

    def enrol(self, books: Books, key: bytes, now_ms: int) -> Member:
        """Membership for one of XenoCorp's own keys, which belong to no other entity; the grant is kept fresh."""
        known = find(books, key)
        if known is not None:
            return self._fresh(books, known, now_ms)
        nonce = self._rng.randbytes(ISSUER_NONCE_BYTES)
        return self._admitted(books, key, _pseudonym(books, "corp", key, nonce), "corp", nonce, now_ms)

    def renew(self, books: Books, key: bytes, now_ms: int) -> Member:
        """The grant as it is, or from half of its life on a fresh one with the same nonce, entity and role.

        Raises RefusedError for a stranger.
        """
        return self._fresh(books, need(books, key), now_ms)

    def _renewed(self, books: Books, known: Member, now_ms: int) -> Member:
        key = known.key
        member = self._granted(books, key, known.entity, known.role, known.issuer_nonce, known.quota_class, now_ms)
        values = {"serial": member.serial, "credential": member.credential, "certificate": member.certificate}
        books.connection.execute(update(_MEMBER).where(_MEMBER.c.key == key).values(**values))
        return member

    def reveal(self, books: Books, entity: str) -> Registration:
        """Who an entity is, for the operator alone. Raises RefusedError when unknown or erased."""
        row = books.connection.execute(select(_IDENTITY).where(_IDENTITY.c.entity == entity)).one_or_none()
        if row is None:
            raise RefusedError("unknown_entity", f"no details are kept of {entity}", "check the name")
        return self._vault.open(row.sealed, entity)

    def erase(self, books: Books, entity: str) -> None:
        """Forget who an entity is; its pseudonym and its money stay. Raises RefusedError when there is nothing."""
        if not books.connection.execute(delete(_IDENTITY).where(_IDENTITY.c.entity == entity)).rowcount:
            raise RefusedError("unknown_entity", f"no details are kept of {entity}", "check the name")

    def _fresh(self, books: Books, known: Member, now_ms: int) -> Member:
        """The grant as it is, or a new one once half of its life is over."""
        expires_ms = Credential.from_fields(stored_body(known.credential)).expires_ms
        aged = expires_ms - now_ms <= self._terms.credential_ms // 2 + CLOCK_TOLERANCE_MS
        return self._renewed(books, known, now_ms) if aged else known

    def _admitted(self, books: Books, key: bytes, entity: str, role: str, nonce: bytes, now_ms: int) -> Member:
        member = self._granted(books, key, entity, role, nonce, 0, now_ms)
        values = {name: getattr(member, name) for name in Member.__slots__}
        books.connection.execute(insert(_MEMBER).values(**values, registered_ms=now_ms))
        return member

    def _granted(
        self, books: Books, key: bytes, entity: str, role: str, nonce: bytes, quota_class: int, now_ms: int
    ) -> Member:
        serial = (books.connection.execute(select(func.max(_MEMBER.c.serial))).scalar() or 0) + 1
        expires_ms = now_ms + self._terms.credential_ms
        credential = Credential(serial, entity, key, role, nonce, now_ms, expires_ms, quota_class).seal(self._issuing)
        certificate = self._certify(key, entity, role, now_ms, expires_ms) if self._certify else b""
        return Member(key, entity, role, nonce, serial, quota_class, credential.raw, certificate)


def find(books: Books, key: bytes) -> Member | None:
    """The member with this key, if there is one."""
    row = books.connection.execute(select(_MEMBER).where(_MEMBER.c.key == key)).one_or_none()
    return None if row is None else _member(row)


def need(books: Books, key: bytes, role: str | None = None) -> Member:
    """The member with this key. Raises RefusedError when there is none, or it has another role."""
    member = find(books, key)
    if member is None:
        raise RefusedError("not_registered", f"key {key.hex()[:16]} is not registered", "run 'xenonode register' first")
    if role is not None and member.role != role:
        raise RefusedError("role", f"{member.entity} is a {member.role}, not a {role}", f"use the key of a {role}")
    return member


def exists(books: Books, entity: str, role: str) -> bool:
    """Whether an entity of this name and role is registered."""
    query = select(_MEMBER.c.key).where(_MEMBER.c.entity == entity, _MEMBER.c.role == role)
    return books.connection.execute(query).first() is not None


def _member(row: Row[Any]) -> Member:
    return Member(**{name: getattr(row, name) for name in Member.__slots__})


def _pseudonym(books: Books, role: str, key: bytes, nonce: bytes) -> str:
    """A name that says the role and nothing else; longer where a shorter one is taken."""
    digest = hashlib.sha256(b"xeno-entity1" + key + nonce).hexdigest()
    for length in (8, 16, 24):
        name = f"{role}-{digest[:length]}"
        if books.connection.execute(select(_MEMBER.c.key).where(_MEMBER.c.entity == name)).first() is None:
            return name
    raise RefusedError("name_taken", "no pseudonym is free for this key", "try again")
