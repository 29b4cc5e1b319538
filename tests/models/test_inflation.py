"""2D weights in the names of three houses, inflated: the 3D net on a stack of one picture is the 2D net."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from feature_store.errors import CheckpointError
from models import vit
from models.checkpoints import read_checkpoint
from models.encoders import InflationSettings
from models.vit import TokenMean, load_net
from tests.models.flat_vit import (
    SHALLOW,
    final_tokens,
    hugging_face_weights,
    patch_tokens,
    timm_weights,
    torchvision_weights,
)

AVERAGE, CENTRE = InflationSettings(), InflationSettings(kernel="centre")
HOUSES = {"timm": lambda w: w, "torchvision": torchvision_weights, "Hugging Face": hugging_face_weights}


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-S with three blocks: names and layouts are the same in each."""
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_small", SHALLOW)
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_base", vit.Architecture(hidden=768, layers=3, mlp=3072, heads=12))


@pytest.fixture(scope="module")
def flat() -> dict[str, Tensor]:
    return timm_weights()


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.randn(128, 128, generator=torch.Generator().manual_seed(1))


def read(
    tmp_path: Path, weights: dict[str, Tensor], how: InflationSettings | None = AVERAGE, name: str = "vit_small"
) -> Any:
    path = tmp_path / "flat.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return read_checkpoint(path, name, how)


def stack(picture: Tensor) -> Tensor:
    """A volume that is constant along z: (1, 1, z, y, x)."""
    return picture.expand(1, 1, 128, -1, -1).contiguous()


@pytest.mark.parametrize("how", [AVERAGE, CENTRE], ids=["average", "centre"])
def test_patch_tokens_of_a_stack_are_the_2d_nets(tmp_path: Path, flat: Any, picture: Tensor, how: Any) -> None:
    net = load_net("vit_small", read(tmp_path, flat, how).weights)
    with torch.inference_mode():
        tokens = net.patch_embedding.patch_embeddings(stack(picture))[0]  # (WIDTH, z, y, x)
    expected = patch_tokens(flat, picture).T.reshape(384, 8, 8)
    assert expected.std() > 0.5  # there is something to compare
    assert (tokens - expected[:, None]).abs().max() < 2e-4 * expected.abs().max()


@pytest.mark.parametrize("house", HOUSES)
def test_every_token_of_a_stack_is_the_2d_nets_without_class_token(
    tmp_path: Path, flat: Any, picture: Tensor, house: str
) -> None:
    """All names, the biases of queries, keys and values, and the layout of heads are right, or this fails."""
    file = read(tmp_path, HOUSES[house](flat))
    assert file.derived == {
        "inflated_from_2d": {"names": house, "kernel": "average", "depth_position": "tiled"},
    }
    positions = file.weights["patch_embedding.position_embeddings"][0].reshape(8, 64, 384)
    assert all(torch.equal(positions[z], positions[0]) for z in range(8))
    with torch.inference_mode():
        expected = final_tokens(flat, picture, positions[0])
        tokens = load_net("vit_small", file.weights)(stack(picture))[0][0].reshape(8, 64, 384)
        pooled = TokenMean("vit_small", file.weights)(stack(picture))[0]
    assert expected.std(dim=0).mean() > 0.1
    assert (tokens - expected).abs().max() < 1e-3
    assert (pooled - expected.mean(dim=0)).abs().max() < 1e-4


def test_biases_of_queries_keys_and_values_count(tmp_path: Path, flat: Any, picture: Tensor) -> None:
    weights = read(tmp_path, flat).weights
    without = {name: value for name, value in weights.items() if "qkv.bias" not in name}
    with torch.inference_mode():
        with_, bare = (TokenMean("vit_small", w)(stack(picture)) for w in (weights, without))
    assert (with_ - bare).abs().max() > 1e-2


def test_positions_on_an_8_by_8_grid_are_kept_and_others_resampled(tmp_path: Path) -> None:
    own = timm_weights(2, side=8)
    kept = read(tmp_path, own).weights["patch_embedding.position_embeddings"][0].reshape(8, 64, 384)
    assert torch.equal(kept[3], own["pos_embed"][0, 1:])  # the class token's is dropped
    ramp = timm_weights(3)
    ramp["pos_embed"] = torch.cat([torch.full((1, 1, 384), 99.0), _ramp(14)], dim=1)
    grid = read(tmp_path, ramp).weights["patch_embedding.position_embeddings"][0].reshape(8, 8, 8, 384)
    middle = (torch.arange(8) + 0.5) / 8
    # x runs fastest and y next; near the border the kernel is clipped, so the inside is compared
    assert (grid[0, 4, 2:6, 0] - middle[2:6]).abs().max() < 5e-3
    assert (grid[5, 2:6, 4, 1] - middle[2:6]).abs().max() < 5e-3
    assert grid.max() < 2


