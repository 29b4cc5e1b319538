"""Where a value came from: image, mask, settings, software, site and push of one feature of one patient."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feature_store.errors import NotFound
from feature_store.matrix import ROI_COLUMNS
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import parse_feature_name

EMBEDDING_COLUMN = re.compile(r"^(?P<encoder>.+)_(?P<place>[0-9]{3,})$")


@dataclass(frozen=True)
class Origin:
    """One revision of a value. ``counts``: whether it is what scoring and training read now.

    ``made_with`` is the feature set or encoder; ``region`` and ``image`` are the rows of the ROI and its series that
    have these hashes, as they stood when the value was made (None where the store never had such). ``sent_by``
    (the site) and ``sent_in_push`` are of the push that brought the mask.
    """

    site: str

    value: float | None
    error: str | None
    counts: bool
    made_with: str
    settings: str
    unit: str | None
    ibsi_code: str | None
    image_hash: str
    mask_hash: str
    software_version: str
    push_id: str
    push_sequence: int
    committed_at: datetime
    pushed_by: str
    sent_by: str | None
    sent_in_push: int | None
    region: dict[str, Any] | None
    image: dict[str, Any] | None


def explain(snapshot: Snapshot, site: str, patient_id: str, feature: str) -> list[Origin]:
    """Every revision of a feature's value, newest first. ``feature`` is a full name, as in a training table.

    Raises UsageError where the name is none, NotFound where the store has no such value of that patient.
    """
    roi, name = parse_feature_name(feature)
    where = {"site": site, "patient_id": patient_id}
    where |= {column: str(getattr(roi, column)) for column in ROI_COLUMNS}
    pushed_by = dict(zip(snapshot.pushes["push_id"].to_pylist(), snapshot.pushes["source"].to_pylist(), strict=True))
    now = snapshot.table("rois", where=where).to_pylist()
    regions = snapshot.revisions("rois", where=where).to_pylist()
    images = snapshot.revisions("series", where={k: where[k] for k in ("site", "patient_id", "sequence")}).to_pylist()
    found = []
    for row, place, made in _revisions(snapshot, where, name):
        current = any(_same(region, row, "case_id", "image_hash", "mask_hash") for region in now)
        region = _source(regions, row, "case_id", "image_hash", "mask_hash")
        image = _source(images, row, "case_id", "image_hash")
        found.append(
            Origin(
                site=site,
                value=None if row["values"] is None else float(row["values"][place]),
                error=row["error"],
                counts=current and row["latest"],
                made_with=made["id"],
                settings=made["settings"],
                unit=made["unit"],
                ibsi_code=made["ibsi_code"],
                image_hash=row["image_hash"],
                mask_hash=row["mask_hash"],
                software_version=row["software_version"],
                push_id=row["push_id"],
                push_sequence=row["push_sequence"],
                committed_at=row["committed_at"],
                pushed_by=pushed_by[row["push_id"]],
                sent_by=None if region is None else pushed_by[region["push_id"]],
                sent_in_push=None if region is None else region["push_sequence"],
                region=region,
                image=image,
            )
        )
    if not found:
        raise NotFound(
            "The store has no such feature of that patient.",
            action="`asdeg store sql` lists what there is of a patient.",
        )
    return sorted(found, key=lambda origin: origin.push_sequence, reverse=True)


def _revisions(
    snapshot: Snapshot, where: dict[str, str], name: str
) -> Iterator[tuple[dict[str, Any], int, dict[str, Any]]]:
    """Row, the value's place in it, and what it was made with: by each feature set or encoder that has the feature."""
    for made in snapshot.table("feature_sets").to_pylist():
        if name in made["feature_names"]:
            place = made["feature_names"].index(name)
            about = {
                "id": made["feature_set"],
                "settings": made["settings"],
                "unit": made["units"][place] if made["units"] else None,
                "ibsi_code": (made["ibsi_codes"][place] or None) if made["ibsi_codes"] else None,
            }
            for row in _of(snapshot, "radiomics", where | {"feature_set": about["id"]}):
                yield row, place, about
    match = EMBEDDING_COLUMN.match(name)
    encoders = snapshot.table("encoders", where={"encoder": match["encoder"]}).to_pylist() if match else []
    for made in encoders:
        assert match is not None
        place = int(match["place"])
        if place < made["dimension"]:
            about = {"id": made["encoder"], "settings": made["settings"], "unit": None, "ibsi_code": None}
            for row in _of(snapshot, "embeddings", where | {"encoder": made["encoder"]}):
                yield row, place, about


def _of(snapshot: Snapshot, table: str, where: dict[str, str]) -> list[dict[str, Any]]:
    """Revisions of one key, marked where they are the latest."""
    rows: list[dict[str, Any]] = snapshot.revisions(table, where=where).to_pylist()
    newest = max((row["push_sequence"] for row in rows), default=0)
    return [row | {"latest": row["push_sequence"] == newest} for row in rows if not row["withdrawn"]]


def _same(one: Mapping[str, Any], other: Mapping[str, Any], *columns: str) -> bool:
    return all(one[column] == other[column] for column in columns)


def _source(revisions: list[dict[str, Any]], row: Mapping[str, Any], *columns: str) -> dict[str, Any] | None:
    """The revision that brought what the value was made of: the first one with its hashes, unless later rows differ
    in between, and never one of a later push."""
    source = None
    for revision in sorted(revisions, key=lambda one: one["push_sequence"]):
        if revision["push_sequence"] > row["push_sequence"]:
            break
        if revision["withdrawn"] or not _same(revision, row, *columns):
            source = None if _same(revision, row, "case_id") else source
        elif source is None:
            source = revision
    return source
