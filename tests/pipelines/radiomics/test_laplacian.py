"""Laplacian of Gaussian: ITK's values of the whole image bit for bit, of the ROI's box alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import ExtractionError
from pipelines.imaging.images import read_image
from pipelines.imaging.masks import align_mask, read_mask
from pipelines.radiomics import series as series_module
from pipelines.radiomics.feature_sets import REGISTRY, FeatureSet
from pipelines.radiomics.preprocessing import preprocess
from pipelines.radiomics.series import RadiomicsSeries
from pipelines.radiomics.texture.laplacian import Box, laplacian_of_gaussian
from tests.pipelines.radiomics.stock import assert_as_stock

LOG = FeatureSet(name="log", image_types=("log",), log_sigma=(1.0, 2, 3.5), classes=("firstorder", "glcm", "glszm"))


def itk(image: sitk.Image, sigma: float) -> np.ndarray:
    """As PyRadiomics asks for it."""
    filter_ = sitk.LaplacianRecursiveGaussianImageFilter()
    filter_.SetNormalizeAcrossScale(True)
    filter_.SetSigma(sigma)
    return sitk.GetArrayFromImage(filter_.Execute(image))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(4, 40)] * 3),
    kind=st.sampled_from(["int16", "uint8", "int32", "float32", "float64"]),
    content=st.sampled_from(["noise", "flat", "step"]),
    sigma=st.sampled_from([0.4, 1.0, 2.0, 5.0, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_voxel_has_the_bits_of_the_whole_images_filter(
    shape: tuple[int, int, int], kind: str, content: str, sigma: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    voxels = {
        "noise": lambda: random.uniform(0, 250, shape) * (1e6 if kind == "int32" else 1),
        "flat": lambda: np.full(shape, 77.7),
        "step": lambda: np.where(np.indices(shape)[1] < 3, 0.0, 200.0),
    }[content]().astype(kind)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(random.uniform(0.3, 5.0, 3).tolist())
    low = [int(random.integers(0, n)) for n in shape]
    z, y, x = ((a, int(random.integers(a + 1, n + 1))) for a, n in zip(low, shape, strict=True))
    ours = laplacian_of_gaussian(voxels, image.GetSpacing(), sigma, (z, y, x))
    assert ours.dtype == np.float32
    assert np.array_equal(ours, itk(image, sigma)[z[0] : z[1], y[0] : y[1], x[0] : x[1]])


def test_a_crop_with_a_margin_would_not_do() -> None:
    # what the whole lines are for: values still follow from voxels twenty sigmas away
    voxels = np.random.default_rng(0).normal(0, 300, (8, 8, 160)).astype(np.float32)
    whole = itk(sitk.GetImageFromArray(voxels), 2.0)[:, :, 60:70]
    off = {}
    for margin in (4, 8, 16, 24, 40):
        part = itk(sitk.GetImageFromArray(voxels[:, :, 60 - margin : 70 + margin].copy()), 2.0)
        off[margin] = float(np.abs(part[:, :, margin : margin + 10] - whole).max() / np.abs(whole).max())
    assert off[4] > 1e-3 > off[16] > 1e-9, off


@pytest.mark.parametrize("kind", ["int16", "float32", "float64"])
def test_z_score_is_taken_on_the_way(kind: str) -> None:
    voxels = np.random.default_rng(1).normal(300, 90, (9, 14, 17)).astype(kind)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.8, 1.1, 3.0))
    mr = REGISTRY["study-mr-log"]
    mask = np.zeros(voxels.shape, bool)
    mask[3:7, 2:9, 5:12] = True
    lazily = RadiomicsSeries.of(image, mr).crop(mask)
    ready = preprocess(image, mr)
    whole = RadiomicsSeries(sitk.GetArrayViewFromImage(ready), ready.GetSpacing(), mr).crop(mask)
    assert lazily.image.dtype == np.float64
    assert np.array_equal(lazily.image, whole.image)
    for (name, ours), (_, expected), sigma in zip(lazily.filtered, whole.filtered, mr.log_sigma, strict=True):
        assert name == f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D"
        assert np.array_equal(ours, expected)
        assert np.array_equal(ours, itk(ready, sigma)[3:7, 2:9, 5:12])


def test_a_field_around_all_rois_changes_nothing_but_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.random.default_rng(1).normal(300, 90, (12, 14, 17)).astype(np.int16)
    masks = [np.zeros(voxels.shape, bool) for _ in range(3)]
    for k, mask in enumerate(masks):
        mask[2 + k : 6 + k, 3:9, 4:9] = True
    calls: list[Box] = []

    def counted(image: np.ndarray, spacing: object, sigma: float, box: Box, rescale: object) -> np.ndarray:
        calls.append(box)
        return laplacian_of_gaussian(image, spacing, sigma, box, rescale)  # type: ignore[arg-type]

    monkeypatch.setattr(series_module, "laplacian_of_gaussian", counted)

    def crops(field: Box | None) -> list[np.ndarray]:
        series = RadiomicsSeries(voxels, (1.0, 1.0, 2.0), LOG)
        return [image for mask in masks for _, image in series.crop(mask, field).filtered]

    apart = crops(None)
    assert len(calls) == 9
    calls.clear()
    together = crops(((2, 8), (3, 9), (4, 9)))
    assert len(calls) == 3
    assert all(np.array_equal(a, b) for a, b in zip(apart, together, strict=True))
    calls.clear()
    monkeypatch.setattr(series_module, "FIELD_BYTES", 100)  # too much to keep: each for itself
    assert all(np.array_equal(a, b) for a, b in zip(apart, crops(((2, 8), (3, 9), (4, 9))), strict=True))
    assert len(calls) == 9


@pytest.mark.parametrize("corner", [(0, 0, 0), (1, 1, 1), (0, 1, 0)])
def test_features_at_the_image_border_are_stocks(corner: tuple[int, int, int]) -> None:
    shape = (11, 13, 12)
    voxels = np.random.default_rng(2).normal(0, 120, shape).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.9, 1.2, 2.0))
    mask = np.zeros(shape, bool)
    mask[tuple(slice(0, 6) if end == 0 else slice(n - 6, n) for end, n in zip(corner, shape, strict=True))] = True
    assert_as_stock(image, mask, LOG)


@pytest.mark.parametrize(("case", "name"), [("ct_single_vertebra", "study-ct-log"), ("t2_single_disc", "study-mr-log")])
def test_real_images_with_all_filters(shared_data: Path, case: str, name: str) -> None:
    folder = shared_data / "spine" / case
    image_file, mask_file, label = {
        "ct_single_vertebra": ("sub-ct_label-22_ct.nii.gz", "sub-ct_seg-vert_label-22_msk.nii.gz", 21),
        "t2_single_disc": ("sub-mri_label-6_T2w.nii.gz", "sub-mri_seg-vert_label-6_msk.nii.gz", 105),
    }[case]
    image = read_image(folder / image_file)
    mask = sitk.GetArrayFromImage(align_mask(read_mask(folder / mask_file), image)) == label
    settings = REGISTRY[name]
    assert assert_as_stock(preprocess(image, settings), mask, settings) >= 1280


def test_a_series_too_small_is_refused_where_stock_leaves_the_filter_out() -> None:
    voxels = np.random.default_rng(0).normal(0, 100, (6, 12, 12)).astype(np.int16)
    mask = np.zeros(voxels.shape, bool)
    mask[1:5, 3:9, 3:9] = True
    series = RadiomicsSeries(voxels, (1.0, 1.0, 1.0), REGISTRY["study-ct-log"])
    assert series.crop(mask).filtered
    with pytest.raises(ExtractionError, match="4 mm"):
        RadiomicsSeries(voxels[:4], (1.0, 1.0, 1.0), REGISTRY["study-ct-log"]).crop(mask[:4])
    with pytest.raises(ExtractionError, match="1 mm"):
        RadiomicsSeries(voxels[:3], (1.0, 1.0, 9.0), REGISTRY["study-ct-log"]).crop(mask[:3])
