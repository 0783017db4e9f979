"""The database's history, for Alembic; packaged, and run by `xenonode.corp.database` only when told to."""
