"""Phantom cohorts: cases that ingest takes whole, outcomes that the label rule finds, an effect that is where it
is said to be, and none without it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from feature_store.errors import UsageError
from feature_store.labels import derive_label
from feature_store.vocabulary import LUMBAR_DISCS, LUMBAR_VERTEBRAE, PAPER_ROIS
from pipelines.cases.case import CaseReading, SeriesReading, read_case
from pipelines.phantom import PhantomCohort, write_phantom_cohort
from pipelines.phantom.anatomy import BODIES, DISCS, PARTS, paint
from pipelines.phantom.effect import MARKERS, PREVALENCE, describe
from pipelines.phantom.follow_up import CRITERIA, follow_up_rows
from pipelines.phantom.grid import AXIAL, Grid, stored_flipped, tilted
from pipelines.phantom.patient import draw_patient
from pipelines.phantom.scanner import sites
from pipelines.phantom.spine import draw_spine


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PhantomCohort:
    """One patient a site, and the broken case."""
    return write_phantom_cohort(tmp_path_factory.mktemp("phantom") / "out", patients=3, sites=3, seed=3, broken=True)


@pytest.fixture(scope="module")
def readings(cohort: PhantomCohort) -> dict[str, CaseReading]:
    return {case.site: read_case(case.folder) for case in cohort.cases}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- the cases ---------------------------------------------------------------------------------
def test_every_case_is_taken_whole(readings: dict[str, CaseReading]) -> None:
    for site, reading in readings.items():
        assert reading.findings == []
        assert reading.manifest is not None
        assert reading.manifest.site == site
        assert reading.index_date_known
        assert all(-30 <= series.days_from_index < 0 for series in reading.series)


def test_every_case_has_the_eight_rois_and_each_of_their_parts(readings: dict[str, CaseReading]) -> None:
    for reading in readings.values():
        names = {roi.name: roi for series in reading.series for roi in series.rois}
        assert set(PAPER_ROIS) <= set(names)
        for roi in PAPER_ROIS:
            assert 700 < names[roi].voxel_count < 9000, roi
        for sequence in ("ct", "t1_sag", "t2_sag"):
            levels = {n.level for n in names if n.sequence == sequence and n.structure == "vertebral_body"}
            assert levels == {*LUMBAR_VERTEBRAE, "all"}
        assert {n.side for n in names if n.structure == "psoas_major"} == {"left", "right", "both"}


def test_sites_differ_in_scanner_geometry_labels_and_format(
    cohort: PhantomCohort, readings: dict[str, CaseReading]
) -> None:
    t2 = {site: next(s for s in r.series if s.sequence == "t2_sag") for site, r in readings.items()}
    assert len({s.scanner.vendor for s in t2.values()}) == 3
    assert len({s.image.GetSpacing() for s in t2.values()}) == 3
    assert len({tuple(np.round(s.image.GetDirection(), 4)) for s in t2.values()}) == 3
    assert {s.scanner.field_strength_t for s in t2.values()} == {1.5, 3.0}
    numbers = {site: frozenset(sites(3)[i].labels().values()) for i, site in enumerate(cohort.sites)}
    assert len(set(numbers.values())) == 3
    suffixes = {
        case.site: {p.name.partition(".")[2] for p in case.folder.iterdir()} - {"yaml"} for case in cohort.cases
    }
    assert suffixes == {"site_a": {"nii.gz"}, "site_b": {"nrrd", "nii.gz"}, "site_c": {"mha"}}


def test_site_c_stores_its_masks_the_other_way_round(cohort: PhantomCohort, readings: dict[str, CaseReading]) -> None:
    folder = next(case.folder for case in cohort.cases if case.site == "site_c")
    image, mask = (sitk.ReadImage(str(folder / f"t2_ax{name}.mha")) for name in ("", "_mask"))
    assert image.GetDirection() != mask.GetDirection()
    turned = next(s for s in readings["site_c"].series if s.sequence == "t2_ax").mask
    assert turned.GetDirection() == pytest.approx(image.GetDirection())
    for label in np.unique(sitk.GetArrayFromImage(mask))[1:]:
        centres = []
        for image_of_labels in (mask, turned):
            shape = sitk.LabelShapeStatisticsImageFilter()
            shape.Execute(image_of_labels)
            centres.append(shape.GetCentroid(int(label)))
        assert centres[0] == pytest.approx(centres[1], abs=1e-6)


def test_sides_lie_where_they_are_named(cohort: PhantomCohort) -> None:
    for case, site in zip(cohort.cases, sites(3), strict=True):
        mask = sitk.ReadImage(str(case.folder / f"t2_ax_mask{site.file_suffix('t2_ax')}"))
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(mask)
        x = {(p.structure, p.side): shape.GetCentroid(n)[0] for p, n in site.labels().items() if p.side}
        for structure in ("psoas_major", "quadratus_lumborum", "paraspinal_muscle"):
            assert x[structure, "left"] > x[structure, "right"] + 40  # x grows to the patient's left


def test_levels_follow_each_other_upwards() -> None:
    for number in range(1, 21):
        spine = draw_spine(draw_patient(1, number).rng("anatomy"))
        grid = sites(3)[number % 3].protocol("t2_sag").grid(np.zeros(3))
        anatomy = paint(spine, grid, np.zeros(3))
        height = grid.points()[2]
        middle = {p.level: height[anatomy.part == n].mean() for n, p in enumerate(PARTS, 1) if p in (*BODIES, *DISCS)}
        upwards = ["L5-S1", "L5", "L4-L5", "L4", "L3-L4", "L3", "L2-L3", "L2", "L1-L2", "L1"]
        assert sorted(middle, key=middle.__getitem__) == upwards


def test_flipping_keeps_every_voxel_in_space() -> None:
    grid = Grid.centred((5, 4, 3), (1.0, 2.0, 3.0), tilted(AXIAL, 10.0), np.array([7.0, -3.0, 1.0]))
    image = grid.image(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    for axis in range(3):
        flipped = stored_flipped(image, axis)
        back = sitk.Resample(flipped, image, sitk.Transform(), sitk.sitkNearestNeighbor)
        assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
        assert not np.array_equal(sitk.GetArrayFromImage(flipped), sitk.GetArrayFromImage(image))


def test_the_broken_case_has_two_named_faults_and_stays_usable(cohort: PhantomCohort) -> None:
    reading = read_case(cohort.broken[0].folder)
    assert sorted(finding.code for finding in reading.findings) == ["ImageNotFinite", "LabelEmpty"]
    assert {series.sequence for series in reading.series} == {"ct", "t2_sag", "t2_ax"}


# --- the same again ----------------------------------------------------------------------------
def test_a_patient_does_not_depend_on_the_others(cohort: PhantomCohort, tmp_path: Path) -> None:
    again = write_phantom_cohort(tmp_path / "one", patients=1, sites=3, seed=3)
    assert _files(again.cases[0].folder) == _files(cohort.cases[0].folder)
    other_seed = write_phantom_cohort(tmp_path / "two", patients=1, sites=3, seed=4)
    assert _files(other_seed.cases[0].folder) != _files(cohort.cases[0].folder)


def test_without_effect_only_the_outcomes_change(cohort: PhantomCohort, tmp_path: Path) -> None:
    null = write_phantom_cohort(tmp_path / "null", patients=3, sites=3, seed=3, effect=False)
    for with_effect, without in zip(cohort.cases, null.cases, strict=True):
        assert _files(with_effect.folder) == _files(without.folder)


def test_says_what_it_is(cohort: PhantomCohort, tmp_path: Path) -> None:
    text = (cohort.folder / "README.txt").read_text(encoding="utf-8")
    assert "SYNTHETIC" in text
    assert "WITHOUT CLINICAL MEANING" in text
    assert describe(planted=True) in text
    assert "by lot" in describe(planted=False)
    told: list[float] = []
    write_phantom_cohort(tmp_path / "p", patients=2, sites=1, progress=lambda _, share: told.append(share))
    assert told == [0.5, 1.0]


def test_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        write_phantom_cohort(tmp_path, patients=1)
    for patients, count in ((0, 3), (3, 0), (3, 27)):
        with pytest.raises(UsageError):
            write_phantom_cohort(tmp_path / "new", patients=patients, sites=count)
    assert not (tmp_path / "new").exists()


# --- outcomes ----------------------------------------------------------------------------------
def test_the_outcome_file_has_the_columns_that_outcomes_takes(cohort: PhantomCohort) -> None:
    for site, path in cohort.outcome_files.items():
        rows = list(csv.DictReader(path.open(encoding="utf-8")))
        assert list(rows[0]) == ["patient_id", "days_from_index", "rater", "level", *CRITERIA]
        assert {row["patient_id"] for row in rows} == {c.patient_id for c in cohort.cases if c.site == site}


@pytest.mark.parametrize("effect", [True, False])
def test_the_label_rule_finds_the_planted_outcome(effect: bool) -> None:
    raters, incident, missing = set(), [], 0
    for number in range(1, 401):
        patient = draw_patient(11, number, effect)
        rows = follow_up_rows(patient)
        label = derive_label(rows, patient.clinical.fused_levels)
        assert label.outcome == (None if patient.open_window else patient.outcome)
        missing += label.outcome is None
        raters |= {row["rater"] for row in rows}
        incident.append((label.outcome, label.incident))
    assert missing == 10
    assert raters == {"rater_a", "rater_b", "adjudicator"}
    assert (1, 0) in incident  # degenerated before surgery already, and nothing new


def test_raters_disagree_and_without_the_adjudicator_some_outcomes_are_lost() -> None:
    lost = 0
    for number in range(1, 101):
        patient = draw_patient(11, number)
        rows = [row for row in follow_up_rows(patient) if row["rater"] != "adjudicator"]
        expected = None if patient.open_window else patient.outcome
        lost += derive_label(rows, patient.clinical.fused_levels).outcome != expected
    assert 5 < lost < 40


# --- the effect --------------------------------------------------------------------------------
def _auc(outcome: np.ndarray, values: np.ndarray) -> float:
    positive, negative = values[outcome == 1], values[outcome == 0]
    wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(wins)


@pytest.mark.parametrize(("effect", "low", "high"), [(True, 0.80, 0.95), (False, 0.45, 0.55)])
def test_markers_know_the_outcome_only_with_the_effect(effect: bool, low: float, high: float) -> None:
    patients = [draw_patient(2, number, effect) for number in range(1, 1001)]
    outcome = np.array([patient.outcome for patient in patients])
    assert outcome.mean() == pytest.approx(PREVALENCE, abs=0.04)
    for name, marker in MARKERS.items():
        sign = np.sign(marker.degenerating - marker.healthy)
        assert low < _auc(outcome, sign * np.array([patient.markers[name] for patient in patients])) < high
    ages = np.array([patient.clinical.age for patient in patients])
    assert (0.62 if effect else 0.45) < _auc(outcome, ages) < (0.78 if effect else 0.55)
    sizes = np.array([draw_spine(patient.rng("anatomy")).size for patient in patients[:300]])
    assert 0.4 < _auc(outcome[:300], sizes) < 0.6


def test_the_markers_are_in_the_images_where_they_are_said_to_be(tmp_path: Path) -> None:
    cohort = write_phantom_cohort(tmp_path / "c", patients=18, sites=3, seed=5)
    measured: dict[str, list[float]] = {name: [] for name in ("signal", "roughness", "fat", "psoas", "marrow")}
    for case in cohort.cases:
        series = {s.sequence: s for s in read_case(case.folder).series}
        t2_disc = _z_values(series["t2_sag"], "intervertebral_disc")
        measured["signal"].append(np.percentile(t2_disc, 70))
        measured["roughness"].append(np.percentile(t2_disc, 20) - np.percentile(t2_disc, 2))
        measured["fat"].append(_z_values(series["t2_ax"], "paraspinal_muscle").std())
        measured["psoas"].append(_z_values(series["t2_ax"], "psoas_major").mean())
        measured["marrow"].append(_z_values(series["t1_sag"], "vertebral_body").mean())
    patients = [draw_patient(5, number) for number in range(1, 19)]

    def correlation(what: str, marker: str) -> float:
        return float(np.corrcoef(measured[what], [patient.markers[marker] for patient in patients])[0, 1])

    assert correlation("signal", "nucleus_signal") > 0.7
    assert correlation("roughness", "disc_roughness") > 0.5
    assert correlation("fat", "paraspinal_fat") > 0.7
    for marker in MARKERS:  # elsewhere they are not
        assert abs(correlation("psoas", marker)) < 0.6
        assert abs(correlation("marrow", marker)) < 0.6


def _z_values(series: SeriesReading, structure: str) -> np.ndarray:
    """Values within a structure, in SDs of the whole image."""
    image = sitk.GetArrayFromImage(sitk.Normalize(series.image))
    roi = next(r for r in series.rois if r.name.structure == structure and r.name.level == "all")
    return np.asarray(image[np.isin(sitk.GetArrayFromImage(series.mask), roi.labels)])


# --- feature tables ----------------------------------------------------------------------------
def test_tables_are_a_study_and_awkward_as_real_ones() -> None:
    from pipelines.phantom.tables import phantom_tables

    tables = phantom_tables(60, 30, n_radiomics=200, n_deep=40, seed=1, n_internal=20)
    assert tables.patients["partition"].value_counts().to_dict() == {
        "training": 60, "internal_validation": 20, "external_test": 30,
    }  # fmt: skip
    assert tables.radiomics is not None
    assert tables.deep is not None
    assert tables.radiomics.shape == (110, 200)
    assert tables.deep.shape == (110, 40)
    assert np.isfinite(tables.radiomics.to_numpy()).all()
    assert tables.radiomics.std().max() / tables.radiomics.std().min() > 1e6
    correlations = np.abs(np.corrcoef(tables.radiomics.to_numpy().T)) - np.eye(200)
    assert (correlations.max(axis=0) > 0.9).mean() > 0.2
    none = phantom_tables(60, 30, n_radiomics=0, n_deep=0, seed=1)
    assert none.radiomics is None
    assert none.clinical is not None


def test_tables_without_effect_are_the_same_but_for_the_outcome() -> None:
    from pipelines.phantom.tables import phantom_tables

    planted = phantom_tables(400, 100, n_radiomics=40, n_deep=16, seed=2)
    null = phantom_tables(400, 100, n_radiomics=40, n_deep=16, seed=2, effect=False)
    assert planted.radiomics is not None
    assert null.radiomics is not None
    assert planted.radiomics.equals(null.radiomics)
    best = {
        name: max(abs(_auc(tables.outcome, tables.radiomics[c].to_numpy()) - 0.5) for c in tables.radiomics)
        for name, tables in (("planted", planted), ("null", null))
    }
    assert best["planted"] > 0.2
    assert best["null"] < 0.12


def test_levels_of_the_spine_are_the_vocabularys() -> None:
    assert tuple(part.level for part in DISCS) == LUMBAR_DISCS
    assert tuple(part.level for part in BODIES) == LUMBAR_VERTEBRAE
