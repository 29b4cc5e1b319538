"""The three steps that run in Ray's workers: read a series, radiomics of an ROI, embeddings of ROIs.

A row between them has the same plain columns from the first step to the last (see :func:`_blank`), so that
blocks of different ROIs always fit together. What goes wrong is caught here, ROI by ROI, and travels in
an error column: one broken image or region never stops the others. What brings the process down (a hang, a
crash) takes the ROIs in it along; they are computed again in :mod:`pipelines.extraction.alone`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import SimpleITK as sitk

from feature_store.blobs import Blobs
from feature_store.errors import AsdegError, ExtractionError, GridMismatch
from feature_store.store import FeatureStore
from models.encoders import EncoderSettings
from pipelines.cases.rois import roi_mask
from pipelines.embedding.embedder import Embedder, roi_cube
from pipelines.embedding.registry import load_weights
from pipelines.extraction.limits import RoiLimits
from pipelines.extraction.plan import RoiJob, SeriesJob
from pipelines.imaging.images import read_canonical
from pipelines.radiomics.crop import bounding_box
from pipelines.radiomics.extractor import RadiomicsExtractor, warm_up
from pipelines.radiomics.feature_sets import FeatureSet
from pipelines.radiomics.preprocessing import preprocess_mask
from pipelines.radiomics.series import RadiomicsSeries
from pipelines.radiomics.texture.laplacian import Box

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
    limits: RoiLimits = field(default_factory=RoiLimits)


def why(error: BaseException) -> str:
    """``Code: message`` for the store; of an error that is not ours only its type, never its text."""
    if _of_memory(error):
        return f"{ExtractionError.__name__}: ran out of memory."
    if isinstance(error, AsdegError):
        return f"{error.code}: {error.message}"
    return f"{ExtractionError.__name__}: stopped by {type(error).__name__}."


def _of_memory(error: BaseException | None) -> bool:
    """Whether a refused allocation is at the bottom; ITK and torch say so in a RuntimeError's text."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocat" in str(error).lower()):
            return True
        error = error.__cause__ or error.__context__
    return False


def blank_row(job: RoiJob) -> Row:
    """The row of an ROI of which nothing is computed yet."""
    return {
        "job": pickle.dumps(job),
        "crop": b"",  # a pickled RoiCrop
        "cube": b"",  # float32 (128, 128, 128)
        "values": b"",  # float64, the feature set's order
        "embedding": b"",  # float32
        "radiomics_error": "",
        "embedding_error": "",
        "read_s": 0.0,  # seconds a worker spent, by stage
        "radiomics_s": 0.0,
        "embedding_s": 0.0,
        "read_node": "",  # Ray's id of the machine it was on, by stage
        "radiomics_node": "",
        "embedding_node": "",
    }


def lost_row(job: RoiJob) -> Row:
    """The row of an ROI that was lost among others and alone, each time with its worker."""
    error = why(ExtractionError("its worker process died."))
    return {
        **blank_row(job),
        "radiomics_error": error if job.feature_set is not None else "",
        "embedding_error": error if job.encoder is not None else "",
    }


def refused_row(job: RoiJob, reason: str) -> Row:
    """The row of an ROI that quality control failed: nothing is computed."""
    return {
        **blank_row(job),
        "radiomics_error": reason if job.feature_set is not None else "",
        "embedding_error": reason if job.encoder is not None else "",
    }


@lru_cache(maxsize=4)
def _blobs(uri: str) -> Blobs:
    return FeatureStore.open(uri).blobs


# --- read --------------------------------------------------------------------------------------
class ReadStep:
    """``{"series": pickled SeriesJob}`` -> a row an ROI, with its crop and cube, or with why not.

    The image is read once, each mask once, and preprocessed once a feature set; radiomics are cut from
    the preprocessed image, the cube from the stored one (its own z-score follows).
    """

    def __init__(self, config: WorkerConfig) -> None:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(config.threads)
        self._config = config

    def __call__(self, row: Row) -> Iterator[Row]:
        series: SeriesJob = pickle.loads(row["series"])
        reader = _SeriesReader(series, self._config)
        for job in series.rois:
            with self._config.limits.held():
                out = _cut(job, reader)
            yield out  # outside of the limits: here it may wait until there is room for what comes


def _cut(job: RoiJob, reader: _SeriesReader) -> Row:
    start = perf_counter()
    out = blank_row(job)
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
    return {**out, "read_s": perf_counter() - start, "read_node": _node()}


