"""The structural check lets honest studies through and stops those in which training knows the test patients."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feature_store.errors import LeakageFound
from models.data_checks import batch_share, copies, heavy_tailed, scales_by_site, sentences
from models.folds import stratified_folds
from models.provenance import structural_check
from models.selection.matrix import FeatureMatrix
from models.study import run_study
from models.study_patients import StudyPatients
from tests.models.study_fixtures import small_settings, small_tables


@pytest.fixture(scope="module")
def given():
    study, _ = small_tables().in_order()
    patients = StudyPatients.from_tables(study, study.radiomics)
    training = patients.training()
    return study, patients, training, stratified_folds(training.y, 3, 0)


def test_an_honest_study_passes_and_says_what_is_unknown(given):
    record = structural_check(*given)
    assert record["passed"]
    assert [check["passed"] for check in record["checks"]] == [True, True, True, True, None]
    left_out = replace(given[0], in_sample={"encoders": ["e"], "tuned_on": 3, "handling": "leave_out"})
    assert structural_check(left_out, *given[1:])["checks"][-1]["passed"] is True


def test_training_on_everybody_is_refused_before_anything_is_fitted(given, monkeypatch):
    everybody = StudyPatients.training

    def leaky(self):
        return everybody(replace(self, partition=np.full(len(self.y), "training")))

    monkeypatch.setattr(StudyPatients, "training", leaky)
    with pytest.raises(LeakageFound, match="training rows"):
        run_study(small_tables(), small_settings())


def test_one_foreign_value_or_outcome_is_seen(given):
    study, patients, training, folds = given
    values = training.radiomics.values.copy()
    values[5, 7] = patients.radiomics.values[patients.partition == "external_test"][0, 7]
    with pytest.raises(LeakageFound, match="training rows"):
        structural_check(
            study, patients, replace(training, radiomics=replace(training.radiomics, values=values)), folds
        )
    with pytest.raises(LeakageFound, match="training rows"):
        structural_check(study, patients, replace(training, y=1 - training.y), folds)
    with pytest.raises(LeakageFound, match="folds"):
        structural_check(study, patients, training, folds[:-1])


def test_scaling_over_everybody_is_seen(given, monkeypatch):
    """A step that looks at all patients' values in front of fitting: the arrays change with the held-out ones."""
    study, patients, _, folds = given
    honest = StudyPatients.training

    def scaled(self):
        own = honest(self)
        sd = self.radiomics.values.std(axis=0)
        return replace(own, radiomics=FeatureMatrix(own.radiomics.names, own.radiomics.values / sd))

    monkeypatch.setattr(StudyPatients, "training", scaled)
    with pytest.raises(LeakageFound, match="do not reach"):
        structural_check(study, patients, patients.training(), folds)


def test_remarkable_data_are_named(given):
    study, patients, _, _ = given
    rng = np.random.default_rng(0)
    rows = patients.rows("training")
    x = rng.normal(size=(80, 4))
    x[rows[3], 1] = 1e6
    x[:, 2] += 5.0 * (patients.site == "b")
    matrix = FeatureMatrix(("plain", "heavy", "batch", "other"), x)
    heavy = heavy_tailed(matrix, rows)
    assert heavy["n_columns"] == 1
    assert heavy["worst"][0]["name"] == "heavy"
    share = batch_share(x, patients.site)
    assert share[2] > 0.4 > share[[0, 3]].max()
    x[patients.rows("external_test")[0]] = x[rows[0]]
    assert copies(patients.partition, FeatureMatrix(matrix.names, x), None) == 1
    predictions = study.patients.assign(rad=1 / (1 + np.exp(-rng.normal(size=80))))
    off = predictions["partition"] == "external_test"
    predictions.loc[off, "rad"] = 1 / (1 + np.exp(-3 - rng.normal(size=off.sum())))
    predictions.loc[off, "site"] = "far"
    scales = {"rad": scales_by_site(predictions, "rad", "unknown")}
    assert [row["site"] for row in scales["rad"] if row["remarkable"]] == ["far"]
    batch = {"n_columns": 1, "of": 4, "selected": [{"name": "batch", "share": 0.9}]}
    said = " ".join(
        sentences(
            {"copies": 1, "heavy_tailed": {"radiomics": heavy}, "batch_like": {"radiomics": batch}, "scales": scales},
            {},
        )
    )
    for part in ("very features", "heavy-tailed; the worst is heavy", "batch (90 %)", "another scale at far"):
        assert part in said


def said_of_scales(predictions):
    scales = {"rad": scales_by_site(predictions, "rad", "unknown")}
    return sentences({"copies": 0, "heavy_tailed": {}, "batch_like": {}, "scales": scales}, {"rad": "Rad-sign"})


def test_training_sites_are_compared_with_each_other_and_a_site_without_a_name_is_called_so():
    rng = np.random.default_rng(0)
    site = np.repeat(["a", "b", "c", "few"], [40, 40, 40, 6])
    y = np.arange(126) % 2
    log_odds = rng.normal(size=126) + y
    table = pd.DataFrame({"site": site, "partition": "training", "outcome": y})
    alike = table.assign(rad=1 / (1 + np.exp(-log_odds)))
    assert said_of_scales(alike) == []
    # one site's scores lie higher; another's share of events alone is no other scale
    off = table.assign(rad=1 / (1 + np.exp(-(log_odds + 2.5 * (site == "c")))))
    off = off[~((off["site"] == "a") & (off["outcome"] == 1) & (np.arange(126) % 3 > 0))]
    (said,) = said_of_scales(off)
    assert "Rad-sign is on another scale at c (shift +" in said
    assert said.endswith("than at the other training sites.")
    assert " at few" not in said
    held_out = off.assign(partition="external_test", site="unknown", rad=0.999 * off["rad"] ** 0.01)
    both = said_of_scales(pd.concat([alike, held_out], ignore_index=True))
    assert "in held-out patients whose site is not named (shift +" in both[0]
    assert both[0].endswith("than in training.")
    assert "unknown" not in " ".join(both)
