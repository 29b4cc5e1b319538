"""The optimiser's step, the same on CPU and GPU and among one worker or several.

Nothing here draws at random: what a step learns from is a function of the settings' seed and the step, and
the optimiser's state is all there is to keep. On a CPU, with the same number of threads, a run that was
stopped and goes on ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.learning.settings import TrainingSettings

Inputs = tuple[Tensor, ...]


class Learner:
    """A net, its AdamW, and how many steps have been made."""

    def __init__(self, net: nn.Module, settings: TrainingSettings, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.net = net.to(self.device)
        self.settings = settings
        self.step = 0
        trained = [p for p in self.net.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95))

    def learning_rate(self) -> float:
        """Of the coming step."""
        s = self.settings
        warm = s.warmup * s.steps
        if self.step < warm:
            return s.learning_rate * (self.step + 1) / (warm + 1)
        return s.learning_rate * 0.5 * (1 + math.cos(math.pi * (self.step - warm) / max(s.steps - warm, 1)))

    def learn(self, model: nn.Module, parts: Sequence[Inputs], samples: int) -> float:
        """One step over ``parts``, micro-batches of ``samples`` samples together; their mean loss.

        ``model`` is the net, or what Ray Train wrapped it in to average gradients over the workers.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for number, part in enumerate(parts):
            with self._sync(model, number == len(parts) - 1), self._autocast():
                loss = model(*self._there(part))[0].sum() / samples
                loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(
            (p for g in self._optimiser.param_groups for p in g["params"]), self.settings.clip_norm
        )
        self._optimiser.step()
        self.step += 1
        return total

    @torch.no_grad()
    def judge(self, parts: Iterable[Inputs]) -> list[tuple[float, float]]:
        """Loss and score (the logit, when fine-tuning) of each held-out sample."""
        found: list[tuple[float, float]] = []
        self.net.eval()
        for part in parts:
            with self._autocast():
                losses, scores = self.net(*self._there(part))
            found += zip(losses.tolist(), scores.tolist(), strict=True)
        self.net.train()
        return found

    def state(self) -> dict[str, Any]:
        """Weights, the optimiser's moments and the step: all that a run goes on from."""
        return {"step": self.step, "net": self.net.state_dict(), "optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])

    def encoder_weights(self) -> dict[str, Tensor]:
        """The encoder's part, as a checkpoint of :mod:`models.checkpoints`."""
        encoder: Any = self.net.encoder
        return {name: tensor.detach().cpu().float().clone() for name, tensor in encoder.state_dict().items()}

    def _there(self, part: Inputs) -> Inputs:
        if self.device.type == "cpu":
            return part
        return tuple(tensor.pin_memory().to(self.device, non_blocking=True) for tensor in part)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    @staticmethod
    def _sync(model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Gradients travel once a step, with the last part."""
        no_sync: Callable[[], AbstractContextManager[Any]] | None = getattr(model, "no_sync", None)
        return nullcontext() if last or no_sync is None else no_sync()
