"""Schedules of retraining, and how far a run is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Two tables."""
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("cron", sa.String(100), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("added_by", sa.String(200), nullable=False),
        sa.Column("added_at", sa.Float, nullable=False),
        sa.Column("last_at", sa.Float),
        sa.Column("last_decision", sa.String(60)),
        sa.Column("last_reason", sa.Text),
        sa.Column("last_run", sa.String(64)),
    )
    op.create_table(
        "run_progress",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("step", sa.String(200), nullable=False),
        sa.Column("fraction", sa.Float, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("cancel", sa.Boolean, nullable=False),
    )
