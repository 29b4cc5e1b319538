"""What a DICOM header says that a case keeps, or is checked against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class SeriesHeader:
    """``study_date`` is turned into an offset at the door; ``frame_of_reference`` is compared with a mask's own.

    Neither of the two is ever stored.
    """

    modality: str = ""
    study_date: date | None = None
    vendor: str | None = None
    model: str | None = None
    field_strength_t: float | None = None
    series_number: int | None = None
    frame_of_reference: str = ""
