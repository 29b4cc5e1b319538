"""Normalisation and resampling give PyRadiomics' voxels, once for the whole series."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from feature_store.errors import ImageConstant
from pipelines.radiomics.feature_sets import PYRADIOMICS_DEFAULT, STUDY_MR, FeatureSet
from pipelines.radiomics.preprocessing import normalize, preprocess, preprocess_mask, resample, rescaling


@pytest.fixture
def image() -> sitk.Image:
    voxels = np.random.default_rng(1).integers(0, 900, (9, 14, 17)).astype(np.uint16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 1.1, 3.3))
    image.SetOrigin((-20.0, 5.0, 300.0))
    image.SetDirection((0, 1, 0, 0, 0, -1, -1, 0, 0))
    return image


def test_nothing_to_do_leaves_the_image_and_its_pixel_type(image: sitk.Image) -> None:
    assert preprocess(image, PYRADIOMICS_DEFAULT) is image
    assert preprocess_mask(image, STUDY_MR) is image


def test_normalisation_is_pyradiomics_own(image: sitk.Image) -> None:
    from radiomics import imageoperations

    expected = imageoperations.normalizeImage(image, normalize=True, normalizeScale=100)
    ours = preprocess(image, STUDY_MR)
    assert ours.GetPixelID() == expected.GetPixelID() == sitk.sitkFloat64
    assert np.array_equal(sitk.GetArrayViewFromImage(ours), sitk.GetArrayViewFromImage(expected))
    assert ours.GetDirection() == image.GetDirection()
    assert abs(sitk.GetArrayFromImage(normalize(image, 1)).std() - 1) < 1e-3


def test_resampling_is_pyradiomics_own_but_of_the_whole_image(image: sitk.Image) -> None:
    from radiomics import imageoperations

    labels = np.zeros((9, 14, 17), np.uint32)
    labels[3:7, 4:11, 5:12] = 1
    mask = sitk.GetImageFromArray(labels)
    mask.CopyInformation(image)
    spacing = (1.0, 1.0, 2.0)
    part, part_mask = imageoperations.resampleImage(
        image, mask, resampledPixelSpacing=list(spacing), interpolator="sitkBSpline", padDistance=1
    )
    whole = resample(image, spacing, sitk.sitkBSpline)
    whole_mask = resample(mask, spacing, sitk.sitkNearestNeighbor)
    corner = whole.TransformPhysicalPointToContinuousIndex(part.GetOrigin())
    start = np.rint(corner).astype(int)
    assert np.allclose(corner, start, atol=1e-9)
    assert whole.GetSpacing() == spacing
    box = tuple(slice(s, s + n) for s, n in zip(start[::-1], part.GetSize()[::-1], strict=True))
    assert np.array_equal(sitk.GetArrayViewFromImage(whole)[box], sitk.GetArrayViewFromImage(part))
    assert np.array_equal(sitk.GetArrayViewFromImage(whole_mask)[box], sitk.GetArrayViewFromImage(part_mask))
    assert sitk.GetArrayViewFromImage(whole_mask).sum() == sitk.GetArrayViewFromImage(part_mask).sum()


def test_order_is_normalise_then_resample(image: sitk.Image) -> None:
    settings = FeatureSet(name="x", normalize=True, normalize_scale=100, spacing=(1.0, 1.0, 2.0))
    ours = preprocess(image, settings)
    expected = resample(normalize(image, 100), (1.0, 1.0, 2.0), sitk.sitkBSpline)
    assert np.array_equal(sitk.GetArrayViewFromImage(ours), sitk.GetArrayViewFromImage(expected))


def test_same_spacing_is_left_alone(image: sitk.Image) -> None:
    assert resample(image, tuple(image.GetSpacing()), sitk.sitkBSpline) is image


@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_the_number_of_threads_changes_no_bit_and_is_left_as_it_was(kind: str) -> None:
    voxels = np.random.default_rng(5).normal(300, 90, (40, 61, 70)).astype(kind)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 1.1, 2.0))
    settings = FeatureSet(name="x", normalize=True, normalize_scale=100, spacing=(1.0, 1.0, 1.0))
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 2, 7):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append((rescaling(image, 100), sitk.GetArrayFromImage(preprocess(image, settings))))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    for numbers, resampled in found[1:]:
        assert numbers == found[0][0]
        assert np.array_equal(resampled, found[0][1])


def test_an_image_without_spread_cannot_be_normalised() -> None:
    with pytest.raises(ImageConstant):
        preprocess(sitk.GetImageFromArray(np.full((5, 6, 7), 3.0)), STUDY_MR)
