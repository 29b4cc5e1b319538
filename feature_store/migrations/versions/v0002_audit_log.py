"""The audit log, which the database itself keeps append-only: what a row is about may be forgotten, nothing else."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

FIXED = [
    "number",
    "at_us",
    "name",
    "role",
    "of_site",
    "action",
    "site",
    "outcome",
    "details",
    "subject_hash",
    "previous",
    "hash",
]


def upgrade() -> None:
    """Table, index, and the triggers that refuse what is no append."""
    op.create_table(
        "audit_log",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("of_site", sa.String(200)),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("site", sa.String(200)),
        sa.Column("patient_id", sa.String(200)),
        sa.Column("case_id", sa.String(64)),
        sa.Column("salt", sa.String(32)),
        sa.Column("outcome", sa.String(200), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("subject_hash", sa.String(64)),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("audit_log_by_patient", "audit_log", ["site", "patient_id"])
    if op.get_bind().dialect.name == "postgresql":
        changed = " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in FIXED)
        op.execute(
            "CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF TG_OP = 'UPDATE' AND NEW.salt IS NULL AND NEW.patient_id IS NULL AND NEW.case_id IS NULL "
            f"AND NOT ({changed}) THEN RETURN NEW; END IF; "
            "RAISE EXCEPTION 'the audit log is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log "
            "FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()"
        )
        return
    changed = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in FIXED)
    refuse = "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    op.execute(f"CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log {refuse}")
    op.execute(
        "CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log WHEN NOT (NEW.salt IS NULL "
        f"AND NEW.patient_id IS NULL AND NEW.case_id IS NULL) OR {changed} {refuse}"
    )
