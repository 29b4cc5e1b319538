"""A label map written to a file, and beside it what each of its numbers means."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk
import yaml

from feature_store.errors import MaskUnreadable, UsageError
from pipelines.imaging.itk_calls import itk_call

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


def write_label_map(label_map: sitk.Image, out: Path) -> None:
    """Write NIfTI, NRRD or MetaImage by suffix; a file that exists is replaced whole, or stays as it was.

    Raises UsageError for another suffix or a folder that is not there.
    """
    suffix = check_out(out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        part = Path(folder) / f"mask{suffix}"
        itk_call(
            lambda: sitk.WriteImage(label_map, str(part), useCompression=True),
            MaskUnreadable,
            "the label map could not be written",
            out.name,
            action="Check space and rights.",
        )
        part.replace(out)


def check_out(out: Path) -> str:
    """The suffix of a mask file to be written. Raises UsageError."""
    suffix = next((suffix for suffix in SUFFIXES if out.name.endswith(suffix)), None)
    if suffix is None:
        raise UsageError(f"{out.name} ends in none of {', '.join(SUFFIXES)}.", action="Name it mask.nii.gz.")
    if not out.parent.is_dir():
        raise UsageError("the folder of --out is not there.", action="Make it first.")
    return suffix


def labels_beside(out: Path) -> Path:
    """Where the meaning of the labels goes: ``mask.nii.gz`` -> ``mask.labels.yaml``."""
    return out.with_name(out.name.removesuffix(check_out(out)) + ".labels.yaml")


def write_label_names(segmenter: str, sequence: str, classes: Sequence[str], out: Path) -> None:
    """A label map file (:mod:`pipelines.cases.label_map`) of what a segmenter's numbers stand for."""
    labels = {
        number: dict(zip(("structure", "level", "side"), name.split("/"), strict=True))
        for number, name in enumerate(classes, start=1)
    }
    note = f"Drawn by the U-Net {segmenter} for {sequence}, looked at by nobody. For research use only."
    text = yaml.safe_dump({"name": segmenter, "note": note, "labels": labels}, sort_keys=False)
    out.write_text(text, encoding="utf-8")