def _node() -> str:
    """Ray's id of the machine this runs on; empty outside of Ray."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


class _SeriesReader:
    """One series' image and masks, kept as long as its ROIs are being cut."""

    def __init__(self, series: SeriesJob, config: WorkerConfig) -> None:
        self._series = series
        self._config = config
        self._kept: dict[tuple[str, ...], Any] = {}

    def crop(self, job: RoiJob) -> bytes:
        assert job.feature_set is not None
        settings = self._config.feature_sets[job.feature_set]
        series = self._once("series", job.feature_set, lambda: RadiomicsSeries.of(self._image(), settings))
        mask = self._once(
            "grid", job.feature_set, job.source.mask_hash, lambda: preprocess_mask(self._mask(job), settings)
        )
        around = None
        if settings.log_sigma:
            around = self._once("field", job.feature_set, job.source.mask_hash, lambda: self._field(job, mask))
        return pickle.dumps(series.crop(roi_mask(mask, job.labels), around))

    def _field(self, job: RoiJob, mask: sitk.Image) -> Box:
        """The box around every ROI that this mask gives: filters that see the whole series run once for them."""
        same = [roi for roi in self._series.rois if roi.source.mask_hash == job.source.mask_hash]
        z, y, x = bounding_box(roi_mask(mask, sorted({label for roi in same for label in roi.labels})))
        return z, y, x

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

    def _read(self, kind: str, name: str) -> sitk.Image:
        return read_canonical(_blobs(self._config.store_uri).local_path(kind, name), name)

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
        warm_up()  # here, so that compiling (once a machine) counts against no ROI's time
        self._extractors = {id_: RadiomicsExtractor(settings) for id_, settings in config.feature_sets.items()}
        self._limits = config.limits

    def __call__(self, row: Row) -> Row:
        if not row["crop"]:
            return row
        start = perf_counter()
        done = {**row, "crop": b""}
        try:
            with self._limits.held():
                feature_set = pickle.loads(row["job"]).feature_set
                done["values"] = self._extractors[feature_set].extract_from_crop(pickle.loads(row["crop"])).tobytes()
        except Exception as error:
            done["radiomics_error"] = why(error)
        return {**done, "radiomics_s": perf_counter() - start, "radiomics_node": _node()}


# --- embedding ---------------------------------------------------------------------------------
class EmbeddingStep:
    """Table of rows -> the same with ``embedding`` (or ``embedding_error``) and without their cubes."""

    def __init__(self, config: WorkerConfig) -> None:
        import torch

        assert config.encoder is not None
        torch.set_num_threads(config.threads)
        self._limits = config.limits
        self._on_gpu = config.device != "cpu"
        weights = load_weights(_blobs(config.store_uri), config.checkpoint_hash)
        self._embedder = Embedder(config.encoder, weights, config.device)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        waiting = [row for row in rows if row["cube"]]
        start = perf_counter()
        self._embed(waiting)
        for row in waiting:
            row["cube"] = b""
            row["embedding_s"] = (perf_counter() - start) / len(waiting)
            row["embedding_node"] = _node()
        return pa.Table.from_pylist(rows, schema=table.schema)

    def _embed(self, rows: list[Row]) -> None:
        """Embed the rows' cubes together; where that fails, each by itself, so that one costs no other its values."""
        if not rows:
            return
        try:
            with self._limits.held(len(rows), memory=not self._on_gpu):
                vectors = self._embedder.embed(np.stack([self._cube(row) for row in rows]))
        except Exception as error:
            if len(rows) == 1:
                rows[0]["embedding_error"] = why(error)
                return
            for row in rows:
                self._embed([row])
        else:
            for row, vector in zip(rows, vectors, strict=True):
                row["embedding"] = vector.tobytes()

    def _cube(self, row: Row) -> np.ndarray:
        return np.frombuffer(row["cube"], dtype=np.float32).reshape((self._embedder.settings.input_size,) * 3)


# --- all three, for one ROI --------------------------------------------------------------------
class AllSteps:
    """Job -> its finished row, in this process. Steps are made when a job first needs them."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._made: dict[type, Any] = {}

    def __call__(self, job: RoiJob) -> Row:
        series = SeriesJob(job.source.image_hash, (job,))
        (row,) = self._step(ReadStep)({"series": pickle.dumps(series)})
        if job.feature_set is not None:
            row = self._step(RadiomicsStep)(row)
        if job.encoder is not None:
            (row,) = self._step(EmbeddingStep)(pa.Table.from_pylist([row])).to_pylist()
        return row

    def _step(self, kind: type) -> Any:
        if kind not in self._made:
            self._made[kind] = kind(self._config)
        return self._made[kind]
