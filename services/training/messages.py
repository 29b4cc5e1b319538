"""Wire types of the training service."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_store.cohort_settings import CohortSettings
from models.evaluation.gates import GateSettings
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


class RetrainRequest(BaseModel):
    """What to train on when something is new, and whether the result may be released without asking."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cohort: CohortSettings = CohortSettings(name="default")
    study: StudySettings = Field(default_factory=StudySettings)
    release: bool = Field(False, description="release what is through every gate; otherwise it stays a candidate")
    first_release: Literal["person", "gates"] = Field(
        "person", description="who decides while nothing of a kind is released that it could be compared with"
    )
    gates: GateSettings = GateSettings()


class RetrainAnswer(BaseModel):
    """What a retraining did, and every gate's figure and reason."""

    decision: Literal["busy", "nothing_new", "candidate", "released"]
    reason: str
    run_id: str | None = None
    cohort: str | None = None
    version: int | None = None
    phantom: bool = Field(False, description="whether the patients are made up: no figure is a clinical one")
    looks: int | None = Field(
        None,
        description="finished runs that had shown figures of the cohort's held-out patients, this one included",
    )
    looks_by_partition: dict[str, int] = Field(default_factory=dict, description="the same by held-out partition")
    released: list[str] = Field(default_factory=list, description="signature kinds")
    gates: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)


class ScheduleRequest(BaseModel):
    """A retraining to be called by the clock."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    cron: str = Field(max_length=200, description="minute hour day month weekday, in UTC; 0 and 7 are Sunday")
    retrain: RetrainRequest = RetrainRequest()


class ScheduleEntry(BaseModel):
    """A schedule as it stands; ``last_*`` are null until it was called."""

    name: str
    cron: str
    retrain: dict[str, Any] = Field(description="what is retrained, as it was given")
    added_by: str
    added_at: datetime
    next_at: datetime | None
    last_at: datetime | None
    last_decision: str | None
    last_reason: str | None
    last_run: str | None


class LockedLook(BaseModel):
    """One look at the patients who were set aside."""

    look_id: str
    look: int = Field(description="how often the store's locked patients had been looked at, this time included")
    run_id: str
    cohort: str
    version: int
    figures: dict[str, Any] = Field(description="signature kind to its measures, as in metrics.json")
    phantom: bool = Field(description="whether the patients are made up: no figure is a clinical one")
    reason: str
    looked_by: str
    looked_at: datetime


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
