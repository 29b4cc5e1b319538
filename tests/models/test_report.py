"""The report on a made-up study: everything is there, nothing points outside, what is missing is left out."""

import json
import os
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel
from scipy.special import expit
from sklearn.linear_model import lasso_path

from feature_store.errors import NotReady
from feature_store.vocabulary import PAPER_ROIS, RESEARCH_USE
from models.baseline import baseline_table
from models.evaluation.auc import auc, delong_paired
from models.evaluation.cohort_metrics import cohort_metrics
from models.recommendation import recommend
from models.report.figures import _real
from models.report.headline import warnings_of
from models.report.pdf import write_pdf
from models.report.render import _context, write_report
from models.report.style import PHANTOM
from models.study import run_study
from tests.models.study_fixtures import small_settings, small_tables

FOURTEEN = (
    *("logistic_regression", "naive_bayes", "linear_svm", "poly_svm", "sigmoid_svm", "rbf_svm", "decision_tree"),
    *("random_forest", "extra_trees", "xgboost", "adaboost", "lightgbm", "mlp", "gradient_boosting"),
)


class PhantomSettings(BaseModel):
    seed: int = 0
    n_folds: int = 10
    grid: str = "quick"


@dataclass(frozen=True)
class Study:
    """What the protocol hands over, as far as a report reads it."""

    metrics: dict
    predictions: pd.DataFrame
    figure_data: dict
    settings: PhantomSettings = field(default_factory=PhantomSettings)
    warnings: list = field(default_factory=list)
    failures: list = field(default_factory=list)


