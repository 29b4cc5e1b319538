"""Robustness of ROIs in a store: whose are measured, what they give, and that what fails stays alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from feature_store.errors import LabelEmpty, NotReady
from feature_store.store import FeatureStore
from feature_store.vocabulary import RoiName
from models.selection.robustness import COLUMNS, PERTURBATION, READERS, RobustnessRule, robust_names
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_sets import STUDY_MR, FeatureSet
from pipelines.radiomics.perturbation import PerturbationSettings
from pipelines.radiomics.preprocessing import preprocess
from pipelines.robustness.plan import RobustnessScope, plan_robustness, population
from pipelines.robustness.readers import readers_table
from pipelines.robustness.run import vary_files, vary_store
from pipelines.robustness.table import perturbation_table, summary
from pipelines.robustness.versions import RoiToVary, RoiValues, vary_rois
from tests.feature_store import examples
from tests.pipelines.extraction.extraction_store import add_series, make_image, make_mask

FEW = PerturbationSettings(repeats=2)
REGION = "t2_sag.vertebral_body.all"


def add_case(store: FeatureStore, patient: str, number: int, sequence: str = "t2_sag") -> None:
    add_series(store, patient, sequence, number)
    case = examples.ids(patient) | {"manifest_hash": "cc", "sequences": [sequence], "index_date_known": True}
    assert not store.push({"cases": [case]}, kind="case", source="a").rejected


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    store = FeatureStore.open(tmp_path_factory.mktemp("robustness") / "store", create=True)
    for number in range(7):
        add_case(store, f"p{number}", number)
    return store


def planned(store: FeatureStore, **scope: Any) -> list[tuple[str, str]]:
    chosen = RobustnessScope(**scope)
    plan = plan_robustness(population(store.snapshot(), chosen), chosen)
    return [(roi.subject, roi.region) for series in plan for roi in series.rois]


def cohort(name: str, partitions: dict[str, str], as_of: int) -> list[dict[str, Any]]:
    fixed = {"cohort": name, "version": 1, "rule": "asdeg-v1-180d", "as_of": as_of, "outcome": 0}
    return [{**fixed, **examples.ids(patient), "partition": given} for patient, given in partitions.items()]


# --- whose ROIs --------------------------------------------------------------------------------
def test_the_study_rois_of_patients_drawn_by_a_seed(store: FeatureStore) -> None:
    everyone = planned(store, patients=None)
    assert everyone == [(f"a\np{number}", REGION) for number in range(7)]  # of level all; L4 and L5 alone are not
    some = planned(store, patients=3)
    assert len(some) == 3
    assert set(some) < set(everyone)
    assert some == planned(store, patients=3)
    assert some != planned(store, patients=3, seed=1)
    assert set(some) < set(planned(store, patients=5))
    with pytest.raises(NotReady, match="no ROI"):
        planned(store, sequences=("ct",))
    with pytest.raises(NotReady, match="no ROI"):
        planned(store, sites=("elsewhere",))


def test_test_patients_are_never_measured(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    for number in range(5):
        add_case(store, f"p{number}", number)
    scope = RobustnessScope(patients=None)
    assert population(store.snapshot(), scope).partitions == "unassigned"
    given = {"p0": "training", "p1": "training", "p2": "internal_validation", "p3": "external_test"}
    rows = cohort("c", given, store.snapshot().sequence)
    assert not store.push({"cohorts": rows}, kind="cohort", source="c").rejected
    assert planned(store, cohort="c") == [("a\np0", REGION), ("a\np1", REGION)]
    assert population(store.snapshot(), RobustnessScope(cohort="c")).partitions == "training"
    # without a cohort p4, whom nobody has given a partition yet, counts as well, and it is said
    assert [subject for subject, _ in planned(store)] == ["a\np0", "a\np1", "a\np4"]
    assert population(store.snapshot(), scope).partitions == "unassigned"
    rows = cohort("d", {"p4": "locked_test"}, store.snapshot().sequence)
    store.push({"cohorts": rows}, kind="cohort", source="d")
    assert [subject for subject, _ in planned(store)] == ["a\np0", "a\np1"]
    assert population(store.snapshot(), scope).partitions == "training"


def test_images_after_the_surgery_and_failed_quality_are_left_out(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    for number in range(4):
        add_case(store, f"p{number}", number)
    series = store.snapshot().table("series").to_pylist()
    rois = store.snapshot().table("rois").to_pylist()
    late = next(row for row in series if row["patient_id"] == "p1") | {"days_from_index": 5}
    bad = next(row for row in rois if row["patient_id"] == "p2" and row["level"] == "all")
    key = {name: bad[name] for name in (*examples.roi_ids("p", RoiName("ct", "sacrum")), "image_hash", "mask_hash")}
    verdict = {"verdict": "fail", "reasons": ["RoiClipped: x"], "measured": "{}", "quality_settings": "q-1"}
    verdict["software_version"] = "test"
    rows = {"series": [{k: v for k, v in late.items() if k != "push_id"}], "quality": [{**key, **verdict}]}
    receipt = store.push(rows, kind="case", source="a")
    assert not receipt.rejected, receipt.rejected
    assert [subject for subject, _ in planned(store)] == ["a\np0", "a\np3"]


# --- what they give ----------------------------------------------------------------------------
def test_one_row_a_feature_the_same_with_and_without_ray(store: FeatureStore) -> None:
    scope = RobustnessScope(patients=6)
    people = population(store.snapshot(), scope)
    plan = plan_robustness(people, scope)
    alone = perturbation_table(list(vary_store(store.uri, plan, FEW, cpus=1)), people.partitions)
    on_ray = perturbation_table(list(vary_store(store.uri, plan, FEW, cpus=2)), people.partitions)
    pd.testing.assert_frame_equal(alone.table, on_ray.table, check_exact=True)
    assert (alone.rois, alone.versions, alone.refused, alone.failed) == (6, 12, {}, {})
    assert tuple(alone.table.columns) == COLUMNS
    assert list(alone.table["feature"]) == [f"{REGION}.{name}" for name in STUDY_MR.feature_names]
    assert set(alone.table["kind"]) == {PERTURBATION}
    assert set(alone.table["patients"]) == {"unassigned"}
    assert alone.table["n_versions"].eq(3).all()
    assert alone.table["n_subjects"].max() == 6
    measured = alone.table["icc_2_1"].notna()
    assert measured.mean() > 0.9
    # all have the same mask here, so that volumes differ by version alone: ICC(2,1) is 0, and there is no interval
    interval = alone.table["icc_2_1_low"].notna()
    assert list(alone.table["feature"][measured & ~interval]) == [f"{REGION}.original_shape_VoxelVolume"]
    assert (alone.table["icc_2_1_low"] <= alone.table["icc_2_1_high"])[interval].all()


def test_the_version_as_drawn_has_the_stored_features_values() -> None:
    image, mask = make_image(0), make_mask(make_image(0))
    (found,) = vary_rois(image, mask, [RoiToVary("r", "s", (1, 2))], STUDY_MR, FEW)
    whole = RadiomicsExtractor(STUDY_MR).extract(
        preprocess(image, STUDY_MR), np.isin(sitk.GetArrayFromImage(mask), (1, 2))
    )
    original = [i for i, name in enumerate(STUDY_MR.feature_names) if name.startswith("original")]
    # the ROI is two voxels from the border, where the wavelet wraps around the block and not the image
    np.testing.assert_allclose(found.values[0][original], whole[original], rtol=1e-12)
    assert not np.allclose(found.values[1], found.values[2], equal_nan=True)


def test_every_image_type_and_resampling() -> None:
    settings = FeatureSet(
        name="every",
        normalize=True,
        normalize_scale=100,
        bin_width=25,
        spacing=(1.0, 1.0, 1.0),
        image_types=("original", "wavelet", "log"),
        log_sigma=(1.0,),
        classes=("firstorder", "shape"),
    )
    (found,) = vary_rois(make_image(0), make_mask(make_image(0)), [RoiToVary("r", "s", (1,))], settings, FEW)
    assert not found.error
    assert not found.refused
    assert np.isfinite(found.values).mean() > 0.99


def test_what_fails_stays_alone(store: FeatureStore) -> None:
    scope = RobustnessScope(patients=3)
    plan = plan_robustness(population(store.snapshot(), scope), scope)
    broken = [*plan[:1], type(plan[1])("0" * 64, plan[1].mask_hash, plan[1].feature_set, plan[1].rois), *plan[2:]]
    found = list(vary_store(store.uri, broken, FEW, cpus=1))
    assert [roi.error for roi in found] == ["", "NotFound", ""]
    table = perturbation_table(found, "unknown")
    assert (table.rois, table.failed) == (2, {"NotFound": 1})
    image, mask = make_image(0), make_mask(make_image(0))
    rois = [RoiToVary("r", "s", (9,)), RoiToVary("r", "t", (1,))]
    assert [roi.error for roi in vary_rois(image, mask, rois, STUDY_MR, FEW)] == ["LabelEmpty", ""]


def test_refused_versions_are_counted_and_their_subject_is_incomplete() -> None:
    rng = np.random.default_rng(0)
    small = FeatureSet(name="small", image_types=("original",), classes=("ngtdm",))
    rois = [RoiValues("r", f"s{i}", small, rng.normal(i, 0.1, (3, 5))) for i in range(8)]
    rois[0].values[2] = np.nan
    rois[0].refused = Counter(RoiTooSmall=1)
    measured = perturbation_table(rois, "training")
    assert measured.refused == {"RoiTooSmall": 1}
    assert measured.versions == 15
    assert measured.table["n_subjects"].eq(7).all()
    assert measured.table["icc_2_1"].gt(0.9).all()


def test_noisy_features_added_on_purpose_are_found_out_and_left_out() -> None:
    """Real features of perturbed ROIs, and beside them columns of pure noise."""
    rng = np.random.default_rng(0)
    small = FeatureSet(name="small", image_types=("original",), classes=("firstorder",))
    settings = PerturbationSettings(repeats=4)
    rois = []
    for number in range(8):
        image = make_image(number)
        image = sitk.Cast(image * (1 + 0.2 * number), sitk.sitkFloat32)  # subjects differ
        rois += list(vary_rois(image, make_mask(image), [RoiToVary("r", f"s{number}", (1, 2))], small, settings))
    table = perturbation_table(rois, "training").table
    noise = perturbation_table(
        [RoiValues("r", roi.subject, small, rng.normal(size=roi.values.shape)) for roi in rois], "training"
    ).table.assign(feature=[f"r.noise{i}" for i in range(len(small.feature_names))])
    both = pd.concat([table, noise], ignore_index=True)
    kept, record, _ = robust_names(both["feature"], both, RobustnessRule())
    assert not any("noise" in name for name in kept)
    stable = {f"r.original_firstorder_{name}" for name in ("InterquartileRange", "Variance", "90Percentile")}
    assert stable <= set(kept)
    assert record["dropped"] >= len(noise)


def test_a_summary_by_family_and_image_type(store: FeatureStore) -> None:
    names = [f"{REGION}.original_glcm_Contrast", f"{REGION}.wavelet-LLH_glcm_Contrast", f"{REGION}.wavelet-HHH_glcm_Id"]
    table = pd.DataFrame({"feature": names, "kind": READERS, "icc_2_1": [0.95, 0.8, np.nan], "cv": [0.1, 0.2, np.nan]})
    rows = summary(table)
    assert [(row["images"], row["family"], row["features"]) for row in rows] == [
        ("all", "all", 3),
        ("original", "glcm", 1),
        ("wavelet", "glcm", 2),
    ]
    assert rows[2]["at_least_0.75"] == 0.5
    assert rows[2]["at_least_0.90"] == 0


# --- two files ---------------------------------------------------------------------------------
def test_two_files_have_labels_for_subjects(tmp_path: Path) -> None:
    image = make_image(0)
    sitk.WriteImage(image, tmp_path / "image.nii.gz")
    sitk.WriteImage(make_mask(image), tmp_path / "mask.nii.gz")
    small = FeatureSet(name="small", image_types=("original",), classes=("firstorder",))
    labels, found = vary_files(tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz", None, small, FEW)
    measured = perturbation_table(list(found), "unknown")
    assert labels == [1, 2]
    assert list(measured.table["feature"]) == list(small.feature_names)
    assert measured.table["n_subjects"].eq(2).all()
    with pytest.raises(LabelEmpty, match="label 9"):
        vary_files(tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz", [1, 9], small, FEW)


# --- readers -----------------------------------------------------------------------------------
def readings(store: FeatureStore, patients: int, segmentations: tuple[str, ...]) -> None:
    """Rows of every feature: a patient's own number, and noise in every second feature."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict[str, Any]]] = {"feature_sets": [STUDY_MR.row()], "rois": [], "radiomics": []}
    size = len(STUDY_MR.feature_names)
    noisy = np.arange(size) % 2 == 1
    for number in range(patients):
        own = rng.normal(0, 1, size)
        for segmentation in segmentations:
            roi = RoiName("t2_sag", "vertebral_body", segmentation=segmentation)
            values = own + rng.normal(0, np.where(noisy, 3.0, 0.05))
            rows["radiomics"].append(examples.radiomics(f"p{number}", values, roi, name=STUDY_MR.id))
            base = next(row for row in examples.case(f"p{number}")["rois"] if row["sequence"] == "t2_sag")
            rows["rois"].append({**base, **examples.roi_ids(f"p{number}", roi)})
    receipt = store.push(rows, kind="features", source="tests")
    assert not receipt.rejected, receipt.rejected[:2]


