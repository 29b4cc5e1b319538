"""Laplacian of Gaussian of a whole image, computed only where an ROI needs it.

The filter is ITK's LaplacianRecursiveGaussianImageFilter, which PyRadiomics uses: along each axis in turn the
second derivative of a Gaussian, the plain Gaussian along the two others, the three results added up. Each is
the recursive filter of Farnebäck and Westin (J Math Imaging Vis 26, 2006; coefficients of Deriche's fourth order),
which runs to and fro over whole lines: a value depends on every voxel of its lines, so a crop with a margin is
never exact. What can be left out without changing a bit are whole lines that end outside the ROI's box, and they
are most of them. Arithmetic, its order and precision (64 bits along a line, 32 between the passes) are ITK's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel

LANES = 32
"""Lines filtered side by side: the recursion waits for itself along one line, not across lines."""

SLAB = 4 * 1024**2
"""Voxels that are held in 64 bits at a time."""

SHORTEST = 4
"""Voxels along an axis; the filter's recursion reaches back that far."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open ranges along z, y, x."""


def smooth_enough(shape: tuple[int, ...], spacing: tuple[float, float, float], sigma: float) -> bool:
    """Whether PyRadiomics filters an image of that size (z, y, x; spacing x, y, z) with that sigma in mm."""
    return min(shape) >= SHORTEST and all(
        size >= math.ceil(sigma / step) + 1 for size, step in zip(shape, spacing[::-1], strict=True)
    )


def laplacian_of_gaussian(
    image: NDArray[Any],
    spacing: tuple[float, float, float],
    sigma: float,
    box: Box,
    rescale: tuple[float, float, float] = (0.0, 1.0, 1.0),
) -> NDArray[np.float32]:
    """The filtered image inside ``box``; scale-normalised, ``sigma`` in mm, ``spacing`` in mm along x, y, z.

    ``image``: the whole one (z, y, x), which is taken as ``((image + a) * b) * c`` with ``a, b, c = rescale``.
    """
    steps = spacing[::-1]
    total = np.zeros([high - low for low, high in box], np.float32)
    for axis in (2, 1, 0):
        part = _along(image, axis, box[axis], coefficients(sigma, steps[axis], derivative=True), rescale)
        for other in (2, 1, 0):
            if other != axis:
                part = _along(part, other, box[other], coefficients(sigma, steps[other], derivative=False))
        _add(total.reshape(-1), part.reshape(-1), 1.0 / (steps[axis] * steps[axis]))
    return total


