"""Wire types of the selection service."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from models.study_settings import StudySettings
from services.cohort_plan import CohortPlan


class SelectRequest(BaseModel):
    """Which patients' features to select from, and by which recipe (the selection part of the study settings)."""

    model_config = ConfigDict(extra="forbid")

    cohort: CohortPlan = Field(default_factory=CohortPlan)
    study: StudySettings = Field(default_factory=StudySettings)
