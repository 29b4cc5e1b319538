"""An encoder with a linear head for the outcome: what supervised fine-tuning tunes.

A patient's logit is linear in the mean of the patient's ROI embeddings. All ROIs share the head; a patient
without some sequence is the mean of the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.learning.masked_autoencoder import trainable_encoder


class OutcomeNet(nn.Module):
    """``forward``: cubes (r, 1, 128, 128, 128), pool (n, r), outcome (n,) -> losses (n,) and logits (n,).

    ``pool`` has 1 / (the patient's number of ROIs) where a cube is the patient's, else 0. The loss is binary
    cross-entropy, unweighted. The head starts at the subset's log-odds, with weights of zero.
    """

    def __init__(self, architecture: str, weights: Mapping[str, Tensor], prevalence: float) -> None:
        super().__init__()
        self.encoder = trainable_encoder(architecture, weights)
        self.head = nn.Linear(self.encoder.norm.weight.numel(), 1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, math.log(prevalence / (1 - prevalence)))

    def forward(self, cubes: Tensor, pool: Tensor, outcome: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.encoder(cubes)[0].float().mean(dim=1)
        with torch.autocast(cubes.device.type, enabled=False):
            logits = self.head(pool @ embedded)[:, 0]
        losses = functional.binary_cross_entropy_with_logits(logits, outcome, reduction="none")
        return losses, logits.detach()