def coefficients(sigma: float, step: float, *, derivative: bool) -> NDArray[np.float64]:
    """N0–N3, M1–M4, D1–D4, BN1–BN4, BM1–BM4 of the recursive Gaussian, or of its second derivative.

    ``sigma`` and the voxel's ``step`` in mm. ``derivative`` is normalised across scales (times sigma²).
    """
    wide = sigma / step
    w1, l1, w2, l2 = 0.6681, -1.3932, 2.0787, -1.3732
    cos1, cos2, exp1, exp2 = math.cos(w1 / wide), math.cos(w2 / wide), math.exp(l1 / wide), math.exp(l2 / wide)
    sin1, sin2 = math.sin(w1 / wide), math.sin(w2 / wide)
    d4 = exp1 * exp1 * exp2 * exp2
    d3 = -2 * cos1 * exp1 * exp2 * exp2
    d3 += -2 * cos2 * exp2 * exp1 * exp1
    d2 = 4 * cos2 * cos1 * exp1 * exp2
    d2 += exp1 * exp1 + exp2 * exp2
    d1 = -2 * (exp2 * cos2 + exp1 * cos1)
    sd = 1.0 + d1 + d2 + d3 + d4
    dd = d1 + 2 * d2 + 3 * d3 + 4 * d4
    ed = d1 + 4 * d2 + 9 * d3 + 16 * d4

    def numerator(a1: float, b1: float, a2: float, b2: float) -> list[float]:
        n0 = a1 + a2
        n1 = exp2 * (b2 * sin2 - (a2 + 2 * a1) * cos2)
        n1 += exp1 * (b1 * sin1 - (a1 + 2 * a2) * cos1)
        n2 = (a1 + a2) * cos2 * cos1
        n2 -= b1 * cos2 * sin1 + b2 * cos1 * sin2
        n2 *= 2 * exp1 * exp2
        n2 += a2 * exp1 * exp1 + a1 * exp2 * exp2
        n3 = exp2 * exp1 * exp1 * (b2 * sin2 - a2 * cos2)
        n3 += exp1 * exp2 * exp2 * (b1 * sin1 - a1 * cos1)
        return [n0, n1, n2, n3, n0 + n1 + n2 + n3, n1 + 2 * n2 + 3 * n3, n1 + 4 * n2 + 9 * n3]

    plain = numerator(1.3530, 1.8151, -0.3531, 0.0902)
    if derivative:
        second = numerator(-1.3563, 5.2318, 0.3446, -2.2355)
        beta = -(2 * second[4] - sd * second[0]) / (2 * plain[4] - sd * plain[0])
        *n, sn, dn, en = (b + beta * a for a, b in zip(plain, second, strict=True))
        alpha = en * sd * sd - ed * sn * sd - 2 * dn * dd * sd + 2 * dd * dd * sn
        alpha /= sd * sd * sd
        gain = sigma * sigma / alpha
    else:
        n = plain[:4]
        gain = 1.0 / (2 * plain[4] / sd - n[0])
    n0, n1, n2, n3 = (value * gain for value in n)
    m1, m2, m3, m4 = n1 - d1 * n0, n2 - d2 * n0, n3 - d3 * n0, -d4 * n0
    d = (d1, d2, d3, d4)
    sn, sm = n0 + n1 + n2 + n3, m1 + m2 + m3 + m4
    sd = 1.0 + d1 + d2 + d3 + d4
    return np.array([n0, n1, n2, n3, m1, m2, m3, m4, *d, *(v * sn / sd for v in d), *(v * sm / sd for v in d)])


