"""Settings of a training of an encoder: frozen, unknown keys refused, hashed into what the run is called."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augmentation(_Frozen):
    """What is done to a cube before it is learned from; each draw depends on seed, step and position alone."""

    smallest_crop: float = Field(default=0.7, gt=0.1, le=1)
    """A box of this to 1 of the cube's edge along each axis, at a random place, is resized to the whole cube."""
    mirror: bool = True
    """Left and right are exchanged in half of the draws."""
    gain: float = Field(default=0.1, ge=0, lt=1)
    """The z-scored values are multiplied by 1 − gain … 1 + gain."""
    shift: float = Field(default=0.1, ge=0, le=1)
    """And shifted by −shift … shift."""


class TrainingSettings(_Frozen):
    """What both trainings share: AdamW with a linear warm-up and a cosine to zero (Loshchilov 2019)."""

    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=8, ge=1)
    """Samples a step (cubes, or patients when fine-tuning), over all workers together."""
    learning_rate: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients longer than this are shortened to it."""
    held_out: float = Field(default=0.1, gt=0, lt=0.9)
    """Share of the patients that the curve is judged on and that no step sees."""
    evaluate_every: int = Field(default=100, ge=1)
    """Steps between two rows of the curve; the state is kept then, so a killed run loses at most these."""
    augmentation: Augmentation = Augmentation()

    def hash(self) -> str:
        """First 16 hex of the SHA-256 over all settings."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class PretrainSettings(TrainingSettings):
    """A masked autoencoder (He 2022) on images without outcomes."""

    architecture: Literal["vit_small", "vit_base"] = "vit_small"
    margin_mm: float = Field(default=5.0, ge=0, le=100)
    """As :class:`models.encoders.EncoderSettings`: cubes are cut as for embedding."""
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of the 512 patches the encoder does not see and the decoder has to paint."""
    decoder_width: int = Field(default=192, ge=6, multiple_of=6)
    decoder_layers: int = Field(default=2, ge=1)
    decoder_heads: int = Field(default=6, ge=1)
    held_out_cubes: int = Field(default=32, ge=1)
    """At most this many held-out cubes are painted for a row of the curve, each time with the same masks."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> PretrainSettings:
        if self.decoder_width % self.decoder_heads:
            raise ValueError("decoder_width must be a multiple of decoder_heads")
        return self


class FinetuneSettings(TrainingSettings):
    """Supervised tuning to the outcome.

    A patient's logit is linear in the mean of the embeddings of the patient's ROIs (every sequence and structure
    alike), and so the mean of the ROIs' logits: patients may have any number of them.
    """

    steps: int = Field(default=400, ge=1)
    learning_rate: float = Field(default=3e-5, gt=0)
    held_out: float = Field(default=0.25, gt=0, lt=0.9)
    evaluate_every: int = Field(default=20, ge=1)
    rois_a_step: int = Field(default=2, ge=1)
    """So many of a patient's ROIs, drawn anew each step, stand for all of them; judging takes all."""
    patience: int = Field(default=5, ge=1)
    """Training stops after this many judgements without a lower held-out loss; the lowest one's weights stay."""
    subset: float = Field(default=0.5, gt=0, lt=1)
    """Share of the training patients the encoder is tuned on (subset A); the rest (B) is left to the protocol."""
