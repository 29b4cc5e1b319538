"""What is done on a cluster by a process that may speak to it: see test_ray_spread.py, which reads what it prints.

``python -m tests.infra.on_cluster ADDRESS STORE``
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from infra.background import in_ray
from infra.bootstrap import House
from infra.logging import start as start_logs
from infra.ray_spread import OverCluster
from infra.settings import Settings
from models.report.render import write_results
from models.spread import Spread
from pipelines.ray_session import connect
from services.training.handler import TrainingHandler
from services.training.messages import TrainRequest
from tests.models.spread_contract import DEADLY, PEACEFUL
from tests.services.study_store import COHORT, STUDY

PERMUTED = STUDY.model_copy(update={"permutations": 2, "permutation_folds": 3})


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def where(number: int) -> str:
    import ray

    time.sleep(0.3)
    node: str = ray.get_runtime_context().get_node_id()
    return node


def every_cpu_of_both_nodes_is_used(spread: OverCluster, house: House) -> None:
    assert len(set(spread(where, (), ((i,) for i in range(4))))) == 2


def a_run_goes_on_where_a_node_is_lost(spread: OverCluster, house: House) -> None:
    steps: list[str] = []

    def progress(step: str, done: float) -> None:
        if not steps:
            say(lose=1)
            sys.stdin.readline()  # it is gone
        steps.append(step)

    handler = TrainingHandler(house.store, write=lambda result, folder, _: write_results(result, folder), spread=spread)
    status = handler.execute(handler.begin(TrainRequest(cohort=COHORT, study=PERMUTED)), progress)
    assert list(dict.fromkeys(steps)) == ["rad", "dl", "combined", "leakage check"]
    say(run=status.run_id)


def a_run_that_is_cancelled_leaves_the_cluster_to_others(spread: OverCluster, house: House) -> None:
    """As the service has it carried out. Of the one CPU that is left its own process takes none, or it would hang."""
    import ray

    run_id = house.training.begin(TrainRequest(cohort=COHORT, study=PERMUTED))
    in_ray(house.settings, "training")(run_id)
    until(lambda: house.training.status(run_id).step is not None)
    house.training.cancel(run_id)
    until(lambda: house.training.status(run_id).state == "cancelled")
    until(lambda: ray.available_resources().get("CPU") == 1)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


ON_CLUSTER = (
    every_cpu_of_both_nodes_is_used,
    a_run_goes_on_where_a_node_is_lost,
    a_run_that_is_cancelled_leaves_the_cluster_to_others,
)


def main(address: str, store: str) -> None:
    start_logs("console", "error")  # on stderr
    connect(address)
    import ray

    until(lambda: ray.cluster_resources().get("CPU", 0) == 2)
    spread, house = OverCluster(address), House.open(Settings(store=store, ray_address=address))

    def contract(checks: Iterable[Callable[[Spread, Path], None]]) -> None:
        for check in checks:
            with tempfile.TemporaryDirectory() as folder:
                tried(check, spread, Path(folder))

    contract(PEACEFUL)
    for check in ON_CLUSTER:
        tried(check, spread, house)
    contract(DEADLY)


def tried(check: Callable[..., None], *arguments: Any) -> None:
    begun = time.monotonic()
    try:
        check(*arguments)
    except BaseException:
        say(check=check.__name__, error=traceback.format_exc())
    else:
        say(check=check.__name__, error=None, seconds=round(time.monotonic() - begun, 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
