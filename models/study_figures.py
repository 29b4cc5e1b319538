"""What a report draws beside metrics and predictions, as plain lists and numbers (see ``StudyResult``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.software import DECIDING_FITS, software_version
from feature_store.vocabulary import Partition
from models.importance import importance
from models.leakage import SMALLER_GRID
from models.protocol import Development
from models.selection.lasso import Lasso
from models.signature import Signature
from models.study_patients import StudyPatients
from models.study_settings import StudySettings

FROM_STORE = {
    "cohort": "Cohort",
    "rule": "Outcome rule",
    "feature_sets": "Feature sets",
    "encoders": "Encoders",
}
"""What the tables of a store say of themselves, in words; tables from files say nothing."""


def figure_data(
    development: Development,
    patients: StudyPatients,
    settings: StudySettings,
    permuted_aucs: Sequence[float],
    flow: Mapping[str, int],
    sources: Mapping[str, str],
) -> dict[str, Any]:
    """Paths, filters, importances, choices, permuted AUCs, the flow of patients and the facts of the run."""
    signs = {kind: s for kind, s in development.signatures.items() if isinstance(s, Signature)}
    traces = {kind: sign.selector.trace for kind, sign in signs.items() if sign.selector.trace is not None}
    bootstraps = settings.bootstraps
    margin = "one standard error" if settings.tie_margin is None else f"{settings.tie_margin:g}"
    return {
        "lasso": {kind: _lasso(trace.lasso, trace.names) for kind, trace in traces.items()},
        "filters": {kind: dict(trace.counts) for kind, trace in traces.items()},
        "importance": {
            kind: [{"name": name, "importance": weight} for name, weight in importance(signature, patients)]
            for kind, signature in development.signatures.items()
        },
        "nested_choice": {kind: dict(fit.choices) for kind, fit in development.crossfits.items()},
        "permuted_aucs": [float(value) for value in permuted_aucs],
        "flow": flow_steps(flow, patients.partition),
        "facts": {
            **{FROM_STORE[name]: text for name, text in sources.items() if text},
            "Software": software_version(DECIDING_FITS),
            "Seed": str(settings.seed),
            "Settings": settings.hash(),
            "Folds": f"{settings.n_folds} outer, the others inner",
            "Grid": settings.grid,
            "Permuted runs": f"{settings.permutations} with {settings.permutation_folds} folds and {SMALLER_GRID}",
            **({"Bootstraps": f"{bootstraps} redrawn cohorts, as permuted runs"} if bootstraps else {}),
            "Ties": f"within {margin} of the best cross-validated AUC the simplest classifier wins",
        },
    }


def _lasso(lasso: Lasso, names: Sequence[str]) -> dict[str, Any]:
    return {
        "lambdas": lasso.lambdas.tolist(),
        "cv_mean": lasso.cv_mean.tolist(),
        "cv_sd": lasso.cv_sd.tolist(),
        "chosen": lasso.lambda_,
        "paths": {n: lasso.paths[:, i].tolist() for i, n in enumerate(names) if np.any(lasso.paths[:, i])},
    }


def flow_steps(flow: Mapping[str, int], partition: NDArray[np.str_]) -> list[dict[str, Any]]:
    """From the first patient to the partitions: ``label``, ``n``, and who left before it by reason (``excluded``)."""
    counts = Counter(partition.tolist())
    reasons = {reason: n for reason, n in flow.items() if reason != "cases" and n}
    given = [{"label": "Patients", "n": flow["cases"], "excluded": {}}] if reasons else []
    total = {"label": "Patients with features and outcome", "n": len(partition), "excluded": reasons}
    return [
        *given,
        total,
        *({"label": p.value, "n": counts[p.value], "excluded": {}} for p in Partition if counts[p.value]),
    ]
