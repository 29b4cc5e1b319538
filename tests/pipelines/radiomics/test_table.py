"""Radiomics of two files: one row a label, and an output that is replaced whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from feature_store.errors import ExtractionError, GridMismatch, LabelEmpty, NotFound, RoiTooSmall, UsageError
from pipelines.cases.label_map import shipped_label_map
from pipelines.extraction.limits import RoiLimits
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import PYRADIOMICS_DEFAULT, STUDY_MR, FeatureSet
from pipelines.radiomics.preprocessing import preprocess
from pipelines.radiomics.table import radiomics_table, write_table

QUICK = FeatureSet(name="quick", image_types=("original",), classes=("shape", "firstorder"))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    voxels = np.random.default_rng(0).integers(-100, 900, (12, 13, 14)).astype(np.int16)
    labels = np.zeros((12, 13, 14), np.uint8)
    labels[2:6, 2:7, 2:6] = 27
    labels[7:10, 7:12, 7:13] = 5
    image, mask = sitk.GetImageFromArray(voxels), sitk.GetImageFromArray(labels)
    for grid in (image, mask):
        grid.SetSpacing((0.8, 0.8, 3.0))
        grid.SetOrigin((10.0, -20.0, 5.0))
    # the same voxels with the y axis stored the other way round
    sitk.WriteImage(image, str(tmp_path / "image.nii.gz"))
    sitk.WriteImage(sitk.Flip(mask, (False, True, False)), str(tmp_path / "mask.nii.gz"))
    return tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"


def test_one_row_a_label_in_pyradiomics_names(files: tuple[Path, Path]) -> None:
    table = radiomics_table(*files)
    assert list(table.columns) == ["label", *PYRADIOMICS_DEFAULT.feature_names]
    assert table["label"].tolist() == [5, 27]
    image = sitk.ReadImage(str(files[0]))
    labels = np.zeros((12, 13, 14), bool)
    labels[2:6, 2:7, 2:6] = True
    expected = RadiomicsExtractor(PYRADIOMICS_DEFAULT).extract(image, labels)
    assert np.array_equal(table.iloc[1, 1:].to_numpy(float), expected)


def test_labels_come_in_the_order_they_are_asked_for(files: tuple[Path, Path]) -> None:
    assert radiomics_table(*files, [27, 5], QUICK)["label"].tolist() == [27, 5]
    assert radiomics_table(*files, [27], QUICK)["label"].tolist() == [27]


def test_a_label_map_names_the_rows(files: tuple[Path, Path]) -> None:
    """27 is L5 in TotalSegmentator's numbering; 5, the liver, is left out unless it is asked for."""
    names = shipped_label_map("totalsegmentator-ct")
    table = radiomics_table(*files, None, QUICK, names)
    assert list(table.columns) == ["label", "structure", "level", "side", *QUICK.feature_names]
    assert table.iloc[:, :4].to_numpy().tolist() == [[27, "vertebra", "L5", "both"]]
    asked = radiomics_table(*files, [5, 27], QUICK, names)
    assert asked["level"].isna().tolist() == [True, False]
    assert np.array_equal(asked.iloc[:, 4:], radiomics_table(*files, [5, 27], QUICK).iloc[:, 1:])
    with pytest.raises(LabelEmpty):
        radiomics_table(*files, None, QUICK, shipped_label_map("tptbox-subregions"))


def test_more_grey_levels_than_memory_is_a_named_error_and_not_a_killed_process(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).uniform(0, 1e7, (13, 13, 13))  # 1,728 levels: co-occurrences of 155 MB
    labels = np.zeros(voxels.shape, np.uint8)
    labels[:12, :12, :12] = 3
    for name, array in (("image", voxels), ("mask", labels)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nrrd"))
    files = tmp_path / "image.nrrd", tmp_path / "mask.nrrd"
    settings = FeatureSet(name="wide", image_types=("original",), classes=("firstorder", "glcm"))
    with pytest.raises(ExtractionError, match="label 3: ran out of memory") as caught:
        radiomics_table(*files, None, settings, held=RoiLimits(memory_gib=0.1).memory_held)
    assert "wider bins" in caught.value.action
    coarse = settings.model_copy(update={"bin_width": 1e6})
    assert len(radiomics_table(*files, None, coarse, held=RoiLimits(memory_gib=0.1).memory_held)) == 1


def test_feature_set_decides_the_preprocessing(files: tuple[Path, Path]) -> None:
    table = radiomics_table(*files, [5], "study-mr")
    labels = np.zeros((12, 13, 14), bool)
    labels[7:10, 7:12, 7:13] = True
    image = preprocess(sitk.ReadImage(str(files[0])), STUDY_MR)
    assert np.array_equal(table.iloc[0, 1:].to_numpy(float), RadiomicsExtractor(STUDY_MR).extract(image, labels))


def test_resampling_moves_image_and_mask_together(files: tuple[Path, Path]) -> None:
    fine = QUICK.model_copy(update={"spacing": (0.8, 0.8, 1.5)})
    ours, coarse = radiomics_table(*files, None, fine), radiomics_table(*files, None, QUICK)
    ratio = ours["original_shape_VoxelVolume"] / coarse["original_shape_VoxelVolume"]
    assert ratio.tolist() == pytest.approx([1, 1])


def test_errors(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(LabelEmpty, match="99"):
        radiomics_table(*files, [27, 99], QUICK)
    with pytest.raises(NotFound):
        radiomics_table(*files, None, "no-such-set")
    labels = sitk.ReadImage(str(files[1]))
    labels[0, 0, 0] = 7
    sitk.WriteImage(labels, str(tmp_path / "dot.nii.gz"))
    with pytest.raises(RoiTooSmall, match="label 7"):
        radiomics_table(files[0], tmp_path / "dot.nii.gz", None, QUICK)
    sitk.WriteImage(labels[1:, :, :], str(tmp_path / "small.nii.gz"))
    with pytest.raises(GridMismatch):
        radiomics_table(files[0], tmp_path / "small.nii.gz", None, QUICK)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_existing_file_is_replaced_and_values_keep_their_last_bit(
    files: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    table = radiomics_table(*files, None, QUICK)
    out = tmp_path / f"features{suffix}"
    out.write_text("what was here before")
    out.chmod(0o640)
    write_table(table, out)
    read = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    pd.testing.assert_frame_equal(read, table, check_exact=True)
    assert out.stat().st_mode & 0o777 == 0o640
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "features.csv"
    out.write_text("old")
    table = pd.DataFrame({"label": [1]})

    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="disk full"):
        write_table(table, out)
    assert [p.name for p in tmp_path.iterdir()] == ["features.csv"]
    assert out.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("name", ["features.xlsx", "features", "nowhere/features.csv"])
def test_wrong_output(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        write_table(pd.DataFrame({"label": [1]}), tmp_path / name)
