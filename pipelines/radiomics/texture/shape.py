"""Shape features: marching cubes surface and volume, diameters, axes. Formulas of PyRadiomics' class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.diameters import diameters
from pipelines.radiomics.texture.mesh import surface


def shape(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> dict[str, float]:
    """Shape of an ROI in its bounding box (z, y, x); ``spacing`` in mm along x, y, z."""
    steps = np.array(spacing[::-1], dtype=np.float64)
    area, volume, vertices = surface(np.pad(mask, 1), steps)
    slice_, column, row, longest = diameters(vertices, steps)
    least, minor, major = _axes(mask, steps)
    count = int(np.count_nonzero(mask))
    z, y, x = steps.tolist()
    return {
        "Elongation": _root_ratio(minor, major),
        "Flatness": _root_ratio(least, major),
        "LeastAxisLength": _axis_length(least),
        "MajorAxisLength": _axis_length(major),
        "Maximum2DDiameterColumn": column,
        "Maximum2DDiameterRow": row,
        "Maximum2DDiameterSlice": slice_,
        "Maximum3DDiameter": longest,
        "MeshVolume": volume,
        "MinorAxisLength": _axis_length(minor),
        "Sphericity": (36 * math.pi * volume**2) ** (1.0 / 3.0) / area,
        "SurfaceArea": area,
        "SurfaceVolumeRatio": area / volume,
        "VoxelVolume": count * (z * x * y),
    }


def _axes(mask: NDArray[np.bool_], steps: NDArray[np.float64]) -> tuple[float, float, float]:
    """Variances along the principal axes of the voxels' centres, ascending, in mm² (divided by N)."""
    where = np.array(np.nonzero(mask), dtype=np.int64) + 1  # PyRadiomics pads the mask by one
    points = where.transpose((1, 0)) * steps[None, :]
    points -= np.mean(points, axis=0)
    points /= np.sqrt(where.shape[1])
    values = np.linalg.eigvals(np.dot(points.T.copy(), points))
    values[(values < 0) & (values > -1e-10)] = 0
    values.sort()
    return float(values[0]), float(values[1]), float(values[2])


def _axis_length(variance: float) -> float:
    return math.nan if variance < 0 else math.sqrt(variance) * 4


def _root_ratio(smaller: float, larger: float) -> float:
    return math.nan if smaller < 0 or larger < 0 else math.sqrt(smaller / larger)
