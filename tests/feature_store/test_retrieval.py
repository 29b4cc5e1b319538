from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_store.backup import backup
from feature_store.cohort_settings import CohortSettings
from feature_store.cohorts import freeze_cohort
from feature_store.errors import FeaturesMissing, NotFound, StoreError, UsageError
from feature_store.optimize import OptimizeSettings
from feature_store.patient_index import PatientIndex
from feature_store.retrieval import clinical_table, export_cohort, patient_features, training_table
from feature_store.row_groups import RowGroups
from feature_store.store import FeatureStore
from tests.feature_store.examples import (
    NAMES,
    ROIS,
    case,
    embedding,
    encoder,
    feature_set,
    label,
    lengths_unlooked_at,
    radiomics,
)

MR, CT, VIT = "study-mr-0a1b2c3d", "study-ct-0a1b2c3d", "vit_small-0a1b2c3d"
CT_ROI, MR_ROI = ROIS


def value(patient: int, roi: int, feature: int) -> float:
    return patient + roi / 10 + feature / 100


@pytest.fixture
def filled(folder_store: FeatureStore) -> FeatureStore:
    """Six patients with CT and MR features; p2 without MR, p3 with a failed CT."""
    for i in range(6):
        folder_store.push(case(f"p{i}") | {"labels": [label(f"p{i}", i % 2)]}, kind="case", source="a")
    sets = [feature_set(MR), feature_set(CT, NAMES[:2])]
    rows = [radiomics(f"p{i}", None if i == 3 else [value(i, 0, j) for j in range(2)], name=CT) for i in range(6)]
    rows += [radiomics(f"p{i}", [value(i, 1, j) for j in range(3)], MR_ROI) for i in range(6) if i != 2]
    cubes = [embedding(f"p{i}", [value(i, 0, j) for j in range(4)]) for i in range(6)]
    tables: dict[str, Any] = {"feature_sets": sets, "encoders": [encoder()], "radiomics": rows, "embeddings": cubes}
    folder_store.push(tables, kind="features", source="extract")
    freeze_cohort(folder_store, CohortSettings(name="study"))
    return folder_store


def test_training_table(filled: FeatureStore) -> None:
    table = training_table(filled.snapshot(), "study", [MR, CT, VIT])
    assert table.patients["patient_id"].tolist() == [f"p{i}" for i in range(6)]
    assert table.patients.columns.tolist() == ["site", "patient_id", "case_id", "partition", "outcome"]
    assert table.features.columns.tolist() == [
        *(f"t2_sag.intervertebral_disc.all.{name}" for name in NAMES),
        *(f"ct.vertebral_body.all.{name}" for name in NAMES[:2]),
        *(f"ct.vertebral_body.all.{VIT}_{i:03d}" for i in range(4)),
    ]
    nan = np.nan
    expected = np.array(
        [
            [nan if i == 2 else value(i, 1, j) for j in range(3)]
            + [nan if i == 3 else value(i, 0, j) for j in range(2)]
            + [float(np.float32(value(i, 0, j))) for j in range(4)]
            for i in range(6)
        ]
    )
    np.testing.assert_array_equal(table.features.to_numpy(), expected)
    assert table.features.dtypes.eq("float64").all()
    assert table.sources["as_of"] == 7
    assert table.sources["feature_sets"] == {MR: 3, CT: 2, VIT: 4}
    assert "t2_ax/psoas_major/all/both/primary" in table.sources["missing_rois"]
    assert len(table.sources["missing_rois"]) == 6


def test_nothing_later_than_the_cohort_is_in_it(filled: FeatureStore) -> None:
    before = training_table(filled.snapshot(), "study", [MR, CT])
    clinical = clinical_table(filled.snapshot(), "study")
    changed = case("p1", age=99.0)["clinical"]
    late = [radiomics("p1", [-1.0, -1.0, -1.0], MR_ROI), radiomics("p2", [-1.0, -1.0, -1.0], MR_ROI)]
    filled.push({"radiomics": late, "clinical": changed, "labels": [label("p0", 1)]}, kind="x", source="a")
    snapshot = FeatureStore.open(filled.uri).snapshot()
    after = training_table(snapshot, "study", [MR, CT])
    pd.testing.assert_frame_equal(before.features, after.features, check_exact=True)
    pd.testing.assert_frame_equal(before.patients, after.patients)
    pd.testing.assert_frame_equal(clinical, clinical_table(snapshot, "study"))
    now = training_table(snapshot, "study", [MR, CT], as_of=snapshot.sequence)
    assert (now.features.iloc[1, :3] == -1).all()
    assert clinical_table(snapshot, "study", as_of=snapshot.sequence)["age"][1] == 99.0
    assert freeze_cohort(filled, CohortSettings(name="study")).version == 2
    newest = training_table(filled.snapshot(), "study", [MR, CT])
    assert (newest.features.iloc[[1, 2], :3] == -1).all().all()
    old = training_table(filled.snapshot(), "study", [MR, CT], version=1)
    pd.testing.assert_frame_equal(before.features, old.features, check_exact=True)


