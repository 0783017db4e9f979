"""The first schema: ledger, members, orders, reservations, claims."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Int64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make every table, and the triggers that keep what is booked as it is."""
    op.create_table(
        "account",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("entity", sa.Text),
        sa.Column("debits_nano", Int64, nullable=False),
        sa.Column("credits_nano", Int64, nullable=False),
        sa.UniqueConstraint("id", "currency", name="account_currency"),
        sa.CheckConstraint("debits_nano >= 0 AND credits_nano >= 0", name="account_sides"),
        sa.CheckConstraint("kind = 'external' OR debits_nano <= credits_nano", name="account_not_below_zero"),
        sqlite_strict=True,
    )
    op.create_index("account_entity", "account", ["entity", "currency"])
    op.create_table(
        "transfer",
        sa.Column("sequence", Int64, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("debit", sa.Text, nullable=False),
        sa.Column("credit", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("amount_nano", Int64, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("posted_ms", Int64, nullable=False),
        sa.ForeignKeyConstraint(["debit", "currency"], ["account.id", "account.currency"], name="transfer_debit"),
        sa.ForeignKeyConstraint(["credit", "currency"], ["account.id", "account.currency"], name="transfer_credit"),
        sa.CheckConstraint("amount_nano > 0", name="transfer_positive"),
        sa.CheckConstraint("debit <> credit", name="transfer_two_accounts"),
        sqlite_strict=True,
    )
    op.create_index("transfer_by_debit", "transfer", ["debit", "sequence"])
    op.create_index("transfer_by_credit", "transfer", ["credit", "sequence"])
    op.create_table(
        "reply",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "member",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("entity", sa.Text, nullable=False, unique=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("issuer_nonce", sa.LargeBinary, nullable=False),
        sa.Column("serial", Int64, nullable=False),
        sa.Column("quota_class", Int64, nullable=False),
        sa.Column("credential", sa.LargeBinary, nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("registered_ms", Int64, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "identity",
        sa.Column("entity", sa.Text, sa.ForeignKey("member.entity"), primary_key=True),
        sa.Column("person", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("identity_person", "identity", ["person"])
    op.create_table(
        "purchase_order",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("client", sa.LargeBinary, nullable=False),
        sa.Column("entity", sa.Text, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("expires_ms", Int64, nullable=False),
        sa.Column("made_ms", Int64, nullable=False),
        sa.CheckConstraint("status IN ('open', 'closing', 'closed')", name="purchase_order_status"),
        sqlite_strict=True,
    )
    op.create_index("purchase_order_client", "purchase_order", ["client", "made_ms"])
    op.create_index("purchase_order_due", "purchase_order", ["status", "expires_ms"])
    op.create_table(
        "reservation",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("purchase_order", sa.LargeBinary, sa.ForeignKey("purchase_order.id"), nullable=False),
        sa.Column("server", sa.LargeBinary, nullable=False),
        sa.Column("server_entity", sa.Text, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("amount_nano", Int64, nullable=False),
        sa.Column("rate_cap_nano_per_hour", Int64, nullable=False),
        sa.Column("captured_nano", Int64, nullable=False),
        sa.Column("made_ms", Int64, nullable=False),
        sa.Column("lease_until_ms", Int64, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.CheckConstraint("captured_nano >= 0 AND captured_nano <= amount_nano", name="reservation_captured"),
        sa.CheckConstraint("status IN ('live', 'released')", name="reservation_status"),
        sqlite_strict=True,
    )
    op.create_index("reservation_order", "reservation", ["purchase_order", "made_ms"])
    op.create_index("reservation_due", "reservation", ["status", "lease_until_ms"])
    op.create_table(
        "progress",
        sa.Column("reservation", sa.LargeBinary, sa.ForeignKey("reservation.id"), primary_key=True),
        sa.Column("claim", sa.LargeBinary, nullable=False),
        sa.Column("claim_raw", sa.LargeBinary, nullable=False),
        sa.Column("cosigned_nano", Int64, nullable=False),
        sa.Column("tail_due_ms", Int64),
        sqlite_strict=True,
    )
    op.create_index("progress_tail", "progress", ["tail_due_ms"])
    op.create_table(
        "settlement",
        sa.Column("claim", sa.LargeBinary, primary_key=True),
        sa.Column("reservation", sa.LargeBinary, sa.ForeignKey("reservation.id"), nullable=False),
        sa.Column("server", sa.LargeBinary, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "usage_seen",
        sa.Column("agreement", sa.LargeBinary, primary_key=True),
        sa.Column("seq", Int64, primary_key=True),
        sa.Column("usage", sa.LargeBinary, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "fraud_proof",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("suspect", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("first", sa.LargeBinary, nullable=False),
        sa.Column("second", sa.LargeBinary, nullable=False),
        sa.Column("noted_ms", Int64, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "outage",
        sa.Column("began_ms", Int64, primary_key=True),
        sa.Column("ended_ms", Int64, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "heartbeat",
        sa.Column("id", Int64, primary_key=True),
        sa.Column("seen_ms", Int64, nullable=False),
        sqlite_strict=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        for statement in SQLITE_TRIGGERS:
            op.execute(statement)


SQLITE_TRIGGERS = (
    """CREATE TRIGGER transfer_no_update BEFORE UPDATE ON transfer
    BEGIN SELECT RAISE(ABORT, 'a transfer never changes'); END""",
    """CREATE TRIGGER transfer_no_delete BEFORE DELETE ON transfer
    BEGIN SELECT RAISE(ABORT, 'a transfer is never deleted'); END""",
    """CREATE TRIGGER account_no_delete BEFORE DELETE ON account
    BEGIN SELECT RAISE(ABORT, 'an account is never deleted'); END""",
    """CREATE TRIGGER account_only_grows BEFORE UPDATE ON account
    WHEN new.id <> old.id OR new.kind <> old.kind OR new.currency <> old.currency OR new.entity IS NOT old.entity
      OR new.debits_nano < old.debits_nano OR new.credits_nano < old.credits_nano
    BEGIN SELECT RAISE(ABORT, 'what was posted to an account never falls'); END""",
    """CREATE TRIGGER settlement_no_delete BEFORE DELETE ON settlement
    BEGIN SELECT RAISE(ABORT, 'a settlement is never deleted'); END""",
)
