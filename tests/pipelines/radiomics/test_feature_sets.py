"""Feature sets: strict, frozen, hashed; names in PyRadiomics' own order."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from pydantic import ValidationError

from feature_store.errors import NotFound, SettingsError
from feature_store.schemas import FEATURE_SETS
from pipelines.radiomics.feature_set_choice import feature_set, feature_set_for
from pipelines.radiomics.feature_sets import (
    PYRADIOMICS_DEFAULT,
    REGISTRY,
    STUDY_CT,
    STUDY_MR,
    FeatureSet,
    parse_feature_set,
)


def test_names_and_their_order_are_those_of_pyradiomics() -> None:
    from radiomics import featureextractor

    voxels = np.random.default_rng(0).normal(0, 100, (8, 8, 8))
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    extractor = featureextractor.RadiomicsFeatureExtractor(additionalInfo=False)
    extractor.enableImageTypeByName("Wavelet")
    names = tuple(extractor.execute(sitk.GetImageFromArray(voxels), sitk.GetImageFromArray(mask)))
    assert names == PYRADIOMICS_DEFAULT.feature_names
    assert len(names) == 851


def test_default_settings_are_pyradiomics_own() -> None:
    from radiomics import featureextractor

    stock = featureextractor.RadiomicsFeatureExtractor().settings
    assert stock["normalize"] is PYRADIOMICS_DEFAULT.normalize
    assert stock["resampledPixelSpacing"] is PYRADIOMICS_DEFAULT.spacing
    assert stock["normalizeScale"] == PYRADIOMICS_DEFAULT.normalize_scale
    assert PYRADIOMICS_DEFAULT.bin_width == 25
    assert isinstance(PYRADIOMICS_DEFAULT.bin_width, int)  # a float would compute edges in another type


def test_ids_are_stable() -> None:
    # rows are stored under these: a changed id means a changed setting, and must be meant
    assert {s.id: len(s.feature_names) for s in REGISTRY.values()} == {
        "pyradiomics-default-4a801b70": 851,
        "study-ct-4a801b70": 851,
        "study-mr-f620cf98": 851,
        "study-ct-1mm-db0e3df5": 851,
        "study-ct-32bins-314e829a": 851,
        "study-ct-log-4e4a61fc": 1316,
        "study-ct-1mm-log-16e25537": 1316,
        "study-mr-1mm-64acc7ed": 851,
        "study-mr-32bins-ab9ba737": 851,
        "study-mr-log-17675ed8": 1316,
        "study-mr-1mm-log-475fe598": 1316,
    }


def test_settings_that_came_later_do_not_show_where_they_are_not_used() -> None:
    assert set(json.loads(PYRADIOMICS_DEFAULT.settings)) == {
        "bin_width", "bin_count", "normalize", "normalize_scale", "voxel_array_shift", "spacing", "image_types",
        "wavelet", "classes",
    }  # fmt: skip
    assert json.loads(REGISTRY["study-ct-log"].settings)["log_sigma"] == [1.0, 2.0, 3.0, 4.0, 5.0]
    # what is stored can be read back, with the same id
    for known in REGISTRY.values():
        assert parse_feature_set({"name": known.name, **json.loads(known.settings)}).id == known.id


def test_id_follows_the_settings_and_not_the_order_they_are_written_in() -> None:
    one = parse_feature_set({"name": "x", "bin_width": 10, "normalize": True})
    other = parse_feature_set({"normalize": True, "bin_width": 10, "name": "x"})
    assert one.id == other.id
    assert one.id != FeatureSet(name="x", bin_width=11, normalize=True).id
    assert json.loads(one.settings)["bin_width"] == 10


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "x", "binWidth": 25},
        {"name": "x", "bin_width": 0},
        {"name": "x", "bin_width": "25"},
        {"name": "x", "bin_count": 1.5},
        {"name": "Not A Name"},
        {"name": "x", "spacing": [1.0, 1.0]},
        {"name": "x", "spacing": [1.0, 1.0, 0.0]},
        {"name": "x", "classes": []},
        {"name": "x", "classes": ["glcm", "glcm"]},
        {"name": "x", "image_types": ["log"]},
        {"name": "x", "log_sigma": [2.0]},
        {"name": "x", "image_types": ["log"], "log_sigma": [0]},
        {"name": "x", "image_types": ["log"], "log_sigma": [1, 1.0]},
        {"name": "x", "image_types": ["gradient"]},
        {"name": "x", "wavelet": "haar"},
        {"name": "x", "level": 2},
        {"name": "x", "start_level": 1},
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_feature_set(settings)
    assert caught.value.action


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        STUDY_MR.bin_width = 10  # type: ignore[misc]


def test_row_fits_its_table() -> None:
    row = STUDY_MR.row()
    assert set(row) == set(FEATURE_SETS.column_names)
    assert len(row["feature_names"]) == len(row["ibsi_codes"]) == 851  # type: ignore[arg-type]
    codes = dict(zip(STUDY_MR.feature_names, STUDY_MR.ibsi_codes, strict=True))
    assert codes["wavelet-HHH_gldm_DependenceVariance"] == "DNX2"
    assert codes["original_glcm_MCC"] == ""


def test_codes_are_given_once_a_feature() -> None:
    codes = [code for code in PYRADIOMICS_DEFAULT.ibsi_codes[: 14 + 93] if code]
    assert len(codes) == len(set(codes)) == 102


def test_which_set_a_series_gets() -> None:
    assert feature_set_for("ct") is STUDY_CT
    assert feature_set_for("dixon_water_ax") is STUDY_MR
    assert feature_set_for("ct", "pyradiomics-default") is PYRADIOMICS_DEFAULT
    assert feature_set_for("t2_sag", STUDY_CT) is STUDY_CT
    assert feature_set(STUDY_MR.id) is STUDY_MR
    assert feature_set_for("ct", "study-1mm-log") is REGISTRY["study-ct-1mm-log"]
    assert feature_set_for("t2_ax", "study-1mm-log") is REGISTRY["study-mr-1mm-log"]
    assert feature_set_for("ct", "study-mr") is STUDY_MR
    for name in ("no-such", "study-nothing"):
        with pytest.raises(NotFound, match=name):
            feature_set_for("ct", name)


def test_classes_and_image_types_choose_the_columns() -> None:
    small = FeatureSet(name="small", image_types=("wavelet",), classes=("shape", "ngtdm"))
    assert len(small.feature_names) == 14 + 8 * 5
    assert small.feature_names[0].startswith("original_shape_")
    assert small.feature_names[-1] == "wavelet-LLL_ngtdm_Strength"
