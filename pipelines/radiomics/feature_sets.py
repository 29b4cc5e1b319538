"""Named, versioned extraction settings: what is computed, of which images, discretised how.

A feature set is its settings: they are frozen, unknown keys are refused, and the id carries a hash of
them, so that rows made with different settings never pass for the same features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_store.errors import SettingsError
from pipelines.radiomics.feature_docs import feature_doc, image_unit
from pipelines.radiomics.feature_names import CLASSES, WAVELET_SUBBANDS

ImageType = Literal["original", "wavelet", "log"]
FeatureClass = Literal["shape", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"]
ALL_CLASSES: tuple[FeatureClass, ...] = ("shape", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")


class FeatureSet(BaseModel):
    """Settings of one extraction. The defaults are PyRadiomics' own.

    ``bin_width`` is in units of the preprocessed image; ``bin_count``, when given, replaces it.
    ``spacing`` is x, y, z in mm (None: voxels as they are). ``voxel_array_shift`` is added to intensities
    for Energy, TotalEnergy and RootMeanSquared only. ``log_sigma``: widths in mm of the Laplacian of Gaussian,
    for the image type ``log``. Whole numbers stay whole: PyRadiomics' bin edges and the names of filtered
    images follow the number's type. The wavelet has one level, its filter is coif1; others are refused.
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
    log_sigma: tuple[Annotated[int | float, Field(gt=0, le=50)], ...] = ()
    classes: tuple[FeatureClass, ...] = ALL_CLASSES

    @model_validator(mode="after")
    def _sound(self) -> FeatureSet:
        if self.spacing is not None and min(self.spacing) <= 0:
            raise ValueError("spacing must be positive, in mm")
        for field in ("image_types", "classes"):
            values = getattr(self, field)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{field} must name each of its members once, and at least one")
        if ("log" in self.image_types) != bool(self.log_sigma):
            raise ValueError("image type log and log_sigma (mm) go together")
        if len(set(self.log_sigma)) != len(self.log_sigma):
            raise ValueError("log_sigma must hold each width once")
        return self

    @cached_property
    def settings(self) -> str:
        """Canonical JSON of everything but the name: equal settings give equal text.

        A setting that came later is left out where it is not used, so that older ids stay what they are.
        """
        unused = {name for name in ADDED_LATER if getattr(self, name) == type(self).model_fields[name].default}
        settings = self.model_dump(mode="json", exclude={"name"} | unused)
        return json.dumps(settings, sort_keys=True, separators=(",", ":"))

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
        return (*names, *(log_name(sigma) for sigma in self.log_sigma))

    def _columns(self) -> Iterator[str]:
        if "shape" in self.classes:
            yield from (f"original_shape_{feature}" for feature in CLASSES["shape"])
        for image in self.image_names:
            for family, features in CLASSES.items():
                if family != "shape" and family in self.classes:
                    yield from (f"{image}_{family}_{feature}" for feature in features)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """PyRadiomics' names in the order of the values: shape first, then image by image."""
        return tuple(self._columns())

    @property
    def families(self) -> tuple[str, ...]:
        """Class a feature."""
        return tuple(feature_doc(name).family for name in self.feature_names)

    @property
    def ibsi_codes(self) -> tuple[str, ...]:
        """IBSI code a feature, empty where there is none."""
        return tuple(feature_doc(name).ibsi_code for name in self.feature_names)

    @property
    def image_unit(self) -> str:
        """Unit of the intensities that features are computed on."""
        return image_unit(self.normalize, self.normalize_scale)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit a feature, ``1`` where it has none."""
        return tuple(feature_doc(name).unit(self.image_unit) for name in self.feature_names)

    def row(self) -> dict[str, object]:
        """The feature set's row of the table ``feature_sets``."""
        return {
            "feature_set": self.id,
            "name": self.name,
            "settings": self.settings,
            "feature_names": list(self.feature_names),
            "ibsi_codes": list(self.ibsi_codes),
            "families": list(self.families),
            "units": list(self.units),
        }


ADDED_LATER = ("log_sigma",)


def log_name(sigma: float) -> str:
    """PyRadiomics' name of an image filtered with that width: ``log-sigma-2-0-mm-3D``."""
    return f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D"


PYRADIOMICS_DEFAULT = FeatureSet(name="pyradiomics-default")
"""PyRadiomics' own defaults, for comparison with others."""

STUDY_MR = FeatureSet(name="study-mr", bin_width=5, normalize=True, normalize_scale=100, voxel_array_shift=300)
"""MR has no unit: z-score over the whole image, times 100; at the default width of 25 without the
scale every texture would fall into one bin."""

STUDY_CT = FeatureSet(name="study-ct")
"""Hounsfield units as they are, bin width 25 HU."""

ISOTROPIC = (1.0, 1.0, 1.0)
LOG_SIGMAS = (1.0, 2.0, 3.0, 4.0, 5.0)


def _variants(study: FeatureSet) -> tuple[FeatureSet, ...]:
    """The study's settings with one thing changed: isotropic voxels, a bin count, Laplacians of Gaussian."""
    with_log: dict[str, object] = {"image_types": ("original", "wavelet", "log"), "log_sigma": LOG_SIGMAS}
    changes: dict[str, dict[str, object]] = {
        "1mm": {"spacing": ISOTROPIC},
        "32bins": {"bin_count": 32},
        "log": with_log,
        "1mm-log": {"spacing": ISOTROPIC, **with_log},
    }
    return tuple(
        FeatureSet.model_validate({**study.model_dump(), "name": f"{study.name}-{suffix}", **change})
        for suffix, change in changes.items()
    )


REGISTRY: dict[str, FeatureSet] = {
    s.name: s for s in (PYRADIOMICS_DEFAULT, STUDY_CT, STUDY_MR, *_variants(STUDY_CT), *_variants(STUDY_MR))
}
"""Feature sets that come with the project. Their ids are what rows are stored under: settings never change."""


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
