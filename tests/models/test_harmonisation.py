"""ComBat against the formulae of the paper written out loop by loop, and against what must not happen."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feature_store.errors import UsageError
from models.artefacts import load, save
from models.data_checks import batch_share
from models.harmonisation import fit_combat
from models.scanners import Scanners, fit_harmonisation
from models.selection.matrix import FeatureMatrix
from models.study import run_study
from tests.models.study_fixtures import MemoryBlobs, small_settings, small_tables


def scanners(n=60, p=12, seed=0):
    """Three scanners of different location and spread, 12 columns on scales of 1e-3 to 1e4."""
    rng = np.random.default_rng(seed)
    batch = np.array(["a", "b", "c"])[np.arange(n) % 3]
    x = rng.normal(size=(n, p))
    for name, shift, spread in (("a", 0.0, 1.0), ("b", 1.5, 2.0), ("c", -1.0, 0.5)):
        rows = batch == name
        x[rows] = shift * rng.normal(1, 0.3, p) + spread * rng.uniform(0.8, 1.2, p) * x[rows]
    return FeatureMatrix(tuple(f"f{i:02d}" for i in range(p)), x * 10.0 ** np.linspace(-3, 4, p) + 5), batch


def by_the_paper(x, batch, steps=2000):
    """Johnson et al. 2007, sections 3.1 to 3.3, with the least squares fit and the iteration written out."""
    names = sorted(set(batch))
    design = np.array([[b == name for name in names] for b in batch], dtype=float)
    beta = np.linalg.lstsq(design, x, rcond=None)[0]
    alpha = design.mean(axis=0) @ beta
    sigma = np.sqrt(((x - design @ beta) ** 2).sum(axis=0) / len(x))
    z = (x - alpha) / sigma
    result = np.empty_like(x)
    for name in names:
        rows = batch == name
        gamma = z[rows].mean(axis=0)
        delta = z[rows].var(axis=0, ddof=1)
        gamma_bar, tau2 = gamma.mean(), gamma.var(ddof=1)
        v, s2 = delta.mean(), delta.var(ddof=1)
        lam, theta = (v**2 + 2 * s2) / s2, (v**3 + v * s2) / s2
        for g in range(x.shape[1]):
            shift, spread = gamma[g], delta[g]
            for _ in range(steps):
                shift = (rows.sum() * tau2 * gamma[g] + spread * gamma_bar) / (rows.sum() * tau2 + spread)
                spread = (theta + 0.5 * ((z[rows, g] - shift) ** 2).sum()) / (rows.sum() / 2 + lam - 1)
            result[rows, g] = sigma[g] * (z[rows, g] - shift) / np.sqrt(spread) + alpha[g]
    return result


def test_equals_the_paper():
    matrix, batch = scanners()
    ours = fit_combat(matrix, batch).apply(matrix.values, batch)
    spread = matrix.values.std(axis=0)
    assert np.abs((ours - by_the_paper(matrix.values, batch, 200)) / spread).max() < 1e-4


def test_scanners_are_told_apart_before_and_not_after():
    matrix, batch = scanners(n=180)
    assert np.median(batch_share(matrix.values, batch)) > 0.3
    assert batch_share(fit_combat(matrix, batch).apply(matrix.values, batch), batch).max() < 0.05


def test_one_patient_equals_many_and_new_patients_teach_nothing():
    matrix, batch = scanners()
    fitted = fit_combat(matrix.take(np.arange(45)), batch[:45])
    together = fitted.apply(matrix.values[45:], batch[45:])
    apart = np.vstack([fitted.apply(row[None], [b]) for row, b in zip(matrix.values[45:], batch[45:], strict=True)])
    assert together.tobytes() == apart.tobytes()
    some = fitted.take(("f07", "f02"))
    assert some.apply(matrix.values[45:][:, [7, 2]], batch[45:]).tobytes() == together[:, [7, 2]].tobytes()


def test_an_unseen_scanner_follows_the_policy():
    matrix, batch = scanners()
    few = np.where(np.arange(60) < 4, "rare", batch)
    fitted = fit_combat(matrix, few)
    assert fitted.batches == ("a", "b", "c")
    assert (fitted.apply(matrix.values, np.full(60, "new")) == matrix.values).all()
    assert (fitted.apply(matrix.values, few)[:4] == matrix.values[:4]).all()
    with pytest.raises(UsageError, match="60 patients"):
        fit_combat(matrix, batch, "refuse").apply(matrix.values, np.full(60, "new"))
    alone = fit_combat(matrix, np.full(60, "a"))
    assert (alone.apply(matrix.values, batch) == matrix.values).all()


def test_missing_stay_missing_and_constant_columns_stay():
    matrix, batch = scanners()
    values = matrix.values.copy()
    values[3, 1], values[:, 4], values[:, 5] = np.nan, 7.0, np.nan
    result = fit_combat(FeatureMatrix(matrix.names, values), batch).apply(values, batch)
    assert np.isnan(result[3, 1])
    assert (result[:, 4] == 7.0).all()
    assert np.isnan(result[:, 5]).all()
    assert np.isfinite(np.delete(result, 5, axis=1)).sum() == 60 * 11 - 1


def test_a_study_with_scanners_harmonises_in_front_of_selection():
    """Two training scanners of which one adds 3 SDs to every column: kept with the signature, and scored alike."""
    study = small_tables(n=120, p=12, q=8, clinical=False)
    scanner = np.where(np.arange(120) % 2, "new", "old")
    scanner[-5:] = "never seen"
    radiomics = study.radiomics + 3.0 * (scanner == "new")[:, None]
    tables = replace(study, radiomics=radiomics, deep=None, patients=study.patients.assign(scanner=scanner))
    fixed = {"rad": "logistic_regression"}
    off, on = (run_study(tables, small_settings(harmonisation=h, classifiers=fixed)) for h in ("none", "combat"))
    for result in (off, on):
        found = result.metrics["harmonisation"]
        assert found["separability"]["radiomics"]["before"] > 0.4 > 10 * found["separability"]["radiomics"]["after"]
        assert found["unseen"] == {"internal_validation": 0, "external_test": 5}
        assert [row["cohort"] for row in found["effect"]] == ["internal_validation", "external_test"]
    assert on.metrics["signatures"]["rad"]["nested_auc"] > off.metrics["signatures"]["rad"]["nested_auc"]
    signature = on.signatures["rad"]
    assert signature.features[-1] == "scanner"
    table = radiomics.assign(scanner=scanner)
    together = signature.probabilities(table)
    blobs = MemoryBlobs()
    kept = load(save(signature, blobs), blobs)
    for row in (3, 40, 119):
        assert signature.score(table.iloc[row].to_dict()).probability == together[row]
        assert kept.score(table.iloc[row].to_dict()).probability == together[row]
    elsewhere = table.assign(scanner="never seen").iloc[3].to_dict()
    assert signature.score(elsewhere).probability != together[3]


def two_sequences():
    """CT and T2 of other machines; T2's new machine adds 3 SDs to T2's columns, CT's are the same of both of CT's."""
    study = small_tables(n=120, p=12, q=8, clinical=False)
    t2 = study.radiomics.set_axis([f"t2_sag.vertebral_body.all.f{i:02d}" for i in range(12)], axis=1)
    scanner = {
        "scanner:ct": np.where(np.arange(120) // 2 % 2, "ct one", "ct two").astype(object),
        "scanner:t2_sag": np.where(np.arange(120) % 2, "mr new", "mr old").astype(object),
    }
    scanner["scanner:t2_sag"][[0, 2, 60]] = "mr rare"  # of training patients
    scanner["scanner:ct"][-4:] = "ct elsewhere"
    t2 = t2 + 3.0 * (scanner["scanner:t2_sag"] == "mr new")[:, None]
    t2.iloc[100:103] = np.nan  # no T2: nobody's scanner
    patients = study.patients.assign(**scanner)
    return replace(study, radiomics=pd.concat([study.radiomics, t2], axis=1), deep=None, patients=patients)


def test_columns_go_by_the_scanner_of_their_own_sequence():
    tables = two_sequences()
    scanner = Scanners.of_patients(tables.patients)
    matrix = FeatureMatrix.from_frame(tables.radiomics)
    assert {by: len(places) for by, places in scanner.groups(matrix.names).items()} == {
        "scanner:ct": 12,
        "scanner:t2_sag": 12,
    }
    assert scanner.groups(["radiomics:ct.x.all.f", "age", "dixon.x.all.f"]) == {"scanner:ct": [0], "scanner": [1, 2]}
    fitted = fit_harmonisation(matrix, scanner)
    own = FeatureMatrix(matrix.names[:12], matrix.values[:, :12])
    alone = fit_combat(own, scanner.names["scanner:ct"]).apply(own.values, scanner.names["scanner:ct"])
    together = fitted.apply(matrix.values, scanner.names)
    assert together[:, :12].tobytes() == alone.tobytes()
    rare = scanner.names["scanner:t2_sag"] == "mr rare"
    assert (together[rare, 12:] == matrix.values[rare, 12:]).all()
    strict = fit_harmonisation(matrix, scanner, "refuse")
    assert strict.parts[1].few == ("mr rare",)
    assert np.array_equal(strict.apply(matrix.values, scanner.names), together, equal_nan=True)  # few is not unseen
    some = strict.take([matrix.names[13]])
    assert some.features == ["scanner:t2_sag"]
    with pytest.raises(UsageError, match=r"1 patients .* \(scanner:t2_sag\)"):
        some.apply(matrix.values[:1, [13]], {"scanner:t2_sag": ["mr never seen"]})


def test_a_signature_asks_for_the_scanners_of_its_sequences_and_is_kept_with_them():
    tables = two_sequences()
    fixed = {"rad": "logistic_regression"}
    settings = small_settings(harmonisation="combat", classifiers=fixed, ablation=False)
    result = run_study(tables, settings)
    signature, blobs = result.signatures["rad"], MemoryBlobs()
    kept = load(save(signature, blobs), blobs)
    assert signature.features[-2:] == ["scanner:ct", "scanner:t2_sag"] == kept.features[-2:]
    table = pd.concat([tables.radiomics, tables.patients.filter(like="scanner:")], axis=1)
    together = signature.probabilities(table)
    for row in (0, 5, 119):
        one = {name: table.iloc[row][name] for name in signature.features}
        assert signature.score(one).probability == together[row] == kept.score(one).probability
    moved = table.assign(**{"scanner:t2_sag": "mr new"})
    old = table["scanner:t2_sag"] == "mr old"
    assert (signature.probabilities(moved)[old] != together[old]).any()

    found = result.metrics["harmonisation"]
    ct, t2 = found["sequences"]
    assert (ct["sequence"], t2["sequence"]) == ("ct", "t2_sag")
    assert t2["few"] == ["mr rare"]
    assert t2["learnt"] == ["mr new", "mr old"]
    assert (ct["unseen"]["external_test"], t2["unseen"]) == (4, {"internal_validation": 0, "external_test": 0})
    assert found["scanners"]["t2_sag: mr rare"] == 3
    assert found["unseen"]["external_test"] == 4
    assert found["separability"]["radiomics"]["before"] > 3 * found["separability"]["radiomics"]["after"]
