"""Which feature set is meant: by a name, an id or a file, and for which sequence."""

from __future__ import annotations

from pathlib import Path

from feature_store.errors import NotFound
from pipelines.radiomics.feature_set_files import read_feature_set
from pipelines.radiomics.feature_sets import REGISTRY, STUDY_CT, STUDY_MR, FeatureSet


def feature_set(name: str) -> FeatureSet:
    """The registered feature set of that name or id, or the one in that YAML or JSON file.

    Raises NotFound, SettingsError.
    """
    if name.endswith((".yaml", ".yml", ".json")):
        return read_feature_set(Path(name))
    for known in REGISTRY.values():
        if name in (known.name, known.id):
            return known
    raise NotFound(f"no feature set is named {name!r}.", action=f"Use one of: {', '.join(REGISTRY)}, or a YAML file.")


def feature_set_for(sequence: str, override: str | FeatureSet | None = None) -> FeatureSet:
    """Which feature set a series gets: CT in Hounsfield units, everything else z-scored.

    ``override``: one for every series, or ``study-log`` and the like for ``study-ct-log`` and ``study-mr-log``.
    """
    if isinstance(override, FeatureSet):
        return override
    study = STUDY_CT if sequence == "ct" else STUDY_MR
    if override is None:
        return study
    head, _, variant = override.partition("-")
    by_sequence = f"{study.name}-{variant}" if variant else study.name
    return REGISTRY[by_sequence] if head == "study" and by_sequence in REGISTRY else feature_set(override)
