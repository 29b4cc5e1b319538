"""Fits spread over a real cluster of two nodes: the contract that holds on cores, whole runs, and a lost node."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_store.store import FeatureStore
from models.report.render import write_results
from services.runs import RunStatus
from services.training.handler import TrainingHandler
from services.training.messages import TrainRequest
from tests.infra.on_cluster import ON_CLUSTER, PERMUTED
from tests.models.spread_contract import DEADLY, PEACEFUL
from tests.ray_nodes import RayNodes
from tests.services.study_store import COHORT, study_store

pytestmark = [pytest.mark.cores, pytest.mark.slow]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spread") / "store"
    study_store(folder, patients=24)
    return folder


@pytest.fixture(scope="module")
def said(store: Path) -> dict[str, Any]:
    """What the driver said: a check's name and its error, or None; ``run`` is the id of the whole run."""
    nodes, found = RayNodes(), {}
    try:
        nodes.start()
        driver = nodes.driver("-m", "tests.infra.on_cluster", nodes.address, str(store))
        assert driver.stdout is not None
        assert driver.stdin is not None
        for line in driver.stdout:
            fields = json.loads(line)
            if "lose" in fields:
                nodes.lose(fields["lose"])
                driver.stdin.write("gone\n")
                driver.stdin.flush()
            elif "check" in fields:
                found[fields["check"]] = fields["error"]
            else:
                found.update(fields)
        assert driver.wait(timeout=60) == 0
    finally:
        nodes.stop()
    return found


@pytest.mark.parametrize("check", [check.__name__ for check in (*PEACEFUL, *ON_CLUSTER, *DEADLY)])
def test_on_two_nodes(check: str, said: dict[str, Any]) -> None:
    assert said[check] is None, said[check]


def test_a_run_on_a_cluster_is_the_run_on_one_core_to_the_last_bit(said: dict[str, Any], store: Path) -> None:
    handler = TrainingHandler(
        FeatureStore.open(store), write=lambda result, folder, title: write_results(result, folder)
    )
    alone = handler.execute(handler.begin(TrainRequest(cohort=COHORT, study=PERMUTED)))
    spread = handler.status(said["run"])
    assert (spread.cohort, spread.version) == (alone.cohort, alone.version)
    assert spread.metrics == alone.metrics
    assert {kind: spread.artefacts[kind] for kind in ("rad", "dl", "combined")} == {
        kind: alone.artefacts[kind] for kind in ("rad", "dl", "combined")
    }
    pd.testing.assert_frame_equal(_predictions(handler, spread), _predictions(handler, alone), check_exact=True)


def _predictions(handler: TrainingHandler, run: RunStatus) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(handler.report_file(run.run_id, "predictions.parquet") or b""))
