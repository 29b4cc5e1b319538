"""Every value equals stock PyRadiomics on the whole image: real images, borders, special cases, random ones."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from feature_store.errors import AsdegError, ExtractionError, LabelEmpty, RoiTooSmall
from pipelines.imaging.images import read_image
from pipelines.imaging.masks import align_mask, read_mask
from pipelines.radiomics.crop import RoiCrop, crop_roi
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import PYRADIOMICS_DEFAULT, REGISTRY, STUDY_MR, FeatureSet
from pipelines.radiomics.preprocessing import preprocess, preprocess_mask
from tests.pipelines.radiomics.stock import assert_as_stock, deviations, stock_values


def image_of(voxels: np.ndarray, spacing: tuple[float, float, float] = (0.9, 1.1, 2.5)) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    return image


def texture(shape: tuple[int, ...], seed: int = 0, kind: str = "int16") -> np.ndarray:
    """Correlated grey values from about -300 to 300."""
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    return (smooth / smooth.std() * 100).astype(kind)


def ball(shape: tuple[int, int, int], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    return np.asarray(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2)


# --- real images ---------------------------------------------------------------------------------
SPINE = {
    "ct_lumbar": ("ct_lumbar/ct.nii.gz", "ct_lumbar/totalsegmentator_seg.nii.gz"),
    "ct_dicom": ("ct_dicom/series", "ct_dicom/seg.nii.gz"),
    "t2_single_disc": (
        "t2_single_disc/sub-mri_label-6_T2w.nii.gz",
        "t2_single_disc/sub-mri_seg-vert_label-6_msk.nii.gz",
    ),
    "mr_axial_slab": ("mr_axial_slab/mr.nii.gz", "mr_axial_slab/seg.nii.gz"),
    "ct_single_vertebra": (
        "ct_single_vertebra/sub-ct_label-22_ct.nii.gz",
        "ct_single_vertebra/sub-ct_seg-vert_label-22_msk.nii.gz",
    ),
}


def real_roi(data: Path, case: str, label: int, feature_set: FeatureSet) -> tuple[sitk.Image, np.ndarray]:
    image_file, mask_file = SPINE[case]
    image = read_image(data / "spine" / image_file)
    mask = preprocess_mask(align_mask(read_mask(data / "spine" / mask_file), image), feature_set)
    return preprocess(image, feature_set), sitk.GetArrayFromImage(mask) == label


@pytest.mark.parametrize(
    ("case", "label", "feature_set"),
    [
        ("ct_lumbar", 27, PYRADIOMICS_DEFAULT),
        ("ct_lumbar", 86, PYRADIOMICS_DEFAULT),
        ("t2_single_disc", 6, STUDY_MR),
        ("t2_single_disc", 105, PYRADIOMICS_DEFAULT),
        ("mr_axial_slab", 20, STUDY_MR),
        ("ct_single_vertebra", 21, PYRADIOMICS_DEFAULT),
        ("ct_single_vertebra", 21, REGISTRY["study-ct-1mm"]),
        ("t2_single_disc", 105, REGISTRY["study-mr-1mm"]),
        ("ct_lumbar", 31, REGISTRY["study-ct-32bins"]),
        ("mr_axial_slab", 20, REGISTRY["study-mr-32bins"]),
    ],
)
def test_real_images(shared_data: Path, case: str, label: int, feature_set: FeatureSet) -> None:
    image, mask = real_roi(shared_data, case, label, feature_set)
    assert mask.any()
    assert assert_as_stock(image, mask, feature_set) >= 830


@pytest.mark.slow
@pytest.mark.parametrize("label", [32, 33, 86, 87])
def test_dicom_series_with_its_mask_stored_along_a_flipped_axis(shared_data: Path, label: int) -> None:
    image, mask = real_roi(shared_data, "ct_dicom", label, PYRADIOMICS_DEFAULT)
    assert mask.sum() > 9000
    assert assert_as_stock(image, mask, PYRADIOMICS_DEFAULT) >= 830


# --- the image's border --------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(12, 14, 16), (13, 15, 17), (12, 15, 16)])
@pytest.mark.parametrize("side", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)])
def test_roi_that_touches_one_border(shape: tuple[int, int, int], side: tuple[int, int]) -> None:
    axis, end = side
    centre = [(n - 1) / 2 for n in shape]
    centre[axis] = 0.0 if end == 0 else shape[axis] - 1.0
    mask = ball(shape, tuple(centre), 4.5)
    assert assert_as_stock(image_of(texture(shape)), mask, PYRADIOMICS_DEFAULT) >= 840


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(7, 9, 10), (8, 8, 8)])
def test_roi_that_touches_every_border(shape: tuple[int, int, int], kind: str) -> None:
    voxels = (texture(shape, seed=3, kind="float64") / 5 + 100).clip(0, 200).astype(kind)
    mask = np.ones(shape, bool)
    mask[2, 3, 4] = False
    assert_as_stock(image_of(voxels), mask, FeatureSet(name="x", bin_width=5))


@pytest.mark.parametrize("shape", [(12, 14, 16), (13, 15, 17)])
def test_roi_in_each_corner_and_at_each_edge(shape: tuple[int, int, int]) -> None:
    few = FeatureSet(name="x", bin_width=10, classes=("firstorder", "glszm"))
    image = image_of(texture(shape, seed=2))
    for at in product((0.0, 0.5, 1.0), repeat=3):
        if at.count(0.5) > 1:
            continue  # inside, or at one face: see above
        mask = ball(shape, tuple((n - 1) * share for n, share in zip(shape, at, strict=True)), 4.5)
        assert_as_stock(image, mask, few)


# --- special cases -------------------------------------------------------------------------------
def _few_voxels(mask: np.ndarray) -> None:
    mask[3, 3, 3] = mask[3, 4, 4] = mask[4, 4, 3] = True


def _apart(mask: np.ndarray) -> None:
    mask[1, 1, 1] = mask[1, 5, 5] = mask[6, 1, 5] = mask[8, 8, 8] = True


def _slice(axis: int) -> np.ndarray:
    mask = np.zeros((10, 11, 12), bool)
    plane = [slice(2, 8)] * 3
    plane[axis] = slice(4, 5)  # type: ignore[call-overload]
    mask[tuple(plane)] = True
    return mask


def _thin() -> tuple[np.ndarray, np.ndarray]:
    """Few pairs along some directions, so that most of many levels are absent there."""
    random = np.random.default_rng(11805)
    shape = (7, 2, 7)
    voxels = (gaussian_filter(random.uniform(0, 1000, shape), 1.0) % 250).astype(np.int16)
    return voxels, random.random(shape) < 0.3


def special_cases() -> list[tuple[str, np.ndarray, np.ndarray, FeatureSet]]:
    shape = (10, 11, 12)
    grey = texture(shape, seed=5)
    cube = np.zeros(shape, bool)
    cube[2:8, 3:8, 3:9] = True
    few, apart = np.zeros(shape, bool), np.zeros(shape, bool)
    _few_voxels(few)
    _apart(apart)
    corner = np.zeros(shape, bool)
    corner[0, 0, 0] = corner[-1, -1, -1] = corner[0, -1, 3] = True
    checker = np.indices(shape).sum(axis=0) % 2 == 0
    flat = np.full(shape, 40, np.int16)
    steps = np.where(np.indices(shape)[2] < 6, 10, 110).astype(np.int16)
    gap = np.where(np.indices(shape)[0] < 5, 10, 40).astype(np.int16)  # levels 1 and 3 of 3
    ramp = (np.indices(shape)[1] * 100 + np.indices(shape)[0]).astype(np.int16)
    two = np.zeros(shape, bool)
    two[2:8, 3:5, 3:9] = True
    default = PYRADIOMICS_DEFAULT
    return [
        ("flat region", flat, cube, default),
        ("flat region at the border", flat, ~ball(shape, (5, 5, 5), 2), default),
        ("flat region of zeros", np.zeros(shape, np.int16), cube, default),
        ("flat fraction", np.full(shape, 40.3), cube, default),
        ("two levels", steps, cube, default),
        ("two levels, one between is empty", gap, cube, FeatureSet(name="x", bin_width=15)),
        ("ramp", ramp, cube, default),
        ("checkerboard", checker.astype(np.int16) * 200, cube, default),
        ("voxels without a neighbour", grey, checker & cube, default),
        ("few voxels", grey, few, default),
        ("voxels far apart", grey, apart, default),
        ("corners of the image", grey, corner, default),
        ("two slices", grey, two, default),
        *((f"one slice across axis {axis}", grey, _slice(axis), default) for axis in range(3)),
        ("one slice, flat", flat, _slice(0), default),
        ("several hundred grey levels", grey, cube, FeatureSet(name="x", bin_width=1)),
        ("more levels than voxels", grey.astype(np.float64) / 7, cube, FeatureSet(name="x", bin_width=0.1)),
        (
            "a thousand and more levels in the GLCM",
            grey.astype(np.float64) / 7,
            cube,
            FeatureSet(name="x", bin_width=0.08, image_types=("original",), classes=("glcm",)),
        ),
        (
            "many thousands of levels",
            grey.astype(np.float64) / 7,
            cube,
            FeatureSet(
                name="x",
                bin_width=0.02,
                image_types=("original",),
                classes=("firstorder", "gldm", "glrlm", "glszm", "ngtdm"),
            ),
        ),
        ("thousands of bins by count", grey, cube, FeatureSet(name="x", bin_count=1500, image_types=("original",))),
        ("levels that have no neighbours in a direction", *_thin(), FeatureSet(name="x", bin_count=300)),
        ("all in one bin", grey, cube, FeatureSet(name="x", bin_width=10000)),
        ("bin count", grey, cube, FeatureSet(name="x", bin_count=16)),
        ("bin count of a flat region", flat, cube, FeatureSet(name="x", bin_count=16)),
        ("shifted energy", grey, cube, FeatureSet(name="x", voxel_array_shift=300)),
        ("8-bit values whose edges overflow", (texture(shape) % 256).astype(np.uint8), cube, default),
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", special_cases(), ids=lambda case: case[0])
def test_special_cases(case: tuple[str, np.ndarray, np.ndarray, FeatureSet]) -> None:
    _, voxels, mask, feature_set = case
    image = image_of(voxels)
    try:
        stock = stock_values(image, mask, feature_set)
    except Exception:
        with pytest.raises(AsdegError):
            RadiomicsExtractor(feature_set).extract(image, mask)
        return
    ours = RadiomicsExtractor(feature_set).extract(image, mask)
    assert not deviations(ours, stock, feature_set)


def test_nan_stays_nan() -> None:
    # a direction without any pair has no co-occurrences, and PyRadiomics answers NaN for the mean
    mask = np.zeros((10, 11, 12), bool)
    _apart(mask)
    values = RadiomicsExtractor(PYRADIOMICS_DEFAULT).extract(image_of(texture(mask.shape)), mask)
    assert np.isnan(values).any()
    assert not np.isnan(values[PYRADIOMICS_DEFAULT.feature_names.index("original_firstorder_Mean")])


def test_bins_of_real_width_by_sixteen_and_more_grey_levels_use_the_fast_way_to_mcc() -> None:
    from pipelines.radiomics.texture import correlation

    shape = (26, 26, 26)
    image, mask = image_of(texture(shape, seed=8)), ball(shape, (12, 13, 12), 9)
    feature_set = FeatureSet(name="x", bin_width=10, image_types=("original",))
    assert len(np.unique(texture(shape, seed=8)[mask] // 10)) > correlation.SMALL
    assert_as_stock(image, mask, feature_set)


# --- random images and masks ----------------------------------------------------------------------
RANDOM_SETS = [
    *(FeatureSet(name="x", bin_width=width, voxel_array_shift=300) for width in (25, 5, 100, 3.7)),
    FeatureSet(name="x", bin_count=16),
    FeatureSet(name="x", bin_count=300, image_types=("original",)),
    FeatureSet(name="x", bin_width=1, image_types=("original",)),
    FeatureSet(name="x", bin_width=5, image_types=("original", "log"), log_sigma=(0.8, 2.5)),
]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    kind=st.sampled_from(["int16", "uint8", "float32", "float64"]),
    content=st.sampled_from(["noise", "smooth", "two values", "flat"]),
    density=st.sampled_from([0.05, 0.3, 0.7, 0.97]),
    feature_set=st.sampled_from(RANDOM_SETS),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_images_and_masks(
    shape: tuple[int, int, int], kind: str, content: str, density: float, feature_set: FeatureSet, seed: int
) -> None:
    random = np.random.default_rng(seed)
    voxels = {
        "noise": lambda: random.uniform(0, 250, shape),
        "smooth": lambda: gaussian_filter(random.uniform(0, 1000, shape), 1.0) % 250,
        "two values": lambda: random.integers(0, 2, shape) * 100.0,
        "flat": lambda: np.full(shape, 50.0),
    }[content]()
    mask = random.random(shape) < density
    if mask.all():
        mask.flat[0] = False  # stock refuses a mask without background
    image = image_of(voxels.astype(kind), tuple(random.uniform(0.4, 4.0, 3)))
    try:
        stock = stock_values(image, mask, feature_set)
    except Exception:
        with pytest.raises(AsdegError):
            RadiomicsExtractor(feature_set).extract(image, mask)
        return
    assert not deviations(RadiomicsExtractor(feature_set).extract(image, mask), stock, feature_set)


# --- the rest ------------------------------------------------------------------------------------
def test_mask_as_image_or_array_and_any_non_zero_label() -> None:
    shape = (10, 10, 10)
    image, mask = image_of(texture(shape)), ball(shape, (5, 5, 4), 3)
    labels = image_of(mask.astype(np.uint16) * 27)
    extractor = RadiomicsExtractor(FeatureSet(name="x", classes=("shape", "firstorder")))
    assert np.array_equal(extractor.extract(image, mask), extractor.extract(image, labels))


def test_extraction_changes_nothing_it_is_given_and_keeps_no_state() -> None:
    shape = (12, 12, 12)
    extractor = RadiomicsExtractor(PYRADIOMICS_DEFAULT)
    crops = [crop_roi(image_of(texture(shape, seed)), ball(shape, (6, 5, 6), 4)) for seed in (1, 2)]
    before = [(crop.image.copy(), crop.mask.copy()) for crop in crops]
    first, second, again = (extractor.extract_from_crop(crops[i]) for i in (0, 1, 0))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    for crop, (image, mask) in zip(crops, before, strict=True):
        assert np.array_equal(crop.image, image)
        assert np.array_equal(crop.mask, mask)


def test_whole_image_as_roi_is_computed() -> None:
    # stock finds "no labels" when there is no background; the same voxels with a background are the same ROI
    voxels = texture((8, 8, 8))
    names = FeatureSet(name="x", image_types=("original",))
    around = np.pad(voxels, 2)
    mask = np.pad(np.ones_like(voxels, bool), 2)
    ours = RadiomicsExtractor(names).extract(image_of(voxels), np.ones(voxels.shape, bool))
    assert np.array_equal(ours, RadiomicsExtractor(names).extract(image_of(around), mask))


def test_errors_are_named() -> None:
    image = image_of(texture((6, 6, 6)))
    mask = np.zeros((6, 6, 6), bool)
    extractor = RadiomicsExtractor(PYRADIOMICS_DEFAULT)
    with pytest.raises(LabelEmpty):
        extractor.extract(image, mask)
    mask[2, 2, 2:5] = True
    with pytest.raises(RoiTooSmall):
        extractor.extract(image, mask)
    broken = RoiCrop(np.zeros((3, 3, 3)), np.ones((3, 3, 3), bool), (1.0, 1.0, 1.0))  # no room for the margin
    with pytest.raises(ExtractionError) as caught:
        extractor.extract_from_crop(broken)
    assert caught.value.action
    # another's text may hold anything; its type is all that is said
    assert caught.value.__cause__ is not None
    assert str(caught.value.__cause__) not in caught.value.message
    assert type(caught.value.__cause__).__name__ in caught.value.message
