from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import load

from feature_store.errors import AsdegError, CheckpointError, SettingsError, UsageError
from feature_store.schemas import ENCODERS
from models.checkpoints import dump, random_weights, read_checkpoint
from models.encoders import ARCHITECTURE_DIMENSIONS, EncoderSettings, encoder_row, named_encoder
from models.vit import ARCHITECTURES, TokenMean, load_net


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    return random_weights("vit_small", 3)


@pytest.fixture(scope="module")
def cubes() -> torch.Tensor:
    return torch.randn(3, 1, 128, 128, 128, generator=torch.Generator().manual_seed(1))


# --- identity ----------------------------------------------------------------------------------
def test_id_changes_with_every_setting():
    base = EncoderSettings()
    others = [
        EncoderSettings(architecture="vit_base"),
        EncoderSettings(margin_mm=6.0),
        EncoderSettings(checkpoint="random:1"),
        EncoderSettings(checkpoint="a" * 64),
    ]
    ids = {settings.id for settings in (base, *others)}
    assert len(ids) == 5
    assert base.id == EncoderSettings.from_canonical(base.canonical()).id
    assert base.id.startswith("vit_small-")
    assert len(base.id) == len("vit_small-") + 8


@pytest.mark.parametrize(
    "text",
    [
        '{"archtecture": "vit_small"}',
        '{"architecture": "vit_huge"}',
        '{"margin_mm": -1.0}',
        '{"margin_mm": NaN}',
        '{"margin_mm": "5"}',
        '{"checkpoint": "imagenet"}',
        '{"input_size": 96}',
        "no json",
    ],
)
def test_settings_refuse_what_they_do_not_know(text):
    with pytest.raises(SettingsError):
        EncoderSettings.from_canonical(text)


def test_named_encoder():
    assert named_encoder("vit_base") == EncoderSettings(architecture="vit_base")
    with pytest.raises(UsageError, match="resnet"):
        named_encoder("resnet")


def test_row_has_the_tables_columns_and_states_the_origin():
    settings = EncoderSettings(checkpoint="random:7")
    row = encoder_row(settings, "f" * 64)
    assert set(row) == set(ENCODERS.column_names)
    assert row["origin"] == "random:7"
    assert row["outcomes_seen"] is False
    with pytest.raises(UsageError, match="origin"):
        encoder_row(EncoderSettings(checkpoint="f" * 64), "f" * 64)  # stored weights whose origin nobody states
    with pytest.raises(UsageError, match="origin"):
        encoder_row(settings, "f" * 64, origin="RadImageNet")
    with pytest.raises(UsageError, match="another checkpoint"):
        encoder_row(EncoderSettings(checkpoint="f" * 64), "e" * 64, origin="self_supervised")


def test_dimensions_are_declared_twice_alike():
    assert {name: a.hidden for name, a in ARCHITECTURES.items()} == ARCHITECTURE_DIMENSIONS


# --- weights -----------------------------------------------------------------------------------
def test_random_weights_are_fixed_by_the_seed_for_ever(small):
    again = random_weights("vit_small", 3)
    assert all(torch.equal(small[name], again[name]) for name in small)
    assert not torch.equal(
        small["blocks.0.attn.qkv.weight"], random_weights("vit_small", 4)["blocks.0.attn.qkv.weight"]
    )
    # written down once: another machine, numpy or torch must give these bytes as well
    assert hashlib.sha256(dump(small)).hexdigest() == "fb4fac946e1eff4b2728c81d64963bb11e7485dd31460fe8046244dbc989cc63"


def test_random_weights_do_not_touch_the_global_generators():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(0)
    np.random.seed(0)
    load_net("vit_small", random_weights("vit_small", 9))
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


def test_random_weights_have_the_stated_variance(small):
    weight = small["blocks.3.mlp.linear2.weight"]
    assert weight.mean().abs() < 1e-4
    assert weight.var() * weight.shape[1] == pytest.approx(1.0, rel=0.01)
    assert small["patch_embedding.patch_embeddings.weight"].var() * 16**3 == pytest.approx(1.0, rel=0.01)
    assert bool((small["norm.weight"] == 1).all())
    assert bool((small["norm.bias"] == 0).all())


