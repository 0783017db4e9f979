"""Applicants: on a public network a registration counts only once the operator has approved it.

Whoever registers says who he is, and proves only that he has the key: if his word counted, anybody could use up the
keys of another's name. So here nothing of an applicant counts for anybody else. Decides how many may wait, in all and
from one place, and who makes room: the place with the most of them. Leaves admitting to `members`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from xenonode.corp import schema
from xenonode.corp.books import Books
from xenonode.corp.errors import RefusedError
from xenonode.corp.vault import Vault
from xenonode.model.entity import Registration

WAITING, REFUSED = "waiting", "refused"
WAITING_MAX = 4_096
"""Applicants in all: with some 600 bytes each, 2.5 MB of the ledger, and more than an operator reads in a week."""
PLACE_MAX = 8
"""Applicants from one place (a /24 or /48): as many keys as one entity may register by default."""
KEPT_MS = 30 * 86_400_000
"""An application that nobody decided on, and a refusal, are forgotten after a month; then one may ask again."""
LISTED_MAX = 100
_APPLICANT = schema.applicant


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks to become a member, in his own words, which nobody has checked."""

    key: bytes
    place: str
    asked_ms: int
    registration: Registration


class Applicants:
    """The waiting room. Details are sealed as those of members are."""

    def __init__(self, vault: Vault, rng: random.Random) -> None:
        self._vault, self._rng = vault, rng

    def ask(self, books: Books, registration: Registration, key: bytes, place: str, now_ms: int) -> RefusedError:
        """Have somebody wait; what to tell him. Raises RefusedError where there is no room."""
        digest = self._vault.digest(registration)
        row = books.connection.execute(select(_APPLICANT).where(_APPLICANT.c.key == key)).one_or_none()
        if row is not None and row.status == REFUSED:
            raise RefusedError("refused", "XenoCorp's operator refused this registration", "ask the operator why")
        if row is None:
            self._make_room(books, place)
        if row is None or row.digest != digest:
            sealed = self._vault.seal(registration, _name(key), self._rng)
            books.connection.execute(delete(_APPLICANT).where(_APPLICANT.c.key == key))
            values = {"place": place, "status": WAITING, "digest": digest, "sealed": sealed, "asked_ms": now_ms}
            books.connection.execute(insert(_APPLICANT).values(key=key, **values))
        return RefusedError(
            "pending",
            "the registration waits for the approval of XenoCorp's operator",
            f"ask the operator to run 'xenonode corp approve {key.hex()[:16]}'; then run this command again",
        )

    def waiting(self, books: Books) -> list[Applicant]:
        """Those who wait, the longest first."""
        query = select(_APPLICANT).where(_APPLICANT.c.status == WAITING)
        rows = books.connection.execute(query.order_by(_APPLICANT.c.asked_ms, _APPLICANT.c.key).limit(LISTED_MAX))
        return [
            Applicant(row.key, row.place, row.asked_ms, self._vault.open(row.sealed, _name(row.key))) for row in rows
        ]

    def take(self, books: Books, prefix: str) -> tuple[bytes, Registration]:
        """The applicant, waiting or refused, whose key begins so; he waits no longer. Raises RefusedError."""
        row = _find(books, prefix)
        books.connection.execute(delete(_APPLICANT).where(_APPLICANT.c.key == row.key))
        return row.key, self._vault.open(row.sealed, _name(row.key))

    def refuse(self, books: Books, prefix: str, now_ms: int) -> bytes:
        """Turn an applicant away; the key. Raises RefusedError."""
        key = bytes(_find(books, prefix).key)
        change = update(_APPLICANT).where(_APPLICANT.c.key == key).values(status=REFUSED, asked_ms=now_ms)
        books.connection.execute(change)
        return key

    def _make_room(self, books: Books, place: str) -> None:
        count = select(func.count()).select_from(_APPLICANT)
        if books.connection.execute(count.where(_APPLICANT.c.place == place)).scalar_one() >= PLACE_MAX:
            raise RefusedError(
                "too_many",
                f"{PLACE_MAX} registrations from your part of the network wait for approval already",
                "wait until XenoCorp's operator has decided on them",
            )
        if books.connection.execute(count).scalar_one() < WAITING_MAX:
            return
        crowded = (
            select(_APPLICANT.c.place)
            .group_by(_APPLICANT.c.place)
            .order_by(func.count().desc(), _APPLICANT.c.place)
            .limit(1)
        )
        oldest = select(_APPLICANT.c.key).where(_APPLICANT.c.place == crowded.scalar_subquery())
        first = oldest.order_by(_APPLICANT.c.asked_ms, _APPLICANT.c.key).limit(1)
        books.connection.execute(delete(_APPLICANT).where(_APPLICANT.c.key == first.scalar_subquery()))


def forget_old(books: Books, now_ms: int) -> None:
    """Drop applications and refusals that are older than a month."""
    books.connection.execute(delete(_APPLICANT).where(_APPLICANT.c.asked_ms < now_ms - KEPT_MS))


def _find(books: Books, prefix: str) -> Row[Any]:
    text = prefix.strip().lower()
    rows = [row for row in books.connection.execute(select(_APPLICANT)) if text and row.key.hex().startswith(text)]
    if len(rows) != 1:
        count = len(rows) or "no"
        message = f"the keys of {count} applicants begin with {prefix[:64]!r}"
        raise RefusedError("unknown_applicant", message, "see 'xenonode corp members'")
    return rows[0]


def _name(key: bytes) -> str:
    """What an applicant's sealed details are bound to."""
    return f"applicant {key.hex()}"
