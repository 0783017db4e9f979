"""Fraud proofs: what XenoCorp keeps of those who contradict themselves.

Two different usage records with one sequence number, both signed by one server, prove by themselves that it lied
to somebody (I6); so do two records, or two adverts, that members met in the overlays. Attempts to take over a key in
use are kept as well. Proofs are never deleted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import func, insert, select

from dht.envelope import contradicts, open_envelope
from dht.errors import RemoteError
from dht.identity import Scheme
from dht.record import RECORD_TYPE
from xenonode.corp import schema
from xenonode.corp.books import Books
from xenonode.corp.errors import RefusedError
from xenonode.model.advert import Advert

_FRAUD = schema.fraud_proof
REPORTED_MAX = 16
"""Proofs of one kind that members may bring against one key: one is enough to convict."""
LIST_MAX = 100
"""Proofs in one answer; they are small, and an operator pages by time."""


@dataclass(frozen=True, slots=True)
class FraudProof:
    """What a key did, and the two signed things (or their digests) that show it."""

    suspect: bytes
    kind: str
    first: bytes
    second: bytes
    noted_ms: int


def note(books: Books, kind: str, suspect: bytes, first: bytes, second: bytes, now_ms: int) -> None:
    """Keep a proof; the same proof is kept once."""
    proof = hashlib.sha256(b"|".join((kind.encode(), suspect, first, second))).hexdigest()[:32]
    if books.connection.execute(select(_FRAUD.c.id).where(_FRAUD.c.id == proof)).first() is None:
        values = {"suspect": suspect, "kind": kind, "first": first, "second": second, "noted_ms": now_ms}
        books.connection.execute(insert(_FRAUD).values(id=proof, **values))


def note_bounded(books: Books, kind: str, suspect: bytes, first: bytes, second: bytes, now_ms: int) -> None:
    """Keep a proof unless `REPORTED_MAX` of this kind against this key are kept: a liar must not fill the ledger."""
    query = select(func.count()).where(_FRAUD.c.suspect == suspect, _FRAUD.c.kind == kind)
    if (books.connection.execute(query).scalar() or 0) < REPORTED_MAX:
        note(books, kind, suspect, first, second, now_ms)


def equivocator(first: bytes, second: bytes, scheme: Scheme) -> bytes:
    """The key that signed two different records, or adverts, with one sequence number. Raises RefusedError."""
    try:
        one, other = open_envelope(first, scheme), open_envelope(second, scheme)
    except RemoteError as error:
        raise RefusedError("bad_evidence", f"this is no signed record: {error}") from None
    place = ("overlay", "key")
    same_place = one.type == RECORD_TYPE and all(one.body.get(name) == other.body.get(name) for name in place)
    if not contradicts(one, other) or not (same_place or one.type == Advert.TYPE):
        raise RefusedError("bad_evidence", "these two do not contradict one another")
    return one.key


def proofs(books: Books) -> list[FraudProof]:
    """The newest proofs, newest first."""
    query = select(_FRAUD).order_by(_FRAUD.c.noted_ms.desc(), _FRAUD.c.id).limit(LIST_MAX)
    return [
        FraudProof(row.suspect, row.kind, row.first, row.second, row.noted_ms)
        for row in books.connection.execute(query)
    ]
