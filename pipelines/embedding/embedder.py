"""An ROI's box as the cube an encoder reads, and the encoder that turns cubes into embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from feature_store.errors import ExtractionError, LabelEmpty
from models.encoders import EncoderSettings

if TYPE_CHECKING:
    from torch import Tensor


def roi_cube(image: sitk.Image, mask: np.ndarray, settings: EncoderSettings) -> np.ndarray:
    """The ROI's bounding box plus a margin, resized and normalised: float32 (128, 128, 128).

    ``image``: scalar 3D image as stored, ``mask``: bool (z, y, x) on its grid. The margin in mm is
    rounded up to whole voxels and clipped at the image's border. The box is stored along the patient's
    axes (z superior, y posterior, x left; the nearest of the 48 turns of the voxel axes, so nothing is
    resampled), resized by linear interpolation (voxel centres at half-integers, no smoothing before), and
    z-scored over the cube (paper: 128×128×128, "linear interpolation", "mean of 0 ± 1"). What lies around
    the ROI inside the box stays: the mask only places the box.

    Raises LabelEmpty for an empty mask and ExtractionError where the box has one value only.
    """
    box = image[_box(mask, image.GetSpacing(), settings.margin_mm)]
    voxels = sitk.GetArrayFromImage(sitk.DICOMOrient(box, settings.orientation))
    cube = resized(voxels.astype(np.float32), settings.input_size)
    mean, sd = float(cube.mean(dtype=np.float64)), float(cube.std(dtype=np.float64))
    if not sd > 1e-6 * max(abs(mean), 1.0):
        raise ExtractionError(
            "the image is constant in the ROI's bounding box.", action="Look at the image under the mask."
        )
    return ((cube - np.float32(mean)) / np.float32(sd)).astype(np.float32)


def _box(mask: np.ndarray, spacing: tuple[float, ...], margin_mm: float) -> tuple[slice, slice, slice]:
    """Bounding box as slices in x, y, z order (SimpleITK's)."""
    slices = []
    for axis in (2, 1, 0):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(filled):
            raise LabelEmpty("the ROI has no voxel.", action="Look at the mask and its labels.")
        margin = int(np.ceil(margin_mm / spacing[2 - axis] - 1e-9))
        low = max(int(filled[0]) - margin, 0)
        high = min(int(filled[-1]) + margin + 1, mask.shape[axis])
        slices.append(slice(low, high))
    return slices[0], slices[1], slices[2]


def resized(voxels: np.ndarray, edge: int) -> np.ndarray:
    """Linear interpolation along one axis after the other: multiply and add, the same bits on any machine."""
    for axis in range(3):
        size = voxels.shape[axis]
        at = np.clip((np.arange(edge) + 0.5) * (size / edge) - 0.5, 0, size - 1)
        low = np.minimum(at.astype(np.intp), max(size - 2, 0))
        weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        below, above = voxels.take(low, axis), voxels.take(np.minimum(low + 1, size - 1), axis)
        voxels = below * (1 - weight) + above * weight
    return voxels


class Embedder:
    """An encoder with its weights on a device, ready to embed cubes.

    One cube gives the same numbers alone as among others. On a CPU the arithmetic is float32; only on a
    CUDA device bfloat16 autocast is used.
    """

    def __init__(self, settings: EncoderSettings, weights: Mapping[str, Tensor], device: str = "cpu") -> None:
        from models.vit import TokenMean

        self.settings = settings
        self._encode = TokenMean(settings.architecture, weights, device)

    def embed(self, cubes: np.ndarray) -> np.ndarray:
        """Cubes float32 (n, 128, 128, 128), as :func:`roi_cube` gives them -> float32 (n, dimension)."""
        import torch

        if cubes.shape[0] == 0:
            return np.empty((0, self.settings.dimension), dtype=np.float32)
        batch = torch.from_numpy(np.ascontiguousarray(cubes, dtype=np.float32))[:, None]
        embedded: np.ndarray = self._encode(batch).numpy()
        return embedded
