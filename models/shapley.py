"""SHAP of the combined model: what each of its few inputs adds to a held-out patient's risk.

Interventional Shapley values (Lundberg and Lee 2017), in calibrated log-odds, so that the contributions of a patient
add up to his log-odds less the mean over the background. The inputs are Rad-sign, DL-sign and the clinical variables
the model uses; a variable with several terms is one input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.vocabulary import Partition
from models.combined import CombinedSignature
from models.importance import stack_inputs
from models.performance import HELD_OUT
from models.protocol import Development
from models.study_patients import StudyPatients

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

MOST_PATIENTS = 300
MOST_BACKGROUND, LEAST_BACKGROUND = 100, 10
MOST_EVALUATIONS = 2_000_000
"""Of the model, in all: the background is made smaller before it takes minutes."""
MOST_EXACT = 10
"""Inputs up to which every subset of them is looked at; from there on orders of them are drawn."""


@dataclass(frozen=True)
class Explanation:
    """``values`` (n, m) of ``names`` (m) add up, with ``base``, to the patients' calibrated log-odds."""

    names: tuple[str, ...]
    values: Floats
    base: float
    method: str


def shap_record(
    patients: StudyPatients, development: Development, seed: int
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """For metrics.json, and what is drawn; None where there is no combined model or nobody is held out.

    The background is training patients with their signs out of fold, as the model was fitted; the patients are
    held-out ones (at most 300, drawn with ``seed``) with the signs that are released. ``mean_abs`` by input,
    over all of them and by cohort; ``values`` (n, m) and ``inputs`` (n, m; None where an input is no number).
    """
    signature = development.signatures.get("combined")
    held_out = np.flatnonzero(np.isin(patients.partition, HELD_OUT))
    if not isinstance(signature, CombinedSignature) or not len(held_out):
        return None, None
    rng = np.random.default_rng(seed)
    explained = _some(held_out, MOST_PATIENTS, rng)
    groups = _groups(signature)
    most = MOST_EVALUATIONS // (2 ** min(len(groups), MOST_EXACT) * len(explained))
    training = np.arange(len(patients.rows(Partition.TRAINING)))
    sample = _some(training, int(np.clip(most, LEAST_BACKGROUND, MOST_BACKGROUND)), rng)
    x = stack_inputs(signature, patients, explained)
    found = explain(signature, x, _background(signature, patients, development)[sample], seed)
    weights = np.abs(found.values)
    order = np.argsort(-weights.mean(axis=0), kind="stable")
    names = [found.names[i] for i in order]
    cohort = patients.partition[explained]
    here = [name for name in HELD_OUT if (cohort == name).any()]
    record = {
        "signature": "combined",
        "unit": "calibrated log-odds",
        "method": found.method,
        "n": len(explained),
        "n_background": len(sample),
        "base": found.base,
        "mean_abs": {found.names[i]: float(weights[:, i].mean()) for i in order},
        "by_cohort": {name: {found.names[i]: float(weights[cohort == name, i].mean()) for i in order} for name in here},
    }
    numbers = [x[:, places[0]].tolist() if len(places) == 1 else [None] * len(x) for places in groups.values()]
    drawn = {
        "names": names,
        "values": found.values[:, order].tolist(),
        "inputs": [list(row) for row in zip(*(numbers[i] for i in order), strict=True)],
    }
    return record, drawn


@dataclass(frozen=True)
class _Others:
    """What shap asks of a masker: inputs that are not known come from each patient ``places`` (b, m) in turn.

    Its own does the same after seconds of compiling in every process.
    """

    places: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        return self.places.shape

    def __call__(self, known: NDArray[np.bool_], patient: Floats) -> Floats:
        return np.where(known, patient, self.places)


def explain(signature: CombinedSignature, x: Floats, background: Floats, seed: int = 0) -> Explanation:
    """Shapley values of patients ``x`` (n, d) against ``background`` (b, d), both before the stack's z-scores.

    By all subsets of up to ten inputs (``exact``), else by orders drawn with ``seed`` (``permutation``).
    """
    import shap  # seconds, and a plotting library: only where it is asked for

    groups = _groups(signature)
    pool = np.vstack([background, x])

    def log_odds(places: Floats) -> Floats:
        """Calibrated log-odds of inputs taken from other patients: (N, m) rows of ``pool``."""
        mixed = np.empty((len(places), pool.shape[1]))
        for column, terms in enumerate(groups.values()):
            mixed[:, terms] = pool[places[:, column].astype(np.intp)][:, terms]
        head = signature.head
        return head.calibration(head.fast_logit(signature.stack.apply(mixed)))

    def places(first: int, n: int) -> Floats:
        return np.repeat(np.arange(first, first + n, dtype=np.float64)[:, None], len(groups), axis=1)

    masker = _Others(places(0, len(background)))
    exact = len(groups) <= MOST_EXACT
    if exact:
        explainer = shap.explainers.Exact(log_odds, masker)
    else:
        explainer = shap.explainers.Permutation(log_odds, masker, seed=seed)
    found = explainer(places(len(background), len(x)), silent=True)
    base = float(log_odds(places(0, len(background))).mean())
    values = np.asarray(found.values, dtype=np.float64)
    return Explanation(tuple(groups), values, base, "exact" if exact else "permutation")


def _groups(signature: CombinedSignature) -> dict[str, list[int]]:
    """Columns of each input: a sign is one, a clinical variable as many as it has terms."""
    signs = len(signature.members)
    groups = {name: [place] for place, name in enumerate(signature.stack.names[:signs])}
    for name, terms in signature.stack.encoder.term_indices().items():
        groups[name] = [signs + term for term in terms]
    return groups


def _background(signature: CombinedSignature, patients: StudyPatients, development: Development) -> Floats:
    """Inputs (n, d) of the training patients, signs out of fold."""
    columns = [development.crossfits[sign.kind].chosen_logits[:, None] for sign in signature.members]
    if patients.clinical is not None:
        columns.append(signature.stack.encoder.transform(patients.clinical, patients.rows(Partition.TRAINING)))
    return np.hstack(columns)


def _some(rows: Ints, most: int, rng: np.random.Generator) -> Ints:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
