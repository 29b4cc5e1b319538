"""What a site has said of a case by itself, which a later push of the same case does not undo.

The surgery's day may come after the images, and clinical variables are mended one by one. A nightly push of the
whole case, or a late piece of a study, says nothing new about them; only what it says differently from the push
before counts as a correction. What is said of a case that was accepted and is not carried out yet is the newer word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from feature_store.schemas import CLINICAL
from feature_store.snapshot import Snapshot
from pipelines.cases.case import CaseReading
from pipelines.cases.manifest_schema import Clinical

CASE_PUSH = "case"
"""The kind of a push that brings a whole case."""
SAID, MENDED, SAID_AGAIN = "clinical", "clinical columns", "clinical again"
"""Kinds of pushes of clinical variables: all that the site says of a case; some, beside what stood; the same again,
after a push of the case that had been accepted before them."""
VARIABLES = tuple(Clinical.model_fields)
_TOGETHER = {"surgical_segments", "fused_levels"}


def anchored(reading: CaseReading, snapshot: Snapshot) -> CaseReading:
    """The reading with its imaging days counted from the surgery, where the store knows of it and the case does not.

    While it is not known, days are counted from the newest image of the push. Images that are here already say how
    far that is from the surgery; where one's own day was mended, most of them. Without one, the surgery has to be said
    again; the reading's notes say so.
    """
    manifest = reading.manifest
    if manifest is None or reading.index_date_known:
        return reading
    where = {"site": manifest.site, "patient_id": manifest.patient_id, "case_id": manifest.case_id}
    if True not in snapshot.table("cases", ["index_date_known"], where=where)["index_date_known"].to_pylist():
        return reading
    rows = snapshot.table("series", ["image_hash", "days_from_index"], where=where).to_pylist()
    days = {row["image_hash"]: row["days_from_index"] for row in rows if row["days_from_index"] is not None}
    moves = Counter(
        days[one.image_hash] - one.days_from_index
        for one in reading.series
        if one.days_from_index is not None and one.image_hash in days
    ).most_common(2)
    if not days or all(one.days_from_index is None for one in reading.series):
        return replace(reading, index_date_known=True)
    if not moves or len({times for _, times in moves}) < len(moves):
        note = "the day of the surgery is no longer known, because the images' days changed: send it again"
        return replace(reading, notes=[*reading.notes, note])
    move = moves[0][0]
    series = [
        one if one.days_from_index is None else replace(one, days_from_index=one.days_from_index + move)
        for one in reading.series
    ]
    return replace(reading, series=series, index_date_known=True)


def said_since(snapshot: Snapshot, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The case's clinical variables where the site has sent them by themselves since the last push of the case, and
    ``row``, the case as it is pushed now, says the same as that push did, or (as DICOM does) nothing; else None."""
    revisions = _revisions(snapshot, row)
    if not revisions or revisions[-1][1]["withdrawn"] or revisions[-1][0] == CASE_PUSH:
        return None
    pushed = [one for kind, one in revisions if kind == CASE_PUSH]
    names = CLINICAL.column_names if pushed else VARIABLES
    before = pushed[-1] if pushed else dict.fromkeys(VARIABLES)
    return revisions[-1][1] if all(before[name] == row[name] for name in names) else None


def said_meanwhile(snapshot: Snapshot, case: Mapping[str, Any], accepted: datetime) -> dict[str, Any] | None:
    """The clinical variables as they have to stand, where the site sent some by themselves after a push of the case
    had been ``accepted``, and that push, carried out later, says something else; else None."""
    revisions = _revisions(snapshot, case)
    if not revisions or revisions[-1][0] != CASE_PUSH:
        return None
    pushed = stands = {name: revisions[-1][1][name] for name in VARIABLES}
    before: Mapping[str, Any] = {}
    for kind, one in revisions[:-1]:
        if one["withdrawn"]:
            stands = pushed
        elif kind in (SAID, MENDED) and one["committed_at"] > accepted:
            said = {name for name in VARIABLES if kind == SAID or one[name] != before.get(name)}
            said |= _TOGETHER if said & _TOGETHER else set()
            stands = {name: one[name] if name in said else stands[name] for name in VARIABLES}
        before = one
    return stands if stands != pushed else None


def _revisions(snapshot: Snapshot, case: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Kind of push and row of every revision of a case's clinical variables, oldest first."""
    where = {name: case[name] for name in CLINICAL.key}
    rows = snapshot.revisions("clinical", where=where).sort_by("push_sequence").to_pylist()
    kinds = snapshot.pushes["kind"]
    return [(kinds[row["push_sequence"] - 1].as_py(), row) for row in rows]
