"""Named, versioned extraction settings: what is computed, of which images, discretised how.

A feature set is its settings: they are frozen, unknown keys are refused, and the id carries a hash of
them, so that rows made with different settings never pass for the same features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_store.errors import NotFound, SettingsError
from pipelines.radiomics.feature_names import CLASSES, WAVELET_SUBBANDS

ImageType = Literal["original", "wavelet"]
FeatureClass = Literal["shape", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"]
ALL_CLASSES: tuple[FeatureClass, ...] = ("shape", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")


class FeatureSet(BaseModel):
    """Settings of one extraction. The defaults are PyRadiomics' own.

    ``bin_width`` is in units of the preprocessed image; ``bin_count``, when given, replaces it.
    ``spacing`` is x, y, z in mm (None: voxels as they are). ``voxel_array_shift`` is added to intensities
    for Energy, TotalEnergy and RootMeanSquared only. Whole numbers stay whole: PyRadiomics' bin edges
    follow the number's type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")
    bin_width: int | float = Field(default=25, gt=0)
    bin_count: int | None = Field(default=None, gt=0)
    normalize: bool = False
    normalize_scale: int | float = Field(default=1, gt=0)
    voxel_array_shift: int | float = 0
    spacing: tuple[float, float, float] | None = None
    image_types: tuple[ImageType, ...] = ("original", "wavelet")
    wavelet: Literal["coif1"] = "coif1"
    classes: tuple[FeatureClass, ...] = ALL_CLASSES

    @model_validator(mode="after")
    def _sound(self) -> FeatureSet:
        if self.spacing is not None and min(self.spacing) <= 0:
            raise ValueError("spacing must be positive, in mm")
        for field in ("image_types", "classes"):
            values = getattr(self, field)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{field} must name each of its members once, and at least one")
        return self

    @cached_property
    def settings(self) -> str:
        """Canonical JSON of everything but the name: equal settings give equal text."""
        return json.dumps(self.model_dump(mode="json", exclude={"name"}), sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """``name-<8 hex of the settings' SHA-256>``."""
        return f"{self.name}-{hashlib.sha256(self.settings.encode()).hexdigest()[:8]}"

    @cached_property
    def image_names(self) -> tuple[str, ...]:
        """Names of the images features are computed on, in order: ``original``, ``wavelet-LLH``, …"""
        names: list[str] = []
        if "original" in self.image_types:
            names.append("original")
        if "wavelet" in self.image_types:
            names += [f"wavelet-{band}" for band in WAVELET_SUBBANDS]
        return tuple(names)

    def _columns(self) -> Iterator[tuple[str, str]]:
        if "shape" in self.classes:
            yield from ((f"original_shape_{feature}", code) for feature, code in CLASSES["shape"].items())
        for image in self.image_names:
            for family, features in CLASSES.items():
                if family != "shape" and family in self.classes:
                    yield from ((f"{image}_{family}_{feature}", code) for feature, code in features.items())

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """PyRadiomics' names in the order of the values: shape first, then image by image."""
        return tuple(name for name, _ in self._columns())

    @cached_property
    def ibsi_codes(self) -> tuple[str, ...]:
        """IBSI code a feature, empty where there is none."""
        return tuple(code for _, code in self._columns())

    def row(self) -> dict[str, object]:
        """The feature set's row of the table ``feature_sets``."""
        return {
            "feature_set": self.id,
            "name": self.name,
            "settings": self.settings,
            "feature_names": list(self.feature_names),
            "ibsi_codes": list(self.ibsi_codes),
        }


PYRADIOMICS_DEFAULT = FeatureSet(name="pyradiomics-default")
"""PyRadiomics' own defaults, for comparison with others."""

STUDY_MR = FeatureSet(name="study-mr", bin_width=5, normalize=True, normalize_scale=100, voxel_array_shift=300)
"""MR has no unit: z-score over the whole image, times 100; at the default width of 25 without the
scale every texture would fall into one bin."""

STUDY_CT = FeatureSet(name="study-ct")
"""Hounsfield units as they are, bin width 25 HU."""

REGISTRY: dict[str, FeatureSet] = {s.name: s for s in (PYRADIOMICS_DEFAULT, STUDY_MR, STUDY_CT)}


def feature_set(name: str) -> FeatureSet:
    """The registered feature set of that name or id. Raises NotFound."""
    for known in REGISTRY.values():
        if name in (known.name, known.id):
            return known
    raise NotFound(f"no feature set is named {name!r}.", action=f"Use one of: {', '.join(REGISTRY)}.")


def feature_set_for(sequence: str, override: str | FeatureSet | None = None) -> FeatureSet:
    """Which feature set a series gets: CT in Hounsfield units, everything else z-scored."""
    if isinstance(override, FeatureSet):
        return override
    if override is not None:
        return feature_set(override)
    return STUDY_CT if sequence == "ct" else STUDY_MR


def parse_feature_set(settings: dict[str, object]) -> FeatureSet:
    """A feature set from settings as read from a file or a ``feature_sets`` row. Raises SettingsError."""
    try:
        return FeatureSet.model_validate_json(json.dumps(settings))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "settings"
        raise SettingsError(
            f"feature set: {key}: {first['msg']}.", action="Mend or remove that key; unknown keys are refused."
        ) from error
