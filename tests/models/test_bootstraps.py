"""The uncertainty of one risk: whole refits on redrawn patients, none of whom is on both sides of a fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from models.artefact_payload import to_payload
from models.artefacts import load, save
from models.bootstraps import drawn, with_bootstraps
from models.classifiers import configurations
from models.combined import CombinedSignature
from models.folds import rarer_class, stratified_folds
from models.protocol import Development, TrainingPatients, develop
from models.risk_interval import intervals
from models.selection.lasso import fit_lasso
from models.signature import AnySignature, Signature
from models.study_patients import StudyPatients
from models.study_settings import StudySettings
from tests.models.study_fixtures import MemoryBlobs, small_settings, small_tables

SETTINGS = small_settings(permutation_folds=3, bootstraps=3)
POINTS = configurations("quick", ("logistic_regression",))
KINDS = ("rad", "dl", "combined")


def patients_of(n: int, *, rad_only: bool = False, **made_up: Any) -> StudyPatients:
    study, _ = small_tables(n=n, p=12, q=8, **made_up).in_order()
    if rad_only:
        study = replace(study, deep=None, clinical=None)
    return StudyPatients.from_tables(study, study.radiomics)


def fitted(training: TrainingPatients, settings: StudySettings = SETTINGS) -> Development:
    folds = stratified_folds(training.y, 3, 0, training.who)
    return develop(training, folds, settings, points=POINTS)


def bootstrapped(patients: StudyPatients, settings: StudySettings = SETTINGS) -> dict[str, AnySignature]:
    training = patients.training()
    return with_bootstraps(fitted(training, settings).signatures, training, settings)


@pytest.fixture(scope="module")
def patients() -> StudyPatients:
    return patients_of(80)


@pytest.fixture(scope="module")
def signatures(patients: StudyPatients) -> dict[str, AnySignature]:
    return bootstrapped(patients)


@pytest.fixture(scope="module")
def table(patients: StudyPatients) -> pd.DataFrame:
    return patients.frame(patients.rows("external_test"))


def test_all_rows_of_a_patient_lie_in_one_fold_and_each_fold_has_both_outcomes() -> None:
    y = (np.arange(60) % 4 == 0).astype(np.int64)
    for draw in range(50):
        who = drawn(y, 0, draw)
        assert y[who].sum() == y.sum()
        assert len(set(who.tolist())) < len(y)
        folds = stratified_folds(y[who], 5, 0, who)
        assert len(set(zip(who.tolist(), folds.tolist(), strict=True))) == len(set(who.tolist()))
        assert all(set(y[who][folds == fold]) == {0, 1} for fold in range(5))


def test_a_draw_can_always_carry_nested_cross_validation() -> None:
    y = (np.arange(40) < 5).astype(np.int64)
    assert all(rarer_class(y[np.unique(drawn(y, 3, draw))]) >= 4 for draw in range(100))


def test_who_was_drawn_twice_helps_no_penalty_and_no_auc() -> None:
    """On noise: dealt as rows, a patient's copy in the other folds gives it away."""
    rng = np.random.default_rng(0)
    y, who = np.arange(40) % 2, np.repeat(np.arange(40), 3)
    z = rng.normal(size=(40, 30))
    honest, copied = (np.count_nonzero(fit_lasso(z[who], y[who], 0, who=known).coefficients) for known in (who, None))
    assert honest <= 10 < 20 <= copied

    training = patients_of(120, rad_only=True, effect=0.0).training()
    aucs = {"honest": [], "copied": []}  # type: dict[str, list[float]]
    for draw in range(4):
        again = training.drawn(drawn(training.y, 0, draw))
        aucs["honest"].append(fitted(again).crossfits["rad"].nested_auc)
        aucs["copied"].append(fitted(replace(again, who=None)).crossfits["rad"].nested_auc)
    assert np.mean(aucs["honest"]) < 0.6
    assert np.mean(aucs["copied"]) > np.mean(aucs["honest"]) + 0.1


def test_the_same_seed_gives_the_same_bytes_and_every_draw_is_another(
    patients: StudyPatients, signatures: dict[str, AnySignature]
) -> None:
    first = kept(signatures)
    assert kept(bootstrapped(patients)) == first
    y = patients.training().y
    draws = [drawn(y, seed, draw).tobytes() for seed in (0, 1) for draw in range(5)]
    assert len(set(draws)) == len(draws)


