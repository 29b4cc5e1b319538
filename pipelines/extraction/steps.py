"""The three steps that run in Ray's workers: read a series, radiomics of an ROI, embeddings of ROIs.

A row between them has the same plain columns from the first step to the last (see :func:`_blank`), so that
blocks of different ROIs always fit together. What goes wrong is caught here, ROI by ROI, and travels in
an error column: one broken image or region never stops the others.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import SimpleITK as sitk

from feature_store.blobs import Blobs
from feature_store.errors import AsdegError, BlobCorrupt, ExtractionError, GridMismatch
from feature_store.store import FeatureStore
from models.encoders import EncoderSettings
from pipelines.cases.rois import roi_mask
from pipelines.embedding.embedder import Embedder, roi_cube
from pipelines.embedding.registry import load_weights
from pipelines.extraction.plan import RoiJob, SeriesJob
from pipelines.imaging.images import content_hash, read_canonical
from pipelines.radiomics.crop import crop_roi
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import FeatureSet
from pipelines.radiomics.preprocessing import preprocess, preprocess_mask

Row = dict[str, Any]


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know; small and picklable."""

    store_uri: str
    feature_sets: Mapping[str, FeatureSet]
    encoder: EncoderSettings | None = None
    checkpoint_hash: str = ""
    device: str = "cpu"
    threads: int = 1


def why(error: Exception) -> str:
    """``Code: message`` for the store; of an error that is not ours only its type, never its text."""
    if isinstance(error, AsdegError):
        return f"{error.code}: {error.message}"
    return f"{ExtractionError.__name__}: stopped by {type(error).__name__}."


def _blank(job: RoiJob) -> Row:
    return {
        "job": pickle.dumps(job),
        "crop": b"",  # a pickled RoiCrop
        "cube": b"",  # float32 (128, 128, 128)
        "values": b"",  # float64, the feature set's order
        "embedding": b"",  # float32
        "radiomics_error": "",
        "embedding_error": "",
        "read_s": 0.0,
        "radiomics_s": 0.0,
        "embedding_s": 0.0,
    }


def lost_row(job: RoiJob) -> Row:
    """The row of an ROI whose worker process died, among others and alone."""
    error = why(ExtractionError("its worker process died."))
    return {
        **_blank(job),
        "radiomics_error": error if job.feature_set is not None else "",
        "embedding_error": error if job.encoder is not None else "",
    }


@lru_cache(maxsize=4)
def _blobs(uri: str) -> Blobs:
    return FeatureStore.open(uri).blobs


# --- read --------------------------------------------------------------------------------------
def read_series(row: Row, config: WorkerConfig) -> Iterator[Row]:
    """``{"series": pickled SeriesJob}`` -> a row an ROI, with its crop and cube, or with why not.

    The image is read once, each mask once, and preprocessed once a feature set; radiomics are cut from
    the preprocessed image, the cube from the stored one (its own z-score follows).
    """
    series: SeriesJob = pickle.loads(row["series"])
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(config.threads)
    start = perf_counter()
    reader = _SeriesReader(series, config)
    for job in series.rois:
        out = _blank(job)
        if job.feature_set is not None:
            try:
                out["crop"] = reader.crop(job)
            except Exception as error:
                out["radiomics_error"] = why(error)
        if job.encoder is not None:
            try:
                out["cube"] = reader.cube(job)
            except Exception as error:
                out["embedding_error"] = why(error)
        out["read_s"] = perf_counter() - start
        yield out
        start = perf_counter()


