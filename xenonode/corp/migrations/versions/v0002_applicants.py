"""Applicants who wait for the operator's word; and when each reply was made, so that old ones can go."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Int64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table, and date the replies that are there as of now, since nobody noted when they were made."""
    op.create_table(
        "applicant",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("asked_ms", Int64, nullable=False),
        sa.CheckConstraint("status IN ('waiting', 'refused')", name="applicant_status"),
        sqlite_strict=True,
    )
    op.create_index("applicant_place", "applicant", ["place", "asked_ms"])
    op.create_index("applicant_asked", "applicant", ["status", "asked_ms"])
    op.add_column("reply", sa.Column("made_ms", Int64, nullable=False, server_default=sa.text("0")))
    op.execute("UPDATE reply SET made_ms = CAST(strftime('%s', 'now') AS INTEGER) * 1000")
    op.create_index("reply_made", "reply", ["made_ms"])
