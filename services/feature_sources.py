"""Which feature sets and encoders a cohort's settings mean, by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.cohort_settings import CohortSettings
from feature_store.errors import NotReady
from feature_store.snapshot import Snapshot
from pipelines.radiomics.feature_sets import STUDY_CT, STUDY_MR


@dataclass(frozen=True)
class FeatureSources:
    """Ids of radiomics feature sets and of encoders."""

    radiomics: tuple[str, ...]
    encoders: tuple[str, ...]


def feature_sources(snapshot: Snapshot, settings: CohortSettings) -> FeatureSources:
    """What ``feature_sets`` names (an id, or a name for its latest id).

    None named: the study's, and of the encoders that something was embedded with the one registered last.

    Raises NotReady for one the store does not have, or where it has none at all.
    """
    sets = _by_age(snapshot, "feature_sets", ("feature_set", "name"))
    encoders = _by_age(snapshot, "encoders", ("encoder",))
    if not settings.feature_sets:
        radiomics = [_latest(sets, name) for name in (STUDY_CT.name, STUDY_MR.name)]
        latest = next((row["encoder"] for row in reversed(encoders) if _has_embeddings(snapshot, row["encoder"])), None)
        found = FeatureSources(tuple(name for name in radiomics if name), (latest,) if latest else ())
        if not found.radiomics and not found.encoders:
            raise NotReady("The store has no features yet.", action="Run `asdeg extract` first.")
        return found
    named: dict[str, list[str]] = {"radiomics": [], "encoders": []}
    for name in settings.feature_sets:
        radiomics_id, encoder_id = _latest(sets, name), _latest(encoders, name)
        if radiomics_id is None and encoder_id is None:
            raise NotReady(f"The store has no features of {name}.", action="Run `asdeg extract` with it first.")
        named["radiomics" if radiomics_id else "encoders"].append(radiomics_id or encoder_id or "")
    return FeatureSources(tuple(named["radiomics"]), tuple(named["encoders"]))


def _has_embeddings(snapshot: Snapshot, encoder: str) -> bool:
    heads = snapshot.heads("embeddings", {"encoder": encoder})
    return heads is not None and len(heads.keys) > 0


def _by_age(snapshot: Snapshot, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = snapshot.revisions(table, columns=list(columns)).to_pylist()
    return sorted(rows, key=lambda row: row["push_sequence"])


def _latest(rows: Sequence[dict[str, Any]], name: str) -> str | None:
    found = [row for row in rows if name in (row.get("feature_set"), row.get("encoder"), row.get("name"))]
    return str(found[-1].get("feature_set") or found[-1].get("encoder")) if found else None
