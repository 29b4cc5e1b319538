"""What a study cannot say: what is so of every one, and what this run's own records show."""

from __future__ import annotations

from feature_store.vocabulary import RESEARCH_USE, Partition
from models.report.figure_data import ReportableStudy

ALWAYS = (
    RESEARCH_USE,
    "Who was operated on, imaged and followed up decides who is in it.",
    "Performance elsewhere is known only for the sites shown. A scanner, protocol or population not among them is "
    "unknown.",
    "The choice between fourteen classifiers is part of the protocol and is repeated inside the nested AUC; the "
    "cross-validated AUC of the winner is not a performance.",
    "A probability is an average over patients who look alike to the model, with an uncertainty of its own that no "
    "interval of an AUC shows.",
    "Coefficients, importances and SHAP values say what the model uses, not what causes degeneration.",
)


def limits_of(result: ReportableStudy) -> list[str]:
    """Whole sentences: what the records of this run lack first, then what is so of every study."""
    metrics, predictions = result.metrics, result.predictions
    facts = result.figure_data.get("facts", {})
    found = []
    if facts.get("Outcome rule"):
        found.append(
            "The outcome is radiographic, from six months after surgery on; it is not a symptom and not a revision."
        )
    else:
        found.append("The outcomes were given as 0 and 1: how and when they were assessed is unknown.")
    if not (predictions["partition"] == Partition.EXTERNAL_TEST.value).any():
        found.append("There are no external patients: nothing is known of other hospitals.")
    if predictions["site"].nunique() < 2:
        found.append("All patients are of one site, or their sites are not named: nothing is known between sites.")
    if "rad" in metrics.get("signatures", {}) and not metrics.get("robustness"):
        found.append("Whether the features come out the same when a region is drawn again was not measured.")
    scanners = metrics.get("harmonisation")
    if not scanners:
        found.append("The influence of scanners was not measured: no two of them had five training patients each.")
    elif scanners.get("used") == "none" and scanners.get("unseen") and any(scanners["unseen"].values()):
        unseen = sum(scanners["unseen"].values())
        found.append(f"{unseen} held-out patients are of scanners that training has not; nothing was harmonised.")
    lost = (metrics.get("censoring") or {}).get("n_lost")
    if lost:
        found.append(
            f"The outcome of {lost} eligible patients is unknown; the weights for it rest on what was measured."
        )
    if refits := (metrics.get("bootstraps") or {}).get("n"):
        found.append(
            f"The interval beside a risk is over {refits} refits on redrawn training patients. It is of how the model "
            "came about, not of measuring the patient again, and not of other hospitals; the refits choose from a "
            "smaller grid, so that the risk itself may lie outside."
        )
    return [*found, *ALWAYS]