def phantom_study(seed=0, n=(192, 83, 60), strengths=None):
    """Predictions drawn with stated strengths; every metric by the real functions."""
    rng = np.random.default_rng(seed)
    strengths = {"rad": 0.9, "dl": 0.5, "combined": 1.1, "size": 0.3, "clinical": 0.4} | (strengths or {})
    partition = np.repeat(["training", "internal_validation", "external_test"], n)
    total = int(sum(n))
    site = np.where(partition == "external_test", np.where(np.arange(total) % 2, "north", "south"), "home")
    y = (rng.random(total) < 0.42).astype(int)
    shared = rng.normal(size=total)
    predictions = pd.DataFrame({"site": site, "patient_id": [f"phantom-{i:04d}" for i in range(total)]})
    predictions["partition"], predictions["outcome"] = partition, y
    for kind, strength in strengths.items():
        score = 0.6 * shared + 0.8 * rng.normal(size=total) + strength * (2 * y - 1)
        predictions[kind] = expit(1.6 * strength * score - 0.3)

    metrics = {"signatures": {}, "classifiers": {}, "baselines": {}, "delong": []}
    data = {"lasso": {}, "filters": {}, "importance": {}, "nested_choice": {}}
    for kind in ("rad", "dl", "combined"):
        listed, lasso = _features(kind, rng)
        threshold = 0.4
        metrics["signatures"][kind] = {
            "classifier": {"rad": "linear_svm", "dl": "adaboost", "combined": "mlp"}[kind],
            "n_features": len(listed),
            "lambda": None if lasso is None else lasso["chosen"],
            "nested_auc": _auc(predictions, kind, "training"),
            "threshold": threshold,
            "features": listed,
            "cohorts": {"training": {"n": n[0], "events": int(y[: n[0]].sum()), "apparent_auc": 0.97}}
            | _held_out(predictions, kind, threshold),
        }
        metrics["classifiers"][kind] = [
            {
                "name": name,
                "cv_auc": 0.55 + 0.25 * rng.random(),
                "cv_auc_sd": 0.03 + 0.05 * rng.random(),
                "params": {"C": 0.1, "gamma": "scale"} if "svm" in name else {"n_estimators": 200, "max_depth": 3},
            }
            for name in FOURTEEN
        ]
        data["nested_choice"][kind] = {"linear_svm": 6, "logistic_regression": 3, "mlp": 1}
        if lasso is not None:
            data["lasso"][kind] = lasso
            data["filters"][kind] = {
                "given": 6808,
                "constant": 41,
                "f_test": 733,
                "correlation": 112,
                "lasso": len(listed),
            }
    data["importance"]["combined"] = [
        {"name": name, "importance": value}
        for name, value in [("rad_sign", 0.9), ("dl_sign", 0.4), ("osteoporosis", 0.3), ("age", 0.1)]
    ]
    for kind in ("size", "clinical"):
        nested = {"nested_auc": _auc(predictions, kind, "training"), "apparent_auc": 0.66}
        of_training = {"training": {"n": n[0], "events": int(y[: n[0]].sum())} | nested}
        metrics["baselines"][kind] = of_training | _held_out(predictions, kind, 0.4)
    for cohort in ("internal_validation", "external_test"):
        rows = predictions[predictions["partition"] == cohort]
        for b in ("rad", "dl"):
            if rows["outcome"].nunique() == 2:
                pair = delong_paired(rows["outcome"], rows["combined"], rows[b])
                entry = {"a": "combined", "b": b, "cohort": cohort, "auc_difference": pair.difference}
                metrics["delong"].append(entry | {"ci": list(pair.ci), "p": pair.p})
    permuted = rng.normal(0.5, 0.06, 20)
    half = 1.96 * permuted.std(ddof=1) / np.sqrt(20)
    metrics["leakage_check"] = {
        **{"passed": True, "signature": "combined", "cohort": "external_test", "n_permutations": 20},
        "permuted_auc_mean": permuted.mean(),
        "permuted_auc_ci": [permuted.mean() - half, permuted.mean() + half],
    }
    clinical = pd.DataFrame(
        {
            "age": rng.normal(61, 9, total) + 2 * y,
            "bmi": rng.lognormal(3.2, 0.12, total),
            "sex": np.where(rng.random(total) < 0.55, "female", "male"),
            "surgical_segments": rng.choice([1, 2, 3], total, p=[0.55, 0.4, 0.05]),
            "osteoporosis": np.where(rng.random(total) < 0.2 + 0.2 * y, "yes", "no"),
            "diagnosis": rng.choice(["stenosis", "spondylolisthesis", "disc herniation"], total),
        }
    )
    clinical.loc[3:6, "bmi"] = np.nan
    metrics["baseline_table"] = baseline_table(clinical, partition, y)
    metrics["clinical"] = [
        {"variable": "osteoporosis", "odds_ratio": 2.41, "ci": [1.32, 4.4], "p": 0.004, "selected": True},
        {"variable": "age (per SD)", "odds_ratio": 1.22, "ci": [0.92, 1.62], "p": 0.17, "selected": False},
        {"variable": "sex: male", "odds_ratio": 0.9, "ci": [0.5, 1.6], "p": 0.71, "selected": False},
    ]
    reader = {"n": 60, "events": 20, "accuracy": 0.65, "sensitivity": 0.6, "sensitivity_ci": [0.39, 0.78]}
    reader |= {"specificity": 0.675, "specificity_ci": [0.52, 0.8]}
    reader |= {
        f"mcnemar_{k}": {"only_model_right": 14, "only_reader_right": 4, "p": 0.031} for k in ("rad", "combined")
    }
    metrics["surgeons"] = {"kappa_ab": 0.52, "kappa_ab_ci": [0.4, 0.63], "n_ab": 60}
    metrics["surgeons"] |= {"A": reader, "B": reader | {"accuracy": 0.7}, "adjudicated": reader}
    data["permuted_aucs"] = permuted.tolist()
    data["flow"] = [
        {"label": "Cases in the store", "n": 402, "excluded": {}},
        {
            "label": "Meet the inclusion rules",
            "n": 361,
            "excluded": {"prior spinal surgery": 22, "over 3 segments": 19},
        },
        {"label": "With a known outcome", "n": total, "excluded": {"follow-up window still open": 361 - total}},
    ]
    data["facts"] = {"seed": "0", "wall time": "4 min 12 s", "software": "asdeg 0.1.0"}
    return Study(
        metrics, predictions, data, warnings=["ct.vertebral_body.all.original_firstorder_Energy: heavy-tailed."]
    )


def _auc(predictions, kind, partition):
    rows = predictions[predictions["partition"] == partition]
    return auc(rows["outcome"], rows[kind])


def _held_out(predictions, kind, threshold):
    found = {}
    for cohort in ("internal_validation", "external_test"):
        rows = predictions[predictions["partition"] == cohort]
        found[cohort] = cohort_metrics(rows["outcome"], rows[kind], threshold)
        for site, of_site in rows.groupby("site") if cohort == "external_test" else ():
            found[f"{cohort}/{site}"] = cohort_metrics(of_site["outcome"], of_site[kind], threshold)
    return found


