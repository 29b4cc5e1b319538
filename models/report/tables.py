"""The report's tables: metrics as texts in rows. A value that does not exist reads as a dash, never as a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from models.report.style import SIGNATURES, cohort_name, feature_parts, model_name, term_name, words

DASH = "–"
INDENT = "\u2003"
"""Before the first cell of a row that belongs to the heading above it."""
GROUPS = {
    "training": "Training",
    "internal_validation": "Internal validation",
    "external_test": "External test",
    "training/event": "Training, event",
    "training/no_event": "Training, no event",
}


class Table(NamedTuple):
    """Column heads, rows of texts, and how many of the first columns are names rather than numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


def number(value: Any, digits: int = 3) -> str:
    """A float with so many decimals; a dash for None, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def with_ci(value: Any, interval: Sequence[float] | None, digits: int = 3) -> str:
    """``0.812 (0.701–0.889)``; ``to`` stands between limits where one is negative."""
    if interval is None or None in interval:
        return number(value, digits)
    between = "–" if min(interval) >= 0 else " to "
    return f"{number(value, digits)} ({number(interval[0], digits)}{between}{number(interval[1], digits)})"


def p_value(p: float | None) -> str:
    """Three decimals, ``<0.001`` below that."""
    if p is None or not math.isfinite(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def ordered(kinds: Iterable[str]) -> list[str]:
    """Rad-sign, DL-sign, combined; then whatever else there is."""
    kinds = list(kinds)
    return [kind for kind in SIGNATURES if kind in kinds] + [kind for kind in kinds if kind not in SIGNATURES]


def performance(signatures: Mapping[str, Any]) -> Table:
    """Held-out performance at the signature's threshold: a heading a signature, under it a row a cohort."""
    rows = []
    for kind in ordered(signatures):
        rows.append([model_name(kind), *[""] * 10])
        for cohort, m in signatures[kind]["cohorts"].items():
            if cohort == "training":
                continue
            shares = [with_ci(m.get(k), m.get(f"{k}_ci"), 2) for k in ("accuracy", "sensitivity", "specificity", "f1")]
            scores = [number(m.get(k), d) for k, d in _SCORES]
            area = with_ci(m.get("auc"), m.get("auc_ci"))
            size = f"{m.get('n', DASH)} / {m.get('events', DASH)}"
            rows.append([f"{INDENT}{cohort_name(cohort)}", size, area, *shares, *scores])
    heads = ["Cohort", "n / events", "AUC (95 % CI)", "Accuracy", "Sensitivity", "Specificity", "F1"]
    return Table([*heads, "Brier", "Slope", "Intercept", "Net benefit"], rows)


def declared(signatures: Mapping[str, Any]) -> Table:
    """Held-out patients at the threshold of the declared harm ratio."""
    rows = []
    for kind in ordered(signatures):
        for cohort, m in signatures[kind]["cohorts"].items():
            if found := m.get("at_harm_ratio"):
                shares = [with_ci(found[k], found[f"{k}_ci"], 2) for k in ("sensitivity", "specificity")]
                worth = [number(found[k]) for k in ("net_benefit", "net_benefit_treat_all")]
                rows.append([model_name(kind), cohort_name(cohort), number(found["threshold"]), *shares, *worth])
    heads = ["Signature", "Cohort", "Threshold", "Sensitivity", "Specificity", "Net benefit", "of treating everybody"]
    return Table(heads, rows, 2)


_SCORES = (("brier", 3), ("calibration_slope", 2), ("calibration_intercept", 2), ("net_benefit", 3))


