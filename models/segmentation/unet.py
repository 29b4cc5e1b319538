"""The net of a recipe: MONAI's DynUNet, nnU-Net's U-Net, whose kernels and strides may differ by axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from monai.networks.nets import DynUNet

from feature_store.errors import CheckpointError
from models.segmentation.recipe import Recipe, downsampling, kernels

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_FILTERS = 320
_TWICE = "skip_layers."
"""DynUNet holds every layer a second time under this name."""


def new_net(recipe: Recipe) -> nn.Module:
    """The net with weights drawn from the recipe's seed; torch's own generator is left as it was.

    Input float32 (n, 1, z, y, x), output logits (n, 1 + classes, z, y, x); sizes are multiples of the
    recipe's total strides.
    """
    strides, kernel = downsampling(recipe), kernels(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return DynUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=1 + len(recipe.classes),
            kernel_size=kernel,
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=[min(recipe.base_filters * 2**stage, MOST_FILTERS) for stage in range(recipe.stages)],
            norm_name=("INSTANCE", {"affine": True}),
        )


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """Each weight once, on the CPU."""
    state = net.state_dict()
    return {name: value.detach().cpu().contiguous() for name, value in state.items() if not name.startswith(_TWICE)}


def load_net(recipe: Recipe, weights: Mapping[str, Tensor], device: str = "cpu") -> nn.Module:
    """The net with these weights, ready to predict. Raises CheckpointError where they are another net's."""
    net = new_net(recipe)
    wanted = {name: value.shape for name, value in weights_of(net).items()}
    if {name: value.shape for name, value in weights.items()} != wanted:
        raise CheckpointError(
            "the weights do not fit the recipe's U-Net.", action="Train it again, or name the recipe they are from."
        )
    net.load_state_dict(dict(weights), strict=False)
    return net.to(device).eval()


def best_device() -> str:
    """``cuda`` where torch finds a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast(device: str) -> Any:
    """bfloat16 on a GPU; on a CPU nothing is changed."""
    kind = torch.device(device).type
    return torch.autocast(device_type=kind, dtype=torch.bfloat16, enabled=kind == "cuda")
