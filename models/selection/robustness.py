"""The table of robust features, and the filter in front of selection that takes the others out.

One row a feature and kind: ``readers`` (the region was segmented again) or ``perturbation`` (region and image
were changed a little). It is the output of ``asdeg robustness`` and the input of ``asdeg study --robustness``.

No leak: the figures are made of features alone, never of outcomes, and of training patients only, so
the filter is one for all folds and permutations. Where a table cannot say that its patients were training
patients, the study says so in its warnings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from feature_store.errors import FeatureTableError
from models.evaluation.reliability import reliability

IccForm = Literal["icc_2_1", "icc_3_1"]
READERS, PERTURBATION = "readers", "perturbation"
KINDS = (READERS, PERTURBATION)

TRAINING = "training"
"""All patients behind a row were training patients of a cohort."""
UNASSIGNED = "unassigned"
"""No patient behind a row had a partition yet; some may become test patients."""
UNKNOWN = "unknown"
"""Nothing is known of the partitions."""

NUMBERS = (
    "icc_2_1",
    "icc_2_1_low",
    "icc_2_1_high",
    "icc_3_1",
    "icc_3_1_low",
    "icc_3_1_high",
    "cv",
    "cv_median",
    "sd_ratio",
)
"""As :class:`models.evaluation.reliability.Reliability` has them."""
COLUMNS = ("feature", "kind", "n_subjects", "n_versions", *NUMBERS, "patients")

MIN_SUBJECTS = 5
"""Fewer say too little of a region to leave a feature out."""


class RobustnessRule(BaseModel):
    """Which features stay.

    ``icc`` (absolute agreement ``icc_2_1``, consistency ``icc_3_1``) must reach ``min_icc`` in every kind that
    was measured; ``cv``, where there is one, must not exceed ``max_cv``. A feature without an ICC in a region
    that was measured fails: nothing varied, or too few patients had it in every version. One that nothing was
    measured of is kept or dropped as ``unmeasured`` says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    icc: IccForm = "icc_2_1"
    min_icc: float = Field(default=0.75, ge=0.0, le=1.0)
    max_cv: float | None = Field(default=None, gt=0.0)
    unmeasured: Literal["keep", "drop"] = "keep"


def robustness_rows(kind: str, names: Sequence[str], values: NDArray[np.float64], patients: str) -> pd.DataFrame:
    """Rows of COLUMNS for ``values`` (patients, versions, features), NaN where a version is missing."""
    found = reliability(values)
    fixed = {"feature": list(names), "kind": kind, "n_subjects": found.n_subjects, "n_versions": found.n_versions}
    return pd.DataFrame({**fixed, **{name: getattr(found, name) for name in NUMBERS}, "patients": patients})[
        list(COLUMNS)
    ]


def read_robustness(path: Path) -> pd.DataFrame:
    """The table from CSV or Parquet by suffix. FeatureTableError names what it lacks."""
    if not path.is_file():
        raise FeatureTableError("There is no such file.", action="Check the path.", file=path.name)
    try:
        table = pd.read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else pd.read_csv(path)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise FeatureTableError(
            f"It cannot be read as a table ({type(error).__name__}).",
            action="Give what `asdeg robustness` wrote.",
            file=path.name,
        ) from error
    return checked(table, path.name)


def checked(table: pd.DataFrame, file: str = "") -> pd.DataFrame:
    """The table with COLUMNS only. FeatureTableError for absent columns, unknown kinds and a feature twice."""
    absent = [name for name in COLUMNS if name not in table.columns]
    if absent:
        raise FeatureTableError(
            f"It has no column {', '.join(absent)}.", action="Give what `asdeg robustness` wrote.", file=file
        )
    table = table[list(COLUMNS)].reset_index(drop=True)
    unknown = int((~table["kind"].isin(KINDS)).sum())
    twice = int(table.duplicated(["feature", "kind"]).sum())
    texts = sum(not pd.api.types.is_numeric_dtype(table[name].dtype) for name in ("n_subjects", "n_versions", *NUMBERS))
    if unknown or twice or texts:
        raise FeatureTableError(
            f"{unknown} rows have an unknown kind, {twice} repeat a feature and kind, {texts} columns are no numbers.",
            action=f"One row a feature and kind; kinds are {', '.join(KINDS)}.",
            file=file,
        )
    return table