def test_images_from_after_the_surgery_are_refused(filled: FeatureStore) -> None:
    late = [row | {"days_from_index": 1} for row in case("p4")["series"] if row["sequence"] == "ct"]
    filled.push({"series": late}, kind="case", source="a")
    freeze_cohort(filled, CohortSettings(name="study"))
    table = training_table(filled.snapshot(), "study", [MR, CT])
    assert table.sources["refused_rows"] == 1
    row = table.features.iloc[4]
    assert row.filter(like="ct.").isna().all()
    assert row.filter(like="t2_sag.").notna().all()
    names = patient_features(filled.snapshot(), "a", "p4", [MR, CT])
    assert set(names) == {f"t2_sag.intervertebral_disc.all.{name}" for name in NAMES}
    filled.push({"clinical": [case("p4")["clinical"][0] | {"days_from_index": 5}]}, kind="case", source="a")
    assert filled.snapshot().table("clinical", ["days_from_index"], {"patient_id": "p4"}).to_pylist() == [
        {"days_from_index": None}
    ]


def test_one_patient_equals_many(filled: FeatureStore) -> None:
    snapshot = filled.snapshot()
    table = training_table(snapshot, "study", [MR, CT, VIT])
    for i, patient in enumerate(table.patients["patient_id"]):
        alone = patient_features(snapshot, "a", patient, [MR, CT, VIT])
        assert alone == table.features.iloc[i].dropna().to_dict()
    with pytest.raises(NotFound):
        patient_features(snapshot, "b", "p1", [MR])


def test_an_undefined_feature_is_there_as_nan(filled: FeatureStore) -> None:
    filled.push({"radiomics": [radiomics("p1", [1.0, np.nan, 3.0], MR_ROI)]}, kind="x", source="a")
    found = patient_features(filled.snapshot(), "a", "p1", [MR])
    assert list(found) == [f"t2_sag.intervertebral_disc.all.{name}" for name in NAMES]
    assert np.isnan(list(found.values())).tolist() == [False, True, False]


def test_repeated_segmentations_stay_apart(filled: FeatureStore) -> None:
    repeat = radiomics("p1", [7.0, 8.0, 9.0], MR_ROI) | {"segmentation": "reader_b"}
    regions = [row | {"segmentation": "reader_b"} for row in case("p1")["rois"]]
    filled.push({"rois": regions, "radiomics": [repeat]}, kind="features", source="x")
    freeze_cohort(filled, CohortSettings(name="study"))
    snapshot = filled.snapshot()
    primary = training_table(snapshot, "study", [MR])
    assert primary.features.iloc[1, 0] == value(1, 1, 0)
    other = training_table(snapshot, "study", [MR], segmentation="reader_b")
    assert other.features.columns.tolist() == primary.features.columns.tolist()
    assert other.features.iloc[1].tolist() == [7.0, 8.0, 9.0]
    assert other.features.iloc[0].isna().all()


def test_what_cannot_be_told_apart_or_is_not_there_is_refused(filled: FeatureStore) -> None:
    snapshot = filled.snapshot()
    with pytest.raises(FeaturesMissing, match="study-pet"):
        training_table(snapshot, "study", [MR, "study-pet-00000000"])
    with pytest.raises(FeaturesMissing):  # known by now, but not when the cohort is looked at
        training_table(snapshot, "study", [MR], as_of=3)
    with pytest.raises(UsageError):
        training_table(snapshot, "study", [MR], as_of=snapshot.sequence + 1)
    filled.push({"radiomics": [radiomics("p1", [1.0, 1.0], MR_ROI, name=CT)]}, kind="features", source="x")
    snapshot = filled.snapshot()
    with pytest.raises(UsageError, match="Two feature sets"):
        training_table(snapshot, "study", [MR, CT], as_of=snapshot.sequence)
    with lengths_unlooked_at():
        filled.push({"radiomics": [radiomics("p1", [1.0], MR_ROI)]}, kind="features", source="x")
    snapshot = filled.snapshot()
    with pytest.raises(StoreError, match="length"):
        training_table(snapshot, "study", [MR], as_of=snapshot.sequence)


