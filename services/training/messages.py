"""Wire types of the training service."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_store.cohort_settings import CohortSettings
from models.study_settings import StudySettings

Kind = Literal["rad", "dl", "combined"]


class TrainRequest(BaseModel):
    """What to train on and how."""

    model_config = ConfigDict(extra="forbid")

    cohort: CohortSettings = CohortSettings(name="default")
    study: StudySettings = Field(default_factory=StudySettings)
    selection_run: str | None = Field(
        None,
        description="a finished selection run: its cohort, feature sets, robustness table and recipe are taken over",
    )
    robustness: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="content hash of a robustness table kept among the artefacts"
    )


class ReleaseRequest(BaseModel):
    """Exactly one of: release a run, roll a kind (or `all`) back, recall a signature."""

    model_config = ConfigDict(extra="forbid")

    run_id: str | None = Field(None, description="release the signatures of this run")
    rollback: Literal["rad", "dl", "combined", "all"] | None = None
    recall: str | None = Field(None, min_length=8, description="content hash, or at least its first 8 digits")
    reason: str | None = Field(None, max_length=500)

    @model_validator(mode="after")
    def _one(self) -> ReleaseRequest:
        if sum(value is not None for value in (self.run_id, self.rollback, self.recall)) != 1:
            raise ValueError("give exactly one of run_id, rollback and recall")
        return self


class ReleaseEntry(BaseModel):
    """One line of the history of releases."""

    release_id: str
    kind: Kind
    signature: str | None = Field(description="what is current after this; null: nothing")
    run_id: str | None
    recalled: str | None = None
    action: Literal["release", "rollback", "recall"]
    reason: str | None
    released_by: str
    released_at: datetime
    current: bool
