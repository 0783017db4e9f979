"""The tables of XenoCorp's database, in SQLAlchemy Core.

Column types are what both SQLite (STRICT) and PostgreSQL know: 64-bit integers, text, bytes. Amounts are
nano-units, times Unix milliseconds, 1 and 0 stand for yes and no. Triggers, which make transfers immutable, and
the history of this schema are in `migrations`; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

Int64 = BigInteger().with_variant(Integer(), "sqlite")
metadata = MetaData()


def _table(name: str, *parts: Any) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True)


account = _table(
    "account",
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("entity", Text),
    Column("debits_nano", Int64, nullable=False),
    Column("credits_nano", Int64, nullable=False),
    UniqueConstraint("id", "currency", name="account_currency"),
    CheckConstraint("debits_nano >= 0 AND credits_nano >= 0", name="account_sides"),
    CheckConstraint("kind = 'external' OR debits_nano <= credits_nano", name="account_not_below_zero"),
)
Index("account_entity", account.c.entity, account.c.currency)

transfer = _table(
    "transfer",
    Column("sequence", Int64, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("debit", Text, nullable=False),
    Column("credit", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount_nano", Int64, nullable=False),
    Column("reference", Text, nullable=False),
    Column("posted_ms", Int64, nullable=False),
    ForeignKeyConstraint(["debit", "currency"], ["account.id", "account.currency"], name="transfer_debit"),
    ForeignKeyConstraint(["credit", "currency"], ["account.id", "account.currency"], name="transfer_credit"),
    CheckConstraint("amount_nano > 0", name="transfer_positive"),
    CheckConstraint("debit <> credit", name="transfer_two_accounts"),
)
Index("transfer_by_debit", transfer.c.debit, transfer.c.sequence)
Index("transfer_by_credit", transfer.c.credit, transfer.c.sequence)

reply = _table(
    "reply",
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("made_ms", Int64, nullable=False),
)
Index("reply_made", reply.c.made_ms)

applicant = _table(
    "applicant",
    Column("key", LargeBinary, primary_key=True),
    Column("place", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("asked_ms", Int64, nullable=False),
    CheckConstraint("status IN ('waiting', 'refused')", name="applicant_status"),
)
Index("applicant_place", applicant.c.place, applicant.c.asked_ms)
Index("applicant_asked", applicant.c.status, applicant.c.asked_ms)

member = _table(
    "member",
    Column("key", LargeBinary, primary_key=True),
    Column("entity", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("issuer_nonce", LargeBinary, nullable=False),
    Column("serial", Int64, nullable=False),
    Column("quota_class", Int64, nullable=False),
    Column("credential", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("registered_ms", Int64, nullable=False),
)

identity = _table(
    "identity",
    Column("entity", Text, ForeignKey("member.entity"), primary_key=True),
    Column("person", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
Index("identity_person", identity.c.person)

purchase_order = _table(
    "purchase_order",
    Column("id", LargeBinary, primary_key=True),
    Column("client", LargeBinary, nullable=False),
    Column("entity", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("status", Text, nullable=False),
    Column("expires_ms", Int64, nullable=False),
    Column("made_ms", Int64, nullable=False),
    CheckConstraint("status IN ('open', 'closing', 'closed')", name="purchase_order_status"),
)
Index("purchase_order_client", purchase_order.c.client, purchase_order.c.made_ms)
Index("purchase_order_due", purchase_order.c.status, purchase_order.c.expires_ms)

reservation = _table(
    "reservation",
    Column("id", LargeBinary, primary_key=True),
    Column("purchase_order", LargeBinary, ForeignKey("purchase_order.id"), nullable=False),
    Column("server", LargeBinary, nullable=False),
    Column("server_entity", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("amount_nano", Int64, nullable=False),
    Column("rate_cap_nano_per_hour", Int64, nullable=False),
    Column("captured_nano", Int64, nullable=False),
    Column("made_ms", Int64, nullable=False),
    Column("lease_until_ms", Int64, nullable=False),
    Column("status", Text, nullable=False),
    CheckConstraint("captured_nano >= 0 AND captured_nano <= amount_nano", name="reservation_captured"),
    CheckConstraint("status IN ('live', 'released')", name="reservation_status"),
)
Index("reservation_order", reservation.c.purchase_order, reservation.c.made_ms)
Index("reservation_due", reservation.c.status, reservation.c.lease_until_ms)

progress = _table(
    "progress",
    Column("reservation", LargeBinary, ForeignKey("reservation.id"), primary_key=True),
    Column("claim", LargeBinary, nullable=False),
    Column("claim_raw", LargeBinary, nullable=False),
    Column("cosigned_nano", Int64, nullable=False),
    Column("tail_due_ms", Int64),
)
Index("progress_tail", progress.c.tail_due_ms)

settlement = _table(
    "settlement",
    Column("claim", LargeBinary, primary_key=True),
    Column("reservation", LargeBinary, ForeignKey("reservation.id"), nullable=False),
    Column("server", LargeBinary, nullable=False),
    Column("raw", LargeBinary, nullable=False),
)

usage_seen = _table(
    "usage_seen",
    Column("agreement", LargeBinary, primary_key=True),
    Column("seq", Int64, primary_key=True),
    Column("usage", LargeBinary, nullable=False),
    Column("raw", LargeBinary, nullable=False),
)

fraud_proof = _table(
    "fraud_proof",
    Column("id", Text, primary_key=True),
    Column("suspect", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("first", LargeBinary, nullable=False),
    Column("second", LargeBinary, nullable=False),
    Column("noted_ms", Int64, nullable=False),
)

outage = _table(
    "outage",
    Column("began_ms", Int64, primary_key=True),
    Column("ended_ms", Int64, nullable=False),
)

heartbeat = _table(
    "heartbeat",
    Column("id", Int64, primary_key=True),
    Column("seen_ms", Int64, nullable=False),
)
