"""How noisy an image is, from itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MAD_TO_SD = 0.6745
"""Median of |x| of a normal x with an SD of 1."""
FLAT = 1e-6
"""A coefficient under this share of the largest voxel is rounding."""
ENOUGH_VOXELS = 4_000_000
"""More are not looked at: evenly spaced slices stand for the others."""


def noise_level(image: NDArray[Any], spacing: tuple[float, float, float]) -> float:
    """SD of white noise in an image (z, y, x; spacing x, y, z in mm), in its own units; 0 for one without any.

    Robust estimate from the diagonal (HH) coefficients of coif1 along the two axes of finest spacing: median
    of their absolute values / 0.6745 (Donoho, Biometrika 1994;81:425; Chang, Yu and Vetterli, IEEE Trans Image
    Process 2000;9:1532; so Zwanenburg et al., Sci Rep 2019;9:614). Stretches without any change (padding around
    the field of view) say nothing about noise and are left out.
    """
    import pywt

    through = int(np.argmax(spacing[::-1]))
    slices = np.moveaxis(image, through, 0)
    step = max(1, image.size // ENOUGH_VOXELS)
    detail = slices[::step].astype(np.float32)
    taps = np.asarray(pywt.Wavelet("coif1").dec_hi, dtype=np.float32)
    for axis in (1, 2):
        if detail.shape[axis] < len(taps):
            return 0.0
        inner = (slice(None),) * axis + (slice(len(taps) // 2, 1 - len(taps) // 2),)
        detail = ndimage.convolve1d(detail, taps, axis=axis)[inner]  # away from the border, where nothing is made up
    size = np.abs(detail)
    there = size[size > FLAT * np.abs(image).max()]
    return float(np.median(there)) / MAD_TO_SD if there.size else 0.0
