"""Which tissue and which labelled structure lies at each voxel of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from feature_store.vocabulary import LUMBAR_DISCS, LUMBAR_VERTEBRAE, Side
from pipelines.phantom.grid import FloatArray, Grid
from pipelines.phantom.spine import Spine


class Tissue(IntEnum):
    """What a voxel is made of; a sequence gives each its signal."""

    AIR = 0
    FAT = 1
    ABDOMEN = 2
    VESSEL = 3
    MUSCLE = 4
    CSF = 5
    NERVE = 6
    MARROW = 7
    CORTEX = 8
    ANNULUS = 9
    NUCLEUS = 10


@dataclass(frozen=True)
class Part:
    """One labelled structure: what a label of a mask stands for."""

    structure: str
    level: str | None = None
    side: str | None = None


BODIES = tuple(Part("vertebral_body", level) for level in LUMBAR_VERTEBRAE)
DISCS = tuple(Part("intervertebral_disc", level) for level in LUMBAR_DISCS)
MUSCLES = tuple(
    Part(structure, None, side)
    for structure in ("psoas_major", "quadratus_lumborum", "paraspinal_muscle")
    for side in (Side.LEFT.value, Side.RIGHT.value)
)
PARTS = (*BODIES, *DISCS, *MUSCLES)


@dataclass(frozen=True)
class Anatomy:
    """Arrays (k, j, i) on one grid: ``tissue`` codes, and ``part``: 1 + index into PARTS, 0 for none."""

    tissue: NDArray[np.uint8]
    part: NDArray[np.uint8]

    def where(self, structure: str) -> NDArray[np.bool_]:
        """Voxels of a structure, whatever level and side."""
        numbers = [number for number, part in enumerate(PARTS, start=1) if part.structure == structure]
        return np.isin(self.part, numbers)


# name: (distance from the midline, distance behind the spine's axis, half width, half depth) in mm at size 1
MUSCLE_SHAPE = {
    "psoas_major": (38.0, 2.0, 13.5, 18.0),
    "quadratus_lumborum": (65.0, 18.0, 14.0, 9.0),
    "paraspinal_muscle": (31.0, 52.0, 25.5, 20.0),
}


def paint(spine: Spine, grid: Grid, centre: NDArray[np.float64]) -> Anatomy:
    """The anatomy on a grid, with the spine's L3 at ``centre`` (mm, LPS)."""
    x, y, z = grid.points()
    x, y, z = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
    tissue = np.full(grid.shape, Tissue.FAT, dtype=np.uint8)
    part = np.zeros(grid.shape, dtype=np.uint8)
    _paint_trunk(spine, x, y, z, tissue)
    _paint_muscles(spine, x, y, z, tissue, part)
    _paint_canal(spine, x, y, z, tissue)
    _paint_column(spine, x, y, z, tissue, part)
    return Anatomy(tissue, part)


def _paint_trunk(spine: Spine, x: FloatArray, y: FloatArray, z: FloatArray, tissue: NDArray[np.uint8]) -> None:
    """Skin outline, abdominal content, aorta and vena cava; what is left inside is fat."""
    size, behind = spine.size, y - spine.course(z)
    tissue[(behind < -24 * size) & (np.abs(x) < 115 * size)] = Tissue.ABDOMEN
    for side in (9.0, -12.0):  # aorta on the left, vena cava on the right
        tissue[(x - side * size) ** 2 + (behind + 27 * size) ** 2 < (8 * size) ** 2] = Tissue.VESSEL
    outline = np.abs(x / (165 * size)) ** 2.5 + np.abs((behind + 20 * size) / (105 * size)) ** 2.5
    tissue[outline > 1] = Tissue.AIR


def _paint_muscles(
    spine: Spine, x: FloatArray, y: FloatArray, z: FloatArray, tissue: NDArray[np.uint8], part: NDArray[np.uint8]
) -> None:
    behind = y - spine.course(z)
    low = -spine.centre("L5")[1]
    down = np.clip(-z / low, -1.2, 1.4)  # 0 at L3, 1 at L5
    for number, muscle in enumerate(MUSCLES, start=1 + len(BODIES) + len(DISCS)):
        far, back, half_width, half_depth = (value * spine.size for value in MUSCLE_SHAPE[muscle.structure])
        grow = 1.0 + 0.25 * down if muscle.structure == "psoas_major" else 1.0 - 0.08 * down
        side = 1.0 if muscle.side == Side.LEFT else -1.0  # x grows to the patient's left
        radius = ((x * side - far) / (half_width * grow)) ** 2 + ((behind - back) / (half_depth * grow)) ** 2
        inside = radius < 1
        if muscle.structure == "quadratus_lumborum":
            inside &= z > -low * 1.05  # ends on the iliac crest
        tissue[inside], part[inside] = Tissue.MUSCLE, number


def _paint_canal(spine: Spine, x: FloatArray, y: FloatArray, z: FloatArray, tissue: NDArray[np.uint8]) -> None:
    """Dural sac with roots, and the arch with its spinous processes behind it."""
    size, behind = spine.size, y - spine.course(z)
    in_canal = (x / (9.5 * size)) ** 2 + ((behind - 23.5 * size) / (7.5 * size)) ** 2
    lamina = (np.abs(x) < 15 * size) & (behind > 29 * size) & (behind < 36 * size)
    period = (spine.centre("L2")[1] - spine.centre("L4")[1]) / 2
    spinous = (np.abs(x) < 4 * size) & (behind > 33 * size) & (behind < 60 * size)
    at_level = np.cos(2 * np.pi * (z + 8 * size) / period) > -0.45  # a gap between two arches
    tissue[(lamina | spinous) & at_level] = Tissue.MARROW
    tissue[in_canal < 1] = Tissue.CSF
    roots = (x / (6.0 * size)) ** 2 + ((behind - 26 * size) / (3.0 * size)) ** 2
    tissue[roots < 1] = Tissue.NERVE


def _paint_column(
    spine: Spine, x: FloatArray, y: FloatArray, z: FloatArray, tissue: NDArray[np.uint8], part: NDArray[np.uint8]
) -> None:
    """Discs first, then bodies over them: end plates decide where a disc ends."""
    numbers = {part.level: number for number, part in enumerate((*BODIES, *DISCS), start=1)}
    for block in sorted(spine.blocks, key=lambda block: not block.is_disc):
        reach = block.half_depth + block.height  # no voxel of the block is further than this from its centre's height
        near = np.flatnonzero((np.abs(z - block.centre[1]) < reach) & (np.abs(x) <= block.half_width))
        u, v, w = block.local(x.ravel()[near], y.ravel()[near], z.ravel()[near])
        rim, top = block.rim(u, v, w), np.abs(w) / block.half_height(v)
        inside = (rim < 1) & (top < 1)
        if block.is_disc:
            nucleus = np.abs(u / (0.66 * block.half_width)) ** 2 + np.abs((v - 1.5) / (0.62 * block.half_depth)) ** 2
            kinds = np.where(nucleus[inside] + top[inside] ** 4 < 1, Tissue.NUCLEUS, Tissue.ANNULUS)
        else:
            shell = (rim > 0.78) | (np.abs(w) > block.height / 2 - 1.9)
            kinds = np.where(shell[inside], Tissue.CORTEX, Tissue.MARROW)
        tissue.ravel()[near[inside]] = kinds.astype(np.uint8)
        part.ravel()[near[inside]] = numbers.get(block.level, 0)