def kept(signatures: Mapping[str, AnySignature]) -> dict[str, str]:
    blobs = MemoryBlobs()
    return {kind: save(cast(Any, signature), blobs) for kind, signature in signatures.items()}


def test_without_bootstraps_an_artefact_is_what_it_was(signatures: dict[str, AnySignature]) -> None:
    for kind in ("rad", "dl"):
        sign = cast(Signature, signatures[kind])
        plain = to_payload(replace(sign, bootstraps=()), {})
        assert set(plain) == {"settings.json", "arrays.safetensors", "estimator.skops"}
        assert b"bootstrap" not in plain["settings.json"]
        with_refits = to_payload(sign, {})
        assert len(with_refits) == 3 * (1 + SETTINGS.bootstraps)
        assert all(with_refits[name] == plain[name] for name in ("arrays.safetensors", "estimator.skops"))
    assert StudySettings().hash() == StudySettings(bootstraps=0).hash() != SETTINGS.hash()


@pytest.mark.parametrize("kind", KINDS)
def test_one_patient_equals_many_before_and_after_keeping(
    signatures: dict[str, AnySignature], table: pd.DataFrame, kind: str
) -> None:
    blobs = MemoryBlobs()
    loaded = load(save(cast(Any, signatures[kind]), blobs), blobs)
    assert isinstance(loaded, Signature | CombinedSignature)
    found = intervals(signatures[kind], table)
    assert (found[:, 0] < found[:, 1]).all()
    for signature in (signatures[kind], loaded):
        assert intervals(signature, table).tobytes() == found.tobytes()
        for place in range(len(table)):
            assert intervals(signature, table.iloc[[place]]).tobytes() == found[place].tobytes()
            one = {name: table[name].iloc[place] for name in signature.asked}
            answer = signature.score(one)
            assert answer.risk_interval == tuple(found[place])


def test_a_combined_refit_is_stacked_on_the_refits_of_its_own_draw(signatures: dict[str, AnySignature]) -> None:
    combined = cast(CombinedSignature, signatures["combined"])
    assert combined.signs["rad"] is signatures["rad"]
    for draw, refit in enumerate(combined.bootstraps):
        assert all(refit.signs[kind] is signatures[kind].bootstraps[draw] for kind in ("rad", "dl"))


def test_fewer_training_patients_leave_more_uncertainty() -> None:
    new = patients_of(60, rad_only=True, seed=9)
    table = new.frame(np.arange(60))
    settings = SETTINGS.model_copy(update={"bootstraps": 8})
    widths = []
    for n in (50, 400):
        sign = bootstrapped(patients_of(n, rad_only=True), settings)["rad"]
        widths.append(float(np.ptp(intervals(sign, table), axis=1).mean()))
    assert widths[0] > 1.5 * widths[1] > 0


def test_where_a_refit_would_refuse_the_patient_there_is_no_interval(
    signatures: dict[str, AnySignature], table: pd.DataFrame
) -> None:
    deep = signatures["dl"]
    sign = replace(cast(Signature, signatures["rad"]), bootstraps=(cast(Signature, deep),))
    lacking = table.copy()
    lacking.loc[lacking.index[0], deep.features] = np.nan
    assert np.isnan(intervals(sign, lacking)).all(axis=1).tolist() == [True] + [False] * (len(table) - 1)
    answer = sign.score(lacking.iloc[0].to_dict())
    assert answer.risk_interval is None
    assert 0 < answer.probability < 1
    assert sign.score({name: table[name].iloc[0] for name in sign.features}).risk_interval is None


def test_a_scanner_that_a_draw_lacks_is_refused_by_the_signature_alone(patients: StudyPatients) -> None:
    settings = SETTINGS.model_copy(update={"harmonisation": "combat", "unseen_scanner": "refuse", "bootstraps": 1})
    sign = cast(Signature, bootstrapped(replace(patients, deep=None, clinical=None), settings)["rad"])
    found = [one.harmoniser.parts[0].unseen for one in (sign, *sign.bootstraps) if one.harmoniser is not None]
    assert found == ["refuse", "as_is"]
