"""Fraud proofs: what XenoCorp keeps of those who contradict themselves.

Two different usage records with one sequence number, both signed by one server, prove by themselves that it lied
to somebody (I6). Attempts to take over a key in use are kept as well. Proofs are never deleted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import insert, select

from xenonode.corp import schema
from xenonode.corp.books import Books

_FRAUD = schema.fraud_proof
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


def proofs(books: Books) -> list[FraudProof]:
    """The newest proofs, newest first."""
    query = select(_FRAUD).order_by(_FRAUD.c.noted_ms.desc(), _FRAUD.c.id).limit(LIST_MAX)
    return [
        FraudProof(row.suspect, row.kind, row.first, row.second, row.noted_ms)
        for row in books.connection.execute(query)
    ]
