"""The 3D vision transformer (MONAI's ``ViT``) and its image-level embedding.

The embedding is the penultimate representation, averaged: every patch token after the last block and
the final layer norm, before any head, averaged over the 8×8×8 tokens (paper, "Deep Learning Feature
Extraction": the average pooling layer, "a global image representation by averaging patch features").

MONAI's net defines the weights' names and the values. On a CPU its forward allocates, and faults in, tens
of megabytes a layer; :class:`TokenMean` computes the same numbers from the same weights into buffers it
keeps, a third faster, and without importing MONAI (seconds, and 200 MB, in every worker).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from monai.networks.nets import ViT

INPUT_SIZE = 128
PATCH_SIZE = 16
TOKENS_A_SIDE = INPUT_SIZE // PATCH_SIZE
TOKENS = TOKENS_A_SIDE**3

CUDA_BATCH = 8
QKV_BIAS = "blocks.0.attn.qkv.bias"


@dataclass(frozen=True)
class Architecture:
    """Width, depth and heads; the names are those of the ViT paper (Dosovitskiy 2021)."""

    hidden: int
    layers: int
    mlp: int
    heads: int


ARCHITECTURES = {
    "vit_small": Architecture(hidden=384, layers=12, mlp=1536, heads=6),
    "vit_base": Architecture(hidden=768, layers=12, mlp=3072, heads=12),
}


def empty_net(architecture: str, *, qkv_bias: bool = False) -> ViT:
    """MONAI's net without storage for its weights: nothing is drawn from the global random generator.

    ``qkv_bias``: with biases on queries, keys and values. Ours has none; nets of other houses do.
    """
    from monai.networks.nets import ViT

    a = ARCHITECTURES[architecture]
    with torch.device("meta"):
        return ViT(
            in_channels=1,
            img_size=INPUT_SIZE,
            patch_size=PATCH_SIZE,
            hidden_size=a.hidden,
            mlp_dim=a.mlp,
            num_layers=a.layers,
            num_heads=a.heads,
            proj_type="conv",
            pos_embed_type="learnable",
            classification=False,
            dropout_rate=0.0,
            spatial_dims=3,
            qkv_bias=qkv_bias,
        )


def has_qkv_bias(names: Container[str]) -> bool:
    """Whether weights of these names belong to a net with biases on queries, keys and values."""
    return QKV_BIAS in names


def load_net(architecture: str, weights: Mapping[str, Tensor]) -> ViT:
    """MONAI's net with these weights, in evaluation mode; ``weights`` has exactly its state's names."""
    net = empty_net(architecture, qkv_bias=has_qkv_bias(weights))
    net.load_state_dict(dict(weights), strict=True, assign=True)
    return net.eval().requires_grad_(False)


class TokenMean:
    """Average-pooled final tokens: float32 (n, 1, 128, 128, 128) -> float32 (n, hidden).

    ``weights`` has exactly the names of MONAI's state. On a CPU everything is float32. On a CUDA device
    MONAI's own forward runs under bfloat16 autocast with fused attention, and values agree to bfloat16's
    precision only. Keeps its buffers: not for two threads at once.
    """

    def __init__(self, architecture: str, weights: Mapping[str, Tensor], device: str = "cpu") -> None:
        self.device = torch.device(device)
        if self.device.type == "cpu":
            self._lean = _LeanForward(ARCHITECTURES[architecture], weights)
        else:
            self._net = load_net(architecture, weights).to(self.device)
            for block in self._net.blocks:
                block.attn.use_flash_attention = True

    @torch.inference_mode()
    def __call__(self, cubes: Tensor) -> Tensor:
        if self.device.type == "cpu":
            # One at a time: another shape may be summed in another order, and a cube would get other last bits
            # alone than in company. Two at once are no quicker (1 to 2 %), and a single one would need company.
            return torch.cat([self._lean(cube).mean(dim=0, keepdim=True) for cube in cubes])
        return torch.cat([self._on_device(part) for part in torch.split(cubes, CUDA_BATCH)])

    def _on_device(self, cubes: Tensor) -> Tensor:
        there = cubes.pin_memory().to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            tokens = self._net(there)[0]
        return tokens.float().mean(dim=1).cpu()


@dataclass(frozen=True)
class _Block:
    """One transformer block's weights, matrices stored (in, out) as the products read them fastest."""

    norm1: tuple[Tensor, Tensor]
    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor
    norm2: tuple[Tensor, Tensor]
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor


class _LeanForward:
    """The forward of MONAI's net for one cube: same weights, kept buffers, fused attention."""

    def __init__(self, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
        self._hidden, self._heads = architecture.hidden, architecture.heads
        patch = weights["patch_embedding.patch_embeddings.weight"]
        bias = weights["patch_embedding.patch_embeddings.bias"]
        self._patch = patch.reshape(self._hidden, -1).t().contiguous()
        self._position = weights["patch_embedding.position_embeddings"][0] + bias
        self._blocks = list(_blocks(architecture, weights))
        self._norm = (weights["norm.weight"], weights["norm.bias"])
        side, p = TOKENS_A_SIDE, PATCH_SIZE
        self._patches = torch.empty(side, side, side, p, p, p)
        self._tokens = torch.empty(TOKENS, self._hidden)
        self._qkv = torch.empty(TOKENS, 3 * self._hidden)
        self._wide = torch.empty(TOKENS, architecture.mlp)

    def __call__(self, cube: Tensor) -> Tensor:
        """(1, 128, 128, 128) -> final-norm tokens, (512, hidden)."""
        side, p, width = TOKENS_A_SIDE, PATCH_SIZE, (self._hidden,)
        self._patches.copy_(cube.view(side, p, side, p, side, p).permute(0, 2, 4, 1, 3, 5))
        t = self._tokens
        torch.mm(self._patches.view(TOKENS, p**3), self._patch, out=t)
        t.add_(self._position)
        for b in self._blocks:
            torch.mm(functional.layer_norm(t, width, *b.norm1), b.qkv, out=self._qkv)
            if b.qkv_bias is not None:
                self._qkv.add_(b.qkv_bias)
            q, k, v = self._qkv.view(1, TOKENS, 3, self._heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(TOKENS, self._hidden)
            t.add_(b.out_bias).addmm_(attended, b.out)
            torch.mm(functional.layer_norm(t, width, *b.norm2), b.up, out=self._wide)
            torch.ops.aten.gelu_(self._wide.add_(b.up_bias))
            t.add_(b.down_bias).addmm_(self._wide, b.down)
        return functional.layer_norm(t, width, *self._norm)


def _blocks(architecture: Architecture, weights: Mapping[str, Tensor]) -> Iterator[_Block]:
    for i in range(architecture.layers):
        block = {name.removeprefix(f"blocks.{i}."): w for name, w in weights.items() if name.startswith(f"blocks.{i}.")}
        yield _Block(
            norm1=(block["norm1.weight"], block["norm1.bias"]),
            qkv=block["attn.qkv.weight"].t().contiguous(),
            qkv_bias=block.get("attn.qkv.bias"),
            out=block["attn.out_proj.weight"].t().contiguous(),
            out_bias=block["attn.out_proj.bias"],
            norm2=(block["norm2.weight"], block["norm2.bias"]),
            up=block["mlp.linear1.weight"].t().contiguous(),
            up_bias=block["mlp.linear1.bias"],
            down=block["mlp.linear2.weight"].t().contiguous(),
            down_bias=block["mlp.linear2.bias"],
        )
