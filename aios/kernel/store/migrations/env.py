"""Run by Alembic, never imported: applies the migrations on the connection that `migrate.py` hands over."""

from alembic import context

from aios.kernel.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
