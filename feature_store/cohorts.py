"""Freeze a cohort: who is in it, with which outcome and partition, as of which push.

Only patients with a known outcome enter. Everyone who does not is counted under the first reason that
applies, so the counts and the members add up to the cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from feature_store.cohort_settings import CohortSettings
from feature_store.errors import Conflict, NotFound, SettingsError, TooFewPatients
from feature_store.labels import rule_name
from feature_store.partitions import Patient, assign
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from feature_store.touched import touched_cohorts

MEMBER_COLUMNS = ["site", "patient_id", "case_id", "partition", "outcome"]
FOLLOW_UP = ("no follow-up", "outcome unknown", "follow-up window open")
"""Reasons of patients who were eligible: what may have been missed of them is open (censoring)."""
PREDICTORS = ("cases", "series", "rois", "clinical", "radiomics", "embeddings")
TRIES = 20


@dataclass(frozen=True)
class Cohort:
    """``members``: MEMBER_COLUMNS, sorted by site and patient. ``flow``: counted reasons (empty when loaded).

    ``erased``: erasures that took members out after it was frozen; its tables are no longer what they were.
    """

    name: str
    version: int
    as_of: int
    rule: str
    members: pd.DataFrame
    flow: dict[str, int]
    erased: tuple[str, ...] = ()


def freeze_cohort(store: FeatureStore, settings: CohortSettings) -> Cohort:
    """Freeze what the store holds now as the next version of ``settings.name``.

    Where members, outcomes and partitions are those of the latest version, and none of their data has
    changed since, that version is returned and nothing is written.
    Raises TooFewPatients with no member, SettingsError for an external or locked site without a case,
    PartitionConflict where a patient's partition contradicts the external or locked sites.
    """
    for attempt in range(TRIES):
        snapshot = store.snapshot()
        try:
            return _freeze(store, snapshot, settings)
        except Conflict as conflict:
            if type(conflict) is not Conflict or attempt == TRIES - 1:
                raise
    raise AssertionError("the last try returns or raises")


def load_cohort(snapshot: Snapshot, name: str, version: int | None = None) -> Cohort:
    """A frozen cohort; the latest version by default. Raises NotFound."""
    rows = snapshot.table("cohorts", where={"cohort": name}).to_pandas()
    if version is None and len(rows):
        version = int(rows["version"].max())
    rows = rows[rows["version"] == version]
    if rows.empty:
        raise NotFound("There is no such cohort, or no such version of it.", action="Freeze one first.")
    return Cohort(
        name=name,
        version=int(rows["version"].iloc[0]),
        as_of=int(rows["as_of"].iloc[0]),
        rule=str(rows["rule"].iloc[0]),
        members=_sorted(rows),
        flow={},
        erased=tuple(touched_cohorts(snapshot).get(f"{name} v{version}", ())),
    )


def left_out(view: Snapshot, settings: CohortSettings) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Every case (site, patient, case) that the settings leave out of what the store held then, with all reasons.

    The first is the one that is counted.

    ``view``: the snapshot as of which a cohort was frozen. The surgery's date is not stored: of whom it can be told
    that they are lost, and are not still to come, :mod:`feature_store.follow_up_window` says.
    """
    found = {
        (*patient, str(row["case_id"])): tuple(_reasons(row, settings))
        for patient, row in _patients(view, settings).items()
    }
    return {case: reasons for case, reasons in found.items() if reasons}


