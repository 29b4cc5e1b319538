"""The manifests: what they call exists, what they tell the pods are settings, and no secret goes along with a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from feature_store.cohort_settings import CohortSettings
from infra.cli.app import build
from infra.settings import NO_SETTINGS, PREFIX, load_settings

FOLDER = Path(__file__).parents[2] / "infra" / "kubernetes"


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def told() -> dict[tuple[str, str], dict[str, str]]:
    """What each ConfigMap and Secret of environment.yaml holds, by kind and name."""
    return {
        (one["kind"], one["metadata"]["name"]): one.get("data") or one["stringData"]
        for one in manifests("environment.yaml")
    }


def submitter() -> dict[str, Any]:
    (job,) = manifests("retrain-cronjob.yaml")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def cluster_pods() -> list[dict[str, Any]]:
    (cluster,) = manifests("ray-cluster.yaml")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def sources(container: dict[str, Any]) -> list[tuple[str, str]]:
    kinds = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
    return [(kinds[ref], named["name"]) for source in container["envFrom"] for ref, named in source.items()]


def test_what_the_cluster_is_told_is_what_the_settings_read(told: dict[tuple[str, str], dict[str, str]]) -> None:
    for pod in cluster_pods():
        (container,) = pod["containers"]
        environment = {name: value for source in sources(container) for name, value in told[source].items()}
        settings = load_settings(environment)  # refuses a name that is no setting
        assert settings.store == environment[f"{PREFIX}STORE"]
        assert settings.control == environment[f"{PREFIX}CONTROL"]
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"} <= set(environment)
        assert not NO_SETTINGS & set(environment)


def test_the_submitting_pod_holds_the_token_and_hands_nothing_over(
    told: dict[tuple[str, str], dict[str, str]],
) -> None:
    (container,) = submitter()["containers"]
    assert sources(container) == [("Secret", "asdeg-ray")]
    assert set(told["Secret", "asdeg-ray"]) == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert "env" not in container
    assert not [word for word in container["args"] if word.startswith(("--runtime-env", "--metadata"))]
    for kind_and_name, held in told.items():
        if kind_and_name[0] == "Secret":
            assert not [value for value in held.values() if any(value in word for word in container["args"])]


def test_the_job_calls_a_command_that_exists_with_a_file_that_the_head_has(
    told: dict[tuple[str, str], dict[str, str]],
) -> None:
    (container,) = submitter()["containers"]
    words = container["args"]
    asdeg = words[words.index("--") + 1 :]
    assert asdeg[:2] == ["asdeg", "retrain"]
    found = CliRunner().invoke(build(), ["retrain", "--help"]).output
    for option in (word for word in asdeg if word.startswith("--")):
        assert option in found

    head = cluster_pods()[0]
    folder, file = asdeg[asdeg.index("--cohort") + 1].rsplit("/", 1)
    (mounted,) = (m["name"] for m in head["containers"][0]["volumeMounts"] if m["mountPath"] == folder)
    (config,) = (v["configMap"]["name"] for v in head["volumes"] if v["name"] == mounted)
    CohortSettings.model_validate(yaml.safe_load(told["ConfigMap", config][file]))


def test_the_address_is_the_heads_service_and_no_service_becomes_a_setting() -> None:
    (cluster,) = manifests("ray-cluster.yaml")
    words = submitter()["containers"][0]["args"]
    assert words[words.index("--address") + 1] == f"http://{cluster['metadata']['name']}-head-svc:8265"
    for pod in (submitter(), *cluster_pods()):
        assert pod["enableServiceLinks"] is False
