"""Everything that decides what a trained U-Net draws: one recipe for any sequence.

The paper segments CT vertebrae by a 3D U-Net and draws MR regions by hand; the same recipe with other
numbers serves both. Axes of ``spacing_mm`` and ``patch`` are x (to the left), y (posterior), z (superior).
This module is light; the net is in :mod:`models.segmentation.unet`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from feature_store.errors import SettingsError
from feature_store.vocabulary import ALL, LEVELS, SEQUENCE_PATTERN, STRUCTURES, UNKNOWN, Side

Three = tuple[float, float, float]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SegmentClass(_Frozen):
    """What one output channel, and so one label number, stands for."""

    structure: str
    level: str = UNKNOWN
    side: str = Side.BOTH.value

    @model_validator(mode="after")
    def _known(self) -> SegmentClass:
        if self.structure not in STRUCTURES or self.level not in LEVELS or self.side not in tuple(Side):
            raise ValueError("structure, level and side must be words of the vocabulary")
        return self

    def __str__(self) -> str:
        return f"{self.structure}/{self.level}/{self.side}"

    @property
    def one_piece(self) -> bool:
        """Whether the body holds one of it: a bone or disc of a known level, or one side of something."""
        return self.level not in (ALL, UNKNOWN) or self.side != Side.BOTH or self.structure == "sacrum"


class Window(_Frozen):
    """CT: Hounsfield units from ``low`` to ``high`` become -1 to 1, values outside are clipped."""

    kind: Literal["window"] = "window"
    low: float = -250.0
    high: float = 1250.0

    @model_validator(mode="after")
    def _rises(self) -> Window:
        if self.low >= self.high:
            raise ValueError("low must lie under high")
        return self


class ZScore(_Frozen):
    """MR, which has no unit: values outside two percentiles are clipped, then z-scored over the whole image."""

    kind: Literal["z_score"] = "z_score"
    low_percentile: float = Field(default=0.5, ge=0, lt=50)
    high_percentile: float = Field(default=99.5, gt=50, le=100)


class Augmentation(_Frozen):
    """How training patches are varied. Angles in degrees, the rest as shares of the patch's own values.

    Rotation and scaling happen with ``affine_share`` of the patches, and rotation only in planes whose two
    voxel sizes are alike (in others, a rotation of voxels would shear the anatomy).
    """

    affine_share: float = Field(default=0.5, ge=0, le=1)
    rotation_deg: float = Field(default=12.0, ge=0, le=45)
    scale: float = Field(default=0.15, ge=0, lt=1)
    intensity_share: float = Field(default=0.3, ge=0, le=1)
    noise_sd: float = Field(default=0.1, ge=0)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    shift: float = Field(default=0.1, ge=0)
    mirror: bool = True
    """Swap left and right in half of the patches; classes of one side become those of the other. Where a class
    has no partner on the other side in the recipe, nothing is mirrored."""


class Recipe(_Frozen):
    """Settings of one U-Net: input grid, classes by output channel, training and clean-up. Hashed into its id."""

    sequence: str
    classes: tuple[SegmentClass, ...] = Field(min_length=1, max_length=254)
    """Class of output channel 1, 2, …, and of the label with that number; channel 0 is background."""
    spacing_mm: Three = (1.5, 1.5, 1.5)
    orientation: Literal["LPS"] = "LPS"
    """Images are turned so that axes run left, posterior, superior (the nearest turn: oblique ones stay oblique)."""
    patch: tuple[int, int, int] = (96, 96, 96)
    intensity: Window | ZScore = Field(default_factory=ZScore, discriminator="kind")
    base_filters: int = Field(default=32, ge=2, le=64)
    """Channels at full resolution; doubled at each stage up to 320."""
    stages: int = Field(default=5, ge=3, le=7)
    augmentation: Augmentation = Augmentation()
    loss: Literal["dice_ce"] = "dice_ce"
    """Soft Dice over the classes (not background) of the whole batch, plus cross-entropy."""
    optimiser: Literal["adamw"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    """Falls to 0 along (1 - step/steps)^0.9."""
    weight_decay: float = Field(default=1e-4, ge=0)
    batch_size: int = Field(default=2, ge=1)
    steps: int = Field(default=20_000, ge=1)
    foreground_share: float = Field(default=0.67, ge=0, le=1)
    """Share of patches that are centred on a voxel of a class drawn by lot; the others lie anywhere."""
    held_out_share: float = Field(default=0.2, ge=0, lt=1)
    """Of the patients; at least one where there are two."""
    seed: int = Field(default=0, ge=0)
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Of neighbouring windows at inference, blended by a Gaussian weight."""
    largest_piece: bool = True
    """Keep the largest connected piece of what the body holds one of (:attr:`SegmentClass.one_piece`)."""
    smallest_mm3: float = Field(default=100.0, ge=0)
    """Connected pieces smaller than this are dropped."""

    @field_validator("spacing_mm")
    @classmethod
    def _positive(cls, value: Three) -> Three:
        if min(value) <= 0:
            raise ValueError("spacing must be positive, in mm")
        return value

    @model_validator(mode="after")
    def _sound(self) -> Recipe:
        if not SEQUENCE_PATTERN.match(self.sequence):
            raise ValueError("sequence must be lower case letters, digits and _")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must name each class once")
        if min(self.patch) < 1 or (1, 1, 1) in downsampling(self)[1:]:
            raise ValueError(f"patch must be sizes that can be halved {self.stages - 1} times and keep 4 voxels")
        return self

    def canonical(self) -> str:
        """One JSON text a recipe: keys sorted, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def segmenter_id(self, checkpoint_hash: str) -> str:
        """``unet_SEQUENCE-<8 hex>`` of this recipe with these weights."""
        digest = hashlib.sha256(f"{self.canonical()}\n{checkpoint_hash}".encode()).hexdigest()
        return f"unet_{self.sequence}-{digest[:8]}"

    def mirrored(self) -> tuple[int, ...] | None:
        """Label number after swapping left and right, by label number from 0; None where a partner is missing."""
        other = {Side.LEFT.value: Side.RIGHT.value, Side.RIGHT.value: Side.LEFT.value}
        table = [0]
        for one in self.classes:
            partner = one.model_copy(update={"side": other.get(one.side, one.side)})
            if partner not in self.classes:
                return None
            table.append(1 + self.classes.index(partner))
        return tuple(table)


def recipe_from(text: str) -> Recipe:
    """A recipe from its JSON text. Raises SettingsError, naming keys and rules."""
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        rules = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"these are not a recipe's settings ({rules}).", action="Use the keys of Recipe.") from None


def default_recipe(sequence: str, classes: Iterable[SegmentClass], **changes: Any) -> Recipe:
    """The recipe for a sequence, with some settings changed (plain values, as JSON has them).

    CT is windowed and isotropic; sagittal and axial MR keep thick slices along their own axis. Any other
    sequence is taken as isotropic MR. Raises SettingsError.
    """
    if sequence == "ct":
        chosen: dict[str, Any] = {"intensity": {"kind": "window"}, "patch": [96, 96, 128]}
    elif sequence.endswith("_sag"):
        chosen = {"spacing_mm": [4.0, 1.0, 1.0], "patch": [16, 160, 192]}
    elif sequence.endswith("_ax"):
        chosen = {"spacing_mm": [1.0, 1.0, 5.0], "patch": [224, 160, 16]}
    else:
        chosen = {}
    listed = [one.model_dump() for one in classes]
    return recipe_from(json.dumps({"sequence": sequence, "classes": listed, **chosen, **changes}))


def downsampling(recipe: Recipe) -> list[tuple[int, int, int]]:
    """Stride of each stage along z, y, x, the first being 1: nnU-Net's rule (Isensee et al. 2021).

    An axis is halved while it keeps at least 4 voxels and its voxels are not twice as large as the smallest.
    """
    size, spacing = list(reversed(recipe.patch)), list(reversed(recipe.spacing_mm))
    strides = [(1, 1, 1)]
    for _ in range(recipe.stages - 1):
        can = [axis for axis in range(3) if size[axis] % 2 == 0 and size[axis] // 2 >= 4]
        finest = min((spacing[axis] for axis in can), default=0.0)
        halved = [axis in can and spacing[axis] < 2 * finest for axis in range(3)]
        strides.append((1 + halved[0], 1 + halved[1], 1 + halved[2]))
        size = [n // 2 if yes else n for n, yes in zip(size, halved, strict=True)]
        spacing = [s * 2 if yes else s for s, yes in zip(spacing, halved, strict=True)]
    return strides


def kernels(recipe: Recipe) -> list[tuple[int, int, int]]:
    """Kernel edge of each stage along z, y, x: 1 across slices that are twice as thick as the finest axis, else 3."""
    spacing = list(reversed(recipe.spacing_mm))
    found = []
    for stride in downsampling(recipe):
        spacing = [s * step for s, step in zip(spacing, stride, strict=True)]
        sizes = [1 if s >= 2 * min(spacing) else 3 for s in spacing]
        found.append((sizes[0], sizes[1], sizes[2]))
    return found
