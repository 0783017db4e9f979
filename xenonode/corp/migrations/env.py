"""Alembic's environment: it runs migrations on the connection that `xenonode.corp.database` hands over."""

from __future__ import annotations

from alembic import context

from xenonode.corp.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()