def training(signatures: Mapping[str, Any]) -> Table:
    """What training is allowed to claim: the nested AUC. The apparent one stands beside it by name."""
    rows = []
    for kind in ordered(signatures):
        signature = signatures[kind]
        cohort = signature["cohorts"].get("training", {})
        rows.append(
            [
                model_name(kind),
                str(signature.get("classifier", DASH)).replace("_", " "),
                str(signature.get("n_features", DASH)),
                f"{signature['lambda']:.3g}" if signature.get("lambda") is not None else DASH,
                f"{cohort.get('n', DASH)} / {cohort.get('events', DASH)}",
                number(signature.get("nested_auc")),
                number(cohort.get("nested_sensitivity"), 2),
                number(cohort.get("nested_specificity"), 2),
                number(cohort.get("apparent_auc")),
                number(signature.get("threshold")),
            ]
        )
    heads = ["Signature", "Classifier", "Features", "λ", "n / events", "Nested AUC", "Nested sensitivity"]
    return Table([*heads, "Nested specificity", "Apparent AUC", "Threshold"], rows, 2)


def references(baselines: Mapping[str, Any]) -> Table:
    """Size-only and clinical-only, so that a signature's worth can be seen."""
    rows = []
    for kind, entry in baselines.items():
        for cohort, m in entry.get("cohorts", entry).items():
            if not isinstance(m, Mapping):
                continue
            area = with_ci(m.get("auc"), m.get("auc_ci"))
            if cohort == "training":
                nested = m.get("nested_auc", entry.get("nested_auc"))
                area = f"{number(nested)} nested; {number(m.get('apparent_auc'))} apparent"
            scores = [number(m.get(k), d) for k, d in _SCORES]
            size = f"{m.get('n', DASH)} / {m.get('events', DASH)}"
            rows.append([model_name(kind), cohort_name(cohort).partition(" (")[0], size, area, *scores])
    return Table(
        ["Model", "Cohort", "n / events", "AUC (95 % CI)", "Brier", "Slope", "Intercept", "Net benefit"], rows, 2
    )


def delong(comparisons: Sequence[Mapping[str, Any]]) -> Table:
    """Paired differences of AUCs on held-out patients."""
    rows = [
        [
            f"{model_name(row['a'])} − {model_name(row['b'])}",
            cohort_name(row["cohort"]),
            with_ci(row.get("auc_difference"), row.get("ci")),
            p_value(row.get("p")),
        ]
        for row in comparisons
    ]
    return Table(["Comparison", "Cohort", "AUC difference (95 % CI)", "p (DeLong)"], rows, 2)


def classifiers(rows: Sequence[Mapping[str, Any]]) -> Table:
    """All classifiers, best cross-validated AUC first, with the grid point that reached it."""
    ranked = sorted(rows, key=lambda row: -float(row.get("cv_auc") or 0.0))
    texts = [
        [
            str(row["name"]).replace("_", " "),
            f"{number(row.get('cv_auc'))} ± {number(row.get('cv_auc_sd'))}",
            ", ".join(f"{k} = {_plain(v)}" for k, v in (row.get("params") or {}).items()) or DASH,
        ]
        for row in ranked
    ]
    return Table(["Classifier", "CV AUC ± SD", "Chosen settings"], texts, 3)


def features(
    rows: Sequence[Mapping[str, Any]], importance: Mapping[str, float], meaning: Callable[[str], str] | None
) -> Table:
    """Selected features, largest coefficient first, where each was measured and what it says.

    ``importance`` by name; ``meaning`` says what a radiomics feature measures, in words ("" where it does not know).
    """
    weights = {str(row["name"]): importance.get(str(row["name"]), row.get("importance")) for row in rows}
    columns = {
        "Coefficient": {str(row["name"]): row.get("coefficient") for row in rows},
        "Importance": weights,
    }
    columns = {head: of for head, of in columns.items() if any(value is not None for value in of.values())}
    texts = []
    for name in sorted(weights, key=lambda name: tuple(-abs(of.get(name) or 0.0) for of in columns.values())):
        feature, where = feature_parts(name)
        said = _SIGN if name.endswith("-sign") else meaning(feature) if meaning else ""
        shown = term_name(feature) if name.endswith("-sign") else feature
        texts.append([shown, where or DASH, said or DASH, *(number(of.get(name), 4) for of in columns.values())])
    heads = ["Feature", "Measured in", "What it measures", *columns]
    told = [i for i in range(len(heads)) if i not in (1, 2) or any(row[i] != DASH for row in texts)]
    kept = [[row[i] for i in told] for row in texts]
    return Table([heads[i] for i in told], kept, len(told) - len(columns))


