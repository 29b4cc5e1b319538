"""What a mask file holds, for people who write ``labels``: numbers, names where the file has them, voxel counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from feature_store.errors import MaskUnreadable
from pipelines.imaging.images import LoadedImage
from pipelines.imaging.itk_calls import itk_call
from pipelines.imaging.masks import AGAIN, DAMAGED, dicom_mask, read_mask

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class MaskLabel:
    """One label. ``voxels`` is None for contours that were not put on an image."""

    number: int
    name: str
    voxels: int | None


def mask_contents(path: Path, file: str | None = None, image: LoadedImage | None = None) -> list[MaskLabel]:
    """The labels of a mask in order of their numbers, empty ones included where the file names them.

    ``image`` is what it was drawn on: with it the regions of a DICOM object are put on its grid, one by one, so
    that overlapping ones are counted too. Raises MaskUnreadable and GridMismatch as reading the mask does.
    """
    file = file or path.name
    dataset = dicom_mask(path, file)
    if dataset is None:
        mask = read_mask(path, file)
        counts = np.bincount(sitk.GetArrayViewFromImage(mask).ravel())
        names = _slicer_names(path, file)
        numbers = sorted({int(n) for n in np.flatnonzero(counts)} - {0} | set(names))
        return [MaskLabel(n, names.get(n, ""), int(counts[n]) if n < len(counts) else 0) for n in numbers]
    from pipelines.imaging.dicom_file import dicom_call

    names, found = dicom_call(lambda: _dicom_names(dataset, file), MaskUnreadable, DAMAGED, file, AGAIN)
    if image is not None:
        for number in found:
            mask = read_mask(path, file, image, [number])  # named: a view does not keep its image alive
            found[number] = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
    return [MaskLabel(number, names.get(number, ""), found[number]) for number in sorted(found)]


def _dicom_names(dataset: Dataset, file: str) -> tuple[dict[int, str], dict[int, int | None]]:
    """Names and voxel counts by number; the counts of a structure set are not known without an image."""
    if dataset.Modality == "SEG":
        from pipelines.imaging.dicom_seg import segment_names, segment_voxels

        return segment_names(dataset), {**segment_voxels(dataset, file)}
    from pipelines.imaging.rt_structure_set import read_regions

    names = {region.number: region.name for region in read_regions(dataset, file)}
    return names, dict.fromkeys(names, None)


def _slicer_names(path: Path, file: str) -> dict[int, str]:
    """Names by LabelValue from the header of a segmentation that Slicer wrote."""
    if path.suffix not in (".nrrd", ".nhdr"):
        return {}
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    itk_call(reader.ReadImageInformation, MaskUnreadable, "no reader takes this file as an image", file)
    values = {}
    for key in reader.GetMetaDataKeys():
        if match := re.fullmatch(r"Segment(\d+)_LabelValue", key):
            number = reader.GetMetaData(key).strip()
            name = f"Segment{match[1]}_Name"
            if number.isdigit():
                values[int(number)] = reader.GetMetaData(name) if reader.HasMetaDataKey(name) else ""
    return values