@pytest.mark.parametrize(
    ("who", "outcomes", "refused"),
    [("training", True, True), ("training", False, False), ("internal_validation", False, True), (None, True, False)],
)
def test_encoders_that_know_the_patients(filled: FeatureStore, who: str | None, outcomes: bool, refused: bool) -> None:
    patients = training_table(filled.snapshot(), "study", [MR]).patients
    known = patients[patients["partition"] == who]["patient_id"].tolist()
    seen = [f"a/{known[0]}"] if known else ["a/somebody"]
    filled.push({"encoders": [encoder(seen=seen, outcomes=outcomes)]}, kind="features", source="x")
    snapshot = filled.snapshot()
    if refused:
        with pytest.raises(UsageError, match="fitted on 1 patients"):
            training_table(snapshot, "study", [VIT], as_of=snapshot.sequence)
    if who == "internal_validation":  # nothing makes up for that
        for way in ("leave_out", "apparent"):
            with pytest.raises(UsageError, match="judged on"):
                training_table(snapshot, "study", [VIT], as_of=snapshot.sequence, in_sample=way)
        return
    table = training_table(snapshot, "study", [VIT], as_of=snapshot.sequence, in_sample="apparent")
    assert table.features.shape == (6, 4)
    assert (table.sources["in_sample"] is not None) == refused


def test_patients_an_encoder_was_tuned_on_are_left_out(filled: FeatureStore) -> None:
    whole = training_table(filled.snapshot(), "study", [MR, VIT])
    training = [f"a/{p}" for p in whole.patients.query("partition == 'training'")["patient_id"]]
    tuned = encoder(seen=training, outcomes=True) | {"outcomes_of": training[:2]}  # it saw the others' images only
    filled.push({"encoders": [tuned]}, kind="features", source="x")
    snapshot = filled.snapshot()
    now = snapshot.sequence
    with pytest.raises(UsageError, match="fitted on 2 patients"):
        training_table(snapshot, "study", [MR, VIT], as_of=now)
    part = training_table(snapshot, "study", [MR, VIT], as_of=now, in_sample="leave_out")
    assert part.sources["in_sample"] == {"encoders": [VIT], "tuned_on": 2, "handling": "leave_out"}
    kept = ~(whole.patients["site"] + "/" + whole.patients["patient_id"]).isin(training[:2])
    assert kept.sum() == 4
    pd.testing.assert_frame_equal(part.patients, whole.patients[kept].reset_index(drop=True))
    pd.testing.assert_frame_equal(part.features, whole.features[kept].reset_index(drop=True))
    assert training_table(snapshot, "study", [MR], as_of=now).sources["in_sample"] is None  # radiomics know nobody


def test_clinical_table(folder_store: FeatureStore) -> None:
    folder_store.push(case("p0", sex="male", osteoporosis=True) | {"labels": [label("p0", 1)]}, kind="case", source="a")
    rows = case("p1") | {"labels": [label("p1", 0)]}
    del rows["clinical"]
    folder_store.push(rows, kind="case", source="a")
    freeze_cohort(folder_store, CohortSettings(name="study"))
    table = clinical_table(folder_store.snapshot(), "study")
    assert table.columns.tolist() == ["age", "sex", "bmi", "surgical_segments", "osteoporosis", "diagnosis"]
    assert table.iloc[0].tolist()[:2] == [50.0, "male"]
    assert table["osteoporosis"].tolist()[0] == 1.0
    assert table.iloc[1].isna().all()
    assert table[["age", "bmi", "surgical_segments", "osteoporosis"]].dtypes.eq("float64").all()


