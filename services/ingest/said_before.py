"""What a site has said of a case by itself, which a later push of the same case does not undo.

The surgery's day may come after the images, and clinical variables are mended one by one. A nightly push of the
whole case, or a late piece of a study, says nothing new about them; only what it says differently from the push
before counts as a correction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from feature_store.schemas import CLINICAL
from feature_store.snapshot import Snapshot
from pipelines.cases.case import CaseReading

CASE_PUSH = "case"
"""The kind of a push that brings a whole case."""


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
    ``row``, the case as it is pushed now, says the same as that push did; else None."""
    where = {name: row[name] for name in CLINICAL.key}
    revisions = snapshot.revisions("clinical", where=where).sort_by("push_sequence").to_pylist()
    if not revisions or revisions[-1]["withdrawn"]:
        return None
    kinds = snapshot.pushes["kind"]
    by_kind = [(kinds[one["push_sequence"] - 1].as_py(), one) for one in revisions]
    if by_kind[-1][0] == CASE_PUSH:
        return None
    pushed = [one for kind, one in by_kind if kind == CASE_PUSH]
    same = bool(pushed) and all(pushed[-1][name] == row[name] for name in CLINICAL.column_names)
    return revisions[-1] if same else None
