"""What is left to extract: the regions in the store, less those whose features are there already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from feature_store.schemas import CASES, ROIS, SERIES, TABLES
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import ALL, RoiName
from models.encoders import EncoderSettings
from pipelines.extraction.limits import RoiLimits
from pipelines.extraction.refused import REFUSED, QualityGate
from pipelines.radiomics.feature_set_choice import feature_set_for
from pipelines.radiomics.feature_sets import FeatureSet

CaseKey = tuple[str, str, str]
"""site, patient_id, case_id"""


class ExtractionSettings(BaseModel):
    """What to extract, and with how much of the machine.

    ``rois="all"`` takes the ROIs of level ``all`` (the paper's eight are among them) and, for a structure
    of a series that has no ``all``, its single labels; ``rois="every"`` takes each label as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    feature_set: str | None = None
    """Name or id of one feature set for every series; None: ``study-ct`` for CT, ``study-mr`` otherwise."""
    radiomics: bool = True
    encoder: str | None = "vit_small"
    """Name or id of an encoder; None: no embeddings."""
    rois: Literal["all", "every"] = "all"
    segmentations: tuple[str, ...] | None = None
    """Which segmentations (``primary``, repeated readings); None: every one."""
    sites: tuple[str, ...] | None = None
    retry_failed: bool = False
    """Whether an ROI that failed before, on the same image and mask, is tried again."""
    include_failed_quality: bool = False
    """Whether ROIs are extracted that quality control failed, by themselves or with their image."""
    batch_rows: int = Field(default=64, ge=1)
    """ROIs a push; a killed run loses at most these."""
    batch_seconds: float = Field(default=30.0, gt=0)
    """A push is made after this long even when it is smaller."""
    cpus: int | None = Field(default=None, ge=1)
    """CPU cores to use; None: all that the machine or cluster has."""
    gpus: int | None = Field(default=None, ge=0)
    """GPUs to use, an embedding actor each; None: all there are. With none, embeddings are computed on CPUs."""
    limits: RoiLimits = RoiLimits()
    ray_address: str | None = None
    """Of a Ray cluster to run on; None: the one this process is connected to, else one of its own."""


@dataclass(frozen=True)
class RoiSource:
    """An ROI and what it is cut from: the same features belong to the same source."""

    case: CaseKey
    name: RoiName
    image_hash: str
    mask_hash: str

    def row(self) -> dict[str, Any]:
        """The key and source columns of this ROI's row in ``radiomics`` and ``embeddings``."""
        site, patient_id, case_id = self.case
        return {
            "site": site,
            "patient_id": patient_id,
            "case_id": case_id,
            "sequence": self.name.sequence,
            "structure": self.name.structure,
            "level": self.name.level,
            "side": self.name.side,
            "segmentation": self.name.segmentation,
            "image_hash": self.image_hash,
            "mask_hash": self.mask_hash,
        }


@dataclass(frozen=True)
class RoiJob:
    """One ROI and what it lacks: ids of a feature set and an encoder, None for what is there or not wanted."""

    source: RoiSource
    labels: tuple[int, ...]
    feature_set: str | None
    encoder: str | None


@dataclass(frozen=True)
class SeriesJob:
    """The ROIs of one image, which is read and preprocessed once for all of them."""

    image_hash: str
    rois: tuple[RoiJob, ...]


@dataclass
class CaseTally:
    """How far a case is: ROIs still to do, ROIs with features, and why others have none."""

    to_do: int = 0
    usable: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, name: RoiName, outcomes: Collection[str]) -> None:
        """Count an ROI by the error of each of its outputs (empty: it has values)."""
        self.usable += "" in outcomes
        self.reasons += [f"{name}: {error}" for error in dict.fromkeys(outcomes) if error]


