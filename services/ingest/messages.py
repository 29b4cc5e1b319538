"""Wire types of the ingest service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from feature_store.vocabulary import DISCS
from pipelines.cases.manifest_schema import CalendarDate
from pipelines.cases.plain_manifest import plain_rater


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


class Ticket(BaseModel):
    """An upload was taken; what becomes of the case is followed by its id."""

    case_id: str
    site: str
    state: str = Field(description="as in CaseStatus")
    upload_id: str
    known: bool = Field(description="true: the same bytes were here already, and nothing is stored anew")
    receipt: CaseReceipt | None = Field(None, description="where it was waited for")


class UploadStatus(BaseModel):
    """How far a resumable upload is, and what it became."""

    upload_id: str
    state: str = Field(description="open, complete, received, done or refused")
    offset: int = Field(description="bytes that are here")
    length: int | None
    case_id: str | None = None
    known: bool = Field(False, description="true: the same bytes were here already")
    refused: dict[str, str] | None = Field(None, description="error, message, action, file")


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
    state: str = Field(description="received, validated, extracted, rejected or withdrawn")
    reasons: list[str] = Field(default_factory=list)


class CasePage(BaseModel):
    """Some of the cases, by case id: a case that is pushed meanwhile moves none to another page."""

    cases: list[CaseStatus]
    next: str | None = Field(description="path and query of the next page; null: these were the last")


class CaseStep(BaseModel):
    """A state that a case came into."""

    state: str
    at: datetime
    reasons: list[str]


class CaseReport(CaseStatus):
    """The same with how it came there, and what became of the newest push of it over HTTP."""

    history: list[CaseStep]
    receipt: CaseReceipt | None = None


class Withdrawal(BaseModel):
    """A case taken back, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=200, description="for the record; no patient's name in it")


class Measurement(BaseModel):
    """One measurement of one disc level by one rater; units in the names."""

    model_config = ConfigDict(extra="forbid")

    days_from_index: int = Field(ge=-3650, le=36500, description="days since surgery; baseline grades: 0 or before")
    rater: Annotated[str, AfterValidator(plain_rater)] = Field(min_length=1, max_length=64)
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


class Reading(BaseModel):
    """What a surgeon predicted from the same preoperative material."""

    model_config = ConfigDict(extra="forbid")

    surgeon: Annotated[str, AfterValidator(plain_rater)] = Field(
        min_length=1, max_length=64, description="A, B, or C who adjudicates; no name"
    )
    prediction: Literal[0, 1] = Field(description="1 expects ASDeg")


class DayOfSurgery(BaseModel):
    """The surgery, where it was not known when the images came; no calendar date of it is kept.

    Either ``days_after_newest_image``; or ``index_date`` with ``newest_image_date``, from which the days follow. Of a
    case that came as DICOM, ``index_date`` alone will do.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    days_after_newest_image: int | None = Field(None, ge=0, le=3650)
    index_date: CalendarDate | None = None
    newest_image_date: CalendarDate | None = None

    @model_validator(mode="after")
    def _one_way(self) -> DayOfSurgery:
        if (self.days_after_newest_image is None) == (self.index_date is None):
            raise ValueError("give days_after_newest_image, or index_date")
        if self.newest_image_date is not None and self.index_date is None:
            raise ValueError("newest_image_date goes with index_date")
        if self.days is not None and not 0 <= self.days <= 3650:
            raise ValueError("the surgery must lie 0 to 3650 days after the newest image")
        return self

    @property
    def days(self) -> int | None:
        """Days from the newest image to the surgery; None where only the store's DICOM could tell."""
        if self.index_date is None:
            return self.days_after_newest_image
        return None if self.newest_image_date is None else (self.index_date - self.newest_image_date).days


class ImagingDays(BaseModel):
    """How the case's images lie to the surgery."""

    case_id: str
    index_date_known: bool = Field(description="false: days are counted from the newest image for the time being")
    days_from_index: dict[str, int | None] = Field(description="by sequence; 0 or before")
    history: list[Version] = Field(default_factory=list)


class Said(BaseModel):
    """What a site said of a case by itself is stored."""

    case_id: str
    unchanged: bool = Field(description="true: the store held exactly this")


class TableReceipt(BaseModel):
    """What became of a table of many patients."""

    patients: int
    rows: int = Field(description="that could be used")
    unchanged: bool
    findings: list[Finding] = Field(default_factory=list, description="rows that could not be used")


class Version(BaseModel):
    """A revision of one row: which push brought it, and when."""

    push: int
    at: datetime
    by: str = Field(description="kind of push: case, outcome, clinical (columns, again), reads, …")
    withdrawn: bool
    values: dict[str, Any]


class Versions(BaseModel):
    """Rows of a case as they stand, and every revision that led there, oldest first."""

    case_id: str
    current: list[dict[str, Any]]
    history: list[Version]
