"""Feature sets from files: strict, by name, and PyRadiomics parameter files only as far as they mean the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from feature_store.errors import SettingsError
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_set_choice import feature_set
from pipelines.radiomics.feature_set_files import read_feature_set
from pipelines.radiomics.feature_sets import STUDY_MR, FeatureSet

OURS = "bin_width: 10\nimage_types: [original, log]\nlog_sigma: [1.0, 2.5]\nclasses: [shape, firstorder]\n"
THEIRS = """
setting: {binWidth: 10, label: 3, interpolator: sitkBSpline, resampledPixelSpacing: null, force2D: false}
imageType: {Original: {}, LoG: {sigma: [1.0, 2.5]}, Wavelet: {wavelet: coif1, level: 1}}
featureClass: {firstorder: [], glcm: , shape: }
"""


def written(folder: Path, text: str, name: str = "Site set 2.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_our_own_settings(tmp_path: Path) -> None:
    found = read_feature_set(written(tmp_path, OURS))
    assert found.name == "site-set-2"
    assert found == FeatureSet(
        name="site-set-2",
        bin_width=10,
        image_types=("original", "log"),
        log_sigma=(1.0, 2.5),
        classes=("shape", "firstorder"),
    )
    assert feature_set(str(tmp_path / "Site set 2.yaml")).id == found.id
    study = written(tmp_path, f'{{"name": "again", {STUDY_MR.settings[1:]}', "study.json")
    assert read_feature_set(study).settings == STUDY_MR.settings
    assert read_feature_set(study).name == "again"


def test_a_pyradiomics_parameter_file_gives_pyradiomics_values(tmp_path: Path) -> None:
    from radiomics import featureextractor

    path = written(tmp_path, THEIRS)
    settings = read_feature_set(path)
    random = np.random.default_rng(0)
    image = sitk.GetImageFromArray(random.normal(0, 90, (14, 15, 16)))
    labels = np.zeros((14, 15, 16), np.uint8)
    labels[3:10, 4:11, 3:12] = 3
    stock = featureextractor.RadiomicsFeatureExtractor(str(path)).execute(image, sitk.GetImageFromArray(labels))
    expected = {name: float(value) for name, value in stock.items() if not name.startswith("diagnostics")}
    ours = dict(zip(settings.feature_names, RadiomicsExtractor(settings).extract(image, labels == 3), strict=True))
    assert ours == pytest.approx(expected, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("binWidth: 10", "binWidth"),
        ("bin_width: wide", "bin_width"),
        ("bin_width: 10\nbin_width: 11", "twice"),
        ("name: Not A Name", "name"),
        ("image_types: [square]", "image_types"),
        ("setting: {binWidth: 10}\nextra: 1", "extra"),
        ("setting: 3", "setting"),
        ("imageType: {LoG: 3}", "imageType.LoG"),
        ("featureClass: {glcm: 3}", "featureClass.glcm"),
        ("setting: {force2D: true}", "setting.force2D"),
        ("setting: {distances: [1, 2]}", "setting.distances"),
        ("setting: {weightingNorm: euclidean}", "setting.weightingNorm"),
        ("setting: {resegmentRange: [-3, 3]}", "setting.resegmentRange"),
        ("setting: {interpolator: sitkLinear}", "setting.interpolator"),
        ("setting: {resampledPixelSpacing: [1, 1]}", "setting.resampledPixelSpacing"),
        ("setting: {resampledPixelSpacing: [1, 1, 0]}", "spacing"),
        ("setting: {somethingNew: 1}", "setting.somethingNew"),
        ("imageType: {Square: {}}", "imageType.Square"),
        ("imageType: {Wavelet: {level: 2}}", "imageType.Wavelet.level"),
        ("imageType: {Wavelet: {wavelet: haar}}", "imageType.Wavelet.wavelet"),
        ("imageType: {Wavelet: {start_level: 1}}", "imageType.Wavelet.start_level"),
        ("imageType: {Original: {binWidth: 3}}", "imageType.Original.binWidth"),
        ("imageType: {LoG: {}}", "log_sigma"),
        ("featureClass: {shape2D: }", "featureClass.shape2D"),
        ("featureClass: {glcm: [Idm]}", "featureClass.glcm"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused_by_name(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(SettingsError, match=key.replace(".", r"\.")) as caught:
        read_feature_set(written(tmp_path, text))
    assert caught.value.file == "Site set 2.yaml"
    assert caught.value.action


@pytest.mark.parametrize(("name", "text"), [("no.json", "{"), ("no.json", "[1]"), ("no.json", '{"a": 1, "a": 2}')])
def test_json_that_is_none(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(SettingsError):
        read_feature_set(written(tmp_path, text, name))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.yaml", "none.json"):
        with pytest.raises(SettingsError):
            read_feature_set(tmp_path / name)
