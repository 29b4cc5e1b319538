"""``cohort.yaml``: which patients a run is about, and which of their features it uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from feature_store.cohorts import CohortSettings
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.errors import NotReady, SettingsError
from feature_store.snapshot import Snapshot
from feature_store.vocabulary import PAPER_ROIS, PAPER_SEQUENCES, RoiName
from pipelines.feature_sets import STUDY_CT, STUDY_MR


class CohortPlan(BaseModel):
    """The file's keys. Feature sets and encoders that are not named are those the store's features were made with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("default", min_length=1, max_length=64)
    external_sites: tuple[str, ...] = ()
    ratio: float = Field(0.7, gt=0, lt=1, description="share of a home site's patients that are training patients")
    seed: int = Field(0, ge=0)
    inclusion: dict[str, Any] = Field(default_factory=dict)
    exclusion: dict[str, Any] = Field(default_factory=dict)
    feature_sets: tuple[str, ...] = Field((), description="ids or names; empty: the study's")
    encoders: tuple[str, ...] = Field((), description="ids; empty: the latest in the store")
    sequences: tuple[str, ...] = PAPER_SEQUENCES

    def cohort_settings(self) -> CohortSettings:
        """What the cohort is frozen by. Raises SettingsError for a rule that is none."""
        names = ("name", "external_sites", "ratio", "seed", "inclusion", "exclusion")
        given = {name: getattr(self, name) for name in names if name in self.model_fields_set or name == "name"}
        try:
            return CohortSettings(**given)
        except ValidationError as error:
            raise settings_error(error, "cohort") from None

    def rois(self) -> tuple[RoiName, ...]:
        """The paper's regions on the sequences that are used."""
        return tuple(roi for roi in PAPER_ROIS if roi.sequence in self.sequences)

    def feature_set_ids(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Feature sets to read; of a name without a hash the latest id. Raises NotReady where there are none."""
        wanted = self.feature_sets or (STUDY_CT.name, STUDY_MR.name)
        rows = snapshot.revisions("feature_sets", columns=["feature_set", "name"]).to_pylist()
        return _latest(rows, "feature_set", wanted, required=bool(self.feature_sets))

    def encoder_ids(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Encoders to read; () where the store has no embeddings."""
        rows = snapshot.revisions("encoders", columns=["encoder"]).to_pylist()
        rows = [{**row, "name": "latest"} for row in rows]
        return _latest(rows, "encoder", self.encoders or ("latest",), required=bool(self.encoders))


def load_plan(path: Path | None) -> CohortPlan:
    """The plan of a YAML file (None: all defaults). Raises SettingsError naming key and rule."""
    if path is None:
        return CohortPlan()
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise SettingsError("The file is no YAML that can be read.", action="Mend it.", file=path.name) from None
    if not isinstance(raw, dict):
        raise SettingsError("The file holds no keys.", action="Write name: …, external_sites: […].", file=path.name)
    try:
        return CohortPlan.model_validate(raw)
    except ValidationError as error:
        raise settings_error(error, path.name) from None


def settings_error(error: ValidationError, file: str) -> SettingsError:
    """The first fault of a settings object, by key and rule."""
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    return SettingsError(
        f"{key}: {first['msg']}.", action="Mend or remove that key; unknown keys are refused.", file=file
    )


def _latest(rows: Sequence[dict[str, Any]], column: str, wanted: Sequence[str], *, required: bool) -> tuple[str, ...]:
    rows = sorted(rows, key=lambda row: row["sequence"])
    found = []
    for name in wanted:
        ids = [row[column] for row in rows if name in (row[column], row["name"])]
        if ids:
            found.append(ids[-1])
        elif required:
            raise NotReady(f"The store has no features of {name}.", action="Run `asdeg extract` with it first.")
    return tuple(dict.fromkeys(found))
