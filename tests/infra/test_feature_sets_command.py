"""``asdeg feature-sets``: what there is, every feature of one, and files as feature sets."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import infra.cli
from infra.cli.app import build
from pipelines.radiomics.feature_sets import REGISTRY, STUDY_MR


def asdeg(*arguments: str) -> str:
    result = CliRunner().invoke(build(), list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list() -> None:
    rows = json.loads(asdeg("feature-sets", "--json"))
    assert [row["feature_set"] for row in rows] == list(REGISTRY)
    by_name = {row["feature_set"]: row for row in rows}
    assert by_name["study-mr-1mm-log"] == {
        "feature_set": "study-mr-1mm-log",
        "id": "study-mr-1mm-log-475fe598",
        "image_types": ["original", "wavelet", "LoG 1, 2, 3, 4, 5 mm"],
        "discretisation": "width 5",
        "spacing_mm": "1 x 1 x 1",
        "intensities": "z-score x 100",
        "features": 1316,
    }
    assert by_name["study-ct-32bins"]["discretisation"] == "32 bins"
    assert "study-ct-log" in asdeg("feature-sets")


def test_every_feature_of_one(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    asdeg("feature-sets", "study-mr", "--out", str(out))
    table = pd.read_csv(out, keep_default_na=False)
    assert list(table["feature"]) == list(STUDY_MR.feature_names)
    assert (table[["family", "unit", "meaning"]] != "").all(axis=None)
    row = table.set_index("feature").loc["wavelet-HHH_gldm_DependenceVariance"]
    assert (row["family"], row["ibsi_code"], row["unit"]) == ("gldm", "DNX2", "voxel²")
    assert json.loads(asdeg("feature-sets", STUDY_MR.id, "--json"))[0]["ibsi_code"] == "Q3CK"


def test_a_file_is_a_feature_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("bin_count: 64\nimage_types: [original]\nclasses: [firstorder, glcm]\n")
    assert len(json.loads(asdeg("feature-sets", str(path), "--json"))) == 18 + 24


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("bins: 64\n")
    for arguments, code, said in (
        ([str(path)], 1, "bins"),
        (["no-such-set"], 1, "no-such-set"),
        (["--out", str(tmp_path / "features.csv")], 2, "feature set"),
    ):
        assert infra.cli.main(["feature-sets", *arguments]) == code
        error = capsys.readouterr().err
        assert said in error
        assert str(tmp_path) not in error
        assert len(error.strip().splitlines()) == 1