@pytest.fixture
def cases(tmp_path: Path) -> FeatureStore:
    store = FeatureStore.open(tmp_path / "store", create=True)
    rows: dict[str, list[dict[str, Any]]] = {"cases": [], "series": []}
    for number in range(8):
        made = examples.case(f"p{number}")
        rows["cases"] += made["cases"]
        rows["series"] += made["series"]
    assert not store.push(rows, kind="case", source="tests").rejected
    return store


@pytest.mark.parametrize("names", [("reader_a", "reader_b"), ("primary", "again"), ("primary", "a1", "a2", "b1")])
def test_repeated_segmentations_give_iccs(cases: FeatureStore, names: tuple[str, ...]) -> None:
    readings(cases, 8, names)
    scope = RobustnessScope()
    table = readers_table(population(cases.snapshot(), scope), scope)
    raters = names if len(names) < 4 else names[1:]
    assert table["n_versions"].eq(len(raters)).all()
    assert table["n_subjects"].eq(8).all()
    assert set(table["kind"]) == {READERS}
    assert list(table["feature"]) == [f"{REGION}.{name}" for name in STUDY_MR.feature_names]
    assert table["icc_2_1"][::2].min() > 0.9
    assert table["icc_2_1"][1::2].median() < 0.5
    kept, _, _ = robust_names(table["feature"], table, RobustnessRule())
    assert len(set(table["feature"][::2]) - set(kept)) == 0


