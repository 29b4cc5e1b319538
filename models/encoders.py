"""An encoder's identity: architecture, how its input is cut, and which weights it has.

The id (``vit_small-1a2b3c4d``) hashes all of it, so embeddings of two encoders are never mixed up.
This module is light; weights are in :mod:`models.checkpoints`, the net in :mod:`models.vit`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.errors import SettingsError, UsageError

ARCHITECTURE_DIMENSIONS = {"vit_small": 384, "vit_base": 768}
_RANDOM = re.compile(r"^random:([0-9]{1,18})$")


class EncoderSettings(BaseModel):
    """Everything that decides an embedding's values. Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    architecture: Literal["vit_small", "vit_base"] = "vit_small"
    input_size: Literal[128] = 128
    """Edge of the cube the ROI's box is resized to, in voxels (linear interpolation)."""
    patch_size: Literal[16] = 16
    margin_mm: float = Field(default=5.0, ge=0, le=100, allow_inf_nan=False)
    """Added to the ROI's bounding box on every side, clipped at the image's border."""
    orientation: Literal["LPS"] = "LPS"
    """The cube's axes run to the patient's left, posterior and superior, however the image is stored."""
    pooling: Literal["token_mean"] = "token_mean"
    """Average over patch tokens after the final norm, before any head."""
    checkpoint: str = Field(default="random:0", pattern=r"^(random:[0-9]{1,18}|[0-9a-f]{64})$")
    """``random:SEED``, or the SHA-256 of a stored safetensors checkpoint."""

    @property
    def id(self) -> str:
        """``architecture-<8 hex>``."""
        return f"{self.architecture}-{hashlib.sha256(self.canonical().encode()).hexdigest()[:8]}"

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return ARCHITECTURE_DIMENSIONS[self.architecture]

    @property
    def seed(self) -> int | None:
        """Of random weights; None where the weights are a stored checkpoint."""
        match = _RANDOM.match(self.checkpoint)
        return int(match.group(1)) if match else None

    def canonical(self) -> str:
        """One JSON text a setting: keys sorted, no spaces."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_canonical(cls, text: str) -> EncoderSettings:
        """Inverse of :meth:`canonical`. Raises SettingsError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            rules = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise SettingsError(
                f"these are not an encoder's settings ({rules}).", action="Use the keys of EncoderSettings."
            ) from error


class InflationSettings(BaseModel):
    """How a 2D net's weights become a 3D net's (:mod:`models.inflation` has the formulas)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kernel: Literal["average", "centre"] = "average"
    """The patch kernel along depth: repeated and divided by the depth, or on the middle slice alone."""
    depth_position: Literal["tiled", "sinusoidal"] = "tiled"
    """Positions along depth: the plane's at every depth, or a sinusoidal term of the same size added."""


def named_encoder(name: str) -> EncoderSettings:
    """Default settings of an architecture, ``vit_small`` or ``vit_base``, with random weights (seed 0)."""
    if name not in ARCHITECTURE_DIMENSIONS:
        raise UsageError(
            f"there is no encoder {name!r}.", action=f"Name one of {', '.join(ARCHITECTURE_DIMENSIONS)}, or none."
        )
    return EncoderSettings.model_validate({"architecture": name})


def encoder_row(
    settings: EncoderSettings,
    checkpoint_hash: str,
    *,
    origin: str | None = None,
    outcomes_seen: bool = False,
    patients_seen: Sequence[str] | None = None,
    outcomes_of: Sequence[str] | None = None,
    derived: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The encoder's row in ``encoders``.

    ``origin`` is ``random:SEED`` (default for random weights), ``self_supervised``, ``fine_tuned`` or
    ``file:SHA256``; it is stated, never guessed. ``patients_seen`` are ``site/patient_id``; ``outcomes_of``
    those of them whose outcome was used (None with ``outcomes_seen``: it may have been anybody's among them).
    ``derived`` says how the weights were made.
    """
    origin = origin or (settings.checkpoint if settings.seed is not None else None)
    if origin is None or not re.match(r"^(random:\d+|self_supervised|fine_tuned|file:[0-9a-f]{64})$", origin):
        raise UsageError(
            f"an encoder's origin cannot be {origin!r}.",
            action="State random:SEED, self_supervised, fine_tuned or file:SHA256.",
        )
    if settings.seed is None and settings.checkpoint != checkpoint_hash:
        raise UsageError("the settings name another checkpoint.", action="Use the SHA-256 of the stored weights.")
    return {
        "encoder": settings.id,
        "architecture": settings.architecture,
        "settings": settings.canonical(),
        "checkpoint_hash": checkpoint_hash,
        "origin": origin,
        "outcomes_seen": outcomes_seen,
        "patients_seen": None if patients_seen is None else sorted(patients_seen),
        "dimension": settings.dimension,
        "outcomes_of": None if outcomes_of is None else sorted(outcomes_of),
        "derived": None if derived is None else json.dumps(derived, sort_keys=True),
    }
