"""``asdeg encoders``, ``encoders add``, ``pretrain`` and ``finetune`` as people meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import infra.cli
from feature_store.store import FeatureStore
from models import encoders, vit
from tests.feature_store import examples
from tests.models.flat_vit import SHALLOW, timm_weights
from tests.pipelines.embedding.tiny import TINY, image_store


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASDEG_STORE", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = infra.cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_2d_weights_come_in_by_command(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_small", SHALLOW)
    save_file(timm_weights(), tmp_path / "flat.safetensors")
    add = ("encoders", "add", "flat.safetensors", "--architecture", "vit_small")
    code, _, err = run(*add)
    assert code == 1
    assert "2D net" in err
    assert "--inflate" in err
    code, out, err = run(*add, "--inflate", "--kernel", "centre", "--json")
    assert code == 0, err
    added = json.loads(out)["encoder"]
    listed = json.loads(run("encoders", "--json")[1])
    assert [(row["encoder"], row["made"], row["outcomes_seen"]) for row in listed] == [
        (added, "inflated_from_2d", False)
    ]
    assert listed[0]["origin"].startswith("file:")
    assert listed[0]["derived"]["inflated_from_2d"] == {"names": "timm", "kernel": "centre", "depth_position": "tiled"}
    assert added in run("encoders")[1]
    torch.save({"layer1.0.conv1.weight": torch.zeros(1), "bn1.running_mean": torch.zeros(1)}, tmp_path / "resnet.pt")
    code, _, err = run("encoders", "add", "resnet.pt", "--architecture", "vit_small", "--inflate")
    assert code == 1
    assert "RadImageNet" in err
    assert "asdeg pretrain" in err


def test_pretrain_then_finetune_by_command(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vit.ARCHITECTURES, "vit_small", TINY)
    monkeypatch.setitem(encoders.ARCHITECTURE_DIMENSIONS, "vit_small", TINY.hidden)
    store = image_store(tmp_path / "asdeg-store", patients=30)
    rows: examples.Rows = {"cases": [], "labels": []}
    for number in range(30):
        rows["cases"] += examples.case(f"p{number}")["cases"]
        rows["labels"].append(examples.label(f"p{number}", number % 2))
    store.push(rows, kind="case", source="tests")
    code, out, err = run("pretrain", "--steps", 1, "--batch", 1, "--threads", 1, "--json")
    assert code == 0, err
    first = json.loads(out)
    assert (first["patients"], first["phantom"]) == (30, False)
    assert not list((tmp_path / "asdeg-training").iterdir())  # nothing is left to go on from
    (tmp_path / "cohort.yaml").write_text("name: study\nratio: 0.9\n")
    tune = ("finetune", "--cohort", "cohort.yaml", "--steps", 1, "--batch", 1, "--threads", 1)
    code, out, err = run(*tune, "--encoder", first["encoder"])
    assert code == 2  # it has seen the images of patients who have become test patients
    assert "test patients of this cohort" in err
    code, out, err = run("pretrain", "--steps", 1, "--batch", 1, "--threads", 1, "--cohort", "study", "--json")
    assert code == 0, err
    clean = json.loads(out)
    assert clean["left_out"] > 0
    code, out, err = run(*tune, "--encoder", clean["encoder"])
    assert code == 0, err
    assert "training patients left to fit on" in out
    listed = json.loads(run("encoders", "--json")[1])
    made = {row["made"]: row for row in listed}
    assert made["fine_tuned"]["outcomes_seen"] is True
    assert 0 < made["fine_tuned"]["tuned_on"] < made["fine_tuned"]["patients_seen"] == clean["patients"]
    assert made["masked_autoencoder"]["tuned_on"] == 0
    assert FeatureStore.open(tmp_path / "asdeg-store").snapshot().sequence > 0