def _freeze(store: FeatureStore, snapshot: Snapshot, settings: CohortSettings) -> Cohort:
    patients = _patients(snapshot, settings)
    locked = settings.locked_test
    for called, sites in (("external_sites", settings.external_sites), ("locked_test.sites", locked.sites)):
        if unknown := sorted(set(sites) - {site for site, _ in patients}):
            raise SettingsError(
                f"{called} names sites without a case: {', '.join(unknown)}.",
                action=f"Mend {called}, or ingest first.",
            )
    flow: Counter[str] = Counter(cases=len(patients))
    kept: dict[Patient, Mapping[str, Any]] = {}
    for patient, row in patients.items():
        reason = next(_reasons(row, settings), None)
        if reason is None:
            kept[patient] = row
            flow.update(f"kept with unknown {name}" for name in _unknown(row, settings))
        else:
            flow[f"excluded: {reason}"] += 1
    if not kept:
        raise TooFewPatients("No patient can enter the cohort.", action="Send follow-up, or mend the rules.")
    flow["members"] = len(kept)
    outcomes = {patient: int(row["outcome"]) for patient, row in kept.items()}
    earlier = _earlier(snapshot)
    partitions = assign(
        outcomes, earlier, settings.external_sites, settings.ratio, settings.seed, locked.sites, locked.share
    )
    flow.update(partitions[patient] for patient in kept)
    members = _sorted(
        pd.DataFrame(
            [(site, pid, kept[site, pid]["case_id"], partitions[site, pid], y) for (site, pid), y in outcomes.items()],
            columns=MEMBER_COLUMNS,
        )
    )
    rule = rule_name(settings.min_days)
    try:
        latest = load_cohort(snapshot, settings.name)
    except NotFound:
        latest = None
    same = latest is not None and latest.rule == rule and not latest.erased and latest.members.equals(members)
    if latest is not None and same and _current(snapshot, latest):
        return Cohort(latest.name, latest.version, latest.as_of, rule, members, dict(flow))
    version = 1 if latest is None else latest.version + 1
    fixed = {"cohort": settings.name, "version": version, "rule": rule, "as_of": snapshot.sequence}
    rows = [{**fixed, **row} for row in members.to_dict("records")]
    store.push(
        {"cohorts": rows}, kind="cohort", source=settings.name, unless_changed=("cohorts",), since=snapshot.sequence
    )
    return Cohort(settings.name, version, snapshot.sequence, rule, members, dict(flow))


def _patients(snapshot: Snapshot, settings: CohortSettings) -> dict[Patient, dict[str, Any]]:
    """One row a patient: case, clinical variables, label."""
    found: dict[Patient, dict[str, Any]] = {}
    heads = snapshot.heads("cases")
    cases = [] if heads is None else heads.keys.to_pylist()
    for case in sorted(cases, key=lambda c: (c["push_sequence"], c["case_id"])):  # a patient's newest case counts
        found[case["site"], case["patient_id"]] = {"case_id": case["case_id"]}
    for row in snapshot.table("clinical").to_pylist():
        patient = row["site"], row["patient_id"]
        if patient in found and found[patient]["case_id"] == row["case_id"]:
            found[patient] |= row
    for row in snapshot.table("labels", where={"rule": rule_name(settings.min_days)}).to_pylist():
        patient = row["site"], row["patient_id"]
        if patient in found:
            found[patient] |= {"outcome": row["outcome"], "last_day": row["last_day"], "labelled": True}
    return found


def _reasons(row: Mapping[str, Any], settings: CohortSettings) -> Iterator[str]:
    include, exclude = settings.inclusion, settings.exclusion
    if not row.get("labelled"):
        yield "no follow-up"
    elif row["outcome"] is None:
        yield "outcome unknown"
    elif row["last_day"] is not None and row["last_day"] < include.follow_up_days:
        yield "follow-up window open"
    if row.get("surgical_segments") is not None and row["surgical_segments"] not in include.surgical_segments:
        yield "surgical_segments"
    if include.procedures and row.get("procedure") is not None and row["procedure"] not in include.procedures:
        yield "procedure"
    if exclude.prior_surgery and row.get("prior_surgery"):
        yield "prior_surgery"
    if exclude.infection_or_tumour and row.get("infection_or_tumour"):
        yield "infection_or_tumour"
    if row.get("image_quality") in exclude.image_quality:
        yield "image_quality"


def _unknown(row: Mapping[str, Any], settings: CohortSettings) -> list[str]:
    asked = ["surgical_segments"]
    asked += ["procedure"] if settings.inclusion.procedures else []
    asked += [name for name in ("prior_surgery", "infection_or_tumour") if getattr(settings.exclusion, name)]
    asked += ["image_quality"] if settings.exclusion.image_quality else []
    return [name for name in asked if row.get(name) is None]


def _earlier(snapshot: Snapshot) -> dict[Patient, str]:
    rows = snapshot.table("cohorts", ["site", "patient_id", "partition"]).to_pylist()
    return {(row["site"], row["patient_id"]): row["partition"] for row in rows}


def _current(snapshot: Snapshot, cohort: Cohort) -> bool:
    """Whether no predictor of any member has a revision after the cohort was frozen."""
    cases = set(cohort.members["case_id"])
    for name in PREDICTORS:
        heads = snapshot.heads(name)
        if heads is not None:
            rows = heads.newest().select(["case_id", "push_sequence"]).to_pandas()
            if rows["case_id"][rows["push_sequence"] > cohort.as_of].isin(cases).any():
                return False
    return True


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    members = rows[MEMBER_COLUMNS].sort_values(["site", "patient_id"]).reset_index(drop=True)
    return members.astype({"outcome": "int64"})