class _SeriesReader:
    """One series' image and masks, kept as long as its ROIs are being cut."""

    def __init__(self, series: SeriesJob, config: WorkerConfig) -> None:
        self._series = series
        self._config = config
        self._kept: dict[tuple[str, ...], Any] = {}

    def crop(self, job: RoiJob) -> bytes:
        assert job.feature_set is not None
        settings = self._config.feature_sets[job.feature_set]
        image, spacing = self._once("preprocessed", job.feature_set, lambda: self._preprocessed(settings))
        mask = self._once(
            "grid", job.feature_set, job.source.mask_hash, lambda: preprocess_mask(self._mask(job), settings)
        )
        return pickle.dumps(crop_roi(image, roi_mask(mask, job.labels), spacing=spacing))

    def cube(self, job: RoiJob) -> bytes:
        assert self._config.encoder is not None
        return roi_cube(self._image(), roi_mask(self._mask(job), job.labels), self._config.encoder).tobytes()

    def _image(self) -> sitk.Image:
        image: sitk.Image = self._once("image", lambda: self._read("images", self._series.image_hash))
        return image

    def _mask(self, job: RoiJob) -> sitk.Image:
        mask = self._once("mask", job.source.mask_hash, lambda: self._read("masks", job.source.mask_hash))
        if mask.GetSize() != self._image().GetSize():
            raise GridMismatch("the stored mask has another size than its image.", action="Ingest the case again.")
        return mask

    def _preprocessed(self, settings: FeatureSet) -> tuple[np.ndarray, tuple[float, ...]]:
        image = preprocess(self._image(), settings)
        return sitk.GetArrayFromImage(image), image.GetSpacing()

    def _read(self, kind: str, name: str) -> sitk.Image:
        image = read_canonical(_blobs(self._config.store_uri).local_path(kind, name))
        if content_hash(image) != name:
            raise BlobCorrupt(f"a blob of {kind} no longer has its hash.", action="Restore it, or ingest again.")
        return image

    def _once(self, *key_and_make: Any) -> Any:
        """The value of ``make`` under ``key``; a failure is kept as well, so that it is not tried per ROI."""
        *key, make = key_and_make
        if tuple(key) not in self._kept:
            try:
                self._kept[tuple(key)] = make()
            except Exception as error:
                self._kept[tuple(key)] = error
        found = self._kept[tuple(key)]
        if isinstance(found, Exception):
            raise found
        return found


# --- radiomics ---------------------------------------------------------------------------------
class RadiomicsStep:
    """Row -> the same row with ``values`` (or ``radiomics_error``) and without its crop."""

    def __init__(self, config: WorkerConfig) -> None:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(config.threads)
        self._extractors = {id_: RadiomicsExtractor(settings) for id_, settings in config.feature_sets.items()}

    def __call__(self, row: Row) -> Row:
        if not row["crop"]:
            return row
        start = perf_counter()
        done = {**row, "crop": b""}
        try:
            feature_set = pickle.loads(row["job"]).feature_set
            done["values"] = self._extractors[feature_set].extract_from_crop(pickle.loads(row["crop"])).tobytes()
        except Exception as error:
            done["radiomics_error"] = why(error)
        done["radiomics_s"] = perf_counter() - start
        return done


# --- embedding ---------------------------------------------------------------------------------
class EmbeddingStep:
    """Table of rows -> the same with ``embedding`` (or ``embedding_error``) and without their cubes."""

    def __init__(self, config: WorkerConfig) -> None:
        import torch

        assert config.encoder is not None
        torch.set_num_threads(config.threads)
        self._edge = config.encoder.input_size
        weights = load_weights(_blobs(config.store_uri), config.checkpoint_hash)
        self._embedder = Embedder(config.encoder, weights, config.device)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        waiting = [row for row in rows if row["cube"]]
        start = perf_counter()
        try:
            cubes = np.stack([self._cube(row) for row in waiting]) if waiting else np.empty((0, 0))
            for row, vector in zip(waiting, self._embedder.embed(cubes), strict=True):
                row["embedding"] = vector.tobytes()
        except Exception as error:
            for row in waiting:
                row["embedding_error"] = why(error)
        for row in waiting:
            row["cube"] = b""
            row["embedding_s"] = (perf_counter() - start) / len(waiting)
        return pa.Table.from_pylist(rows, schema=table.schema)

    def _cube(self, row: Row) -> np.ndarray:
        return np.frombuffer(row["cube"], dtype=np.float32).reshape((self._edge,) * 3)