@dataclass(frozen=True)
class ExtractionPlan:
    """``left_out`` counts ROIs that lack nothing; ``cases`` says how far each case is before the run.

    ``refused`` are ROIs that quality control failed, each with the reason that is to be recorded.
    """

    series: list[SeriesJob]
    left_out: int
    cases: dict[CaseKey, CaseTally]
    feature_sets: dict[str, FeatureSet]
    refused: list[tuple[RoiJob, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(len(series.rois) for series in self.series) + len(self.refused)


def plan_extraction(
    snapshot: Snapshot, settings: ExtractionSettings, encoder: EncoderSettings | None
) -> ExtractionPlan:
    """Compare the ROIs of the snapshot with the features it holds of the same image, mask and settings.

    ROIs of an image that its series has replaced are no longer extracted.
    """
    rows = sorted(_wanted_rois(snapshot, settings), key=_sort_key)
    feature_sets: dict[str, FeatureSet] = {}
    if settings.radiomics:
        feature_sets = {s: feature_set_for(s, settings.feature_set) for s in {row["sequence"] for row in rows}}
    set_ids = {sequence: feature_set.id for sequence, feature_set in feature_sets.items()}
    encoder_ids = {row["sequence"]: encoder.id for row in rows} if encoder else {}
    gate = QualityGate(snapshot, _sites(settings), settings.include_failed_quality)
    refusals = {_source(row): why for row in rows if (why := gate.why(row))}
    radiomics = _stored(snapshot, "radiomics", set_ids, settings, refusals)
    embeddings = _stored(snapshot, "embeddings", encoder_ids, settings, refusals)
    cases: dict[CaseKey, CaseTally] = defaultdict(CaseTally)
    jobs: list[RoiJob] = []
    refused: list[tuple[RoiJob, str]] = []
    for row in rows:
        source = _source(row)
        sequence = source.name.sequence
        lacking_set = None if source in radiomics else set_ids.get(sequence)
        lacking_encoder = None if source in embeddings else encoder_ids.get(sequence)
        if lacking_set is not None or lacking_encoder is not None:
            job = RoiJob(source, tuple(row["labels"]), lacking_set, lacking_encoder)
            if source in refusals:
                refused.append((job, refusals[source]))
            else:
                jobs.append(job)
            cases[source.case].to_do += 1
        else:
            outcomes = [stored[source] for stored in (radiomics, embeddings) if source in stored]
            cases[source.case].add(source.name, outcomes)
    used = {feature_set.id: feature_set for feature_set in feature_sets.values()}
    left_out = len(rows) - len(jobs) - len(refused)
    return ExtractionPlan(by_series(jobs), left_out, dict(cases), used, refused)


def by_series(jobs: Iterable[RoiJob]) -> list[SeriesJob]:
    """Jobs in the plan's order, put together where they follow each other and share an image."""
    return [
        SeriesJob(image_hash, tuple(of_series))
        for (_, _, image_hash), of_series in groupby(
            jobs, key=lambda job: (job.source.case, job.source.name.sequence, job.source.image_hash)
        )
    ]


def _wanted_rois(snapshot: Snapshot, settings: ExtractionSettings) -> list[dict[str, Any]]:
    where = _sites(settings)
    if settings.segmentations is not None:
        where["segmentation"] = list(settings.segmentations)
    columns = [*ROIS.key, "image_hash", "mask_hash", "labels"]
    rois = snapshot.table("rois", columns=columns, where=where).to_pylist()
    series = snapshot.table("series", columns=[*SERIES.key, "image_hash"]).to_pylist()
    current = {(_case(row), row["sequence"], row["image_hash"]) for row in series}
    rois = [row for row in rois if (_case(row), row["sequence"], row["image_hash"]) in current]
    if settings.rois == "every":
        return rois
    whole = {_structure(row) for row in rois if row["level"] == ALL}
    return [row for row in rois if row["level"] == ALL or _structure(row) not in whole]


def _sites(settings: ExtractionSettings) -> dict[str, Any]:
    return {} if settings.sites is None else {"site": list(settings.sites)}


def _stored(
    snapshot: Snapshot,
    table: str,
    ids: Mapping[str, str],
    settings: ExtractionSettings,
    refusals: Collection[RoiSource],
) -> dict[RoiSource, str]:
    """Sources that have a row under their sequence's id, with the row's error (empty: it has values).

    A refusal by quality control counts only as long as the ROI is refused.
    """
    if not ids:
        return {}
    id_column = TABLES[table].key[-1]
    columns = [*ROIS.key, "image_hash", "mask_hash", id_column, "error"]
    rows = snapshot.table(table, columns=columns, where={id_column: sorted(set(ids.values()))}).to_pylist()
    return {
        _source(row): row["error"] or ""
        for row in rows
        if row[id_column] == ids.get(row["sequence"])
        and not (settings.retry_failed and row["error"])
        and not ((row["error"] or "").startswith(REFUSED) and _source(row) not in refusals)
    }


def _source(row: Mapping[str, Any]) -> RoiSource:
    name = RoiName(row["sequence"], row["structure"], row["level"], row["side"], row["segmentation"])
    return RoiSource(_case(row), name, row["image_hash"], row["mask_hash"])


def _case(row: Mapping[str, Any]) -> CaseKey:
    return (row["site"], row["patient_id"], row["case_id"])


def _structure(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (_case(row), row["sequence"], row["structure"], row["segmentation"])


def _sort_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in (*CASES.key, "sequence", "image_hash", "mask_hash", *ROIS.key))