def _features(kind, rng):
    if kind == "combined":
        return [{"name": name, "coefficient": None} for name in ("rad_sign", "dl_sign", "osteoporosis")], None
    classes = ("glcm_Correlation", "gldm_DependenceVariance", "glszm_ZoneEntropy", "firstorder_Skewness")
    names = [
        PAPER_ROIS[i % 8].feature_name(f"wavelet-{'HL'[i % 2]}H{'LH'[i % 2]}_{classes[i % 4]}_{i}"[:-2])
        + ("" if i < 8 else str(i))
        if kind == "rad"
        else f"PC{i + 1}"
        for i in range(40)
    ]
    x = rng.normal(size=(150, 40))
    y = x[:, :6] @ np.array([0.5, -0.4, 0.3, 0.2, -0.2, 0.1]) + rng.normal(size=150)
    lambdas, coefficients, _ = lasso_path(x, y, eps=1e-2)
    error = [np.mean((y - x @ c) ** 2) + 0.02 * (c != 0).sum() for c in coefficients.T]
    at = int(np.argmin(error))
    lasso = {
        "lambdas": lambdas.tolist(),
        "cv_mean": error,
        "cv_sd": [0.12] * lambdas.size,
        "chosen": float(lambdas[at]),
        "paths": {name: values.tolist() for name, values in zip(names, coefficients, strict=True)},
    }
    kept = [
        {"name": name, "coefficient": float(value)}
        for name, value in zip(names, coefficients[:, at], strict=True)
        if value
    ]
    return kept, lasso


@pytest.fixture(scope="module")
def study():
    return phantom_study()


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return write_report(study, out, "Three made-up hospitals")


class _Page(HTMLParser):
    """Collects tags with their attributes, and checks that they close."""

    VOID = ("meta", "br", "hr", "img", "input", "link")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_four_parts_are_written(written, study):
    out = written.parent
    assert written.name == "report.html"
    assert (
        json.loads((out / "metrics.json").read_text(encoding="utf-8"))["signatures"].keys()
        == study.metrics["signatures"].keys()
    )
    pd.testing.assert_frame_equal(pd.read_parquet(out / "predictions.parquet"), study.predictions, check_dtype=False)
    drawn = {path.stem for path in (out / "figures").glob("*.svg")}
    assert drawn == {path.stem for path in (out / "figures").glob("*.png")}
    expected = {"flow", "auc", "roc", "decision", "classifiers", "clinical", "leakage", "lasso_rad", "lasso_dl"}
    expected |= {f"{what}_{kind}" for what in ("roc", "calibration", "decision") for kind in ("rad", "dl", "combined")}
    assert drawn == expected | {"ranking_rad", "ranking_dl", "ranking_combined"}


def test_every_figure_of_a_phantom_says_so_wherever_its_file_is_taken(written):
    vectors = list((written.parent / "figures").glob("*.svg"))
    assert len(vectors) > 10
    for path in vectors:
        assert f"<!-- {PHANTOM} -->" in path.read_text(encoding="utf-8"), path.name


def test_the_page_stands_alone(written):
    text = written.read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "img")]
    addresses = [a.get(k, "") for _, a in page.tags for k in ("href", "src", "xlink:href")]
    assert all(address.startswith("#") for address in addresses if address)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    wanted = {address[1:] for address in addresses if address} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert wanted <= set(ids)


def test_a_reader_finds_every_part(written, study):
    text = written.read_text(encoding="utf-8")
    assert RESEARCH_USE in text
    assert text.count("PHANTOM") >= 3
    for name in FOURTEEN:
        assert name.replace("_", " ") in text
    external = study.metrics["signatures"]["combined"]["cohorts"]["external_test"]
    low, high = external["auc_ci"]
    assert f"{external['auc']:.3f} ({low:.3f}–{high:.3f})" in text
    for feature in study.metrics["signatures"]["rad"]["features"]:
        assert feature["name"].split(".")[-1] in text
    assert "Apparent AUC" in text
    assert "heavy-tailed" in text
    assert "External test: north" in text
    widths = [float(share) for share in re.findall(r'<svg role="img" style="max-width: (\d+)%"', text)]
    assert max(widths) == 100
    assert min(widths) < 80  # what has fewer panels is no larger for it
    for patient in study.predictions["patient_id"]:
        assert patient not in text