def test_dump_is_a_function_of_the_weights(small):
    shuffled = dict(sorted(small.items(), reverse=True))
    assert dump(shuffled) == dump(small)
    back = load(dump(small))
    assert all(torch.equal(back[name], small[name]) for name in small)


@pytest.mark.parametrize("wrapped", ["safetensors", "plain", "wrapped"])
def test_reads_its_own_and_pytorchs_files(tmp_path, small, wrapped):
    if wrapped == "safetensors":
        path = tmp_path / "weights.safetensors"
        path.write_bytes(dump(small))
    else:
        path = tmp_path / "weights.pt"
        state = {f"module.{name}": value for name, value in small.items() if "norm_cross_attn" not in name}
        state["classification_head.0.weight"] = torch.zeros(2, 384)
        torch.save(state if wrapped == "plain" else {"state_dict": state, "epoch": 3}, path)
    read = read_checkpoint(path, "vit_small")
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.derived is None
    assert dump(read.weights) == dump(small)


class _Payload:
    """What a malicious checkpoint does: run code while it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a checkpoint was run')",))


def _broken(kind, small):
    state = dict(small)
    name = "blocks.0.mlp.linear1.weight"
    if kind == "missing":
        del state[name]
    elif kind == "unknown":
        state["blocks.99.norm1.weight"] = torch.ones(384)
    elif kind == "shape":
        state[name] = state[name][:10]
    elif kind == "two_dimensional":
        state["patch_embedding.patch_embeddings.weight"] = torch.zeros(384, 1, 16, 16)
    elif kind == "not_finite":
        state[name] = torch.full_like(state[name], float("nan"))
    elif kind == "class_token":
        state["cls_token"] = torch.zeros(1, 1, 384)
    elif kind == "code":
        return {"weights": _Payload()}
    elif kind == "list":
        return [1, 2]
    return state


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "1 weights of vit_small are missing"),
        ("unknown", "1 are unknown"),
        ("shape", "has shape"),
        ("two_dimensional", "2D net"),
        ("not_finite", "not finite"),
        ("class_token", "class token"),
        ("code", "cannot be read"),
        ("list", "no named weights"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, small, kind, says):
    path = tmp_path / "weights.pt"
    torch.save(_broken(kind, small), path)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_checkpoint(path, "vit_small")
    assert isinstance(caught.value, AsdegError)
    assert str(tmp_path) not in caught.value.line()


def test_truncated_safetensors_is_named(tmp_path, small):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(dump(small)[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path, "vit_small")


# --- the net -----------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", ["vit_small", "vit_base"])
def test_embedding_is_monais_final_tokens_averaged(architecture, cubes):
    weights = random_weights(architecture, 3)
    generator = torch.Generator().manual_seed(5)
    # norms and biases away from 1 and 0, or a forward that forgets them would pass
    weights = {
        name: value + 0.1 * torch.rand(value.shape, generator=generator) if value.ndim == 1 else value
        for name, value in weights.items()
    }
    net = load_net(architecture, weights)
    with torch.inference_mode():
        expected = net(cubes)[0].mean(dim=1)
    got = TokenMean(architecture, weights)(cubes)
    assert got.shape == (3, ARCHITECTURE_DIMENSIONS[architecture])
    assert got.dtype == torch.float32
    assert expected.std() > 0.05  # the comparison compares something
    assert (got - expected).abs().max() < 1e-5


def test_one_cube_equals_the_same_cube_among_others(small, cubes):
    encode = TokenMean("vit_small", small)
    together = encode(cubes)
    alone = torch.cat([encode(cubes[i : i + 1]) for i in range(3)])
    assert torch.equal(alone, together)
    assert torch.equal(encode(cubes[[2, 0, 1]]), together[[2, 0, 1]])
    assert not torch.allclose(together[0], together[1])
