"""Tables of the control database: what is under way, who may ask, who did what, and answers not yet in the store.

A change here needs its step in :mod:`feature_store.migrations`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Metadata of the control database."""


class CaseRow(Base):
    """Where a case is on its way through the house."""

    __tablename__ = "case_states"
    site: Mapped[str] = mapped_column(String(200), primary_key=True)
    case_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient_id: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20))
    reasons: Mapped[list[str]] = mapped_column(JSON)
    changed_at: Mapped[float] = mapped_column(Float)
    __table_args__ = (Index("case_states_by_id", "case_id"),)


class CaseEventRow(Base):
    """A state that a case came into, and when (seconds since 1970): its history."""

    __tablename__ = "case_history"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    site: Mapped[str] = mapped_column(String(200))
    case_id: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(20))
    reasons: Mapped[list[str]] = mapped_column(JSON)
    at: Mapped[float] = mapped_column(Float)
    __table_args__ = (Index("case_history_by_case", "site", "case_id"),)


class UploadRow(Base):
    """An upload on its way to being a case (:mod:`feature_store.uploads`)."""

    __tablename__ = "uploads"
    upload_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    site: Mapped[str] = mapped_column(String(200))
    sender: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20))
    length: Mapped[int | None] = mapped_column(BigInteger)
    held: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    case_id: Mapped[str | None] = mapped_column(String(64))
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    holds: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int | None] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column()
    accepted_at: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[float] = mapped_column(Float)
    changed_at: Mapped[float] = mapped_column(Float)
    __table_args__ = (
        Index("uploads_by_bytes", "site", "sha256"),
        Index("uploads_by_case", "case_id"),
        Index("uploads_by_state", "state"),
    )


class LeaseRow(Base):
    """Who does a job that only one may do, and until when (seconds since 1970)."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    holder: Mapped[str] = mapped_column(String(200))
    expires_at: Mapped[float] = mapped_column(Float)


class CredentialRow(Base):
    """A key is kept as its SHA-256 only."""

    __tablename__ = "credentials"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    site: Mapped[str | None] = mapped_column(String(200))
    key_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Float)
    __table_args__ = (UniqueConstraint("key_hash"),)


class ScoreRow(Base):
    """Write-ahead log of answers: kept here at once, flushed to the table `scores` in batches."""

    __tablename__ = "score_log"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    score_id: Mapped[str] = mapped_column(String(64), unique=True)
    row: Mapped[str] = mapped_column(Text)


class AuditRow(Base):
    """One act (:mod:`feature_store.audit`). Patient, case and salt go when the patient is erased; nothing else ever."""

    __tablename__ = "audit_log"
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at_us: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20))
    of_site: Mapped[str | None] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(60))
    site: Mapped[str | None] = mapped_column(String(200))
    patient_id: Mapped[str | None] = mapped_column(String(200))
    case_id: Mapped[str | None] = mapped_column(String(64))
    salt: Mapped[str | None] = mapped_column(String(32))
    outcome: Mapped[str] = mapped_column(String(200))
    details: Mapped[str] = mapped_column(Text)
    subject_hash: Mapped[str | None] = mapped_column(String(64))
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))
    __table_args__ = (Index("audit_log_by_patient", "site", "patient_id"),)


class ScheduleRow(Base):
    """A retraining that is called by the clock, and what its last call did."""

    __tablename__ = "schedules"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    cron: Mapped[str] = mapped_column(String(100))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    added_by: Mapped[str] = mapped_column(String(200))
    added_at: Mapped[float] = mapped_column(Float)
    last_at: Mapped[float | None] = mapped_column(Float)
    last_decision: Mapped[str | None] = mapped_column(String(60))
    last_reason: Mapped[str | None] = mapped_column(Text)
    last_run: Mapped[str | None] = mapped_column(String(64))


class RunProgressRow(Base):
    """How far a run is, and whether somebody wants it stopped."""

    __tablename__ = "run_progress"
    run_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    step: Mapped[str] = mapped_column(String(200))
    fraction: Mapped[float] = mapped_column(Float)
    changed_at: Mapped[float] = mapped_column(Float)
    cancel: Mapped[bool] = mapped_column(Boolean)
