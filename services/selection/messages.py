"""Wire types of the selection service."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from feature_store.cohort_settings import CohortSettings
from models.study_settings import StudySettings


class SelectRequest(BaseModel):
    """Which patients' features to select from, and by which recipe (the selection part of the study settings)."""

    model_config = ConfigDict(extra="forbid")

    cohort: CohortSettings = CohortSettings(name="default")
    study: StudySettings = Field(default_factory=StudySettings)
    robustness: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="content hash of a robustness table kept among the artefacts"
    )