def robust_names(
    names: Iterable[str], table: pd.DataFrame, rule: RobustnessRule
) -> tuple[list[str], dict[str, Any], list[str]]:
    """Which of ``names`` stay, in their order; the record for metrics.json; sentences for the report.

    FeatureTableError where the table judges features that are not among ``names``, or where none stays. Rows
    without an ICC are no such features: a feature that is missing everywhere is no column of a study.
    """
    names = list(names)
    given = set(names)
    measured = table["icc_2_1"].notna() | table["icc_3_1"].notna()
    strangers = int((measured & ~table["feature"].isin(given)).sum())
    if strangers:
        raise FeatureTableError(
            f"{strangers} of {len(table)} rows of the robustness table are of features that the radiomics table lacks.",
            action="Measure robustness with the same feature set and regions, or take those rows out.",
        )
    judged = table[table["feature"].isin(given) & (_subjects(table) >= MIN_SUBJECTS)]
    poor: set[str] = set()
    rules = []
    for kind, rows in judged.groupby("kind", sort=True):
        few = rows["n_subjects"].to_numpy() < MIN_SUBJECTS
        icc = np.where(few, np.nan, rows[rule.icc].to_numpy(dtype=np.float64))
        failing = ~(icc >= rule.min_icc)
        rules.append(_applied(str(kind), rule.icc, rule.min_icc, rows, failing, np.isnan(icc)))
        poor |= set(rows["feature"][failing])
        if rule.max_cv is not None:
            cv = rows["cv"].to_numpy(dtype=np.float64)
            failing = cv > rule.max_cv
            rules.append(_applied(str(kind), "cv", rule.max_cv, rows, failing, np.isnan(cv)))
            poor |= set(rows["feature"][failing])
    unmeasured = given - set(judged["feature"])
    left_out = poor | (unmeasured if rule.unmeasured == "drop" else set())
    kept = [name for name in names if name not in left_out]
    record = {
        "given": len(names),
        "kept": len(kept),
        "dropped": len(names) - len(kept),
        "unmeasured": len(unmeasured),
        "unmeasured_are": "kept" if rule.unmeasured == "keep" else "dropped",
        "rules": rules,
    }
    if not kept:
        raise FeatureTableError(
            f"None of {len(names)} radiomics features is robust enough.",
            action="Lower --min-icc, or look at what was measured.",
        )
    return kept, record, _sentences(record, judged)


def _subjects(table: pd.DataFrame) -> pd.Series:
    """Patients that a row's region was measured in, under its kind: the most any of its features has."""
    region = table["feature"].astype(str).str.rpartition(".")[0]
    return table.groupby([table["kind"], region])["n_subjects"].transform("max")


def _applied(
    kind: str,
    measure: str,
    limit: float,
    rows: pd.DataFrame,
    failing: NDArray[np.bool_],
    without: NDArray[np.bool_],
) -> dict[str, Any]:
    return {
        "kind": kind,
        "measure": measure,
        "limit": limit,
        "judged": len(rows),
        "failed": int(failing.sum()),
        "without_value": int(without.sum()),
        "n_subjects": [int(rows["n_subjects"].min()), int(rows["n_subjects"].max())],
        "n_versions": int(rows["n_versions"].max()),
        "patients": sorted(set(rows["patients"].astype(str))),
    }


_WHAT = {READERS: "segmented again", PERTURBATION: "with region and image changed a little"}
_MEASURES = {"icc_2_1": "an ICC(2,1) under", "icc_3_1": "an ICC(3,1) under", "cv": "a coefficient of variation above"}


def _sentences(record: dict[str, Any], judged: pd.DataFrame) -> list[str]:
    notes = []
    for rule in record["rules"]:
        who = "training patients" if rule["patients"] == [TRAINING] else "patients"
        notes.append(
            f"{rule['failed']} of {rule['judged']} features had {_MEASURES[rule['measure']]} {rule['limit']:g} in "
            f"{rule['n_subjects'][1]} {who} {_WHAT[rule['kind']]}, and are left out."
        )
    if judged.empty:
        notes.append(
            f"Robustness was not judged: no region was measured in {MIN_SUBJECTS} patients; "
            f"{record['unmeasured']} features are {record['unmeasured_are']}."
        )
    elif record["unmeasured"]:
        notes.append(
            f"Of {record['unmeasured']} features no robustness was measured; they are {record['unmeasured_are']}."
        )
    others = sorted(set(judged["patients"].astype(str)) - {TRAINING})
    if others:
        notes.append(
            "The robustness table does not say that all its patients are training patients "
            f"({', '.join(others)}); it knows no outcomes, but test patients' images may have shaped the filter."
        )
    return notes
