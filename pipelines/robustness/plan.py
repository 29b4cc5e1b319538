"""Whose ROIs are measured: training patients where partitions are known, never test patients."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from feature_store.cohorts import load_cohort
from feature_store.errors import NotReady
from feature_store.schemas import ROIS, SERIES
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import PAPER_ROIS, PRIMARY_SEGMENTATION, Partition, RoiName
from models.selection.robustness import TRAINING, UNASSIGNED
from pipelines.radiomics.feature_set_choice import feature_set_for
from pipelines.radiomics.feature_sets import FeatureSet
from pipelines.robustness.versions import RoiToVary

Case = tuple[str, str, str]
"""site, patient_id, case_id"""


class RobustnessScope(BaseModel):
    """Which ROIs to measure.

    ``cohort`` (a name, with ``version`` or its latest): its training patients as of its freezing. Without one
    every patient's newest case, less those who are known to be no training patients. ``patients``: so many at
    most, drawn by ``seed``; None: all. ``feature_set``: as extraction takes it; None: the study's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cohort: str | None = None
    version: int | None = None
    sites: tuple[str, ...] | None = None
    sequences: tuple[str, ...] | None = None
    feature_set: str | None = None
    patients: int | None = Field(default=30, ge=2)
    seed: int = Field(default=0, ge=0)

    def feature_sets(self) -> dict[str, FeatureSet]:
        """Of each sequence that has one of the study's ROIs. Raises NotFound."""
        return {roi.sequence: feature_set_for(roi.sequence, self.feature_set) for roi in self.regions()}

    def regions(self) -> tuple[RoiName, ...]:
        """The ROIs of a training table (the paper's eight), of the sequences asked for."""
        return tuple(roi for roi in PAPER_ROIS if self.sequences is None or roi.sequence in self.sequences)


@dataclass(frozen=True)
class Population:
    """``view``: the store as of the cohort. ``partitions``: what is known of the patients' partitions."""

    view: Snapshot
    cases: list[Case]
    partitions: str


@dataclass(frozen=True)
class SeriesToVary:
    """One image and the ROIs of one of its masks."""

    image_hash: str
    mask_hash: str
    feature_set: FeatureSet
    rois: tuple[RoiToVary, ...]


def population(snapshot: Snapshot, scope: RobustnessScope) -> Population:
    """The patients in question, before any is drawn. Raises NotFound (cohort)."""
    if scope.cohort is not None:
        frozen = load_cohort(snapshot, scope.cohort, scope.version)
        rows = frozen.members[frozen.members["partition"] == Partition.TRAINING]
        cases = list(zip(rows["site"], rows["patient_id"], rows["case_id"], strict=True))
        return Population(snapshot.at(frozen.as_of), _of_sites(cases, scope), TRAINING)
    known = snapshot.table("cohorts", ["site", "patient_id", "partition"]).to_pylist()
    partition = {(row["site"], row["patient_id"]): row["partition"] for row in known}
    heads = snapshot.heads("cases")
    newest: dict[tuple[str, str], str] = {}
    rows = [] if heads is None else heads.keys.to_pylist()
    for row in sorted(rows, key=lambda row: (row["push_sequence"], row["case_id"])):
        newest[row["site"], row["patient_id"]] = row["case_id"]
    allowed = [(*patient, case) for patient, case in newest.items() if partition.get(patient, TRAINING) == TRAINING]
    cases = _of_sites(allowed, scope)
    all_known = bool(cases) and all(case[:2] in partition for case in cases)
    return Population(snapshot, cases, TRAINING if all_known else UNASSIGNED)


def plan_robustness(found: Population, scope: RobustnessScope) -> list[SeriesToVary]:
    """The series of the patients drawn, their ROIs by name. Patients without any such ROI are not drawn.

    ROIs of verdict fail are left out, as extraction leaves them out, and so are images made after the surgery.
    Raises NotReady where nothing is left.
    """
    feature_sets = scope.feature_sets()
    wanted = {replace(roi, segmentation=PRIMARY_SEGMENTATION) for roi in scope.regions()}
    by_case: dict[Case, list[dict[str, Any]]] = defaultdict(list)
    cases, series = set(found.cases), _current_series(found.view)
    bad = _failed_quality(found.view)
    where = {"segmentation": PRIMARY_SEGMENTATION, "sequence": sorted(feature_sets)}
    columns = [*ROIS.key, "image_hash", "mask_hash", "labels"]
    for row in found.view.table("rois", columns=columns, where=where).to_pylist():
        usable = _name(row) in wanted and _key(row) not in bad
        if usable and _case(row) in cases and (_case(row), row["sequence"], row["image_hash"]) in series:
            by_case[_case(row)].append(row)
    if not by_case:
        raise NotReady(
            "There is no ROI of these patients to measure.",
            action="Ingest cases with masks; name other sites, sequences or another cohort.",
        )
    drawn = sorted(by_case, key=lambda case: _draw(scope.seed, case))[: scope.patients]
    grouped: dict[tuple[Case, str, str, str], list[RoiToVary]] = defaultdict(list)
    for case in sorted(drawn):
        for row in sorted(by_case[case], key=_key):
            roi = RoiToVary(_name(row).feature_name("")[:-1], "\n".join(case[:2]), tuple(row["labels"]))
            grouped[case, row["sequence"], row["image_hash"], row["mask_hash"]].append(roi)
    return [
        SeriesToVary(image, mask, feature_sets[sequence], tuple(rois))
        for (_, sequence, image, mask), rois in grouped.items()
    ]


def _of_sites(cases: list[Case], scope: RobustnessScope) -> list[Case]:
    return [case for case in cases if scope.sites is None or case[0] in scope.sites]


def _current_series(view: Snapshot) -> set[tuple[Case, str, str]]:
    columns = [*SERIES.key, "image_hash", "days_from_index"]
    rows = view.table("series", columns=columns).to_pylist()
    before = [row for row in rows if row["days_from_index"] is None or row["days_from_index"] <= 0]
    return {(_case(row), row["sequence"], row["image_hash"]) for row in before}


def _failed_quality(view: Snapshot) -> set[tuple[str, ...]]:
    rows = view.table("quality", columns=[*ROIS.key, "verdict"], where={"verdict": "fail"}).to_pylist()
    return {_key(row) for row in rows}


def _name(row: Mapping[str, Any]) -> RoiName:
    return RoiName(row["sequence"], row["structure"], row["level"], row["side"], row["segmentation"])


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ROIS.key)


def _case(row: Mapping[str, Any]) -> Case:
    return (row["site"], row["patient_id"], row["case_id"])


def _draw(seed: int, case: Case) -> str:
    return hashlib.sha256("\n".join((str(seed), *case)).encode()).hexdigest()
