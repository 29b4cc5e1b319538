"""The shape of one phantom's lumbar spine: a chain of vertebral bodies and discs, in mm.

The patient frame is LPS with the centre of L3 at (0, 0, 0). The chain bends in the sagittal plane only:
the sacrum leans forward, L3 lies level, L1 leans back (lordosis).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.phantom.grid import FloatArray

CHAIN = (
    "S2", "S1-S2", "S1", "L5-S1", "L5", "L4-L5", "L4", "L3-L4", "L3", "L2-L3", "L2", "L1-L2", "L1", "T12-L1", "T12",
)  # fmt: skip
"""From below; a hyphen marks a disc."""

# Share of the lordosis angle by which each vertebra leans forward (S1: the sacral slope).
LEAN = {"S2": 1.05, "S1": 0.74, "L5": 0.40, "L4": 0.15, "L3": -0.03, "L2": -0.14, "L1": -0.22, "T12": -0.28}
DISC_HEIGHT = {"S1-S2": 3.0, "L5-S1": 9.5, "L4-L5": 11.0, "L3-L4": 10.5, "L2-L3": 9.5, "L1-L2": 8.5, "T12-L1": 7.0}
WIDTH = {"S2": 0.85, "S1": 1.08, "L5": 1.10, "L4": 1.06, "L3": 1.03, "L2": 1.0, "L1": 0.97, "T12": 0.94}


@dataclass(frozen=True)
class Block:
    """One body or disc: centre (y, z) in mm, lean in radians, full height and half axes in mm.

    ``wedge`` (radians) is by how much its upper and lower face diverge towards the front.
    """

    level: str
    centre: tuple[float, float]
    lean: float
    height: float
    half_width: float
    half_depth: float
    wedge: float

    @property
    def is_disc(self) -> bool:
        return "-" in self.level

    def local(self, x: FloatArray, y: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """u (left), v (back) and w (up) in the block's own frame, in mm."""
        dy, dz = y - self.centre[0], z - self.centre[1]
        c, s = np.float32(np.cos(self.lean)), np.float32(np.sin(self.lean))
        return x, dy * c + dz * s, dz * c - dy * s

    def half_height(self, v: FloatArray) -> FloatArray:
        """Half the height at depth ``v``: a wedge is higher in front."""
        return np.maximum(self.height / 2 - np.float32(np.tan(self.wedge / 2)) * v, 1.0)

    def rim(self, u: FloatArray, v: FloatArray, w: FloatArray) -> FloatArray:
        """Squared-like distance from the axis: 1 on the side wall. Bodies are waisted, flat behind."""
        waist = 1.0 if self.is_disc else 0.89 + 0.11 * np.minimum((2 * w / self.height) ** 2, 1.0)
        depth = np.where(v > 0, np.float32(0.86), np.float32(1.0)) * self.half_depth
        radius: FloatArray = np.abs(u / (self.half_width * waist)) ** 2.5 + np.abs(v / (depth * waist)) ** 2.5
        return radius


@dataclass(frozen=True)
class Spine:
    """The whole chain, from below, and the size factor it was made with."""

    blocks: tuple[Block, ...]
    size: float

    def course(self, z: FloatArray) -> FloatArray:
        """y of the spine's axis at height ``z``, in mm (held constant beyond the ends)."""
        centres = np.array([block.centre for block in self.blocks])
        return np.interp(z, centres[:, 1], centres[:, 0]).astype(np.float32)

    def centre(self, level: str) -> tuple[float, float]:
        """(y, z) of a level's centre, in mm."""
        return next(block.centre for block in self.blocks if block.level == level)


def draw_spine(rng: np.random.Generator) -> Spine:
    """A spine of its own: size, lordosis and disc heights vary, independently of everything else."""
    size = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))
    lordosis = np.radians(np.clip(rng.normal(48.0, 7.0), 30.0, 64.0))
    body_height = 26.5 * size
    lean: dict[str, float] = {level: float(share * lordosis) for level, share in LEAN.items()}
    height = {level: body_height * float(rng.normal(1.0, 0.025)) for level in LEAN}
    height |= {d: h * size * float(np.clip(rng.normal(1.0, 0.10), 0.75, 1.25)) for d, h in DISC_HEIGHT.items()}

    blocks: list[Block] = []
    y = z = 0.0
    for level in CHAIN:
        upper, _, lower = level.partition("-")
        if lower:  # a disc sits between its two vertebrae and opens by their difference
            tilt, wedge = (lean[upper] + lean[lower]) / 2, lean[lower] - lean[upper]
            wide = (WIDTH[upper] + WIDTH[lower]) / 2
        else:
            tilt, wedge, wide = lean[level], 0.0, WIDTH[level]
        up = np.array([-np.sin(tilt), np.cos(tilt)])
        y, z = np.array([y, z]) + up * height[level] / 2
        blocks.append(
            Block(level, (float(y), float(z)), tilt, height[level], 23.0 * size * wide, 17.5 * size * wide**0.5, wedge)
        )
        y, z = np.array([y, z]) + up * height[level] / 2
    return _centred_on_l3(blocks, size)


def _centred_on_l3(blocks: list[Block], size: float) -> Spine:
    y0, z0 = next(block.centre for block in blocks if block.level == "L3")
    moved = (
        Block(b.level, (b.centre[0] - y0, b.centre[1] - z0), b.lean, b.height, b.half_width, b.half_depth, b.wedge)
        for b in blocks
    )
    return Spine(tuple(moved), size)