def _ramp(side: int) -> Tensor:
    """Position embeddings whose first value is x and second y, as fractions of the picture."""
    at = (torch.arange(side) + 0.5) / side
    grid = torch.zeros(side, side, 384)
    grid[..., 0], grid[..., 1] = at[None, :], at[:, None]
    return grid.reshape(1, side * side, 384)


def test_sinusoidal_depth_term_has_the_planes_size_and_mean_zero(tmp_path: Path, flat: Any) -> None:
    tiled = read(tmp_path, flat).weights["patch_embedding.position_embeddings"][0].reshape(8, 64, 384)
    waved = read(tmp_path, flat, InflationSettings(depth_position="sinusoidal"))
    term = waved.weights["patch_embedding.position_embeddings"][0].reshape(8, 64, 384) - tiled
    assert term.mean(dim=0).abs().max() < 1e-6
    assert torch.allclose(term[:, 0], term[:, 63], atol=1e-6)
    spread = (tiled[0] - tiled[0].mean(dim=0)).square().mean().sqrt()
    assert term.square().mean().sqrt() == pytest.approx(float(spread), rel=1e-4)
    assert waved.derived["inflated_from_2d"]["depth_position"] == "sinusoidal"


def test_grey_kernels_and_nets_without_class_token(tmp_path: Path, picture: Tensor) -> None:
    grey = timm_weights(4, class_token=False, channels=1)
    net = load_net("vit_small", read(tmp_path, grey).weights)
    with torch.inference_mode():
        tokens = net.patch_embedding.patch_embeddings(stack(picture))[0, :, 3].flatten(1).T
    assert (tokens - patch_tokens(grey, picture)).abs().max() < 1e-3


def _broken(kind: str, flat: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = dict(flat)
    if kind == "patch":
        weights["patch_embed.proj.weight"] = torch.zeros(384, 3, 14, 14)
    elif kind == "channels":
        weights["patch_embed.proj.weight"] = torch.zeros(384, 2, 16, 16)
    elif kind == "grid":
        weights["pos_embed"] = torch.zeros(1, 1 + 195, 384)
    elif kind == "no positions":
        del weights["pos_embed"]
    elif kind == "layer":
        del weights["blocks.2.mlp.fc1.weight"]
    elif kind == "scale":
        weights["blocks.0.ls1.gamma"] = torch.ones(384)
    elif kind == "nan":
        weights["norm.weight"] = torch.full((384,), float("nan"))
    elif kind == "resnet":
        return {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1), "bn1.running_mean": torch.zeros(64)}
    elif kind == "densenet":
        return {"features.denseblock1.denselayer1.conv1.weight": torch.zeros(128, 64, 1, 1)}
    return weights


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("patch", "patch kernel has shape"),
        ("channels", "one or three channels"),
        ("grid", "195 position embeddings are no square"),
        ("no positions", "no learned position"),
        ("layer", "1 weights of vit_small are missing"),
        ("scale", "1 are unknown"),
        ("nan", "not finite"),
        ("resnet", "RadImageNet publishes such nets only, and no vision transformer"),
        ("densenet", "convolutional net"),
    ],
)
def test_what_cannot_be_inflated_is_named(tmp_path: Path, flat: Any, kind: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        read(tmp_path, _broken(kind, flat))
    assert str(tmp_path) not in caught.value.line()


def test_2d_weights_are_not_inflated_unasked_nor_into_another_width(tmp_path: Path, flat: Any) -> None:
    with pytest.raises(CheckpointError, match="2D net") as caught:
        read(tmp_path, flat, None)
    assert "--inflate" in caught.value.action
    with pytest.raises(CheckpointError, match="has shape"):
        read(tmp_path, flat, AVERAGE, "vit_base")


def test_a_config_beside_the_weights_tells_the_heads(tmp_path: Path, flat: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 12, "hidden_size": 384}))
    with pytest.raises(CheckpointError, match="num_attention_heads is 12, where this architecture has 6"):
        read(tmp_path, flat)
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 6, "architectures": ["ViTModel"]}))
    assert len(read(tmp_path, flat).weights) > 40
