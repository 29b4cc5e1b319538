"""Fitting a recipe's U-Net on examples: learning curve, checkpoints, and going on after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor

from feature_store.errors import CheckpointError, ExtractionError
from models.segmentation.examples import Example
from models.segmentation.patches import PatchSampler
from models.segmentation.recipe import Recipe
from models.segmentation.unet import autocast, best_device, new_net, weights_of

STATE = "state.pt"
CURVE_POINTS = 10
DECAY = 0.9

Judge = Callable[[torch.nn.Module], float]
"""Mean Dice of held-out images, of a net that is ready to predict."""


@dataclass(frozen=True)
class CurvePoint:
    """``loss`` is the mean over the steps since the point before; ``held_out_dice`` None without anybody held out."""

    step: int
    loss: float
    held_out_dice: float | None


@dataclass(frozen=True)
class Fit:
    """The weights after the last step (nothing is picked by held-out figures) and the learning curve."""

    weights: dict[str, Tensor]
    curve: list[CurvePoint]


def fit(
    recipe: Recipe,
    examples: Sequence[Example],
    folder: Path,
    *,
    judge: Judge | None = None,
    device: str | None = None,
    checkpoint_seconds: float = 60.0,
    progress: Callable[[int, float], None] | None = None,
) -> Fit:
    """Fit from the start, or go on from the checkpoint in ``folder``: the outcome is the same.

    The checkpoint (net, optimiser, step, curve) is written whole or not at all. ``progress`` gets step and loss.
    Raises CheckpointError where the folder holds one of another recipe, ExtractionError where the loss is no
    longer a number.
    """
    device = device or best_device()
    net = new_net(recipe).to(device).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    first, losses, curve = _resume(folder / STATE, recipe, net, optimiser, device)
    every = max(1, recipe.steps // CURVE_POINTS)
    saved = time.monotonic()
    for step, image, labels in _batches(PatchSampler(recipe, examples), first, recipe.steps, device):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * (1 - step / recipe.steps) ** DECAY
        optimiser.zero_grad(set_to_none=True)
        with autocast(device):
            logits = net(image)
        loss = loss_of(logits.float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 12.0)  # nnU-Net's bound
        optimiser.step()
        losses.append(float(loss.detach()))
        if losses[-1] != losses[-1]:
            raise ExtractionError("the loss is no longer a number.", action="Lower learning_rate and train again.")
        done = step + 1
        if done % every == 0 or done == recipe.steps:
            held_out = None
            if judge is not None:
                held_out = judge(net.eval())
                net.train()
            curve.append(CurvePoint(done, sum(losses) / len(losses), held_out))
            losses = []
        if done == recipe.steps or time.monotonic() - saved > checkpoint_seconds:
            _save(folder / STATE, recipe, net, optimiser, done, losses, curve)
            saved = time.monotonic()
        if progress is not None:
            progress(done, float(loss.detach()))
    return Fit(weights_of(net), curve)


def _batches(sampler: PatchSampler, first: int, last: int, device: str) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The next batch is drawn while the net works on the present one."""
    with ThreadPoolExecutor(max_workers=1) as drawing:
        ahead = drawing.submit(sampler.batch, first) if first < last else None
        for step in range(first, last):
            assert ahead is not None
            image, labels = ahead.result()
            ahead = drawing.submit(sampler.batch, step + 1) if step + 1 < last else None
            yield step, image.to(device), labels.to(device)


def _save(
    path: Path,
    recipe: Recipe,
    net: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    losses: list[float],
    curve: list[CurvePoint],
) -> None:
    state: dict[str, Any] = {
        "recipe": recipe.canonical(),
        "step": step,
        "net": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "losses": losses,
        "curve": [vars(point) for point in curve],
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _resume(
    path: Path, recipe: Recipe, net: torch.nn.Module, optimiser: torch.optim.Optimizer, device: str
) -> tuple[int, list[float], list[CurvePoint]]:
    """First step to do, losses since the last point of the curve, and the curve."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        return 0, [], []
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["recipe"] != recipe.canonical():
            raise CheckpointError(
                "the folder holds a training of another recipe.", action="Name another folder.", file=path.name
            )
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["step"]), list(state["losses"]), [CurvePoint(**point) for point in state["curve"]]
    except CheckpointError:
        raise
    except Exception as error:  # whatever torch raises, the file is no checkpoint of ours
        raise CheckpointError(
            f"the checkpoint cannot be read ({type(error).__name__}).",
            action="Delete it to start again.",
            file=path.name,
        ) from error
