"""Wire types of the ingest service."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from feature_store.errors import FollowUpError
from feature_store.schemas import FOLLOW_UP
from feature_store.vocabulary import DISCS


class Finding(BaseModel):
    """Something that could not be used, and what to do; the rest of the case stays usable."""

    code: str = Field(description="stable name, such as GridMismatch")
    file: str = Field(description="file inside the case folder, or row of the table")
    message: str
    action: str


class CaseReceipt(BaseModel):
    """What became of one case."""

    case_id: str
    site: str
    state: str = Field(description="received, validated, extracted or rejected")
    unchanged: bool = Field(description="true: everything was here already and nothing was stored")
    sequences: list[str] = Field(description="sequences that can be used")
    rois: int = Field(description="regions of interest found")
    findings: list[Finding] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list, description="what does not exist though nothing is wrong")
    quality_warnings: int = Field(0, description="images and regions that quality control has a remark on")
    quality_failures: int = Field(0, description="images and regions that failed it and will not be extracted")


class QualityVerdict(BaseModel):
    """What quality control says of one image or one region of it."""

    site: str
    case_id: str
    sequence: str
    segmentation: str
    roi: str = Field(description="structure, level and side; empty where the verdict is on the image as a whole")
    verdict: str = Field(description="pass, warn or fail; a region that failed, or whose image did, is not extracted")
    reasons: list[str] = Field(description="`Code: sentence` with the number measured and its bound, gravest first")
    measured: dict[str, float | int | str] = Field(description="what was measured, units in the names")
    quality_settings: str = Field(description="name and hash of the bounds it was judged by")


class CaseStatus(BaseModel):
    """Where a case is on its way."""

    case_id: str
    site: str
    state: str
    reasons: list[str] = Field(default_factory=list)


class Withdrawal(BaseModel):
    """A case taken back, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=200, description="for the record; no patient's name in it")


class Measurement(BaseModel):
    """One measurement of one disc level by one rater; units in the names."""

    model_config = ConfigDict(extra="forbid")

    days_from_index: int = Field(ge=-3650, le=36500, description="days since surgery; baseline grades: 0 or before")
    rater: str = Field(min_length=1, max_length=64)
    level: str = Field(description="disc, for example L3-L4")
    spondylolisthesis_mm: float | None = Field(None, ge=0, le=60)
    angular_motion_deg: float | None = Field(None, ge=0, le=90)
    disc_height_loss_pct: float | None = Field(None, ge=-100, le=100)
    ucla: int | None = Field(None, ge=1, le=4)
    pfirrmann: int | None = Field(None, ge=1, le=5)

    @field_validator("level")
    @classmethod
    def _a_disc(cls, value: str) -> str:
        if value not in DISCS:
            raise ValueError("must be a disc, for example L3-L4")
        return value


class OutcomeReceipt(BaseModel):
    """The label that follows from all measurements of a patient."""

    case_id: str
    outcome: int | None = Field(description="1 ASDeg, 0 none, null unknown")
    incident: int | None = Field(description="the same without what was there before surgery")
    criteria: list[str]
    reason: str
    rule: str
    unchanged: bool


class OutcomesReceipt(BaseModel):
    """What became of a table of measurements."""

    patients: int
    measurements: int = Field(description="rows that could be used")
    unchanged: bool
    positive: int
    negative: int
    unknown: int
    findings: list[Finding] = Field(default_factory=list, description="rows that could not be used")


def parse_measurement(row: dict[str, object], where: str) -> Measurement:
    """A measurement from a row of text or JSON. Raises FollowUpError naming the column and rule, never the value."""
    try:
        return Measurement.model_validate({name: None if value == "" else value for name, value in row.items()})
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        rules = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in found)
        raise FollowUpError(
            f"{rules}.", action=f"Columns are {', '.join(FOLLOW_UP.column_names[1:])}.", file=where
        ) from None
