"""Trained U-Nets in the store: register, list, find, load."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feature_store.errors import NotFound
from feature_store.software import software_version
from feature_store.store import FeatureStore
from feature_store.vocabulary import is_phantom
from models.segmentation.recipe import Recipe, recipe_from
from pipelines.embedding.registry import ARTEFACTS, load_weights
from pipelines.segmentation.segmenter import Segmenter

if TYPE_CHECKING:
    from torch import Tensor

TRAINED = "trained"
ON_PHANTOMS = "trained_on_phantoms"


def register_segmenter(
    store: FeatureStore,
    recipe: Recipe,
    weights: Mapping[str, Tensor],
    *,
    patients_seen: Sequence[str],
    patients_held_out: Sequence[str],
    metrics: Mapping[str, Any] | None,
) -> str:
    """Keep weights and row; returns the segmenter's id. The same again changes nothing.

    Patients are ``site/patient_id``; one phantom among those it was trained on makes it one of phantoms.
    ``metrics`` are those of :func:`models.segmentation.metrics.summary` on patients held out, None without any.
    """
    from models.checkpoints import dump

    checkpoint_hash = store.blobs.put_bytes(ARTEFACTS, dump(weights))
    phantoms = any(is_phantom(patient.rsplit("/", 1)[-1]) for patient in patients_seen)
    row = {
        "segmenter": recipe.segmenter_id(checkpoint_hash),
        "sequence": recipe.sequence,
        "classes": [str(one) for one in recipe.classes],
        "settings": recipe.canonical(),
        "checkpoint_hash": checkpoint_hash,
        "origin": ON_PHANTOMS if phantoms else TRAINED,
        "patients_seen": sorted(patients_seen),
        "patients_held_out": sorted(patients_held_out),
        "metrics": None if metrics is None else json.dumps(metrics, sort_keys=True),
        "software_version": software_version(),
    }
    store.push({"segmenters": [row]}, kind="segmenter", source="training")
    return str(row["segmenter"])


def segmenters(store: FeatureStore, sequence: str | None = None) -> list[dict[str, Any]]:
    """Rows of the registered segmenters, newest first, with ``dice`` beside them: the held-out mean, or None."""
    found = store.snapshot().revisions("segmenters", where={"sequence": sequence} if sequence else None).to_pylist()
    newest = sorted(found, key=lambda row: -row["push_sequence"])
    rows = list({row["segmenter"]: row for row in reversed(newest)}.values())[::-1]
    return [{**row, "dice": json.loads(row["metrics"])["dice"] if row["metrics"] else None} for row in rows]


def find_segmenter(store: FeatureStore, sequence: str, name: str | None = None) -> dict[str, Any]:
    """The row of that id, or the newest of the sequence. Raises NotFound, saying how to train one."""
    for row in segmenters(store, sequence):
        if name is None or row["segmenter"] == name:
            return row
    what = f"no segmenter {name!r} for {sequence}" if name else f"no trained U-Net for {sequence}"
    raise NotFound(
        f"there is {what} in this store.",
        action=f"Train one on cases with drawn masks: asdeg segmenter train --sequence {sequence}.",
    )


def load_segmenter(store: FeatureStore, row: Mapping[str, Any], device: str | None = None) -> Segmenter:
    """A registered segmenter, ready to segment. Raises NotFound or BlobCorrupt where its weights are not whole."""
    return Segmenter(recipe_from(row["settings"]), load_weights(store.blobs, row["checkpoint_hash"]), device)
