"""Masks: read from what drawing tools write, and put on their image's grid without touching a voxel.

A label map in an image format is read with its own geometry; Slicer's segmentations too, where they are one
layer. A DICOM segmentation or structure set is read onto the grid of the image it was drawn on.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from feature_store.errors import ImageNotFinite, ImageUnreadable, MaskUnreadable
from pipelines.imaging.image_grid import GRID_TOLERANCE, mismatch
from pipelines.imaging.images import LoadedImage, read_image
from pipelines.imaging.integrity import check_file, is_dicom
from pipelines.imaging.itk_calls import itk_call
from pipelines.imaging.label_places import LARGEST_LABEL

DAMAGED = "the DICOM mask is damaged or cut short"
AGAIN = "Export the mask again, or send it as a NIfTI or NRRD label map."

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["GRID_TOLERANCE", "LARGEST_LABEL", "align_mask", "as_label_map", "dicom_mask", "layers", "read_mask"]


def read_mask(
    path: Path,
    file: str | None = None,
    image: LoadedImage | None = None,
    labels: Collection[int] | None = None,
) -> sitk.Image:
    """A label map as unsigned 16 bit whole numbers; float files that hold whole numbers are taken.

    ``image`` is what it was drawn on; DICOM objects need it (and come on its grid), label maps do not. Of a DICOM
    object only the regions numbered in ``labels`` are read, where they are given, so that others may overlap them.

    Raises MaskUnreadable: no reader, several volumes or layers, fractions, NaN, negative or too large labels,
    overlapping regions; GridMismatch where a DICOM object's voxels are not the image's.
    """
    file = file or path.name
    try:
        dataset = dicom_mask(path, file)
        if dataset is not None:
            return _from_dicom(dataset, file, image, labels)
        if layers(path, file) > 1:
            raise MaskUnreadable(
                "its segments lie in several layers, because they overlap.",
                action="Export it as a label map (in Slicer: Export to files, or Export visible segments to labelmap).",
                file=file,
            )
        return as_label_map(read_image(path, file), file)
    except (ImageUnreadable, ImageNotFinite) as error:
        raise MaskUnreadable(error.message, action=error.action, file=file) from error


def dicom_mask(path: Path, file: str) -> Dataset | None:
    """The DICOM segmentation or structure set that a file is, or that is the only one in a folder; None for others.

    Raises MaskUnreadable for a folder without one or with several, and for a DICOM file that is neither.
    """
    if path.is_dir():
        found = [one for one in sorted(path.iterdir()) if is_dicom(one) and one.name.upper() != "DICOMDIR"]
        if len(found) != 1:
            raise MaskUnreadable(
                f"the mask is a folder with {len(found)} DICOM files.",
                action="Send one file: NIfTI, NRRD, MetaImage, DICOM SEG or RTSTRUCT.",
                file=file,
            )
        path = found[0]
    elif not is_dicom(path):
        return None
    from pipelines.imaging.dicom_file import dicom_call, read_dataset

    dataset = read_dataset(path, file, MaskUnreadable)
    modality = dicom_call(lambda: str(dataset.get("Modality") or ""), MaskUnreadable, DAMAGED, file, AGAIN)
    if modality not in ("SEG", "RTSTRUCT"):
        raise MaskUnreadable(
            "the DICOM file is neither a segmentation (SEG) nor a structure set (RTSTRUCT).",
            action="Send the object that the drawing tool wrote, or a NIfTI or NRRD label map.",
            file=file,
        )
    return dataset


def _from_dicom(dataset: Dataset, file: str, image: LoadedImage | None, labels: Collection[int] | None) -> sitk.Image:
    from pipelines.imaging.dicom_file import dicom_call
    from pipelines.imaging.dicom_seg import read_seg
    from pipelines.imaging.rt_structure_set import read_structure_set

    if image is None:
        raise MaskUnreadable(
            "a DICOM mask can be read only together with its image.", action="Give the image as well.", file=file
        )
    read = read_seg if dataset.Modality == "SEG" else read_structure_set
    return dicom_call(lambda: read(dataset, image, file, labels), MaskUnreadable, DAMAGED, file, AGAIN)


def layers(path: Path, file: str) -> int:
    """How many layers a segmentation of Slicer (``.seg.nrrd``) has; 1 for any other file.

    Within one layer the voxels hold each segment's LabelValue already; in several they repeat from layer to layer.
    """
    if path.suffix not in (".nrrd", ".nhdr"):
        return 1
    check_file(path, file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    itk_call(reader.ReadImageInformation, ImageUnreadable, "no reader takes this file as an image", file)
    ours = any(key.startswith(("Segmentation_", "Segment0_")) for key in reader.GetMetaDataKeys())
    return int(reader.GetNumberOfComponents()) if ours else 1


def as_label_map(image: sitk.Image, file: str = "") -> sitk.Image:
    """The same grid with labels as unsigned 16 bit. Raises MaskUnreadable where voxels are no labels."""
    voxels = sitk.GetArrayViewFromImage(image)
    action = f"Export a label map of whole numbers from 0 to {LARGEST_LABEL}."
    if voxels.dtype.kind == "f" and not (np.isfinite(voxels).all() and np.array_equal(voxels, np.rint(voxels))):
        raise MaskUnreadable("it holds fractions or NaN (a probability map?).", action=action, file=file)
    if voxels.min() < 0 or voxels.max() > LARGEST_LABEL:
        raise MaskUnreadable("it holds negative or too large labels.", action=action, file=file)
    return sitk.Cast(image, sitk.sitkUInt16)


def align_mask(mask: sitk.Image, image: sitk.Image, file: str = "") -> sitk.Image:
    """The mask with its array running along the image's axes, on exactly the image's geometry.

    Nothing is interpolated: axes are permuted and flipped where the two sets of voxel centres coincide in
    world space (within GRID_TOLERANCE). A mask mirrored or shifted in its header does not coincide.

    Raises GridMismatch with the difference in size, angle or millimetres.
    """
    turn = np.rint(_directions(image).T @ _directions(mask)).astype(int)
    if not _is_signed_permutation(turn):
        raise mismatch(f"its axes are turned by {_angle(image, mask):.1f} degrees against the image's", file)
    axes = [int(np.flatnonzero(turn[i])[0]) for i in range(3)]  # image axis i runs along mask axis axes[i]
    size = tuple(mask.GetSize()[axis] for axis in axes)
    if size != image.GetSize():
        raise mismatch(f"it has {_times(size)} voxels, the image {_times(image.GetSize())}", file)
    flips = [int(turn[i, axes[i]]) < 0 for i in range(3)]

    def mask_index(index: tuple[int, ...]) -> list[int]:
        found = [0, 0, 0]
        for i, axis in enumerate(axes):
            found[axis] = size[i] - 1 - index[i] if flips[i] else index[i]
        return found

    # the difference of two affine maps is largest at a corner of the box
    corners = product(*((0, n - 1) for n in size))
    distance = max(_distance(image, corner, mask, mask_index(corner)) for corner in corners)
    if distance > GRID_TOLERANCE * min(image.GetSpacing()):
        spacing = [mask.GetSpacing()[axis] for axis in axes]
        sizes = "" if np.allclose(spacing, image.GetSpacing(), rtol=1e-4) else ", and voxel sizes differ"
        raise mismatch(f"its voxels lie up to {distance:.4g} mm from the image's{sizes}", file)

    # arrays are z, y, x: reverse before and after
    turned = np.transpose(sitk.GetArrayViewFromImage(mask).T, axes)
    turned = turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    aligned = sitk.GetImageFromArray(np.ascontiguousarray(turned.T))
    aligned.CopyInformation(image)
    return aligned


def _directions(image: sitk.Image) -> np.ndarray:
    return np.array(image.GetDirection()).reshape(3, 3)


def _is_signed_permutation(turn: np.ndarray) -> bool:
    ones = np.abs(turn)
    return bool((ones.sum(axis=0) == 1).all() and (ones.sum(axis=1) == 1).all())


def _angle(image: sitk.Image, mask: sitk.Image) -> float:
    nearest = np.abs(_directions(image).T @ _directions(mask)).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(nearest.min(), -1.0, 1.0))))


def _distance(image: sitk.Image, index: tuple[int, ...], mask: sitk.Image, mask_index: list[int]) -> float:
    here = np.array(image.TransformIndexToPhysicalPoint([int(i) for i in index]))
    return float(np.linalg.norm(here - np.array(mask.TransformIndexToPhysicalPoint(mask_index))))


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
