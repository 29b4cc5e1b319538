"""Whether the follow-up window of a patient without an outcome has passed: what can be known without any date.

The store keeps no calendar dates of patients, only days since surgery, and when each push was committed. What was
done ``d`` days after surgery (a follow-up visit, or an image, for which d is mostly negative) was done before it was
first pushed. So at any later moment at least d days and the time since that push have gone by since surgery. Where
that is the window or more, the patient is lost for it (or the site has not sent what it knows); where it is less, the
window may be open or may have passed: that cannot be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from feature_store.snapshot import Snapshot

Case = tuple[str, str, str]
DAY = timedelta(days=1)


def least_days(view: Snapshot, cases: Sequence[Case]) -> list[int | None]:
    """Days since surgery that have gone by at least for each case (site, patient, case) as of ``view``, in their order.

    None where nothing says anything: no follow-up, and no imaging day, or a surgery whose date is not known yet.
    """
    if not len(view.pushes):
        return [None] * len(cases)
    now = view.pushes["committed_at"][-1].as_py()
    where = {"site": sorted({site for site, _, _ in cases})}
    dated = {
        (row["site"], row["patient_id"], row["case_id"])
        for row in view.table("cases", ["site", "patient_id", "case_id", "index_date_known"], where).to_pylist()
        if row["index_date_known"]
    }
    visits, images = _visits(view, where), _images(view, where)
    least: list[int | None] = []
    for case in cases:
        known = [*visits.get(case[:2], ()), *(images.get(case, ()) if case in dated else ())]
        least.append(max((gone(day, pushed, now) for day, pushed in known), default=None))
    return least


def gone(day: int, pushed: datetime, now: datetime) -> int:
    """Days since surgery at ``now``, at least, where something of ``day`` (days since surgery) was pushed then."""
    return day + max(now - pushed, timedelta()) // DAY


def _visits(view: Snapshot, where: dict[str, Any]) -> dict[tuple[str, str], list[tuple[int, datetime]]]:
    """The day and first push of every visit that still stands, by patient."""
    columns = ["site", "patient_id", "days_from_index", "rater", "level", "withdrawn"]
    first: dict[tuple[Any, ...], tuple[int, datetime]] = {}
    for row in _by_push(view, "follow_up", columns, where):
        key = tuple(row[name] for name in columns[:-1])
        if row["withdrawn"]:
            first.pop(key, None)
        else:
            first.setdefault(key, (row["days_from_index"], row["committed_at"]))
    found: dict[tuple[str, str], list[tuple[int, datetime]]] = {}
    for key, visit in first.items():
        found.setdefault((key[0], key[1]), []).append(visit)
    return found


def _images(view: Snapshot, where: dict[str, Any]) -> dict[Case, list[tuple[int, datetime]]]:
    """The day and first push of every image that still stands, by case."""
    columns = ["site", "patient_id", "case_id", "sequence", "image_hash", "days_from_index", "withdrawn"]
    pushed: dict[tuple[Any, ...], datetime] = {}
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in _by_push(view, "series", columns, where):
        key = tuple(row[name] for name in columns[:4])
        pushed.setdefault((*key, row["image_hash"]), row["committed_at"])
        latest[key] = row
    found: dict[Case, list[tuple[int, datetime]]] = {}
    for key, row in latest.items():
        if not row["withdrawn"] and row["days_from_index"] is not None:
            image = row["days_from_index"], pushed[*key, row["image_hash"]]
            found.setdefault((key[0], key[1], key[2]), []).append(image)
    return found


def _by_push(view: Snapshot, table: str, columns: list[str], where: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = view.revisions(table, columns, where).to_pylist()
    return sorted(rows, key=lambda row: row["push_sequence"])