def test_too_few_repeated_segmentations_say_what_is_missing(cases: FeatureStore) -> None:
    scope = RobustnessScope()
    with pytest.raises(NotReady, match=r"0 of 8 patients .* two segmentations; 5 are needed"):
        readers_table(population(cases.snapshot(), scope), scope)
    readings(cases, 4, ("reader_a", "reader_b"))
    with pytest.raises(NotReady, match=r"4 of 8 patients .* reader_a and reader_b; 5 are needed"):
        readers_table(population(cases.snapshot(), scope), scope)
    with pytest.raises(NotReady, match=r"0 of 8 patients .* primary and reader_c"):
        readers_table(population(cases.snapshot(), scope), scope, ["reader_c"])


def test_readings_of_test_patients_do_not_count(cases: FeatureStore) -> None:
    readings(cases, 8, ("reader_a", "reader_b"))
    given = {f"p{number}": "training" if number < 6 else "external_test" for number in range(8)}
    rows = cohort("c", given, cases.snapshot().sequence)
    assert not cases.push({"cohorts": rows}, kind="cohort", source="c").rejected
    for scope in (RobustnessScope(cohort="c"), RobustnessScope()):
        table = readers_table(population(cases.snapshot(), scope), scope)
        assert table["n_subjects"].eq(6).all()
        assert set(table["patients"]) == {"training"}
