"""Uploads under way, and the history of every case's state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Two tables with their indices."""
    op.create_table(
        "case_history",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("site", sa.String(200), nullable=False),
        sa.Column("case_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("case_history_by_case", "case_history", ["site", "case_id"])
    op.create_table(
        "uploads",
        sa.Column("upload_id", sa.String(64), primary_key=True),
        sa.Column("site", sa.String(200), nullable=False),
        sa.Column("sender", sa.String(200), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("length", sa.BigInteger),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("case_id", sa.String(64)),
        sa.Column("answer", sa.JSON),
        sa.Column("holds", sa.String(64)),
        sa.Column("size", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("accepted_at", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
    )
    op.create_index("uploads_by_bytes", "uploads", ["site", "sha256"])
    op.create_index("uploads_by_case", "uploads", ["case_id"])
    op.create_index("uploads_by_state", "uploads", ["state"])
