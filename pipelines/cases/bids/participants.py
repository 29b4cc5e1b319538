"""Clinical variables of a subject, from ``participants.tsv`` and what ``participants.json`` says of its columns.

A column is ours when it has the name of a clinical variable. Its unit is what the JSON declares (BIDS: age in
years), values are translated by the JSON's ``Levels`` and by the words BIDS recommends for sex.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from feature_store.errors import BidsError
from feature_store.schemas import CLINICAL
from pipelines.cases.bids.dataset import BidsDataset
from pipelines.cases.broken_rules import broken_rule, key_path
from pipelines.cases.manifest_schema import Clinical

TSV, JSON = "participants.tsv", "participants.json"
MISSING = frozenset({"", "n/a", "na", "nan"})
UNITS = {
    "age": frozenset({"year", "years", "yr", "yrs", "y", "a"}),
    "bmi": frozenset({"kg/m2", "kg/m^2", "kg/m²", "kg/m**2", "kg·m-2", "kg m-2"}),
}
SEX = {"m": "male", "male": "male", "f": "female", "female": "female", "o": "other", "other": "other"}
TRUTH = {"true": True, "yes": True, "y": True, "1": True, "false": False, "no": False, "n": False, "0": False}
NUMBERS = ("age", "bmi", "surgical_segments")
TRUTHS = ("osteoporosis", "prior_surgery", "infection_or_tumour")


def read_clinical(dataset: BidsDataset, subject: str) -> tuple[Clinical, list[BidsError], list[str]]:
    """The subject's variables, an error for each that cannot be used, and notes on what is not there or not ours."""
    try:
        rows = dataset.participants
        described = dataset.participants_json
    except BidsError as error:
        return Clinical(), [error], []
    mine = [row for row in rows if row["participant_id"] in (f"sub-{subject}", subject)]
    if not mine:
        return Clinical(), [], [f"no row of a {TSV} is this subject's, so there are no clinical variables"]
    if len(mine) > 1:
        return Clinical(), [BidsError("a subject has several rows.", action="Keep one of them.", file=TSV)], []
    values: dict[str, Any] = {}
    errors: list[BidsError] = []
    for column, cell in mine[0].items():
        name = column.lower()
        if name in Clinical.model_fields and cell.lower() not in MISSING:
            try:
                values[name] = _value(name, cell, described.get(column))
            except BidsError as error:
                errors.append(error)
    others = [c for c in mine[0] if c.lower() not in Clinical.model_fields and c != "participant_id"]
    shown = ", ".join(key_path((name,)) for name in others)
    notes = [f"{TSV}: columns that are no clinical variable here are left alone: {shown}"] if others else []
    while True:
        try:
            return Clinical.model_validate(values), errors, notes
        except ValidationError as thrown:
            for fault in thrown.errors(include_url=False, include_input=False, include_context=False):
                name = str(fault["loc"][0])
                errors.append(_error(f"{name} {broken_rule(fault['type'], fault['msg'])}"))
                values.pop(name, None)


def _value(name: str, cell: str, described: Any) -> Any:
    """A cell as case.yaml would have it. Raises BidsError, without the value."""
    described = described if isinstance(described, dict) else {}
    levels = described.get("Levels")
    if isinstance(levels, dict) and cell in levels:
        level = levels[cell]
        cell = str(level.get("Description", cell) if isinstance(level, dict) else level).strip()
    if name in UNITS:
        unit = described.get("Units")
        if unit is not None and str(unit).strip().lower() not in UNITS[name]:
            wanted = next(column.unit for column in CLINICAL.columns if column.name == name)
            raise _error(f"{name} is declared in another unit than {wanted}", "Convert it, and mend Units.", JSON)
    if name in NUMBERS:
        try:
            return int(cell) if re.fullmatch(r"[+-]?\d+", cell) else float(cell)
        except ValueError:
            raise _error(f"{name} must be a number") from None
    if name in TRUTHS:
        if cell.lower() not in TRUTH:
            raise _error(f"{name} must be yes or no")
        return TRUTH[cell.lower()]
    if name == "sex":
        return SEX.get(cell.lower(), cell)
    if name == "fused_levels":
        return [part for part in re.split(r"[;,\s]+", cell) if part]
    return cell.lower() if name == "image_quality" else cell


def _error(rule: str, action: str = "Mend it; write n/a where it is not known.", file: str = TSV) -> BidsError:
    return BidsError(f"{rule}.", action=action, file=file)
