"""A small store to extract from: noise images with two vertebral bodies, pushed without ingest."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydantic import Field

from feature_store.store import FeatureStore
from pipelines.imaging.images import content_hash, write_canonical
from pipelines.radiomics.feature_sets import FeatureSet

BODIES = {1: "L4", 2: "L5"}


def make_image(seed: int, sequence: str = "t2_sag") -> sitk.Image:
    draw = np.random.default_rng(seed)
    shape = (14, 18, 16)
    voxels = draw.integers(-500, 900, shape).astype(np.int16) if sequence == "ct" else draw.normal(100, 30, shape)
    image = sitk.GetImageFromArray(voxels if sequence == "ct" else voxels.astype(np.float32))
    image.SetSpacing((1.0, 1.2, 2.0))
    return image


def make_mask(image: sitk.Image) -> sitk.Image:
    voxels = np.zeros(image.GetSize()[::-1], np.uint16)
    voxels[2:6, 3:14, 4:12] = 1
    voxels[7:12, 3:14, 4:12] = 2
    mask = sitk.GetImageFromArray(voxels)
    mask.CopyInformation(image)
    return mask


def put_image(store: FeatureStore, kind: str, image: sitk.Image) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nrrd"
        write_canonical(image, path)
        return store.blobs.put_file(kind, path, content_hash(image))


def add_series(
    store: FeatureStore, patient: str, sequence: str = "t2_sag", seed: int = 0, *, site: str = "a", whole: bool = True
) -> str:
    """One series with ROIs L4, L5 and (with ``whole``) their union; returns the image's hash."""
    image = make_image(seed, sequence)
    mask = make_mask(image)
    hashes = {"image_hash": put_image(store, "images", image), "mask_hash": put_image(store, "masks", mask)}
    case: dict[str, Any] = {"site": site, "patient_id": patient, "case_id": f"case-{site}-{patient}"}
    series = {
        **case,
        "sequence": sequence,
        "image_hash": hashes["image_hash"],
        "size": list(image.GetSize()),
        "spacing": list(image.GetSpacing()),
        "origin": list(image.GetOrigin()),
        "direction": list(image.GetDirection()),
    }
    regions = [(level, [number]) for number, level in BODIES.items()]
    if whole:
        regions.append(("all", list(BODIES)))
    rois = [
        {
            **case,
            **hashes,
            "sequence": sequence,
            "structure": "vertebral_body",
            "level": level,
            "side": "both",
            "segmentation": "primary",
            "labels": labels,
            "levels": [BODIES[number] for number in labels],
            "voxel_count": 100,
            "volume_mm3": 240.0,
        }
        for level, labels in regions
    ]
    receipt = store.push({"series": [series], "rois": rois}, kind="case", source=site)
    assert not receipt.rejected
    return hashes["image_hash"]


class PoisonedSettings(FeatureSet):
    """A feature set that does harm in the process that reads with it, or computes it, and not in the driver.

    Workers import this module. The harm is done when the stage looks at the setting that it needs.
    """

    poison: str
    stage: str = "radiomics"
    driver: int = Field(default_factory=os.getpid)

    def __getattribute__(self, name: str) -> Any:
        looked_at = {"classes": "radiomics", "normalize": "read"}.get(name)
        if looked_at and looked_at == super().__getattribute__("stage"):
            poison, driver = super().__getattribute__("poison"), super().__getattribute__("driver")
            if os.getpid() != driver:
                harm(poison)
        return super().__getattribute__(name)


def harm(poison: str) -> None:
    match poison:
        case "sleep":
            time.sleep(10**6)
        case "native":  # in C, with the interpreter's lock: no other thread of the process ever runs again
            ctypes.PyDLL(None).pause()
        case "spin":  # in C, with the lock, at full speed
            re.match(r"(a+)+$", "a" * 64 + "b")
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)
        case "memory":
            np.ones(2**37)
        case "slow":
            time.sleep(0.3)


def radiomics_of(store: FeatureStore) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows by patient, sequence and level."""
    return rows_of(store, "radiomics")


def rows_of(store: FeatureStore, table: str) -> dict[tuple[str, ...], dict[str, Any]]:
    rows = store.snapshot().table(table).to_pylist()
    return {(row["patient_id"], row["sequence"], row["level"]): row for row in rows}


def same_values(store: FeatureStore, other: FeatureStore, table: str = "radiomics") -> bool:
    """Whether both hold the same ROIs with bit-identical values."""
    here, there = rows_of(store, table), rows_of(other, table)
    assert here.keys() == there.keys()
    assert all(row["values"] for row in there.values())
    return all(np.array(here[key]["values"]).tobytes() == np.array(there[key]["values"]).tobytes() for key in there)
