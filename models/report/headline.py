"""The first lines of a report: which signature to release, and what a reader must know before believing it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.recommendation import Recommendation, area, beats, recommend
from models.report.figure_data import ReportableStudy
from models.report.style import MODELS, SIGNATURES, cohort_name, model_name, partitions_of, sites_of

ENOUGH_EVENTS = 100
"""Events, and non-events, an external validation wants before its figures are firm (Collins et al. 2016)."""


def patients_of(predictions: pd.DataFrame) -> str:
    """Who the study is about, in a line: patients, events and sites of each partition."""
    said = []
    for partition in partitions_of(predictions):
        rows = predictions[predictions["partition"] == partition]
        events = int((rows["outcome"] == 1).sum())
        name = cohort_name(partition).partition(" (")[0]
        said.append(f"{name}: {len(rows)} patients ({events} with the event), {sites_of(rows)}")
    return "; ".join(said) + "."


def because(choice: Recommendation) -> str:
    """Why this signature, as half a sentence."""
    if not choice.compared_with:
        return "the only signature"
    others = ", ".join(model_name(kind) for kind in choice.compared_with)
    return f"the simplest signature that no other beats out of fold (compared with {others})"


def warnings_of(result: ReportableStudy) -> list[str]:
    """Whole sentences, the study's own first, then what the metrics and curves tell. Each names what it is about."""
    found = [_named(warning) for warning in result.warnings]
    found += _of_selection(result)
    found += _of_combined(result)
    found += _of_references(result)
    check = result.metrics.get("leakage_check") or {}
    if check.get("passed") is False:
        found.append(
            "The leakage check failed: with permuted outcomes the protocol still finds something. "
            "Do not use these results."
        )
    found += _of_sizes(result.predictions)
    return list(dict.fromkeys(found))


def _named(warning: str) -> str:
    """``rad: …`` reads Rad-sign: …"""
    kind, colon, rest = warning.partition(": ")
    return f"{model_name(kind)}: {rest}" if colon and kind in MODELS else warning


def _of_selection(result: ReportableStudy) -> list[str]:
    """One feature, or a penalty at the edge of its grid, unless the study has said so of that signature itself."""
    found = []
    paths = result.figure_data.get("lasso", {})
    for kind, signature in result.metrics.get("signatures", {}).items():
        said = " ".join(warning for warning in result.warnings if warning.startswith(f"{kind}: "))
        if signature.get("n_features") == 1 and "One feature" not in said:
            found.append(f"{model_name(kind)}: it rests on a single feature.")
        path = paths.get(kind)
        if path is None or len(path["lambdas"]) < 2 or "penalty" in said:
            continue
        if np.isclose(path["chosen"], min(path["lambdas"])):
            found.append(f"{model_name(kind)}: the chosen λ is the smallest of its grid; the optimum may lie below.")
        elif np.isclose(path["chosen"], max(path["lambdas"])):
            found.append(f"{model_name(kind)}: the chosen λ is the largest of its grid; next to nothing is kept.")
    return found


def _of_combined(result: ReportableStudy) -> list[str]:
    """Where the combined model's AUC on held-out patients is no better than a single signature's."""
    found = []
    for partition in ("external_test", "internal_validation"):
        areas = {kind: area(result.predictions, kind, partition) for kind in SIGNATURES}
        combined = areas.pop("combined")
        for kind, single in areas.items():
            if combined is not None and single is not None and combined <= single:
                found.append(
                    f"{cohort_name(partition)}: the combined model ({combined:.3f}) is not better than "
                    f"{model_name(kind)} alone ({single:.3f})."
                )
    return found


def _of_references(result: ReportableStudy) -> list[str]:
    """Where chance, size or clinical variables alone do as well as the signature that would be released.

    Out of fold, by the interval of the difference; on held-out patients, where few of them leave such an interval
    wide, as it happened there.
    """
    choice = recommend(result.predictions)
    if choice is None:
        return []
    found, name = [], model_name(choice.kind)
    own = area(result.predictions, choice.kind)
    if not choice.above_chance:
        found.append(
            f"{name} (nested AUC {own:.3f}) is not shown to be better than chance: no signature is for release."
        )
    for reference in choice.not_beaten:
        says = "is beaten by" if beats(result.predictions, reference, choice.kind) else "does not beat"
        found.append(
            f"{name} (nested AUC {own:.3f}) {says} {_REFERENCES[reference]} "
            f"({area(result.predictions, reference):.3f}) out of fold."
        )
    for partition in ("external_test", "internal_validation"):
        own = area(result.predictions, choice.kind, partition)
        for reference, called in _REFERENCES.items():
            alone = area(result.predictions, reference, partition)
            if own is not None and alone is not None and own <= alone:
                found.append(f"{cohort_name(partition)}: {name} ({own:.3f}) is not better than {called} ({alone:.3f}).")
    return found


_REFERENCES = {
    "size": "the model of ROI size alone",
    "clinical": "the model of clinical variables alone",
}


def _of_sizes(predictions: pd.DataFrame) -> list[str]:
    found = []
    for partition in ("internal_validation", "external_test"):
        outcome = predictions.loc[predictions["partition"] == partition, "outcome"]
        events, others = int((outcome == 1).sum()), int((outcome == 0).sum())
        name = cohort_name(partition)
        if not len(outcome):
            found.append(f"{name}: no patients; nothing is known there.")
        elif not events or not others:
            found.append(
                f"{name}: all {len(outcome)} patients have the same outcome; AUC and calibration do not exist."
            )
        elif partition == "external_test" and min(events, others) < ENOUGH_EVENTS:
            found.append(
                f"{name}: {events} events and {others} non-events; firm figures want about {ENOUGH_EVENTS} of each. "
                "Read the intervals, not the points."
            )
    return found
