"""What a ``case.yaml`` may hold: strict models whose bounds are those of the tables.

An unknown key, a missing one, a wrong type, or a value outside its bounds is refused by pydantic;
:mod:`pipelines.cases.manifest` turns that into our errors.
"""

from __future__ import annotations

import hashlib
import math
from datetime import date
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from feature_store.schemas import CLINICAL, SERIES, TableSchema
from feature_store.vocabulary import DISCS, PRIMARY_SEGMENTATION, SEQUENCE_PATTERN
from pipelines.cases.label_map import LabelMap
from pipelines.cases.label_meaning import LabelMeaning, LabelNumber, Strict, one_of

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def case_id(site: str, patient_id: str) -> str:
    """Stable id of a patient's preoperative study: 16 hex digits of SHA-256 over site and patient."""
    return hashlib.sha256(f"{site}\n{patient_id}".encode()).hexdigest()[:16]


def _calendar_date(value: object) -> object:
    """YAML gives a date, or text where it was quoted."""
    if type(value) is date:
        day = value
    elif isinstance(value, str) and len(value) == 10:
        try:
            day = date.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a calendar date written as 2024-05-31") from None
    elif value is None:
        return None
    else:
        raise ValueError("must be a calendar date written as 2024-05-31")
    if not 1980 <= day.year <= 2100:
        raise ValueError("must lie between the years 1980 and 2100")
    return day


def inside(value: str) -> str:
    """A path inside the case folder, as text. Raises ValueError with the rule."""
    path = PurePosixPath(value)
    if not value or path.is_absolute() or "\\" in value or ":" in value or "\0" in value or ".." in path.parts:
        raise ValueError("must be a path inside the case folder, with / between its parts and never upwards")
    if len(value) > 400 or any(len(part.encode()) > 255 for part in path.parts):
        raise ValueError("must be a shorter path")
    return value


def _sequence(value: str) -> str:
    if not SEQUENCE_PATTERN.match(value):
        raise ValueError("must be lower case letters, digits and _, such as ct, t2_sag or dixon_water_ax")
    return value


def _check_column(table: TableSchema, name: str, value: Any) -> Any:
    """The rules the table's schema declares for that column: bounds with their unit, allowed values."""
    column = next(column for column in table.columns if column.name == name)
    if value is None:
        return value
    if column.low is not None or column.high is not None:
        low = -math.inf if column.low is None else column.low
        high = math.inf if column.high is None else column.high
        if not low <= value <= high:
            unit = f" {column.unit}" if column.unit else ""
            raise ValueError(f"must lie between {low:g} and {high:g}{unit} (is the unit right?)")
    if column.values and value not in column.values:
        raise ValueError(f"must be one of {', '.join(column.values)}")
    return value


CalendarDate = Annotated[date, BeforeValidator(_calendar_date)]
InnerPath = Annotated[str, AfterValidator(inside)]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Clinical(Strict):
    """Baseline variables, all known before surgery; bounds and allowed values are those of the table."""

    age: float | None = None
    sex: str | None = None
    bmi: float | None = None
    surgical_segments: int | None = None
    fused_levels: list[Annotated[str, one_of(*DISCS)]] | None = None
    osteoporosis: bool | None = None
    diagnosis: Text | None = None
    procedure: Text | None = None
    prior_surgery: bool | None = None
    infection_or_tumour: bool | None = None
    image_quality: str | None = None

    @field_validator("*")
    @classmethod
    def _as_declared(cls, value: Any, info: ValidationInfo) -> Any:
        return _check_column(CLINICAL, str(info.field_name), value)

    @field_validator("fused_levels")
    @classmethod
    def _agrees_with_segments(cls, value: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if value is None:
            return None
        if not value or len(set(value)) != len(value):
            raise ValueError("must name each fused disc once")
        if not levels_agree(info.data.get("surgical_segments"), value):
            raise ValueError("must name as many discs as surgical_segments says")
        return value


def levels_agree(surgical_segments: int | None, fused_levels: list[str] | None) -> bool:
    """Whether as many discs are named as segments were operated on; of what is not known nothing is said."""
    return surgical_segments is None or fused_levels is None or len(fused_levels) == surgical_segments


class Scanner(Strict):
    """The batch for harmonisation; read from the DICOM header where there is one."""

    vendor: Text | None = None
    model: Text | None = None
    field_strength_t: float | None = None

    @field_validator("field_strength_t")
    @classmethod
    def _as_declared(cls, value: float | None) -> float | None:
        return _check_column(SERIES, "field_strength_t", value)


class SeriesEntry(Strict):
    """One image with at most one mask. Entries may share a sequence and image: several masks, or repeats.

    What the mask's numbers mean stands in ``labels``, or in ``label_map`` where case.yaml names one there.
    """

    sequence: Annotated[str, AfterValidator(_sequence)]
    image: InnerPath
    series_number: Annotated[int, Field(ge=0)] | None = None  # which series of a DICOM folder, where several fit
    mask: InnerPath | None = None
    segmentation: Annotated[str, Field(pattern=_NAME)] = PRIMARY_SEGMENTATION
    labels: dict[LabelNumber, LabelMeaning] = Field(default_factory=dict)
    label_map: LabelMap | None = None
    study_date: CalendarDate | None = None
    scanner: Scanner = Scanner()

    @model_validator(mode="after")
    def _mask_with_labels(self) -> SeriesEntry:
        if self.mask is not None and not self.labels and self.label_map is None:
            raise ValueError("has a mask but no labels that say what its numbers mean")
        if self.mask is None and (self.labels or self.label_map):
            raise ValueError("has labels but no mask")
        return self


class CaseManifest(Strict):
    """A whole ``case.yaml``."""

    patient_id: Annotated[str, Field(pattern=_NAME)]
    site: Annotated[str, Field(pattern=_NAME)]
    index_date: CalendarDate | None = None
    clinical: Clinical = Clinical()
    series: list[SeriesEntry]

    @property
    def case_id(self) -> str:
        return case_id(self.site, self.patient_id)

    def without_dates(self) -> CaseManifest:
        """The same without any calendar date, as it may be passed on."""
        series = [entry.model_copy(update={"study_date": None}) for entry in self.series]
        return self.model_copy(update={"index_date": None, "series": series})
