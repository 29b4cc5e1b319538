"""Which figures a study has: drawn one after another, saved as PNG and SVG, kept as elements of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from feature_store.vocabulary import Partition
from models.evaluation.auc import auc, auc_within
from models.leakage import NESTED
from models.report import curve_figures, selection_figures, style, summary_figures
from models.report.figure_data import ReportableStudy
from models.report.shap_figure import shap_figure
from models.report.style import cohort_name, model_name
from models.report.tables import ordered


class Drawn(NamedTuple):
    """One figure on the page."""

    name: str
    svg: str
    caption: str


def draw(result: ReportableStudy, folder: Path, *, phantom: bool = False) -> dict[str, Drawn]:
    """Draws and saves every figure the study has data for; name -> what goes into the page.

    ``phantom`` writes into each of them that the patients are made up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with style.drawing():
        for name, figure, caption in _figures(result):
            mark = style.PHANTOM if phantom else ""
            drawn[name] = Drawn(name, style.save(figure, folder, name, mark), caption)
    return drawn


def _figures(result: ReportableStudy) -> Iterator[tuple[str, Figure, str]]:
    predictions, metrics, data = result.predictions, result.metrics, result.figure_data
    signatures = metrics.get("signatures", {})
    kinds = [kind for kind in ordered(signatures) if kind in predictions]
    references = [kind for kind in ("clinical", "size") if kind in predictions]

    yield "flow", summary_figures.flow(data.get("flow", ()), predictions), "Patients, and where they went."
    rows = _areas(result, [*kinds, *references])
    if rows:
        caption = "AUC of every model on every cohort, with 95 % intervals on held-out patients. Training shows the "
        yield "auc", summary_figures.forest(rows), caption + "nested cross-validated AUC."
    if kinds:
        caption = (
            "ROC curves; in brackets 95 % intervals (DeLong, logit scale). Training curves are nested out-of-fold."
        )
        yield "roc", curve_figures.roc(predictions, [*kinds, *references]), caption
        caption = "Decision curves: net benefit of acting on each model, beside acting on everybody and nobody."
        yield "decision", curve_figures.decision(predictions, [*kinds, *references]), caption
    for kind in kinds:
        name = model_name(kind)
        yield f"roc_{kind}", curve_figures.roc(predictions, [kind]), f"{name}: ROC with a 95 % bootstrap band."
        caption = f"{name}: calibration. Line and band: loess; points: groups of equal size with Wilson intervals; "
        caption += "below: how the risks of patients with and without the event are spread."
        yield f"calibration_{kind}", curve_figures.calibration(predictions, kind), caption
        threshold = signatures[kind].get("threshold")
        thresholds = [threshold] if threshold is not None else []
        caption = f"{name}: decision curve; the dashed line is the signature's threshold."
        yield f"decision_{kind}", curve_figures.decision(predictions, [kind], thresholds), caption
    for kind in ordered(data.get("lasso", {})):
        path = data["lasso"][kind]
        if len(path["lambdas"]) > 1 and path["paths"]:
            caption = f"{model_name(kind)}: coefficients over the penalty λ, and its cross-validation."
            yield f"lasso_{kind}", selection_figures.lasso(path, kind), caption
    for kind in ordered(signatures):
        weights = {str(f["name"]): float(f["importance"]) for f in data.get("importance", {}).get(kind, ())}
        coefficients = {str(f["name"]): f.get("coefficient") for f in signatures[kind].get("features", ())}
        names = dict.fromkeys([*coefficients, *weights])
        said = style.term_name if kind == "combined" else str
        ranked = [(said(name), coefficients.get(name), weights.get(name)) for name in names]
        if any(coefficient or weight for _, coefficient, weight in ranked):
            caption = f"{model_name(kind)}: coefficients per standard deviation (blue raises the risk, vermillion "
            caption += "lowers it). Importance: how far the log-odds move, on average over training patients, when "
            caption += "the input is set to its median."
            title = f"{model_name(kind)}: what it rests on"
            yield f"ranking_{kind}", selection_figures.ranking(ranked, title), caption
    if data.get("shap"):
        record = metrics.get("shap") or {}
        caption = (
            f"SHAP of the combined model on {record.get('n', 'the')} held-out patients: what each input adds to a "
        )
        caption += "patient's log-odds, beside the average training patient. A dot is a patient; grey: no number."
        yield "shap", shap_figure(data["shap"]), caption
    for cohort in ("external_test", "internal_validation"):
        parts = [row for row in metrics.get("ablation") or () if row.get("cohort") == cohort]
        if parts:
            caption = f"{cohort_name(cohort)}: AUC of each part alone, and how the AUC changes without it, with 95 % "
            yield "ablation", summary_figures.ablation(parts), caption + "intervals."
            break
    chosen = {kind: str(signature.get("classifier")) for kind, signature in signatures.items()}
    tables = {kind: metrics.get("classifiers", {})[kind] for kind in ordered(metrics.get("classifiers", {}))}
    if any(tables.values()):
        caption = "Fourteen classifiers on the same folds; filled and bold: the one chosen. The winner's AUC is "
        caption += "optimistic because it was picked; the nested AUC is not."
        yield "classifiers", summary_figures.classifiers(tables, chosen), caption
    if any(row.get("odds_ratio") for row in metrics.get("clinical", ())):
        yield "clinical", summary_figures.odds_ratios(metrics["clinical"]), "Odds ratios of the clinical variables."
    check = metrics.get("leakage_check") or {}
    if check.get("permuted_auc_ci") and check.get("permuted_auc_mean") is not None:
        kind, cohort = str(check.get("signature")), str(check.get("cohort"))
        real = _real(result, kind, cohort)
        name = f"{model_name(kind)}, {cohort_name(cohort)}"
        permuted = data.get("permuted_aucs", ())
        figure = summary_figures.leakage(permuted, check["permuted_auc_mean"], check["permuted_auc_ci"], real, name)
        yield (
            "leakage",
            figure,
            "The whole protocol on permuted outcomes, beside the true ones; pairs of patients of one site.",
        )


def _areas(result: ReportableStudy, kinds: list[str]) -> list[tuple[str, str, float, tuple[float, float] | None]]:
    """(cohort, kind, AUC, interval) from the metrics, cohort by cohort."""
    entries = {**result.metrics.get("baselines", {}), **result.metrics.get("signatures", {})}
    cohorts = [*style.PARTITIONS]
    found = {kind: entries[kind].get("cohorts", entries[kind]) for kind in kinds if kind in entries}
    cohorts += sorted({c for of in found.values() for c in of if c not in cohorts})
    rows: list[tuple[str, str, float, tuple[float, float] | None]] = []
    for cohort in cohorts:
        for kind, of in found.items():
            m = of.get(cohort)
            if cohort == "training":
                area = entries[kind].get("nested_auc", (m or {}).get("nested_auc"))
                if area is None and (data := style.shown(result.predictions, "training", kind)) is not None:
                    area = auc(*data)
                interval = None
            else:
                area, interval = (m.get("auc"), m.get("auc_ci")) if m else (None, None)
            if area is not None:
                rows.append((cohort, kind, float(area), (interval[0], interval[1]) if interval else None))
    return rows


def _real(result: ReportableStudy, kind: str, cohort: str) -> float | None:
    """AUC on the true outcomes, over the pairs that the check counts: of one site."""
    partition = Partition.TRAINING.value if cohort == NESTED else cohort
    rows = result.predictions[result.predictions["partition"] == partition]
    rows = rows.dropna(subset=[kind]) if kind in rows else rows.iloc[:0]
    return auc_within(rows["outcome"], rows[kind], rows["site"]) if len(rows) else None