def only_rad(study):
    """A small study: what Rad-sign alone leaves."""
    metrics = {
        "signatures": {"rad": study.metrics["signatures"]["rad"]},
        "baseline_table": study.metrics["baseline_table"],
    }
    predictions = study.predictions.drop(columns=["dl", "combined", "size", "clinical"])
    return replace(study, metrics=metrics, predictions=predictions, figure_data={})


def test_same_study_same_bytes(study, tmp_path):
    first = write_report(only_rad(study), tmp_path / "first", "Twice").parent
    second = write_report(only_rad(study), tmp_path / "second", "Twice").parent
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 10
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path.name


def test_a_title_is_text_and_a_real_study_is_no_phantom(study, tmp_path):
    text = write_report(only_rad(study), tmp_path, "<b>&", phantom=False).read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;" in text
    assert "PHANTOM" not in text  # nor in any figure, which are inside


def test_a_study_with_almost_nothing(tmp_path):
    """One signature, training patients only, one feature, NaN in the metrics."""
    full = phantom_study(n=(40, 0, 0), strengths={"rad": 0.8, "dl": 0.1, "combined": 0.1, "size": 0.1, "clinical": 0.1})
    rad = full.metrics["signatures"]["rad"] | {"n_features": 1, "nested_auc": float("nan")}
    rad["cohorts"] = {"training": rad["cohorts"]["training"]}
    bare = Study(
        {"signatures": {"rad": rad}},
        full.predictions[["site", "patient_id", "partition", "outcome", "rad"]],
        {},
        settings=PhantomSettings(),
    )
    text = write_report(bare, tmp_path, "Bare").read_text(encoding="utf-8")
    assert "Rad-sign: it rests on a single feature." in text
    assert "External test: no patients" in text
    assert "Not run" in text
    assert text.count("Not known:") >= 3  # scanners, folds, incident
    assert "there is no combined model, or nobody is held out" in text
    assert "There are no external patients" in text
    assert (
        json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["signatures"]["rad"]["nested_auc"] is None
    )


def test_one_class_outside_and_missing_predictions(tmp_path):
    study = phantom_study(n=(80, 40, 12))
    rows = study.predictions["partition"] == "external_test"
    study.predictions.loc[rows, "outcome"] = 1
    study.predictions.loc[study.predictions.index[:7], "rad"] = np.nan
    study.metrics["signatures"]["rad"]["cohorts"] |= _held_out(study.predictions, "rad", 0.4)
    text = write_report(only_rad(study), tmp_path, "One class").read_text(encoding="utf-8")
    assert "External test: all 12 patients have the same outcome" in text


def test_simplest_that_nothing_beats_is_recommended():
    equal = phantom_study(strengths={"rad": 0.8, "dl": 0.8, "combined": 0.8})
    assert recommend(equal.predictions).kind in ("rad", "dl")
    combined = phantom_study(strengths={"rad": 0.2, "dl": 0.2, "combined": 1.5})
    choice = recommend(combined.predictions)
    assert (choice.kind, set(choice.compared_with)) == ("combined", {"rad", "dl"})
    deep = phantom_study(strengths={"rad": 0.2, "dl": 1.2, "combined": 1.2})
    assert recommend(deep.predictions).kind == "dl"
    # Held-out patients have no say.
    spoiled = combined.predictions.copy()
    spoiled.loc[spoiled["partition"] != "training", "combined"] = 0.5
    assert recommend(spoiled).kind == "combined"
    assert recommend(spoiled[spoiled["partition"] != "training"]) is None


def test_what_is_no_better_than_chance_is_not_for_release(tmp_path):
    study = phantom_study(strengths={"rad": 0.0, "dl": 0.0, "combined": 0.0})
    assert not recommend(study.predictions).above_chance
    assert "not shown to be better than chance" in _said(study)
    drawn = replace(study, figure_data={})
    context = _context(drawn, None)
    assert context["none_fit"]
    assert context["recommended"] is None
    assert not any(card["recommended"] for card in context["cards"])


