"""What Alembic runs: the migrations of the control database, on the connection that it is handed."""

from __future__ import annotations

from alembic import context

from feature_store.control_tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
