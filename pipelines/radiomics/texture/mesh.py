"""Surface area, volume and vertices of an ROI's triangle mesh (marching cubes at half height).

The triangles of each of the 128 corner patterns are Bourke's marching cubes table in the edge numbering of
PyRadiomics' shape class (BSD-3-Clause, copyright Harvard Medical School and the PyRadiomics
contributors): other triangles of the same pattern would give another area.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipelines.radiomics.texture.compiled import kernel

_PATTERNS = """
    - 083 190 183198 12a 08312a 92a029 2832a8a98 b23 b2008b 190b23 b2119b98b 3a1ba3 a1008a8ba 9033b9ba9
    98aba8 478 043473 190478 194147173 12a478 34730412a 92a902478 2a9297273479 478b23 b47b24204 190478b23
    47b94bb29192 3a1ba3478 ba114b10447b 4789033b9ba9 47b4b99ba 954 954083 054015 854835315 12a954 08312a954
    2a5542240 2a5325354834 954b23 b2008b954 054015b23 215258b28548 3a1ba3954 549a1008a8ba 54050ba5bb03
    548a58ba8 789579 309539357 780017715 157173 78957912a 12a309395357 0288258572a5 2a5253357 579789b23
    579972209b27 b23018178157 21b17b157 7895793a1ba3 5705097b0a10ba0 ba003ba50078570 ba557b 65a 08365a
    19065a 18319865a 165126 165126083 965906026 598582526832 b2365a b2008b65a 190b2365a b2119b98b65a
    63b653513 08b0b50515b6 63b036065059 65969bb98 47865a 04347365a 19047865a 19414717365a 478165126
    043473165126 478965906026 739479329596269 b2347865a b47b2420465a 190b2347865a 47b94bb2919265a
    47863b653513 51b5b610b47b04b 47863b036065059 65969b4797b9 a4964a a4964a083 01aa60640 18316886461a
    149124264 149124264083 024426 832824426 b23a4964a b2008ba4964a b2301aa60640 64161a148b2118b
    964369139b63 18b081b61149641 63b036640 86468b 67a78a89a 67a0a709a073 67a1a7178018 67a1a7173
    126168189678 269129679309739 078706602 273267 b2367a78a89a 207b2709767a9a7 67a1a7178018b23 b2117ba61167
    896678169b63136 09167b 07870603bb60 67b
"""
"""Edges (0 to b) three a triangle, by pattern; the other 128 patterns are these with inside and outside swapped."""

_EDGES = (
    (0, 0, 1), (0, 1, 2), (0, 2, 1), (0, 1, 0), (2, 0, 1), (2, 1, 2),
    (2, 2, 1), (2, 1, 0), (1, 0, 0), (1, 0, 2), (1, 2, 2), (1, 2, 0),
)  # fmt: skip
"""Middle of each edge along z, y, x, in half voxels from the pattern's first corner."""


@cache
def _table() -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.float64]]:
    triangles = np.full((128, 16), -1, np.int8)
    for pattern, edges in enumerate(_PATTERNS.split()):
        if edges != "-":
            triangles[pattern, : len(edges)] = [int(edge, 12) for edge in edges]
    middles = np.array(_EDGES, dtype=np.int64)
    return triangles, middles, middles / 2.0


def surface(mask: NDArray[np.bool_], steps: NDArray[np.float64]) -> tuple[float, float, NDArray[np.int64]]:
    """Area in mm², volume in mm³, vertices [V, 3] as twice their index along z, y, x.

    ``mask``: z, y, x, with a border of background. ``steps``: mm along z, y, x.
    """
    area, volume, vertices = _walk(np.ascontiguousarray(mask).view(np.int8), steps, *_table())
    return float(area), float(volume), vertices


@kernel
def _walk(
    mask: NDArray[np.int8],
    steps: NDArray[np.float64],
    triangles: NDArray[np.int8],
    middles: NDArray[np.int64],
    halves: NDArray[np.float64],
) -> tuple[float, float, NDArray[np.int64]]:
    depth, height, width = mask.shape
    vertices = np.empty((1024, 3), np.int64)
    found = 0
    area, volume = 0.0, 0.0
    for z in range(depth - 1):
        for y in range(height - 1):
            for x in range(width - 1):
                pattern = (
                    mask[z, y, x]
                    | mask[z, y, x + 1] << 1
                    | mask[z, y + 1, x + 1] << 2
                    | mask[z, y + 1, x] << 3
                    | mask[z + 1, y, x] << 4
                    | mask[z + 1, y, x + 1] << 5
                    | mask[z + 1, y + 1, x + 1] << 6
                    | mask[z + 1, y + 1, x] << 7
                )
                if pattern == 0 or pattern == 255:
                    continue
                sign = 1.0
                if pattern & 128:
                    pattern ^= 255
                    sign = -1.0
                if found + 3 > len(vertices):
                    wider = np.empty((2 * len(vertices), 3), np.int64)
                    wider[:found] = vertices[:found]
                    vertices = wider
                # the three edges at the last corner, which no neighbouring cube before has stored
                for corner, edge in ((6, 6), (4, 7), (3, 11)):
                    if pattern & (1 << corner):
                        vertices[found, 0] = 2 * z + middles[edge, 0]
                        vertices[found, 1] = 2 * y + middles[edge, 1]
                        vertices[found, 2] = 2 * x + middles[edge, 2]
                        found += 1
                k = 0
                while triangles[pattern, k] >= 0:
                    ea, eb, ec = triangles[pattern, k], triangles[pattern, k + 1], triangles[pattern, k + 2]
                    k += 3
                    a0, a1, a2 = (
                        (z + halves[ea, 0]) * steps[0],
                        (y + halves[ea, 1]) * steps[1],
                        (x + halves[ea, 2]) * steps[2],
                    )
                    b0, b1, b2 = (
                        (z + halves[eb, 0]) * steps[0],
                        (y + halves[eb, 1]) * steps[1],
                        (x + halves[eb, 2]) * steps[2],
                    )
                    c0, c1, c2 = (
                        (z + halves[ec, 0]) * steps[0],
                        (y + halves[ec, 1]) * steps[1],
                        (x + halves[ec, 2]) * steps[2],
                    )
                    n0, n1, n2 = a1 * b2 - b1 * a2, a2 * b0 - b2 * a0, a0 * b1 - b0 * a1
                    volume += sign * (n0 * c0 + n1 * c1 + n2 * c2)
                    a0, a1, a2 = a0 - c0, a1 - c1, a2 - c2
                    b0, b1, b2 = b0 - c0, b1 - c1, b2 - c2
                    n0, n1, n2 = a1 * b2 - b1 * a2, a2 * b0 - b2 * a0, a0 * b1 - b0 * a1
                    area += 0.5 * np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
    return area, volume / 6, vertices[:found]
