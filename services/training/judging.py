"""A candidate run beside what is released: the risks both give to patients that neither was fitted on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pandas as pd

from feature_store.cohorts import load_cohort
from feature_store.errors import AsdegError, NotReady
from feature_store.store import FeatureStore
from feature_store.vocabulary import Partition, SignatureKind
from models import artefacts
from models.evaluation.gates import Gate, GateSettings, judge_gates
from models.signature import AnySignature
from services.releases import Current, current
from services.runs import RunStatus, read_run
from services.study_inputs import ARTEFACTS, StudyInputs, scoring_frame

HELD_OUT = (Partition.INTERNAL_VALIDATION.value, Partition.EXTERNAL_TEST.value)
"""``locked_test`` serves no gate."""
KEY = ["site", "patient_id"]
PREDICTIONS = "report/predictions.parquet"


def judge_run(store: FeatureStore, run: RunStatus, settings: GateSettings) -> dict[str, list[Gate]]:
    """The gates of every signature of a finished training run, by kind. Raises NotReady where it has none."""
    kinds = [kind.value for kind in SignatureKind if kind.value in run.artefacts]
    if run.state != "finished" or not kinds or PREDICTIONS not in run.artefacts:
        raise NotReady("This run has no signatures to judge.", action="Judge a finished training run.")
    risks = pd.read_parquet(io.BytesIO(store.blobs.read_bytes(ARTEFACTS, run.artefacts[PREDICTIONS])))
    risks = risks[risks["partition"].isin(HELD_OUT)].reset_index(drop=True)
    released = current(store.snapshot())
    return {kind: _judge(store, run, kind, risks, released.get(kind), settings) for kind in kinds}


def _judge(
    store: FeatureStore,
    run: RunStatus,
    kind: str,
    risks: pd.DataFrame,
    released: Current | None,
    settings: GateSettings,
) -> list[Gate]:
    leakage = ((run.metrics or {}).get("leakage_check") or {}).get("passed")
    if released is not None:
        try:
            risks = _beside(store, run, risks, released)
        except AsdegError as error:
            # what is released cannot be asked about these patients, so nothing can be said of the difference
            bound = f"lower 95 % bound above {settings.auc_difference}"
            unknown = Gate("auc_difference", "insufficient", bound, f"{error.message} {error.action}".strip(), {})
            alone = judge_gates(risks["outcome"], _sites(risks), risks[kind], None, leakage, settings)
            return [unknown, *alone[1:]]
    beside = None if released is None else risks["released"]
    return judge_gates(risks["outcome"], _sites(risks), risks[kind], beside, leakage, settings)


def _sites(risks: pd.DataFrame) -> Sequence[str]:
    return cast("Sequence[str]", risks["site"].astype(str).tolist())


def _beside(store: FeatureStore, run: RunStatus, risks: pd.DataFrame, released: Current) -> pd.DataFrame:
    """``risks`` of the patients the released signature was not fitted on, with its own as the column ``released``.

    It is asked about the features as they were when the candidate's cohort was frozen.
    """
    before = read_run(store, released.run_id)
    inputs = replace(
        StudyInputs.from_settings(before.settings), cohort=run.cohort, version=run.version, robustness=None
    )
    signature = cast(AnySignature, artefacts.load(released.signature, store.blobs))
    tables = inputs.tables(store).with_distinct_names()
    asked = tables.patients[KEY].assign(released=signature.probabilities(scoring_frame(tables, signature.features)))
    fitted = load_cohort(store.snapshot(), before.cohort, before.version).members
    fitted = fitted[fitted["partition"] == Partition.TRAINING]
    known = pd.MultiIndex.from_frame(risks[KEY]).isin(pd.MultiIndex.from_frame(fitted[KEY]))
    return risks[~known].merge(asked, on=KEY, how="inner", validate="one_to_one")
