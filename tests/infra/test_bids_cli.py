"""BIDS data sets and label maps by command: from the real TPTBox samples to rows of the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import infra.cli
from pipelines.cases.label_map import shipped_names
from tests.pipelines.cases.bids_folder import write_bids, write_tptbox_samples

SUBREGIONS = ("--label-map", "seg-subreg=tptbox-subregions")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASDEG_STORE", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = infra.cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_tptbox_samples_from_the_folder_to_rois(run: Any, shared_data: Path, tmp_path: Path) -> None:
    root = write_tptbox_samples(shared_data, tmp_path / "bids")
    vertebrae = {"ct": "tptbox-vertebrae", "mri": "spineps-instances"}
    for subject, name in vertebrae.items():
        folder = root / f"rawdata/sub-{subject}"
        maps = (*SUBREGIONS, "--label-map", f"seg-vert={name}")
        assert run("validate", folder, *maps)[0] == 0
        code, out, err = run("ingest", folder, "--site", "tum", *maps, "--json")
        assert code == 0, err
        assert [(row["case"], row["state"], row["findings"]) for row in json.loads(out)] == [
            (f"sub-{subject}", "validated", [])
        ]
    sql = "select patient_id, sequence, structure, level, voxel_count, labels from rois order by all"
    rows = json.loads(run("store", "sql", sql, "--json")[1])
    found = {(r["patient_id"], r["sequence"], r["structure"], r["level"]): r for r in rows}
    assert set(found) == {
        ("ct", "ct", "vertebra", "L2"), ("ct", "ct", "vertebra", "L3"), ("ct", "ct", "vertebra", "L4"),
        ("ct", "ct", "vertebra", "all"), ("ct", "ct", "vertebral_body", "unknown"),
        ("mri", "t2_iso", "vertebra", "unknown"), ("mri", "t2_iso", "vertebral_body", "unknown"),
        ("mri", "t2_iso", "intervertebral_disc", "unknown"),
    }  # fmt: skip
    # voxels as counted in the files themselves, without our reader
    assert found["ct", "ct", "vertebra", "L3"]["voxel_count"] == 17698
    assert found["ct", "ct", "vertebral_body", "unknown"]["voxel_count"] == 9714 + 12635
    assert found["mri", "t2_iso", "vertebra", "unknown"]["voxel_count"] == 4449 + 15754 + 12443
    assert found["mri", "t2_iso", "intervertebral_disc", "unknown"]["labels"] == [100]
    maps = (*SUBREGIONS, "--label-map", f"seg-vert={vertebrae['ct']}")
    assert "1 unchanged" in run("ingest", root / "rawdata/sub-ct", "--site", "tum", *maps)[2]


def test_a_data_set_by_its_lookup_table(run: Any, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids")
    with (root / "participants.tsv").open("a") as file:
        file.write("sub-03\t50\tM\tn/a\tno\tn/a\tn/a\n")
    code, out, err = run("ingest", root, "--site", "a")
    assert code == 0, err
    assert "sub-01" in out
    assert "2 cases stored, 0 unchanged, 0 rejected." in err
    assert "1 subjects have a row or masks and no folder of images" in err
    clinical = run("store", "sql", "select patient_id, age, sex from clinical order by 1", "--json")[1]
    assert json.loads(clinical) == [
        {"patient_id": "01", "age": 61.0, "sex": "female"},
        {"patient_id": "02", "age": None, "sex": "male"},
    ]


def test_what_a_data_set_leaves_open_is_a_named_failure(run: Any, tmp_path: Path) -> None:
    root = write_bids(tmp_path / "bids")
    assert run("validate", root)[0] == 2  # two cases
    code, _, err = run("ingest", root, "--site", "a", "--label-map", "total")
    assert (code, err.split(":")[0]) == (1, "LabelMapError")
    assert run("ingest", root, "--site", "a", "--label-map", "=spider")[0] == 2
    (root / "derivatives/manual/dseg.tsv").unlink()
    code, out, _ = run("validate", root / "sub-02")
    assert code == 1
    assert "BidsError: derivatives/manual/sub-*/anat/sub-*_dseg.nii.gz: nothing says what its numbers mean." in out
    own = tmp_path / "own.yaml"
    own.write_text("name: ours\nnote: by hand\nlabels: {4: {structure: vertebral_body, level: L4}}\n")
    code, out, _ = run("validate", root / "sub-02", "--label-map", own)
    assert code == 0
    assert "1 labels that ours does not know are left alone: 5" in out


def test_case_folders_name_their_map_themselves(run: Any, tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case/case.yaml").write_text("patient_id: p\nsite: a\nseries: [{sequence: ct, image: ct.nii}]\n")
    code, _, err = run("validate", "case", "--label-map", "spider")
    assert code == 2
    assert "labels: NAME" in err


def test_label_maps_are_listed_and_printed(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("label-maps", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == shipped_names()
    assert all(row["note"] for row in json.loads(out))
    code, out, _ = run("label-maps", "totalsegmentator-ct")
    assert code == 0
    assert yaml.safe_load(out)["labels"][27] == {"name": "vertebrae_L5", "structure": "vertebra", "level": "L5"}
    assert json.loads(run("label-maps", "spider", "--json")[1])["labels"]["1"]["level"] == "L5"
    code, _, err = run("label-maps", "verse")
    assert code == 1
    assert "Names are spider" in err