def test_against_a_plain_reading(folder_store: FeatureStore) -> None:
    """Revisions, many files and row order: the matrix equals one built cell by cell from the revisions."""
    rng = np.random.default_rng(0)
    folder_store.push({"feature_sets": [feature_set(MR)]}, kind="features", source="x")
    expected: dict[tuple[str, int], list[float]] = {}
    for _ in range(12):
        rows = []
        for i in rng.permutation(30)[:10]:
            site, roi = ("a", "b")[i % 2], int(rng.integers(2))
            values = rng.normal(size=3).tolist()
            expected[f"{site}/p{i}", roi] = values
            rows.append(radiomics(f"p{i}", values, ROIS[roi], site))
        keys = {(r["site"], r["patient_id"], r["sequence"]): r for r in rows}
        folder_store.push({"radiomics": list(keys.values())}, kind="features", source="x")
        for i, site in ((r["patient_id"], r["site"]) for r in keys.values()):
            folder_store.push({**case(i, site), "labels": [label(i, int(i[1:]) % 2, site)]}, kind="case", source=site)
    freeze_cohort(folder_store, CohortSettings(name="study"))
    table = training_table(folder_store.snapshot(), "study", [MR])
    assert table.features.shape[1] == 6
    for i, patient in enumerate(table.patients.itertuples()):
        for roi, name in ((0, "ct."), (1, "t2_sag.")):
            wanted = expected.get((f"{patient.site}/{patient.patient_id}", roi), [np.nan] * 3)
            np.testing.assert_array_equal(table.features.iloc[i].filter(like=name).to_numpy(), wanted)


def test_a_cohort_as_one_table(filled: FeatureStore) -> None:
    snapshot = filled.snapshot()
    table = export_cohort(snapshot, "study", [MR])
    patients = training_table(snapshot, "study", [MR])
    assert table["patient_id"].tolist() == patients.patients["patient_id"].tolist()
    assert table["outcome"].tolist() == patients.patients["outcome"].tolist()
    assert table["clinical.age"].tolist() == [50.0] * len(table)
    assert table[patients.features.columns.tolist()].equals(patients.features)
    assert set(table.columns) < set(export_cohort(snapshot, "study").columns)


def test_an_index_answers_as_the_store_does(filled: FeatureStore) -> None:
    def same(index: PatientIndex, *sets: str) -> None:
        snapshot = filled.snapshot()
        for i in range(6):
            now = patient_features(snapshot, "a", f"p{i}", sets)
            assert index.features("a", f"p{i}", snapshot) == now

    index = PatientIndex(filled.snapshot(), [MR, CT, VIT])
    before = filled.snapshot()
    old = index.features("a", "p1")
    same(index, MR, CT, VIT)
    filled.push({"radiomics": [radiomics("p1", [7.0, 8.0, 9.0], MR_ROI)]}, kind="x", source="a")
    filled.push({}, kind="x", source="a", withdraw={"rois": case("p0")["rois"][:1]})
    filled.push(case("p7"), kind="case", source="a")
    same(index, MR, CT, VIT)
    assert index.features("a", "p7", filled.snapshot()) == {}
    assert index.features("a", "p1", before) == old
    # the files it was built on go, and those of another patient's are read
    filled.optimize(OptimizeSettings(dead_after_hours=0, files_too_many=1, keep_files_hours=0))
    fresh = PatientIndex(filled.snapshot(), [MR, CT, VIT])
    same(fresh, MR, CT, VIT)
    same(index, MR, CT, VIT)
    with pytest.raises(NotFound):
        index.features("a", "nobody")


