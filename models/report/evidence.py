"""What a reader may ask for beside the results: checklists answered from the records, and a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from feature_store.vocabulary import RESEARCH_USE
from models.report.checklists import answers, counted, load
from models.report.figure_data import ReportableStudy
from models.report.limits import limits_of
from models.report.style import NO_SITE, cohort_name, model_name, term_name
from models.report.tables import DASH, Table, number, ordered, with_ci
from models.signature import MAX_MISSING

UNKNOWN = "unknown"


class Filled(NamedTuple):
    """A checklist answered: its name, where it is published, how many items are in each state, and the items."""

    name: str
    source: str
    counts: str
    items: Table


TITLE = {
    "prediction": ("predict", "prognos", "risk"),
    "population": ("fusion", "fused"),
    "outcome": ("degeneration", "asdeg"),
    "radiomics": ("radiomic",),
}
"""What a title has to name, and words that do."""


def records_of(result: ReportableStudy, title: str) -> dict[str, Any]:
    """What checklists are held against: the run's metrics, settings and facts, and what the page has beside them.

    ``title_says``: which of the words of ``TITLE`` the title has. ``axes``: what the ablation compared.
    ``enough_patients``: whether training reaches Riley's number under every assumption.
    """
    sites = set(result.predictions["site"].astype(str))
    development = (result.metrics.get("sample_size") or {}).get("development") or {}
    needed = [criterion["needed"] for criterion in development.get("criteria", ())]
    return {
        "title_says": {what: any(word in title.lower() for word in words) for what, words in TITLE.items()},
        "metrics": result.metrics,
        "figure_data": result.figure_data,
        "facts": result.figure_data.get("facts", {}),
        "settings": result.settings.model_dump() if hasattr(result.settings, "model_dump") else {},
        "predictions": {"partition": sorted(set(result.predictions["partition"])), "site": sites - {NO_SITE}},
        "several_sites": len(sites) > 1,
        "baseline": characteristics(result),
        "axes": {row["axis"]: True for row in result.metrics.get("ablation") or ()},
        "enough_patients": bool(needed) and max(needed) <= development.get("n", 0),
        "cards": list(result.metrics.get("signatures", {})),
        "limits": limits_of(result),
    }


def characteristics(result: ReportableStudy) -> list[str]:
    """Variables of the baseline table beside the outcome."""
    return [row["variable"] for row in result.metrics.get("baseline_table") or () if row["variable"] != "outcome"]


def checklists(result: ReportableStudy, title: str) -> list[Filled]:
    """Every checklist, held against the run's own records."""
    records = records_of(result, title)
    filled = []
    for checklist in load():
        found = answers(checklist, records)
        counts = ", ".join(f"{count} {state}" for state, count in counted(found).items())
        rows = [[answer.id, answer.item, answer.state, answer.where.replace("`", "")] for answer in found]
        filled.append(
            Filled(checklist.name, checklist.source, counts, Table(["", "Item", "", "Where, or why"], rows, 4))
        )
    return filled


def model_card(result: ReportableStudy, kind: str, *, phantom: bool) -> Table:
    """One signature's card: what it is, for whom, on whom it was fitted and judged, and what nobody knows of it."""
    signature = result.metrics["signatures"][kind]
    cohorts: Mapping[str, Any] = signature["cohorts"]
    training = cohorts.get("training", {})
    facts = result.figure_data.get("facts", {})
    rows = [
        ["What it is", f"{model_name(kind)}: {str(signature.get('classifier', DASH)).replace('_', ' ')}"],
        ["Predicts", "adjacent segment degeneration after lumbar fusion, from images and data of before the surgery"],
        ["Meant for", f"adults before a lumbar fusion of one to three segments. {RESEARCH_USE}"],
        ["Not meant for", "anybody else, any other outcome, and any scanner or protocol unlike those it was judged on"],
        ["Fitted on", _patients(training, phantom)],
        ["Input", _input(kind, signature)],
        [
            "Output",
            f"a calibrated risk; high at {number(signature.get('threshold'))} or more (Youden's J, out of fold)",
        ],
        ["AUC in training", f"{number(signature.get('nested_auc'))} (nested cross-validation)"],
    ]
    for cohort, m in cohorts.items():
        if cohort != "training":
            slope = f"calibration slope {number(m.get('calibration_slope'), 2)}"
            area = with_ci(m.get("auc"), m.get("auc_ci"))
            rows.append([cohort_name(cohort), f"AUC {area}, {slope}; {_patients(m, phantom)}"])
    rows += [
        ["Fairness", "see Subgroups" if result.metrics.get("subgroups") else UNKNOWN],
        [
            "Made from",
            "; ".join(f"{name}: {facts[name]}" for name in ("Cohort", "Feature sets") if name in facts) or UNKNOWN,
        ],
        ["Sex, age and origin of the patients", "see Baseline" if characteristics(result) else UNKNOWN],
        ["Prospective evidence", UNKNOWN],
        ["Certified as a medical device", "no"],
    ]
    return Table(["", ""], rows, 2)


def model_cards(result: ReportableStudy, *, phantom: bool) -> dict[str, Table]:
    """The card of every signature, by kind."""
    signatures = result.metrics.get("signatures", {})
    return {kind: model_card(result, kind, phantom=phantom) for kind in ordered(signatures)}


def _input(kind: str, signature: Mapping[str, Any]) -> str:
    refused = f"refused where more than {100 * MAX_MISSING:.0f} % of the features of a signature are missing"
    if kind != "combined":
        return f"{signature.get('n_features', DASH)} features; {refused}"
    names = ", ".join(term_name(str(row["name"])) for row in signature.get("features", ()))
    return f"{names or UNKNOWN}; {refused}"


def _patients(cohort: Mapping[str, Any], phantom: bool) -> str:
    if "n" not in cohort:
        return UNKNOWN
    return f"{cohort['n']} {'phantoms' if phantom else 'patients'}, {cohort.get('events', DASH)} with the event"