def test_permuted_outcomes_stand_beside_the_true_ones_over_the_same_pairs():
    study = phantom_study()
    training = study.predictions[study.predictions["partition"] == "training"]  # of one site
    assert _real(study, "rad", "training (nested)") == pytest.approx(auc(training["outcome"], training["rad"]))
    external = study.predictions[study.predictions["partition"] == "external_test"]
    sites = [rows for _, rows in external.groupby("site")]
    pairs = np.array([int(y.sum() * (1 - y).sum()) for y in (rows["outcome"] for rows in sites)])
    areas = [auc(rows["outcome"], rows["rad"]) for rows in sites]
    assert _real(study, "rad", "external_test") == pytest.approx(np.average(areas, weights=pairs), abs=1e-12)


def _said(study):
    return "\n".join(warnings_of(study))


def test_warnings_name_what_is_wrong():
    quiet = _said(phantom_study(strengths={"rad": 0.5, "dl": 0.3, "combined": 2.0, "size": 0.0}))
    assert "combined model" not in quiet
    assert "size" not in quiet

    loud = phantom_study(strengths={"rad": 0.6, "dl": 0.6, "combined": 0.0, "size": 0.9, "clinical": 0.0})
    assert "Rad-sign: The penalty is the smallest" in _said(
        replace(loud, warnings=["rad: The penalty is the smallest."])
    )
    path = loud.figure_data["lasso"]["rad"]
    edges = {"rad": path | {"chosen": min(path["lambdas"])}, "dl": path | {"chosen": max(path["lambdas"])}}
    check = loud.metrics["leakage_check"] | {"passed": False}
    loud = replace(loud, figure_data={"lasso": edges}, metrics=loud.metrics | {"leakage_check": check})
    loud.metrics["signatures"]["dl"]["n_features"] = 1
    said = _said(loud)
    for part in (
        "heavy-tailed",
        "DL-sign: it rests on a single feature",
        "Rad-sign: the chosen λ is the smallest",
        "DL-sign: the chosen λ is the largest",
        "External test: the combined model",
        "the model of ROI size alone",
        "leakage check failed",
        "firm figures want about 100",
    ):
        assert part in said


def test_a_signature_that_size_alone_beats_is_said_to_be_beaten_and_where():
    said = _said(phantom_study(strengths={"rad": 0.5, "dl": 0.3, "combined": 0.5, "size": 3.0}))
    assert "is beaten by the model of ROI size alone" in said
    assert re.search(r"External test: .*is not better than the model of ROI size alone", said)
    equal = _said(phantom_study(strengths={"rad": 0.6, "dl": 0.3, "combined": 0.5, "size": 0.6}))
    assert "does not beat the model of ROI size alone" in equal


@pytest.mark.slow
def test_what_the_protocol_hands_over_is_what_the_report_reads(tmp_path):
    """A real run on small tables: nothing that it makes is missing on the page."""
    fixed = dict.fromkeys(("rad", "dl", "combined"), "logistic_regression")
    result = run_study(small_tables(60, p=12, q=8), small_settings(classifiers=fixed, permutations=2))
    text = write_report(result, tmp_path, "A real run").read_text(encoding="utf-8")
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"flow", "auc", "roc", "decision", "classifiers", "clinical", "leakage"} <= drawn
    for kind in result.signatures:
        assert {f"{what}_{kind}" for what in ("roc", "calibration", "decision", "ranking")} <= drawn
    assert {"lasso_rad", "lasso_dl", "shap", "ablation"} <= drawn
    explained = result.metrics["shap"]
    assert f"{explained['mean_abs']['rad-sign']:.3f}" in text
    assert f"of {explained['n']} held-out patients" in text
    assert str(result.metrics["sample_size"]["development"]["criteria"][0]["needed"]) in text
    assert f"{result.metrics['harmonisation']['effect'][0]['auc_with']:.3f}" in text
    assert "folds are disjoint and complete" in text
    assert "Not known: nothing is recorded of incident degeneration." in text
    assert "scikit-learn" in text
    assert "PHANTOM" not in text
    assert result.settings.hash() in text
    assert f"{result.metrics['baselines']['clinical']['training']['nested_auc']:.3f} nested" in text


def test_the_page_is_printed_as_a_pdf(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<h1>A report</h1><svg width='40' height='20'><rect width='40' height='20'/></svg>", "utf-8")
    try:
        pdf = write_pdf(page)
    except NotReady as lacking:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(lacking))
    assert pdf.name == "report.pdf"
    assert pdf.read_bytes().startswith(b"%PDF-")
