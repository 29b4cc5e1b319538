"""The day of the surgery, said after the images came: imaging days are counted from it from then on."""

from __future__ import annotations

from datetime import date
from typing import Any, Protocol

from feature_store.control import CaseState
from feature_store.errors import Conflict, NotReady, PatientErased
from feature_store.schemas import CASES, SERIES
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from services.ingest.messages import DayOfSurgery, ImagingDays
from services.ingest.versions import versions

TRIES = 20


class SurgeryDates(Protocol):
    """Who still has the images' own dates, as the door for DICOM may."""

    def set_index_date(self, site: str, patient_id: str, day: date) -> bool:
        """Count a case's days from ``day``; False where its images' dates are not known here either."""


class Surgery:
    """Moves the imaging days of a case. No calendar date is stored."""

    def __init__(self, store: FeatureStore, dates: SurgeryDates | None = None) -> None:
        self._store, self._dates = store, dates

    def put(self, case: CaseState, said: DayOfSurgery) -> ImagingDays:
        """Raises NotReady before the images are here, and where only a date was said and theirs are not known."""
        if said.days is not None:
            self._move(case, said.days)
        elif self._dates is None or not self._dates.set_index_date(case.site, case.patient_id, _day(said)):
            raise NotReady(
                "The images' dates are not kept, so a date alone says nothing.",
                action="Send newest_image_date with it, or days_after_newest_image.",
            )
        return self.days(case)

    def days(self, case: CaseState) -> ImagingDays:
        """As the store has them now, with every revision."""
        snapshot = self._store.snapshot()
        told = versions(snapshot, "series", case)
        for one in told.history:
            one.values = {name: value for name, value in one.values.items() if name in ("sequence", "days_from_index")}
        return ImagingDays(
            case_id=case.case_id,
            index_date_known=any(row["index_date_known"] for row in _rows(snapshot, "cases", case)),
            days_from_index={row["sequence"]: row["days_from_index"] for row in told.current},
            history=told.history,
        )

    def _move(self, case: CaseState, days_after_newest: int) -> None:
        where = {"site": case.site, "patient_id": case.patient_id}
        for attempt in range(TRIES):
            snapshot = self._store.snapshot()
            rows, series = _rows(snapshot, "cases", case), _rows(snapshot, "series", case)
            if not rows:
                raise NotReady("The case has no images yet.", action="Wait until it is validated.")
            days = [row["days_from_index"] for row in series if row["days_from_index"] is not None]
            move = -days_after_newest - max(days, default=0)
            for row in series:
                if row["days_from_index"] is not None:
                    row["days_from_index"] += move
            try:
                self._store.push(
                    {CASES.name: [{**row, "index_date_known": True} for row in rows], SERIES.name: series},
                    kind="index_date",
                    source=case.site,
                    unless_changed={"cases": where, "series": where} if attempt < TRIES - 1 else (),
                    since=snapshot.sequence,
                )
            except PatientErased:
                raise
            except Conflict:
                continue
            return


def _day(said: DayOfSurgery) -> date:
    assert said.index_date is not None
    return said.index_date


def _rows(snapshot: Snapshot, table: str, case: CaseState) -> list[dict[str, Any]]:
    schema = CASES if table == "cases" else SERIES
    where = {"site": case.site, "patient_id": case.patient_id, "case_id": case.case_id}
    found: list[dict[str, Any]] = snapshot.table(table, list(schema.column_names), where=where).to_pylist()
    return found
