"""A masked autoencoder around MONAI's ViT (He 2022, "Masked Autoencoders Are Scalable Vision Learners").

The encoder sees a quarter of a cube's patches; a light decoder paints the others. MONAI's own
``MaskedAutoEncoderViT`` is not used: its encoder attends to a class token, which ours has not, and it draws
its masks from the global generator. Here the encoder is the very net that embeds, so its weights are an
encoder's checkpoint as they stand.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.learning.settings import PretrainSettings
from models.vit import PATCH_SIZE, TOKENS, TOKENS_A_SIDE, load_net
from models.vit_names import POSITION

if TYPE_CHECKING:
    from monai.networks.nets import ViT


class MaskedAutoencoder(nn.Module):
    """``forward``: cubes (n, 1, 128, 128, 128), order (n, 512) -> losses (n,) and the painted patches' mean.

    The first ``kept`` patches of ``order`` are seen. The loss is the mean squared error over the patches not
    seen, each z-scored in itself (He 2022: normalised pixels).
    """

    def __init__(self, settings: PretrainSettings, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        from monai.networks.blocks.transformerblock import TransformerBlock

        width = settings.decoder_width
        self.encoder = trainable_encoder(settings.architecture, weights)
        self.kept = max(1, round(TOKENS * (1 - settings.mask_ratio)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.narrow = nn.Linear(self.encoder.norm.weight.numel(), width)
            self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
            self.decoder = nn.Sequential(
                *(
                    TransformerBlock(width, 4 * width, settings.decoder_heads, use_flash_attention=True)
                    for _ in range(settings.decoder_layers)
                ),
                nn.LayerNorm(width),
            )
            self.paint = nn.Linear(width, PATCH_SIZE**3)
        _freeze_unused(self)
        self.register_buffer("place", sincos_positions(width), persistent=False)

    def forward(self, cubes: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        n = len(cubes)
        embedding = self.encoder.patch_embedding
        tokens = embedding.patch_embeddings(cubes).flatten(2).transpose(1, 2) + embedding.position_embeddings
        seen, unseen = order[:, : self.kept], order[:, self.kept :]
        tokens = _picked(tokens, seen)
        for block in self.encoder.blocks:
            tokens = block(tokens)
        tokens = self.narrow(self.encoder.norm(tokens))
        blank = self.mask_token.to(tokens.dtype).expand(n, TOKENS - self.kept, -1)
        # the decoder gets them in the order of the shuffle; where each belongs is told by its position
        place = self.get_buffer("place").expand(n, -1, -1)
        painted = self.paint(self.decoder(torch.cat([tokens, blank], dim=1) + _picked(place, order))[:, self.kept :])
        target = _picked(patches(cubes), unseen)
        mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True, unbiased=False)
        losses = ((painted.float() - (target - mean) / (variance + 1e-6).sqrt()) ** 2).mean(dim=(1, 2))
        return losses, painted.detach().float().mean(dim=(1, 2))


def trainable_encoder(architecture: str, weights: Mapping[str, Tensor]) -> ViT:
    """MONAI's net with a copy of these weights, ready to learn, with fused attention."""
    net = load_net(architecture, {name: tensor.clone() for name, tensor in weights.items()})
    net.train().requires_grad_(True)
    for block in net.blocks:
        block.attn.use_flash_attention = True
    _freeze_unused(net)
    return net


def starting_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Random weights with positions that tell where a patch is from the first step on (sine and cosine)."""
    width = weights[POSITION].shape[-1]
    return {**weights, POSITION: sincos_positions(width) * 0.1}


def sincos_positions(width: int) -> Tensor:
    """(1, 512, width): MONAI's fixed embedding of the 8×8×8 places, z slowest."""
    from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meshgrid.*")  # MONAI's call, and harmless
        places: Tensor = build_sincos_position_embedding([TOKENS_A_SIDE] * 3, width, 3).detach()
    return places.clone()


def patches(cubes: Tensor) -> Tensor:
    """(n, 1, 128, 128, 128) -> (n, 512, 4096), patches z slowest, then y, then x."""
    n, side, p = len(cubes), TOKENS_A_SIDE, PATCH_SIZE
    split = cubes.reshape(n, side, p, side, p, side, p).permute(0, 1, 3, 5, 2, 4, 6)
    return split.reshape(n, TOKENS, p**3)


def masking_order(draw: np.random.Generator) -> Tensor:
    """A random order of a cube's patches, (512,)."""
    return torch.from_numpy(draw.permutation(TOKENS))


def _picked(tokens: Tensor, which: Tensor) -> Tensor:
    return tokens.gather(1, which[..., None].expand(-1, -1, tokens.shape[-1]))


def _freeze_unused(net: nn.Module) -> None:
    """MONAI gives every block a norm for cross attention that is never run; it has no gradient to wait for."""
    for name, parameter in net.named_parameters():
        if "norm_cross_attn" in name:
            parameter.requires_grad_(False)
