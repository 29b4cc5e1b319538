"""A feature set from a file: our own settings, or a PyRadiomics parameter file as far as it means the same here.

    name: site-ct                             setting: {binWidth: 10, normalize: true, normalizeScale: 100}
    bin_width: 10                      or     imageType: {Original: {}, Wavelet: {}, LoG: {sigma: [1.0, 3.0]}}
    image_types: [original, wavelet]          featureClass: {firstorder: , glcm: }

Whatever would be computed otherwise than asked for is refused by name; nothing is passed over in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_store.errors import SettingsError
from pipelines.cases.strict_yaml import read_strict_yaml
from pipelines.radiomics.feature_names import CLASSES
from pipelines.radiomics.feature_sets import ALL_CLASSES, FeatureSet, parse_feature_set

SUFFIXES = (".yaml", ".yml", ".json")
PARTS = ("setting", "imageType", "featureClass")

_RENAMED = {
    "binWidth": "bin_width",
    "binCount": "bin_count",
    "normalize": "normalize",
    "normalizeScale": "normalize_scale",
    "voxelArrayShift": "voxel_array_shift",
    "resampledPixelSpacing": "spacing",
}
_MEANT = {
    # settings that decide values, with the one value that is meant here
    "interpolator": "sitkBSpline",
    "force2D": False,
    "distances": [1],
    "symmetricalGLCM": True,
    "weightingNorm": None,
    "gldm_a": 0,
    "removeOutliers": None,
    "resegmentRange": None,
    "resegmentShape": False,
    "correctMask": False,
    "preCrop": False,
    "minimumROIDimensions": 2,
    "minimumROISize": None,
}
_WITHOUT_EFFECT = ("label", "label_channel", "additionalInfo", "geometryTolerance", "padDistance", "force2Ddimension")
"""Labels are chosen for each call; our preprocessing is done on the whole series, without padding."""


def read_feature_set(path: Path) -> FeatureSet:
    """Read a feature set. Without a ``name`` it is called after the file. Raises SettingsError."""
    try:
        settings = _read(path)
        if any(part in settings for part in PARTS):
            settings = _translated(settings)
        return parse_feature_set({"name": _name(path), **settings})
    except SettingsError as error:
        raise SettingsError(error.message, action=error.action, file=path.name) from error


def _read(path: Path) -> dict[str, Any]:
    if path.suffix != ".json":
        return {str(key): value for key, value in read_strict_yaml(path, SettingsError).items()}
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise SettingsError("the file cannot be read.", action="Check its name and who may read it.") from error
    except ValueError as error:
        raise SettingsError("it is not valid JSON.", action="Check commas, quotes and brackets.") from error
    if not isinstance(found, dict):
        raise SettingsError("it is not a mapping of keys to values.", action="Start with {.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise SettingsError("a key stands there twice.", action="Keep one.")
    return dict(pairs)


def _name(path: Path) -> str:
    """The file's name as a feature set's: small letters, digits, hyphens."""
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")
    return name[:48] if name[:1].isalpha() else f"set-{name}"[:48]


def _translated(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings of a PyRadiomics parameter file; PyRadiomics' defaults for what it leaves out."""
    for part in parameters:
        if part not in PARTS:
            raise _refused(str(part), f"a parameter file has {', '.join(PARTS)}")
        if not isinstance(parameters[part] or {}, Mapping):
            raise _refused(str(part), "it must be a mapping of keys to values")
    settings = _setting(parameters.get("setting") or {})
    settings |= _image_types(parameters.get("imageType") or {"Original": None})
    return settings | _classes(parameters.get("featureClass"))


def _setting(setting: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in setting.items():
        if key in _RENAMED:
            if value is not None:
                found[_RENAMED[key]] = value
        elif key in _MEANT:
            if value != _MEANT[key]:
                raise _refused(f"setting.{key}", f"only {json.dumps(_MEANT[key])} is computed here")
        elif key not in _WITHOUT_EFFECT:
            raise _refused(f"setting.{key}", "it is not computed here")
    if "spacing" in found:
        spacing = found["spacing"]
        if not isinstance(spacing, list) or len(spacing) != 3 or not all(isinstance(v, (int, float)) for v in spacing):
            raise _refused("setting.resampledPixelSpacing", "three numbers in mm are needed")
        found["spacing"] = [float(value) for value in spacing]
    return found


def _image_types(image_types: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"image_types": []}
    for name, custom in image_types.items():
        if not isinstance(custom or {}, Mapping):
            raise _refused(f"imageType.{name}", "it must be a mapping of keys to values")
        custom = dict(custom or {})
        if name == "Wavelet":
            for key, meant in (("wavelet", "coif1"), ("level", 1), ("start_level", 0)):
                if custom.pop(key, meant) != meant:
                    raise _refused(f"imageType.Wavelet.{key}", f"only {meant} is computed here")
        elif name == "LoG":
            found["log_sigma"] = custom.pop("sigma", [])
        elif name != "Original":
            raise _refused(f"imageType.{name}", "original, wavelet and LoG images are computed here")
        if custom:
            raise _refused(f"imageType.{name}.{next(iter(custom))}", "settings of one image type are not computed here")
        found["image_types"].append({"Original": "original", "Wavelet": "wavelet", "LoG": "log"}[name])
    return found


def _classes(classes: Mapping[str, Any] | None) -> dict[str, Any]:
    if not classes:
        return {"classes": list(ALL_CLASSES)}
    for name, features in classes.items():
        if name not in CLASSES:
            raise _refused(f"featureClass.{name}", f"the classes are {', '.join(ALL_CLASSES)}")
        if features and (not isinstance(features, list) or set(features) != set(CLASSES[name])):
            raise _refused(f"featureClass.{name}", "a class is computed whole; choose features afterwards")
    return {"classes": list(classes)}


def _refused(key: str, why: str) -> SettingsError:
    return SettingsError(f"{key}: {why}.", action="Remove it, or compute this with PyRadiomics itself.")
