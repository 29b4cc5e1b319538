"""Weights of an encoder: drawn from a seed, read from a file, written as safetensors.

Nothing here downloads anything, and no pretrained weights come with the project: RadImageNet, which the
paper starts from, publishes convolutional nets and no vision transformer.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from feature_store.errors import CheckpointError
from models.encoders import InflationSettings
from models.inflation import inflated, is_flat
from models.vit import ARCHITECTURES, Architecture, empty_net, has_qkv_bias
from models.vit_names import CLASS_TOKEN, refuse_convolutional, to_monai_names

Weights = dict[str, Tensor]

POSITION_SD = 0.02
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "backbone.", "encoder.")
_DROPPED = ("classification_head.", "decoder")
CONFIG = "config.json"


def random_weights(architecture: str, seed: int) -> Weights:
    """Weights drawn from a seed, the same to the last bit on every machine; float32.

    Matrices are uniform with variance 1 / fan-in (so that untrained blocks change their input rather than
    pass it on), position embeddings uniform with SD 0.02, biases 0, norms 1. Each tensor has a stream of
    its own, named after it; torch's and numpy's global generators are not touched.
    """
    weights: Weights = {}
    for name, like in empty_net(architecture).state_dict().items():
        if name.endswith("position_embeddings"):
            weights[name] = _uniform(like.shape, POSITION_SD, seed, name)
        elif like.ndim > 1:
            weights[name] = _uniform(like.shape, 1 / math.sqrt(math.prod(like.shape[1:])), seed, name)
        else:
            is_norm_weight = "norm" in name and name.endswith("weight")
            weights[name] = torch.ones(like.shape) if is_norm_weight else torch.zeros(like.shape)
    return weights


def _uniform(shape: torch.Size, sd: float, seed: int, name: str) -> Tensor:
    """Uniform with mean 0. Whole numbers times powers of two and one product: no platform rounds it otherwise."""
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    draws = generator.random(tuple(shape), dtype=np.float32)
    draws -= np.float32(0.5)
    draws *= np.float32(sd * math.sqrt(12))
    return torch.from_numpy(draws)


def dump(weights: Mapping[str, Tensor]) -> bytes:
    """Safetensors bytes; the same weights give the same bytes, so their SHA-256 names the checkpoint."""
    return safetensors.torch.save({name: weights[name].contiguous() for name in sorted(weights)})


@dataclass(frozen=True)
class FileWeights:
    """Weights read from a file: the SHA-256 of its bytes, and what was done to them (None: nothing)."""

    weights: Weights
    sha256: str
    derived: dict[str, Any] | None


def read_checkpoint(path: Path, architecture: str, inflation: InflationSettings | None = None) -> FileWeights:
    """Weights for ``architecture`` from a file; 2D ones are inflated where ``inflation`` says how.

    ``.safetensors``, or a PyTorch file (read with ``weights_only``: no code in it is run). Wrappers
    (``state_dict``) and prefixes (``module.``) are taken off, heads dropped; names of timm, torchvision and
    Hugging Face become MONAI's. Weights do not tell their number of heads: a ``config.json`` beside the file is
    checked for it, otherwise heads are taken to be 64 wide, as in the ViT paper.
    Raises CheckpointError where a name is missing or unknown, a shape differs, or a value is not finite.
    """
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    found = _unwrapped(_read(path))
    refuse_convolutional(found, path.name)
    _check_config(path.with_name(CONFIG), ARCHITECTURES[architecture])
    renamed, house = to_monai_names(found)
    if not is_flat(renamed):
        return FileWeights(fit_to(renamed, architecture, path.name), sha256, None)
    if inflation is None:
        raise CheckpointError(
            "these are the weights of a 2D net; the encoder is 3D.",
            action="Have them inflated (asdeg encoders add --inflate), or give a checkpoint of a 3D ViT.",
            file=path.name,
        )
    weights = fit_to(inflated(renamed, inflation, path.name), architecture, path.name)
    return FileWeights(weights, sha256, {"inflated_from_2d": {"names": house, **inflation.model_dump()}})


def fit_to(found: Mapping[str, Tensor], architecture: str, file: str) -> Weights:
    """``found`` as the exact state of ``architecture`` in float32, or CheckpointError."""
    if CLASS_TOKEN in found:
        raise CheckpointError(
            "the net has a class token, so its image-level features are not the average over patch tokens.",
            action="Export a net without one (MONAI: classification=False).",
            file=file,
        )
    wanted = empty_net(architecture, qkv_bias=has_qkv_bias(found)).state_dict()
    weights: Weights = {}
    for name, like in wanted.items():
        # MONAI gives every block a norm for cross attention that a ViT never runs; other files lack it.
        if name not in found and "norm_cross_attn" in name:
            weights[name] = torch.ones(like.shape) if name.endswith("weight") else torch.zeros(like.shape)
    missing = sorted(set(wanted) - set(found) - set(weights))
    unknown = sorted(name for name in set(found) - set(wanted) if "cross_attn." not in name)
    if missing or unknown:
        raise CheckpointError(
            f"{len(missing)} weights of {architecture} are missing ({_some(missing)}), "
            f"{len(unknown)} are unknown ({_some(unknown)}).",
            action="Give a checkpoint of MONAI's 3D ViT, or a 2D ViT of timm, torchvision or Hugging Face, "
            "with this architecture.",
            file=file,
        )
    for name in set(wanted) - set(weights):
        weights[name] = _checked(name, found[name], wanted[name].shape, file)
    return {name: weights[name] for name in wanted}


def _check_config(path: Path, architecture: Architecture) -> None:
    """What a ``config.json`` beside the weights says of the net must be so."""
    if not path.is_file():
        return
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return  # not ours to judge: some other program's file
    expected = {
        "num_attention_heads": architecture.heads,
        "hidden_size": architecture.hidden,
        "num_hidden_layers": architecture.layers,
        "intermediate_size": architecture.mlp,
    }
    for key, value in expected.items() if isinstance(said, dict) else ():
        if isinstance(said.get(key), int) and said[key] != value:
            raise CheckpointError(
                f"{key} is {said[key]}, where this architecture has {value}.",
                action="Name the architecture the checkpoint was made with.",
                file=path.name,
            )


def _checked(name: str, tensor: Tensor, shape: torch.Size, file: str) -> Tensor:
    if tensor.shape != shape:
        raise CheckpointError(
            f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}.",
            action="Name the architecture the checkpoint was made with (vit_small or vit_base), 128³ input, patch 16.",
            file=file,
        )
    tensor = tensor.detach().to("cpu", torch.float32).contiguous()
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{name} holds values that are not finite.", action="Export it again.", file=file)
    return tensor


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever either reader raises, the file is no checkpoint
        raise CheckpointError(
            f"cannot be read as weights ({type(error).__name__}).",
            action="Save it as safetensors, or with torch.save(net.state_dict()).",
            file=path.name,
        ) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"holds a {type(loaded).__name__} and no named weights.", action="Save net.state_dict().", file=path.name
        )
    return loaded


def _unwrapped(loaded: dict[str, Any]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    tensors = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        if tensors and all(name.startswith((prefix, *_DROPPED)) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "none"
