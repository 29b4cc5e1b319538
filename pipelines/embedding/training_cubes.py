"""Cubes to learn from: the ROIs of a store, cut as embedding cuts them, kept once they are cut."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from feature_store.blobs import Blobs
from feature_store.errors import AsdegError, BlobCorrupt, GridMismatch
from feature_store.schemas import QUALITY_OF_SERIES, ROIS, SERIES
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import ALL, PRIMARY_SEGMENTATION
from models.encoders import EncoderSettings
from pipelines.cases.rois import roi_mask
from pipelines.embedding.embedder import roi_cube
from pipelines.imaging.images import content_hash, read_canonical

_IMAGE = (*SERIES.key, "image_hash")
_ROI = (*ROIS.key, "image_hash", "mask_hash")
CACHE_GB = 20.0
TRIES = 8
"""ROIs tried, one after the other, where one cannot be cut."""


@dataclass(frozen=True, order=True)
class TrainingRoi:
    """An ROI of the store; ``patient`` is ``site/patient_id``. The order of these is the order of the data."""

    patient: str
    sequence: str
    structure: str
    level: str
    side: str
    image_hash: str
    mask_hash: str
    labels: tuple[int, ...]


def training_rois(
    snapshot: Snapshot,
    *,
    patients: Collection[str] | None = None,
    left_out: Collection[str] = (),
    sequences: Collection[str] | None = None,
    unions_only: bool = False,
) -> list[TrainingRoi]:
    """The primary ROIs of the images that are current, sorted; of ``patients`` only, without ``left_out``.

    ``unions_only``: level ``all`` only, and single labels where a structure of a patient has none. What quality
    control failed, by itself or with its image, is not learned from.
    """
    series = snapshot.table("series", columns=[*SERIES.key, "image_hash"]).to_pylist()
    current = {(row["site"], row["patient_id"], row["case_id"], row["sequence"], row["image_hash"]) for row in series}
    columns = [*ROIS.key, "image_hash", "mask_hash", "labels"]
    failed = _failed(snapshot)
    found = []
    for row in snapshot.table("rois", columns=columns, where={"segmentation": PRIMARY_SEGMENTATION}).to_pylist():
        patient = f"{row['site']}/{row['patient_id']}"
        key = (row["site"], row["patient_id"], row["case_id"], row["sequence"], row["image_hash"])
        wanted = patient not in left_out and (patients is None or patient in patients)
        sound = key not in failed and tuple(row[name] for name in _ROI) not in failed
        if wanted and sound and key in current and (sequences is None or row["sequence"] in sequences):
            names = (row["sequence"], row["structure"], row["level"], str(row["side"]))
            found.append(TrainingRoi(patient, *names, row["image_hash"], row["mask_hash"], tuple(row["labels"])))
    return sorted(_unions(found) if unions_only else found)


def _failed(snapshot: Snapshot) -> set[tuple[Any, ...]]:
    """Keys of the images and of the ROIs whose verdict is ``fail``."""
    rows = snapshot.table("quality", columns=list(_ROI), where={"verdict": "fail"}).to_pylist()
    return {tuple(row[name] for name in (_IMAGE if row["structure"] == QUALITY_OF_SERIES else _ROI)) for row in rows}


def _unions(rois: Iterable[TrainingRoi]) -> list[TrainingRoi]:
    rois = list(rois)
    whole = {(roi.patient, roi.sequence, roi.structure) for roi in rois if roi.level == ALL}
    return [roi for roi in rois if roi.level == ALL or (roi.patient, roi.sequence, roi.structure) not in whole]


class CubeReader:
    """Cuts cubes, and keeps them in a folder up to ``cache_gb``: an image is decoded for its first epoch only.

    Several threads and processes may share the folder. What does not fit is cut anew each time.
    """

    def __init__(self, blobs: Blobs, settings: EncoderSettings, folder: Path, cache_gb: float = CACHE_GB) -> None:
        self._blobs = blobs
        self._settings = settings
        self._folder = folder
        self._most = int(cache_gb * 1e9 // (4 * settings.input_size**3))

    def read(self, roi: TrainingRoi) -> np.ndarray:
        """float32 (128, 128, 128). Raises what the image or mask gives cause for."""
        what = (roi.image_hash, roi.mask_hash, roi.labels, self._settings.margin_mm)
        kept = self._folder / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}.npy"
        try:
            cube: np.ndarray = np.load(kept)
            return cube
        except (OSError, ValueError):
            pass
        image = self._image("images", roi.image_hash)
        mask = self._image("masks", roi.mask_hash)
        if mask.GetSize() != image.GetSize():
            raise GridMismatch("a stored mask has another size than its image.", action="Ingest the case again.")
        cube = roi_cube(image, roi_mask(mask, roi.labels), self._settings)
        self._keep(kept, cube)
        return cube

    def read_one_of(self, rois: Sequence[TrainingRoi], at: int) -> np.ndarray:
        """The cube of ``rois[at]``, or of the next one that can be cut. Raises what the last of TRIES raised."""
        for number in range(TRIES):
            try:
                return self.read(rois[(at + number) % len(rois)])
            except AsdegError:
                if number == TRIES - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def _keep(self, path: Path, cube: np.ndarray) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if sum(1 for _ in os.scandir(path.parent)) >= self._most:
                return
            part = path.with_name(f".{uuid.uuid4().hex}.part")
            with part.open("wb") as file:
                np.save(file, cube)
            part.replace(path)
        except OSError:  # a full disk costs time, not the run
            return

    def _image(self, kind: str, name: str) -> sitk.Image:
        image = read_canonical(self._blobs.local_path(kind, name))
        if content_hash(image) != name:
            raise BlobCorrupt(f"a blob of {kind} no longer has its hash.", action="Restore it, or ingest again.")
        return image


class EpochOrder:
    """Position in the whole run -> which of ``n`` items: every item once an epoch, in an order of its own."""

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._seed = n, seed
        self._epochs: dict[int, np.ndarray] = {}

    def __getitem__(self, position: int) -> int:
        epoch, at = divmod(position, self._n)
        order = self._epochs.get(epoch)
        if order is None:
            order = np.random.default_rng([self._seed, 0, epoch]).permutation(self._n)
            self._epochs = {e: o for e, o in self._epochs.items() if e >= epoch - 1} | {epoch: order}
        return int(order[at])
