"""A 2D vision transformer's weights as a 3D one's (as I3D inflates filters: Carreira and Zisserman 2017).

The 2D net looks at axial planes (y, x); depth is z. With d the patch's depth (16) and D the width:

- **Patch kernel.** RGB kernels are summed to one channel: a grey image in all three channels gives the same
  response. ``average``: ``K3[:, z, y, x] = K2[:, y, x] / d`` for all z; ``centre``: ``K2`` at z = d // 2 and
  zero elsewhere. Either way a volume that is constant along z gives the 2D net's patch response.
- **Positions.** The class token's is dropped, the plane's grid (14×14 at 224 pixels) is resampled to 8×8
  (bicubic, antialiased), then ``tiled``: ``P3[z, y, x] = P2[y, x]``, so that depth is told by content alone;
  or ``sinusoidal``: ``P3[z, y, x] = P2[y, x] + a (S[z] − mean S)`` with ``S[z, 2k] = sin(z / 10000^(2k/D))``,
  ``S[z, 2k+1] = cos(…)`` and ``a`` such that both terms vary equally (root mean square).
- **Class token.** Dropped: an embedding here is the average over patch tokens. Consequence: patches no longer
  attend to it, so that tokens differ from the 2D net's own, most where the net used it as a sink.
- Everything else is copied. Inputs are z-scored cubes instead of ImageNet's means and deviations.

On a volume constant along z, with tiled positions, every token equals that of the 2D net without its class
token: attention over d equal copies is attention over one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from feature_store.errors import CheckpointError
from models.encoders import InflationSettings
from models.vit import PATCH_SIZE, TOKENS_A_SIDE
from models.vit_names import CLASS_TOKEN, PATCH, POSITION


def is_flat(weights: Mapping[str, Tensor]) -> bool:
    """Whether these (MONAI's names) are a 2D net's."""
    return PATCH in weights and weights[PATCH].ndim == 4


def inflated(weights: Mapping[str, Tensor], settings: InflationSettings, file: str) -> dict[str, Tensor]:
    """2D weights under MONAI's names -> 3D ones, without the class token. Raises CheckpointError."""
    kernel = weights[PATCH].float()
    if kernel.shape[1] not in (1, 3) or kernel.shape[2:] != (PATCH_SIZE, PATCH_SIZE):
        raise CheckpointError(
            f"the patch kernel has shape {tuple(kernel.shape)}; one or three channels of "
            f"{PATCH_SIZE}×{PATCH_SIZE} are expected.",
            action=f"Give a ViT with patch size {PATCH_SIZE}.",
            file=file,
        )
    positions = weights.get(POSITION)
    if positions is None:
        raise CheckpointError(
            "the net has no learned position embeddings.", action="Give a ViT that has them.", file=file
        )
    plane = _plane(positions.float(), CLASS_TOKEN in weights, file)
    out = {name: tensor for name, tensor in weights.items() if name != CLASS_TOKEN}
    out[PATCH] = _kernel(kernel.sum(dim=1, keepdim=True), settings)
    out[POSITION] = _positions(plane, settings)
    return out


def _kernel(flat: Tensor, settings: InflationSettings) -> Tensor:
    """(D, 1, p, p) -> (D, 1, p, p, p), depth first as the cube's z."""
    if settings.kernel == "average":
        return (flat[:, :, None] / PATCH_SIZE).repeat(1, 1, PATCH_SIZE, 1, 1)
    deep = flat.new_zeros(*flat.shape[:2], PATCH_SIZE, *flat.shape[2:])
    deep[:, :, PATCH_SIZE // 2] = flat
    return deep


def _plane(positions: Tensor, class_token: bool, file: str) -> Tensor:
    """(1, [1 +] s², D) -> (8, 8, D)."""
    grid = positions[0, 1:] if class_token else positions[0]
    side = math.isqrt(len(grid))
    if side * side != len(grid) or not side:
        raise CheckpointError(
            f"{len(grid)} position embeddings are no square grid.", action="Give a ViT of square images.", file=file
        )
    square = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if side != TOKENS_A_SIDE:
        size = (TOKENS_A_SIDE, TOKENS_A_SIDE)
        square = functional.interpolate(square, size=size, mode="bicubic", align_corners=False, antialias=True)
    return square[0].permute(1, 2, 0)


def _positions(plane: Tensor, settings: InflationSettings) -> Tensor:
    """(8, 8, D) -> (1, 512, D), z slowest, then y, then x, as MONAI flattens patches."""
    width = plane.shape[-1]
    deep = plane[None].repeat(TOKENS_A_SIDE, 1, 1, 1)
    if settings.depth_position == "sinusoidal":
        rate = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angle = torch.arange(TOKENS_A_SIDE, dtype=torch.float64)[:, None] * rate
        wave = torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(TOKENS_A_SIDE, -1)[:, :width]
        wave = wave - wave.mean(dim=0)
        varies = (plane - plane.mean(dim=(0, 1))).double().square().mean().sqrt()
        deep = deep + (wave * (varies / wave.square().mean().sqrt())).float()[:, None, None]
    return deep.reshape(1, -1, width).contiguous()
