"""A 2D ViT-S/16 of three blocks, written out by hand, with random weights in the names of timm, torchvision or HF."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.vit import Architecture

WIDTH, LAYERS, HEADS, MLP, SIDE = 384, 3, 6, 1536, 14
SHALLOW = Architecture(hidden=WIDTH, layers=LAYERS, mlp=MLP, heads=HEADS)


def timm_weights(seed: int = 0, *, class_token: bool = True, side: int = SIDE, channels: int = 3) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int, sd: float = 0.02) -> Tensor:
        return torch.randn(*shape, generator=draw) * sd

    weights = {
        "patch_embed.proj.weight": normal(WIDTH, channels, 16, 16, sd=0.05),
        "patch_embed.proj.bias": normal(WIDTH),
        "pos_embed": normal(1, side * side + class_token, WIDTH, sd=0.3),
        "norm.weight": 1 + normal(WIDTH, sd=0.1),
        "norm.bias": normal(WIDTH),
        "head.weight": normal(1000, WIDTH),
        "head.bias": normal(1000),
    }
    if class_token:
        weights["cls_token"] = normal(1, 1, WIDTH)
    for i in range(LAYERS):
        for norm in ("norm1", "norm2"):
            weights[f"blocks.{i}.{norm}.weight"] = 1 + normal(WIDTH, sd=0.1)
            weights[f"blocks.{i}.{norm}.bias"] = normal(WIDTH, sd=0.1)
        for name, rows, columns in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", MLP, WIDTH),
            ("mlp.fc2", WIDTH, MLP),
        ):
            weights[f"blocks.{i}.{name}.weight"] = normal(rows, columns, sd=0.06)
            weights[f"blocks.{i}.{name}.bias"] = normal(rows, sd=0.3)
    return weights


def torchvision_weights(timm: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {
        "conv_proj.weight": timm["patch_embed.proj.weight"],
        "conv_proj.bias": timm["patch_embed.proj.bias"],
        "class_token": timm["cls_token"],
        "encoder.pos_embedding": timm["pos_embed"],
        "encoder.ln.weight": timm["norm.weight"],
        "encoder.ln.bias": timm["norm.bias"],
        "heads.head.weight": timm["head.weight"],
        "heads.head.bias": timm["head.bias"],
    }
    for i in range(LAYERS):
        there = f"encoder.layers.encoder_layer_{i}"
        for kind in ("weight", "bias"):
            out[f"{there}.ln_1.{kind}"] = timm[f"blocks.{i}.norm1.{kind}"]
            out[f"{there}.ln_2.{kind}"] = timm[f"blocks.{i}.norm2.{kind}"]
            out[f"{there}.self_attention.in_proj_{kind}"] = timm[f"blocks.{i}.attn.qkv.{kind}"]
            out[f"{there}.self_attention.out_proj.{kind}"] = timm[f"blocks.{i}.attn.proj.{kind}"]
            out[f"{there}.mlp.0.{kind}"] = timm[f"blocks.{i}.mlp.fc1.{kind}"]
            out[f"{there}.mlp.3.{kind}"] = timm[f"blocks.{i}.mlp.fc2.{kind}"]
    return out


def hugging_face_weights(timm: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {
        "vit.embeddings.cls_token": timm["cls_token"],
        "vit.embeddings.position_embeddings": timm["pos_embed"],
        "vit.pooler.dense.weight": torch.zeros(WIDTH, WIDTH),
        "classifier.weight": timm["head.weight"],
    }
    for kind in ("weight", "bias"):
        out[f"vit.embeddings.patch_embeddings.projection.{kind}"] = timm[f"patch_embed.proj.{kind}"]
        out[f"vit.layernorm.{kind}"] = timm[f"norm.{kind}"]
        for i in range(LAYERS):
            there = f"vit.encoder.layer.{i}"
            out[f"{there}.layernorm_before.{kind}"] = timm[f"blocks.{i}.norm1.{kind}"]
            out[f"{there}.layernorm_after.{kind}"] = timm[f"blocks.{i}.norm2.{kind}"]
            for part, tensor in zip(
                ("query", "key", "value"), timm[f"blocks.{i}.attn.qkv.{kind}"].chunk(3), strict=True
            ):
                out[f"{there}.attention.attention.{part}.{kind}"] = tensor.contiguous()
            out[f"{there}.attention.output.dense.{kind}"] = timm[f"blocks.{i}.attn.proj.{kind}"]
            out[f"{there}.intermediate.dense.{kind}"] = timm[f"blocks.{i}.mlp.fc1.{kind}"]
            out[f"{there}.output.dense.{kind}"] = timm[f"blocks.{i}.mlp.fc2.{kind}"]
    return out


def patch_tokens(timm: dict[str, Tensor], picture: Tensor) -> Tensor:
    """A grey picture (h, w), the same in all channels -> (h/16 · w/16, WIDTH): the patch projection alone."""
    kernel = timm["patch_embed.proj.weight"]
    channels = picture.expand(1, kernel.shape[1], -1, -1)
    tokens = functional.conv2d(channels, kernel, timm["patch_embed.proj.bias"], stride=16)
    return tokens[0].flatten(1).T


def final_tokens(timm: dict[str, Tensor], picture: Tensor, positions: Tensor) -> Tensor:
    """The whole net without its class token, ``positions`` (n, WIDTH) on the picture's grid; ε as MONAI's."""
    t = patch_tokens(timm, picture) + positions

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), timm[f"{name}.weight"], timm[f"{name}.bias"], 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, timm[f"{name}.weight"], timm[f"{name}.bias"])

    for i in range(LAYERS):
        b = f"blocks.{i}"
        q, k, v = linear(norm(t, f"{b}.norm1"), f"{b}.attn.qkv").view(len(t), 3, HEADS, -1).permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        t = t + linear((weights @ v).transpose(0, 1).reshape(len(t), WIDTH), f"{b}.attn.proj")
        t = t + linear(functional.gelu(linear(norm(t, f"{b}.norm2"), f"{b}.mlp.fc1")), f"{b}.mlp.fc2")
    return norm(t, "norm")