_SIGN = "the signature's log-odds"


def components(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are principal components, which mean nothing by themselves."""
    names = [str(row["name"]) for row in rows]
    return bool(names) and all(name.startswith("PC") and name[2:].isdigit() for name in names)


def filters(steps: Mapping[str, Mapping[str, int]]) -> Table:
    """How many columns each step of the selection left."""
    names = list(dict.fromkeys(step for counts in steps.values() for step in counts))
    names.sort(key=lambda name: name == "lasso")  # last for every signature; the steps before it differ
    rows = [[model_name(kind), *(str(counts.get(name, DASH)) for name in names)] for kind, counts in steps.items()]
    return Table(["Signature", *(_STEPS.get(name, name.replace("_", " ")) for name in names)], rows)


_STEPS = {"f_test": "F-test", "pca": "PCA", "lasso": "LASSO"}


def robustness(record: Mapping[str, Any]) -> Table:
    """The filter in front of selection: a row a rule, with how many features it judged and took out."""
    rows = []
    for rule in record.get("rules", ()):
        low, high = rule["n_subjects"]
        limit = f"{'at most' if rule['measure'] == 'cv' else 'at least'} {rule['limit']:g}"
        counts = [str(rule[name]) for name in ("judged", "failed", "without_value")]
        size = f"{low} to {high}" if low != high else str(high)
        patients = f"{size} ({', '.join(rule['patients'])})"
        names = [_ROBUSTNESS.get(rule[name], rule[name]) for name in ("kind", "measure")]
        rows.append([*names, limit, *counts, patients, str(rule["n_versions"])])
    heads = ["Robust to", "Measure", "Must be", "Judged", "Left out", "Without a value", "Patients", "Versions"]
    return Table(heads, rows, 2)


_ROBUSTNESS = {
    "readers": "another segmentation",
    "perturbation": "small changes",
    "icc_2_1": "ICC(2,1)",
    "icc_3_1": "ICC(3,1)",
    "cv": "CV within patients",
}


def clinical(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Odds ratios of the clinical variables: each alone, and together those that entered the multivariable model."""
    texts = []
    for row in rows:
        alone = row.get("univariable") or (row if row.get("model") != "multivariable" else {})
        together = row if row.get("model") == "multivariable" else {}
        figures = []
        for of in (alone, together):
            figures += [with_ci(of.get("odds_ratio"), of.get("ci"), 2), p_value(of.get("p"))]
        texts.append([term_name(str(row["variable"])), *figures, "yes" if row.get("selected") else "no"])
    heads = ["Variable", "Alone: odds ratio (95 % CI)", "p", "Together: odds ratio (95 % CI)", "p"]
    return Table([*heads, "Selected"], texts)


def baseline(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The baseline table: groups across, then p and standardised mean difference a contrast."""
    if not rows:
        return Table([], [])
    groups = [g for g in GROUPS if any(g in cell for row in rows for cell in row["cells"])]
    contrasts = list(dict.fromkeys((c["a"], c["b"]) for row in rows for c in row["contrasts"]))
    heads = ["Variable", *(GROUPS[g] for g in groups)]
    heads += [f"{_contrast_name(a, b)}: p (SMD)" for a, b in contrasts]
    texts = []
    for row in rows:
        found = {(c["a"], c["b"]): f"{p_value(c['p'])} ({number(c['smd'], 2)})" for c in row["contrasts"]}
        tests = [found.get(pair, DASH) for pair in contrasts]
        title = f"{words(row['variable'])}, {row['summary']}"
        if row["kind"] == "continuous":
            texts.append([title, *(row["cells"][0].get(g, DASH) for g in groups), *tests])
        else:
            texts.append([title, *("" for _ in groups), *tests])
            for cell in row["cells"]:
                texts.append(
                    [f"{INDENT}{words(str(cell['level']))}", *(cell.get(g, DASH) for g in groups), *("" for _ in tests)]
                )
        if any(row["missing"].values()):
            gaps = [str(row["missing"].get(g, 0)) for g in groups]
            texts.append([f"{INDENT}missing", *gaps, *("" for _ in tests)])
    return Table(heads, texts)


def tests_used(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line naming the tests behind the baseline table's p values."""
    used = dict.fromkeys(c["test"] for row in rows for c in row["contrasts"])
    return ", ".join(name for name in used if name != "not tested")


def agreement(surgeons: Mapping[str, Any]) -> str:
    """Cohen's kappa of the two readers as a sentence; empty without readings of both."""
    if "kappa_ab" not in surgeons:
        return ""
    kappa = with_ci(surgeons["kappa_ab"], surgeons.get("kappa_ab_ci"), 2)
    said = f"Surgeons A and B agree with Cohen's κ {kappa} on {surgeons.get('n_ab', 'their')} patients."
    if number_left := surgeons.get("n_unresolved"):
        said += (
            f" On {number_left} they disagree and C has no reading: these are not in the adjudicated one, which looks "
            "better for it."
        )
    return said


def surgeons(entries: Mapping[str, Any]) -> Table:
    """A reader a row, and beside each signature: p of McNemar's test (only model right / only reader right)."""
    readers = {name: entry for name, entry in entries.items() if isinstance(entry, Mapping)}
    tests = list(dict.fromkeys(key for entry in readers.values() for key in entry if key.startswith("mcnemar_")))
    rows = []
    for name, m in readers.items():
        row = [
            f"Surgeon {name}" if len(name) == 1 else name.capitalize(),
            f"{m.get('n', DASH)} / {m.get('events', DASH)}",
        ]
        row += [with_ci(m.get(k), m.get(f"{k}_ci"), 2) for k in ("accuracy", "sensitivity", "specificity")]
        for key in tests:
            test = m.get(key) or {}
            counts = f"{test.get('only_model_right', DASH)} / {test.get('only_reader_right', DASH)}"
            row.append(f"{p_value(test.get('p'))} ({counts})" if test else DASH)
        rows.append(row)
    against = [f"vs {model_name(key.removeprefix('mcnemar_'))}: p (only it / only surgeon right)" for key in tests]
    return Table(["Reading", "n / events", "Accuracy", "Sensitivity", "Specificity", *against], rows)


def matched(entries: Mapping[str, Any]) -> Table:
    """Each signature at the threshold where its specificity is the surgeon's: sensitivities compared."""
    rows = []
    for name, m in entries.items():
        for key, found in m.items() if isinstance(m, Mapping) else ():
            if key.startswith("matched_"):
                reading = f"Surgeon {name}" if len(name) == 1 else name.capitalize()
                figures = [number(m.get("specificity"), 2), number(m.get("sensitivity"), 2)]
                figures.append(number(found.get("sensitivity"), 2))
                difference = with_ci(found.get("difference"), found.get("ci"), 2)
                kind = model_name(key.removeprefix("matched_"))
                rows.append([reading, kind, *figures, difference, p_value(found.get("p"))])
    heads = ["Reading", "Signature", "Specificity of both", "Sensitivity, surgeon", "Sensitivity, signature"]
    return Table([*heads, "Difference (95 % CI)", "p (McNemar)"], rows, 2)


def flat(entries: Mapping[str, Any], prefix: str = "") -> Table:
    """Nested names and values as two columns."""
    rows: list[list[str]] = []
    for key, value in entries.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += [list(row) for row in flat(value, f"{name}: ").rows]
        else:
            rows.append([name, _plain(value)])
    return Table(["", ""], rows, 2)


def _contrast_name(a: str, b: str) -> str:
    if a == "training/event":
        return "by outcome"
    return f"training vs {b.partition('_')[0]}"


def _plain(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else DASH
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " – ".join(map(_plain, value)) if len(value) == 2 else ", ".join(map(_plain, value))
    return str(value)
