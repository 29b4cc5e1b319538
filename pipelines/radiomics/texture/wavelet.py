"""One level of the stationary wavelet transform, on a crop that carries its own margin.

Same sums in the same order as ``pywt.swtn``: along x, then y, then z, taps in ascending order, except at
the last voxel of a whole axis, where PyWavelets takes the three wrapped taps backwards. (In a flat region
the last bit decides the sign of a high-pass value, and so its bin.) Only the voxels inside the margin are
computed, and each axis sheds its margin as it is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel

TAPS = 6
MARGIN = 3


def subbands(
    image: NDArray[Any], ends: tuple[bool, bool, bool] = (False, False, False), wavelet: str = "coif1"
) -> Iterator[tuple[str, NDArray[Any]]]:
    """The eight sub-bands of the voxels inside the margin of 3, one after another; axes z, y, x.

    ``ends``: for each axis, whether the last voxel inside the margin is the last of the whole (even) axis.
    Names have one letter an axis, x first (``LLH``: high pass along z). 32-bit images are filtered in 32
    bits as PyWavelets does, all others in 64. At most seven arrays of the crop's size exist at a time.
    """
    kind = np.float32 if image.dtype == np.float32 else np.float64
    yield from _split("", np.ascontiguousarray(image, dtype=kind), ends, filters(wavelet, np.dtype(kind)))


def _split(
    name: str, source: NDArray[Any], ends: tuple[bool, bool, bool], bank: tuple[NDArray[Any], NDArray[Any]]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Filter along the axis whose turn it is, then the next one: x, y, z."""
    axis = 2 - len(name)
    if axis < 0:
        yield name, source
        return
    pair = _filtered(source, axis, ends[axis], bank)
    for letter in ("H", "L"):
        yield from _split(name + letter, pair.pop(), ends, bank)


def _filtered(
    source: NDArray[Any], axis: int, end: bool, bank: tuple[NDArray[Any], NDArray[Any]]
) -> list[NDArray[Any]]:
    """Low and high pass along one axis, which sheds its margin."""
    shape = list(source.shape)
    shape[axis] -= 2 * MARGIN
    lows, highs = np.empty(shape, source.dtype), np.empty(shape, source.dtype)
    if axis == 2:
        flat = (-1, shape[2])
        _along_rows(source.reshape(-1, source.shape[2]), *bank, lows.reshape(flat), highs.reshape(flat))
    else:
        box = (int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :])))
        _across(source.reshape(box[0], -1, box[2]), *bank, lows.reshape(box), highs.reshape(box))
    if end:
        before: tuple[Any, ...] = (slice(None),) * axis
        window = [source[(*before, source.shape[axis] - 1 - j)] for j in range(TAPS)]
        for taps, out in zip(bank, (lows, highs), strict=True):
            total = taps[2] * window[2]
            for j in (1, 0, 3, 4, 5):
                total = total + taps[j] * window[j]
            out[(*before, -1)] = total
    return [lows, highs]


@cache
def filters(wavelet: str, kind: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """PyWavelets' own taps in that precision, low and high pass, read off its answer to an impulse.

    (Its 32-bit taps are not the 64-bit ones rounded.)
    """
    import pywt

    if pywt.Wavelet(wavelet).dec_len != TAPS:
        raise ValueError(f"only wavelets of {TAPS} taps fit the margin, not {wavelet}")
    impulse = np.zeros(16, kind)
    impulse[8] = 1
    ((low, high),) = pywt.swt(impulse, wavelet, level=1)
    return low[5 : 5 + TAPS].copy(), high[5 : 5 + TAPS].copy()


@kernel
def _along_rows(
    source: NDArray[Any], low: NDArray[Any], high: NDArray[Any], lows: NDArray[Any], highs: NDArray[Any]
) -> None:
    rows, count = lows.shape
    l0, l1, l2, l3, l4, l5 = low[0], low[1], low[2], low[3], low[4], low[5]
    h0, h1, h2, h3, h4, h5 = high[0], high[1], high[2], high[3], high[4], high[5]
    for row in range(rows):
        line = source[row]
        for i in range(count):
            a, b, c, d, e, f = line[i + 6], line[i + 5], line[i + 4], line[i + 3], line[i + 2], line[i + 1]
            lows[row, i] = ((((l0 * a + l1 * b) + l2 * c) + l3 * d) + l4 * e) + l5 * f
            highs[row, i] = ((((h0 * a + h1 * b) + h2 * c) + h3 * d) + h4 * e) + h5 * f


@kernel
def _across(
    source: NDArray[Any], low: NDArray[Any], high: NDArray[Any], lows: NDArray[Any], highs: NDArray[Any]
) -> None:
    outer, count, inner = lows.shape
    l0, l1, l2, l3, l4, l5 = low[0], low[1], low[2], low[3], low[4], low[5]
    h0, h1, h2, h3, h4, h5 = high[0], high[1], high[2], high[3], high[4], high[5]
    for o in range(outer):
        for i in range(count):
            ra, rb, rc = source[o, i + 6], source[o, i + 5], source[o, i + 4]
            rd, re, rf = source[o, i + 3], source[o, i + 2], source[o, i + 1]
            to_low, to_high = lows[o, i], highs[o, i]
            for q in range(inner):
                a, b, c, d, e, f = ra[q], rb[q], rc[q], rd[q], re[q], rf[q]
                to_low[q] = ((((l0 * a + l1 * b) + l2 * c) + l3 * d) + l4 * e) + l5 * f
                to_high[q] = ((((h0 * a + h1 * b) + h2 * c) + h3 * d) + h4 * e) + h5 * f