def test_a_table_made_again_a_year_later_is_the_same_bit_for_bit(store: FeatureStore, tmp_path: Path) -> None:
    odd = np.array([0.0, 0.0, 0.1 + 0.2])
    odd.view(np.uint64)[:2] = (0xFFF8000000000001, 1)  # a NaN with a payload, and the smallest denormal
    tables: dict[str, Any] = {"feature_sets": [feature_set(MR)], "radiomics": []}
    for i in range(4):
        for name, rows in (case(f"p{i}") | {"labels": [label(f"p{i}", i % 2)]}).items():
            tables.setdefault(name, []).extend(rows)
        tables["radiomics"].append(radiomics(f"p{i}", odd * (i + 1), MR_ROI))
    store.push(tables, kind="case", source="a")
    freeze_cohort(store, CohortSettings(name="study"))

    def bits(uri: str, as_of: Any = None) -> tuple[bytes, list[str], str]:
        table = training_table(FeatureStore.open(uri).snapshot(as_of), "study", [MR], version=1)
        return table.features.to_numpy().tobytes(), list(table.features), table.patients.to_json()

    first, frozen = bits(store.uri), store.snapshot().pushes["committed_at"][-1].as_py()
    # the year: corrections, withdrawals, a larger feature set, a new ROI, care of the files, a copy
    larger = "study-mr-00000002"
    store.push({"feature_sets": [feature_set(larger, (*NAMES, "new"))]}, kind="x", source="a")
    new = [radiomics(f"p{i}", [1.0, 2.0, 3.0, 4.0], CT_ROI, name=larger) for i in range(4)]
    store.push({"radiomics": [*new, radiomics("p1", [5.0, 5.0, 5.0], MR_ROI)]}, kind="x", source="a")
    store.push({}, kind="x", source="a", withdraw={"cases": case("p2")["cases"], "rois": case("p2")["rois"]})
    freeze_cohort(store, CohortSettings(name="study"))
    assert bits(store.uri) == first
    store.optimize(OptimizeSettings(dead_after_hours=0, files_too_many=1, keep_files_hours=0))
    assert bits(store.uri) == first
    assert bits(store.uri, frozen) == first
    backup(store, FeatureStore.open(tmp_path / "copy", create=True))
    assert bits(str(tmp_path / "copy")) == first


def test_a_feature_set_never_changes_under_its_id(filled: FeatureStore) -> None:
    before = training_table(filled.snapshot(), "study", [MR])
    other = FeatureStore.open(filled.uri)
    for change in (
        {"settings": '{"bin_width": 5}'},
        {"feature_names": [*NAMES, "new"]},
        {"feature_names": NAMES[::-1]},
    ):
        with pytest.raises(UsageError, match="another meaning"):
            other.push({"feature_sets": [feature_set(MR) | change]}, kind="x", source="a")
    with pytest.raises(UsageError, match="another meaning"):
        other.push({"encoders": [encoder() | {"dimension": 5}]}, kind="x", source="a")
    described = feature_set(MR) | {"units": ["mm3", "1", "1"]}  # what is only said about it may be said later
    assert other.push({"feature_sets": [described]}, kind="x", source="a").sequence is not None
    after = training_table(filled.snapshot(), "study", [MR])
    pd.testing.assert_frame_equal(before.features, after.features, check_exact=True)


def test_only_the_patients_and_feature_sets_asked_for_are_read(
    folder_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowGroups, "_near", lambda self, file: None)  # what is mapped is not counted as read
    names = tuple(f"f{i}" for i in range(851))
    sets = [feature_set(MR, names), feature_set(CT, names)]
    tables: dict[str, Any] = {"feature_sets": sets, "radiomics": []}
    draw = np.random.default_rng(0)
    for i in range(300):
        for table, rows in (case(f"p{i:04d}") | {"labels": [label(f"p{i:04d}", i % 2)]}).items():
            tables.setdefault(table, []).extend(rows)
        for name, roi in ((MR, MR_ROI), (CT, CT_ROI)):
            tables["radiomics"].append(radiomics(f"p{i:04d}", draw.normal(size=851), roi, name=name))
    half = len(tables["radiomics"]) // 2
    folder_store.push(tables | {"radiomics": tables["radiomics"][:half]}, kind="case", source="a")
    folder_store.push({"radiomics": tables["radiomics"][half:]}, kind="features", source="a")
    folder_store.optimize(OptimizeSettings(files_too_many=1))
    freeze_cohort(folder_store, CohortSettings(name="study"))
    snapshot = folder_store.snapshot()
    files = snapshot.files("radiomics")
    assert files is not None
    values = 2 * 300 * 851 * 8

    def read(work: Any) -> int:
        """Bytes that the process read meanwhile."""
        count = [int(line.split()[1]) for line in Path("/proc/self/io").read_text().splitlines()[:1]]
        work()
        return int(Path("/proc/self/io").read_text().split()[1]) - count[0]

    both = read(lambda: training_table(snapshot, "study", [MR, CT]))
    assert both > values
    assert read(lambda: training_table(snapshot, "study", [MR])) < both - 0.35 * values
    assert read(lambda: patient_features(snapshot, "a", "p0170", [MR])) < 0.5 * values  # two row groups of five
    index = PatientIndex(snapshot, [MR])
    index.features("a", "p0170")
    assert read(lambda: index.features("a", "p0230")) < 0.25 * values
