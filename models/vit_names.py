"""The names other houses give the weights of the same vision transformer, and MONAI's for them.

timm (and facebook's MAE and DINO, which follow it), torchvision's ``VisionTransformer`` and Hugging Face's
``ViTModel`` compute what MONAI's ``ViT`` computes: pre-norm blocks, exact GELU, heads laid out query, key,
value in that order. They differ in names, in the class token, in the biases of queries, keys and values
(kept where they are), and in the ε of the layer norms: 1e-6 (Hugging Face 1e-12), here MONAI's 1e-5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from feature_store.errors import CheckpointError

CLASS_TOKEN = "cls_token"
PATCH = "patch_embedding.patch_embeddings.weight"
POSITION = "patch_embedding.position_embeddings"

_TIMM = (
    (r"patch_embed\.proj\.", "patch_embedding.patch_embeddings."),
    (r"pos_embed$", POSITION),
    (r"(blocks\.\d+\.attn\.)proj\.", r"\1out_proj."),
    (r"(blocks\.\d+\.mlp\.)fc([12])\.", r"\1linear\2."),
)
_TORCHVISION = (
    (r"conv_proj\.", "patch_embedding.patch_embeddings."),
    (r"class_token$", CLASS_TOKEN),
    (r"encoder\.pos_embedding$", POSITION),
    (r"encoder\.ln\.", "norm."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.", r"blocks.\1.norm\2."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.", r"blocks.\1.attn.out_proj."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", r"blocks.\1.mlp.linear1."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", r"blocks.\1.mlp.linear2."),
)
_HUGGING_FACE = (
    (r"(?:vit\.)?embeddings\.patch_embeddings\.projection\.", "patch_embedding.patch_embeddings."),
    (r"(?:vit\.)?embeddings\.cls_token$", CLASS_TOKEN),
    (r"(?:vit\.)?embeddings\.position_embeddings$", POSITION),
    (r"(?:vit\.)?layernorm\.", "norm."),
    (r"(?:vit\.)?encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"(?:vit\.)?encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"(?:vit\.)?encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
    (r"(?:vit\.)?encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.out_proj."),
    (r"(?:vit\.)?encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.linear1."),
    (r"(?:vit\.)?encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.linear2."),
)
_HOUSES = {
    "timm": ("patch_embed.proj.weight", _TIMM),
    "torchvision": ("conv_proj.weight", _TORCHVISION),
    "Hugging Face": ("embeddings.patch_embeddings.projection.weight", _HUGGING_FACE),
}
_HEADS = re.compile(
    r"^(head|heads|head_dist|classifier|pre_logits|fc_norm|norm_head|pooler|vit\.pooler|mask_token|decoder\w*"
    r"|vit\.embeddings\.mask_token|embeddings\.mask_token|classification_head)(\.|$)"
)
_CONVOLUTIONAL = re.compile(
    r"(running_mean|running_var|denseblock\d|denselayer\d)|(^|\.)layer[1-4]\.\d+\.conv\d|Mixed_\d"
)


def refuse_convolutional(names: Mapping[str, Tensor], file: str) -> None:
    """CheckpointError for a ResNet, DenseNet or Inception: what RadImageNet publishes."""
    if any(_CONVOLUTIONAL.search(name) for name in names):
        raise CheckpointError(
            "these are the weights of a convolutional net (ResNet, DenseNet or Inception), which fit no vision "
            "transformer. RadImageNet publishes such nets only, and no vision transformer.",
            action="Give a ViT-S/16 or ViT-B/16, or pretrain one on your own images: asdeg pretrain.",
            file=file,
        )


def to_monai_names(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The same weights under MONAI's names, and the house they come from (``MONAI`` where they have them already).

    Heads, poolers and the decoder of a masked autoencoder are left out; what is unknown keeps its name, so
    that the caller can name it.
    """
    kept = {name: tensor for name, tensor in found.items() if not _HEADS.match(name)}
    for house, (mark, rules) in _HOUSES.items():
        if any(name.endswith(mark) for name in kept):
            return _joined({_renamed(name, rules): tensor for name, tensor in kept.items()}), house
    return kept, "MONAI"


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in rules:
        if re.match(pattern, name):
            return re.sub(f"^{pattern}", new, name)
    return name


def _joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of their own names (Hugging Face) as the one matrix of the others."""
    for name in [name for name in weights if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in weights for part in parts):
            weights[name.replace(".query.", ".qkv.")] = torch.cat([weights.pop(part) for part in parts])
    return weights
