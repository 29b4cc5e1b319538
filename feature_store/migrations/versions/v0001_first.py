"""The tables there were before there were migrations; of a database of that time, what is missing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Case states, leases, credentials, score log."""
    there = set(sa.inspect(op.get_bind()).get_table_names())
    if "case_states" not in there:
        op.create_table(
            "case_states",
            sa.Column("site", sa.String(200), primary_key=True),
            sa.Column("case_id", sa.String(64), primary_key=True),
            sa.Column("patient_id", sa.String(200), nullable=False),
            sa.Column("state", sa.String(20), nullable=False),
            sa.Column("reasons", sa.JSON, nullable=False),
            sa.Column("changed_at", sa.Float, nullable=False),
        )
    op.create_index("case_states_by_id", "case_states", ["case_id"], if_not_exists=True)
    if "leases" not in there:
        op.create_table(
            "leases",
            sa.Column("name", sa.String(200), primary_key=True),
            sa.Column("holder", sa.String(200), nullable=False),
            sa.Column("expires_at", sa.Float, nullable=False),
        )
    if "credentials" not in there:
        op.create_table(
            "credentials",
            sa.Column("name", sa.String(200), primary_key=True),
            sa.Column("role", sa.String(20), nullable=False),
            sa.Column("site", sa.String(200)),
            sa.Column("key_hash", sa.String(64), nullable=False),
            sa.Column("created_at", sa.Float, nullable=False),
            sa.UniqueConstraint("key_hash"),
        )
    if "score_log" not in there:
        op.create_table(
            "score_log",
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("score_id", sa.String(64), nullable=False, unique=True),
            sa.Column("row", sa.Text, nullable=False),
        )