def _along(
    source: NDArray[Any],
    axis: int,
    part: tuple[int, int],
    taps: NDArray[np.float64],
    rescale: tuple[float, float, float] = (0.0, 1.0, 1.0),
) -> NDArray[np.float32]:
    """Filter whole lines along the axis and keep the range ``part`` of each; slab by slab, in 64 bits."""
    shape = list(source.shape)
    shape[axis] = part[1] - part[0]
    out = np.empty(shape, np.float32)
    # the kernel wants lines along the middle axis; slabs are cut across the first
    turn = {2: (0, 2, 1), 1: (0, 1, 2), 0: (1, 0, 2)}[axis]
    lines, kept = source.transpose(turn), out.transpose(turn)
    thick = max(1, SLAB // (lines.shape[1] * lines.shape[2]))
    for start in range(0, len(lines), thick):
        slab = np.array(lines[start : start + thick], dtype=np.float64, order="C")
        if rescale != (0.0, 1.0, 1.0):
            slab += rescale[0]
            slab *= rescale[1]
            slab *= rescale[2]
        _recurse(slab, kept[start : start + thick], part[0], taps)
    return out


@kernel
def _recurse(source: NDArray[np.float64], out: NDArray[np.float32], first: int, taps: NDArray[np.float64]) -> None:
    """Filter along the middle axis of ``source``; ``out`` takes the voxels from ``first`` on."""
    outer, length, width = source.shape
    kept = out.shape[1]
    # beyond an end the end's value goes on for ever: three more voxels, and a recursion already settled
    data = np.zeros((length + 6, LANES))
    causal = np.empty((length + 4, LANES))
    back = np.empty((length + 4, LANES))
    for o in range(outer):
        for start in range(0, width, LANES):
            count = min(LANES, width - start)
            for i in range(length):
                for k in range(count):
                    data[i + 3, k] = source[o, i, start + k]
            for k in range(count):
                for i in range(3):
                    data[i, k] = data[3, k]
                    data[length + 3 + i, k] = data[length + 2, k]
            _forward(data, causal, taps, length)
            _backward(data, back, taps, length)
            for i in range(kept):
                for k in range(count):
                    out[o, i, start + k] = causal[first + i + 4, k] + back[first + i, k]


@kernel
def _forward(
    data: NDArray[np.float64],
    causal: NDArray[np.float64],
    taps: NDArray[np.float64],
    length: int,
) -> None:
    """From the first voxel to the last."""
    n0, n1, n2, n3 = taps[0], taps[1], taps[2], taps[3]
    d1, d2, d3, d4 = taps[8], taps[9], taps[10], taps[11]
    b1, b2, b3, b4 = taps[12], taps[13], taps[14], taps[15]
    for k in range(LANES):
        v = data[3, k]
        # the first four look back beyond the end, where the filter's answer is the end's value times a constant
        e0 = ((data[3, k] * n0 + v * n1) + v * n2) + v * n3
        e1 = ((data[4, k] * n0 + v * n1) + v * n2) + v * n3
        e2 = ((data[5, k] * n0 + data[4, k] * n1) + v * n2) + v * n3
        e3 = ((data[6, k] * n0 + data[5, k] * n1) + data[4, k] * n2) + v * n3
        s0 = e0 - (((v * b1 + v * b2) + v * b3) + v * b4)
        s1 = e1 - (((s0 * d1 + v * b2) + v * b3) + v * b4)
        s2 = e2 - (((s1 * d1 + s0 * d2) + v * b3) + v * b4)
        s3 = e3 - (((s2 * d1 + s1 * d2) + s0 * d3) + v * b4)
        causal[4, k], causal[5, k], causal[6, k], causal[7, k] = s0, s1, s2, s3
    for i in range(4, length):
        x0, x1, x2, x3 = data[i + 3], data[i + 2], data[i + 1], data[i]
        y0, y1, y2, y3, y4 = causal[i + 4], causal[i + 3], causal[i + 2], causal[i + 1], causal[i]
        for k in range(LANES):
            y0[k] = ((x0[k] * n0 + x1[k] * n1) + x2[k] * n2) + x3[k] * n3
        for k in range(LANES):
            y0[k] -= ((y1[k] * d1 + y2[k] * d2) + y3[k] * d3) + y4[k] * d4


@kernel
def _backward(
    data: NDArray[np.float64],
    back: NDArray[np.float64],
    taps: NDArray[np.float64],
    length: int,
) -> None:
    """From the last voxel to the first."""
    m1, m2, m3, m4 = taps[4], taps[5], taps[6], taps[7]
    d1, d2, d3, d4 = taps[8], taps[9], taps[10], taps[11]
    b1, b2, b3, b4 = taps[16], taps[17], taps[18], taps[19]
    last = length + 2
    for k in range(LANES):
        v = data[last, k]
        e0 = ((v * m1 + v * m2) + v * m3) + v * m4
        e1 = ((data[last, k] * m1 + v * m2) + v * m3) + v * m4
        e2 = ((data[last - 1, k] * m1 + data[last, k] * m2) + v * m3) + v * m4
        e3 = ((data[last - 2, k] * m1 + data[last - 1, k] * m2) + data[last, k] * m3) + v * m4
        s0 = e0 - (((v * b1 + v * b2) + v * b3) + v * b4)
        s1 = e1 - (((s0 * d1 + v * b2) + v * b3) + v * b4)
        s2 = e2 - (((s1 * d1 + s0 * d2) + v * b3) + v * b4)
        s3 = e3 - (((s2 * d1 + s1 * d2) + s0 * d3) + v * b4)
        back[length - 1, k], back[length - 2, k], back[length - 3, k], back[length - 4, k] = s0, s1, s2, s3
    for i in range(length - 4, 0, -1):
        x1, x2, x3, x4 = data[i + 3], data[i + 4], data[i + 5], data[i + 6]
        y0, y1, y2, y3, y4 = back[i - 1], back[i], back[i + 1], back[i + 2], back[i + 3]
        for k in range(LANES):
            y0[k] = ((x1[k] * m1 + x2[k] * m2) + x3[k] * m3) + x4[k] * m4
        for k in range(LANES):
            y0[k] -= ((y1[k] * d1 + y2[k] * d2) + y3[k] * d3) + y4[k] * d4


@kernel
def _add(total: NDArray[np.float32], part: NDArray[np.float32], weight: float) -> None:
    for k in range(len(total)):
        total[k] = np.float64(total[k]) + np.float64(part[k]) * weight
