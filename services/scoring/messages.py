"""Wire types of the scoring service."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from feature_store.vocabulary import PHANTOM_NOTICE, RESEARCH_USE, is_phantom


class ScoreRequest(BaseModel):
    """Whose risk is asked for."""

    model_config = ConfigDict(extra="forbid")

    site: str = Field(min_length=1, max_length=64)
    patient_id: str = Field(min_length=1, max_length=128, description="the pseudonym the site pushed the case under")


class Mover(BaseModel):
    """A feature and how far it moved this patient's risk."""

    name: str
    effect: float = Field(description="change of the log-odds against the training median; positive raises the risk")


class ScoreAnswer(BaseModel):
    """The risk of high-risk ASDeg for one patient."""

    score_id: str
    kind: Literal["rad", "dl", "combined"]
    site: str
    patient_id: str
    probability: float = Field(ge=0, le=1, description="calibrated risk")
    high_risk: bool = Field(description="probability at or above the threshold")
    threshold: float = Field(ge=0, le=1)
    risk_interval: tuple[float, float] | None = Field(
        None,
        description="uncertainty of the risk: 95 % interval over refits of the whole signature on redrawn patients; "
        "null where the signature was trained without (`bootstraps`), or one of them has too little of the patient",
    )
    signature: str = Field(description="version of the signature: its content hash")
    moved_by: list[Mover] = Field(description="the five features that moved the risk most")
    as_of: int = Field(description="push sequence of the store the features were read at")
    asked_at: datetime
    case_since: Literal["corrected", "withdrawn"] | None = Field(
        None, description="what became of the case since then: the answer rests on what no longer stands"
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def research_use(self) -> str:
        """What the answer may be used for."""
        return f"{PHANTOM_NOTICE} {RESEARCH_USE}" if is_phantom(self.patient_id) else RESEARCH_USE


class Readiness(BaseModel):
    """Whether scores can be asked for, and by which signatures they are answered."""

    ready: bool
    signatures: dict[str, str] = Field(description="signature kind to the content hash that is current")
    research_use: str = RESEARCH_USE
