"""Tables as users have them: wide, shuffled, with text, gaps, copies and constants; and a classifier that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_store.errors import FeatureTableError, TooFewPatients
from models import classifiers
from models.artefacts import save
from models.study import run_study
from models.study_result import StudyResult
from models.study_settings import StudySettings
from models.study_tables import StudyTables, from_files
from tests.models.study_fixtures import MemoryBlobs, small_settings

N, COLUMNS = 64, 2000


def wide(folder: Path, shuffle: int | None = None) -> StudyTables:
    """CSVs of 2,000 columns; of the same content in another order of rows and columns where ``shuffle`` is given."""
    rng = np.random.default_rng(3)
    y = np.arange(N) % 2
    x = rng.normal(size=(N, COLUMNS)) * 10.0 ** rng.uniform(-4, 6, COLUMNS)
    x[:, :4] += y[:, None] * x[:, :4].std(axis=0)
    features = pd.DataFrame(x, columns=[f"ct.f{i:04d}" for i in range(COLUMNS)])
    features["ct.f0010"] = 7.0
    features["ct.f0011"] = np.nan
    features["ct.f0012"] = features["ct.f0000"]
    features["ct.f0013"] = "yes"
    features.loc[3, "ct.f0014"] = np.inf
    features.loc[rng.random(N) < 0.2, "ct.f0001"] = np.nan
    features.loc[5, "ct.f0002"] = 1e300
    ids = [f"{i:03d}é x" for i in range(N)]
    features.insert(0, "patient_id", ids)
    cohort = np.where(np.arange(N) < 44, "training", "external_test")
    outcome = pd.DataFrame({"patient_id": ids, "outcome": y, "cohort": cohort})
    if shuffle is not None:
        order = np.random.default_rng(shuffle)
        features = features.iloc[order.permutation(N)][order.permutation(features.columns)]
        outcome = outcome.iloc[order.permutation(N)]
    features.to_csv(folder / "rad.csv", index=False)
    outcome.to_csv(folder / "outcome.csv", index=False)
    return from_files(radiomics=folder / "rad.csv", outcome=folder / "outcome.csv")


def settings(**changes: Any) -> Any:
    return small_settings(classifiers={"rad": "logistic_regression"}, ablation=False, **changes)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return run_study(wide(tmp_path_factory.mktemp("wide")), settings())


def test_a_wide_table_with_every_oddity_is_a_study(result: StudyResult) -> None:
    rad = result.metrics["signatures"]["rad"]
    assert rad["nested_auc"] is not None
    assert 0 <= rad["cohorts"]["external_test"]["auc"] <= 1
    counts = result.figure_data["filters"]["rad"]
    assert counts["given"] == COLUMNS - 2  # text and empty columns are no features
    assert counts["constant"] == 1
    assert counts["duplicate"] == 1
    assert any("2 columns of rad.csv are no features" in warning for warning in result.warnings)
    assert np.isfinite(result.predictions["rad"]).all()


def test_order_of_rows_and_columns_in_the_files_changes_no_bit(result: StudyResult, tmp_path: Path) -> None:
    again = run_study(wide(tmp_path, shuffle=1), settings())
    kept = [save(found.signatures["rad"], MemoryBlobs()) for found in (result, again)]  # type: ignore[arg-type]
    assert kept[0] == kept[1]
    rows = [found.predictions.sort_values("patient_id")["rad"].to_numpy() for found in (result, again)]
    assert rows[0].tobytes() == rows[1].tobytes()


def test_one_outcome_only_says_why_not(tmp_path: Path) -> None:
    wide(tmp_path)
    outcome = pd.read_csv(tmp_path / "outcome.csv").assign(outcome=0)
    outcome.to_csv(tmp_path / "outcome.csv", index=False)
    tables = from_files(radiomics=tmp_path / "rad.csv", outcome=tmp_path / "outcome.csv")
    with pytest.raises(TooFewPatients, match="0 patients with the outcome"):
        run_study(tables, settings())


def test_a_table_of_text_alone_says_why_not(tmp_path: Path) -> None:
    wide(tmp_path)
    pd.DataFrame({"patient_id": [f"{i:03d}é x" for i in range(N)], "note": "seen"}).to_csv(
        tmp_path / "rad.csv", index=False
    )
    with pytest.raises(FeatureTableError, match="None of its 1 columns holds a number") as caught:
        from_files(radiomics=tmp_path / "rad.csv", outcome=tmp_path / "outcome.csv")
    assert caught.value.file == "rad.csv"


def test_thousands_of_patients_take_five_folds_unless_ten_are_asked_for() -> None:
    assert StudySettings().for_patients(300).n_folds == 10
    assert StudySettings().for_patients(3500).n_folds == 5
    assert StudySettings(n_folds=10).for_patients(3500).n_folds == 10


def test_a_failing_classifier_is_reported_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that always fails, and one of which a single fit fails: both are named, with the reason."""
    trees, bayes = classifiers.FAMILIES["decision_tree"], classifiers.FAMILIES["naive_bayes"]
    calls = iter(range(10**6))

    def sometimes(params: dict[str, Any], seed: int) -> Any:
        if next(calls) == 4:
            raise RuntimeError("no luck")
        return bayes.build(params, seed)

    def never(params: dict[str, Any], seed: int) -> Any:
        raise ValueError("no trees here")

    for family, build in ((trees, never), (bayes, sometimes)):
        broken = type(family)(family.name, build, family.standard, family.quick, clip=family.clip, by_row=family.by_row)
        monkeypatch.setitem(classifiers.FAMILIES, family.name, broken)
    tables = wide(tmp_path)
    assert tables.radiomics is not None
    few = StudyTables(tables.patients, radiomics=tables.radiomics.iloc[:, :30])
    found = run_study(few, small_settings(ablation=False))
    assert 0 <= found.metrics["signatures"]["rad"]["cohorts"]["external_test"]["auc"] <= 1
    said = {(failure["classifier"], failure["reason"]) for failure in found.failures}
    assert said == {("decision_tree", "ValueError: no trees here"), ("naive_bayes", "RuntimeError: no luck")}
    rows = {row["name"]: row for row in found.metrics["classifiers"]["rad"]}
    assert rows["decision_tree"]["cv_auc"] is None
    assert rows["logistic_regression"]["cv_auc"] > 0.5
    assert found.metrics["signatures"]["rad"]["classifier"] != "decision_tree"
