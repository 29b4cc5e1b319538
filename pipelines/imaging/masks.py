"""Label maps: read as whole numbers, and put on their image's grid without touching a voxel."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from feature_store.errors import GridMismatch, ImageNotFinite, ImageUnreadable, MaskUnreadable
from pipelines.imaging.images import read_image

LARGEST_LABEL = 65535

GRID_TOLERANCE = 1e-3
"""How far apart two voxel centres may lie to be the same voxel, as a share of the smallest voxel size.

Headers hold float32 or decimal text: at 500 mm from the origin that moves a centre by about 1e-4 mm, a
fifth of this at 0.5 mm voxels. A mask that is really shifted, were it by a hundredth of a voxel, is refused.
"""

_SAME_GRID = "Draw or resample the mask on this very image, with nearest neighbour, and send it again."


def read_mask(path: Path, file: str | None = None) -> sitk.Image:
    """A label map as unsigned 16 bit whole numbers; float files that hold whole numbers are taken.

    Raises MaskUnreadable: no reader, several volumes, fractions, NaN, negative or too large labels.
    """
    file = file or path.name
    if path.is_dir():
        raise MaskUnreadable(
            "the mask is a folder.", action="Send the label map as one NIfTI, NRRD or MetaImage file.", file=file
        )
    try:
        image = read_image(path, file)
    except (ImageUnreadable, ImageNotFinite) as error:
        raise MaskUnreadable(error.message, action=error.action, file=file) from error
    return as_label_map(image, file)


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
        raise _mismatch(f"its axes are turned by {_angle(image, mask):.1f} degrees against the image's", file)
    axes = [int(np.flatnonzero(turn[i])[0]) for i in range(3)]  # image axis i runs along mask axis axes[i]
    size = tuple(mask.GetSize()[axis] for axis in axes)
    if size != image.GetSize():
        raise _mismatch(f"it has {_times(size)} voxels, the image {_times(image.GetSize())}", file)
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
        raise _mismatch(f"its voxels lie up to {distance:.4g} mm from the image's{sizes}", file)

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


def _mismatch(difference: str, file: str) -> GridMismatch:
    return GridMismatch(f"mask and image do not share their voxels: {difference}.", action=_SAME_GRID, file=file)
