"""``asdeg robustness`` from case folders to the table that the filter takes, on a few phantom patients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

import infra.cli
from feature_store.vocabulary import PHANTOM_NOTICE
from models.selection.robustness import COLUMNS, read_robustness
from pipelines.phantom import write_phantom_cohort
from pipelines.radiomics.perturbation import PerturbationSettings, RoiVersions
from pipelines.ray_session import ray_session

pytestmark = pytest.mark.cores

PATIENTS = 5
READERS = ("reader_a", "reader_b")


def draw_again(folder: Path, version: int) -> str:
    """A second reader's mask: every label's contour moved a little."""
    mask = sitk.ReadImage(str(folder / "t2_sag_mask.nii.gz"))
    labels, again = sitk.GetArrayFromImage(mask), np.zeros(mask.GetSize()[::-1], np.uint16)
    settings = PerturbationSettings(translation=0, growth=0.1, contour_mm=0.4, noise=0)
    for label in np.unique(labels[labels > 0]):
        full = labels == label
        versions = RoiVersions(
            full.astype(np.float32), full, mask.GetSpacing(), settings, name=f"{folder.name}{label}", sigma=0
        )
        _, drawn = versions.original()
        _, changed = versions.changed(version)
        corner = [int(a.min() - b.min()) for a, b in zip(np.nonzero(full), np.nonzero(drawn), strict=True)]
        again[tuple((np.argwhere(changed) + corner).T)] = label
    image = sitk.GetImageFromArray(again)
    image.CopyInformation(mask)
    name = f"t2_sag_{READERS[version - 1]}.nii.gz"
    sitk.WriteImage(image, str(folder / name))
    return name


@pytest.fixture(scope="module")
def ray_running() -> Iterator[None]:
    """One Ray for all commands here: each uses the connection it finds, and leaves it."""
    with ray_session(cpus=2):
        yield


@pytest.fixture(scope="module")
def store(ray_running: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms' sagittal T2 images with the masks of two more readers, ingested and extracted by command."""
    folder = tmp_path_factory.mktemp("robust")
    for case in write_phantom_cohort(folder / "cohort", patients=PATIENTS, sites=1).cases:
        manifest = yaml.safe_load((case.folder / "case.yaml").read_text(encoding="utf-8"))
        series = next(entry for entry in manifest["series"] if entry["sequence"] == "t2_sag")
        repeated = [
            {**series, "mask": draw_again(case.folder, number), "segmentation": name}
            for number, name in enumerate(READERS, start=1)
        ]
        manifest["series"] = [series, *repeated]
        (case.folder / "case.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    site = case.site
    store = folder / "store"
    assert infra.cli.main(["--store", str(store), "ingest", str(folder / "cohort" / site), "--site", site]) == 0
    assert infra.cli.main(["--store", str(store), "extract", "--encoder", "none"]) == 0
    return store


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASDEG_NUM_CPUS", "1")

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = infra.cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_readers_and_perturbations_of_phantoms(run: Any, store: Path) -> None:
    code, out, err = run(
        "--store", store, "robustness", "--repeats", 2, "--out", "r.parquet", "--figure", "r.png", "--json"
    )
    assert code == 0, err
    said = json.loads(out)
    table = read_robustness(Path("r.parquet"))
    regions = ("t2_sag.intervertebral_disc.all", "t2_sag.vertebral_body.all")
    assert set(table["feature"].str.rpartition(".")[0]) == set(regions)
    assert table.groupby("kind").size().to_dict() == {"perturbation": 2 * 851, "readers": 2 * 851}
    assert table.groupby("kind")["n_versions"].max().to_dict() == {"perturbation": 3, "readers": 2}
    assert table["n_subjects"].max() == PATIENTS
    assert set(table["patients"]) == {"unassigned"}
    assert (said["rois"], said["versions"], said["refused"], said["failed"]) == (10, 20, {}, {})
    assert said["changes"]["repeats"] == 2
    assert said["phantom"]
    shown = {(row["kind"], row["images"], row["family"]): row for row in said["summary"]}
    assert shown["readers", "all", "all"]["features"] == 1702
    # what a region's volume comes to is steadier than the zones of a wavelet
    shape, zones = shown["perturbation", "original", "shape"], shown["perturbation", "wavelet", "glszm"]
    assert shape["median_icc"] > zones["median_icc"]
    assert shape["median_cv"] < zones["median_cv"]
    assert Path("r.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("r.svg").read_text(encoding="utf-8")


def test_readers_alone_are_for_people_too(run: Any, store: Path) -> None:
    code, out, _ = run("--store", store, "robustness", "--kind", "readers", "--out", "r.csv")
    assert code == 0
    assert "Share of features that reach an ICC(2,1)" in out
    assert PHANTOM_NOTICE in out
    assert "1702 rows: r.csv" in out
    assert tuple(pd.read_csv("r.csv").columns) == COLUMNS
    code, _, err = run("--store", store, "robustness", "--kind", "readers", "--segmentation", "c", "--out", "c.csv")
    assert code == 1
    assert "NotReady: 0 of 5 patients have features of one region under primary and c; 5 are needed." in err


def test_two_files(run: Any, store: Path) -> None:
    folder = next((store.parent / "cohort").glob("*/phantom-0001"))
    files = (folder / "t2_sag.nii.gz", folder / "t2_sag_mask.nii.gz")
    code, out, err = run("robustness", *files, "--labels", "1,2", "--repeats", 1, "--out", "f.csv", "--json")
    assert code == 0, err
    assert json.loads(out)["rois"] == 2
    table = pd.read_csv("f.csv")
    assert len(table) == 851
    assert set(table["patients"]) == {"unknown"}
    assert "fewer than 5 subjects" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--out", "r.txt"), 2, "ends in neither"),
        (("--out", "nowhere/r.csv"), 2, "no folder"),
        (("--out", "r.csv", "--figure", "r.pdf"), 2, "ends in neither"),
        (("image.nii.gz", "--out", "r.csv"), 2, "needs its mask"),
        (("--labels", "1", "--out", "r.csv"), 2, "--labels are of a mask"),
        (("a.nii.gz", "b.nii.gz", "--labels", "one", "--out", "r.csv"), 2, "whole numbers"),
        (("a.nii.gz", "b.nii.gz", "--out", "r.csv"), 1, "ImageUnreadable"),
        (("--sequence", "pet", "--out", "r.csv"), 2, "No sequence of the study"),
        (("--cohort", "none", "--out", "r.csv"), 1, "no such cohort"),
        (("--site", "none", "--out", "r.csv"), 1, "no ROI of these patients"),
        (("--feature-set", "none", "--out", "r.csv"), 1, "no feature set is named"),
    ],
)
def test_what_cannot_be_is_one_line(run: Any, store: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, out, err = run("--store", store, "robustness", *arguments)
    assert (found, out) == (code, "")
    assert said in err.strip().splitlines()[-1]
    assert not list(Path().glob("r.*"))


def test_what_was_finished_before_an_interruption_is_kept(
    run: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.robustness import run as module

    whole = module.vary_store

    def interrupted(*arguments: Any) -> Any:
        for number, roi in enumerate(whole(*arguments)):
            if number == 4:
                raise KeyboardInterrupt
            yield roi

    monkeypatch.setattr(module, "vary_store", interrupted)
    code, _, err = run("--store", store, "robustness", "--kind", "perturbation", "--repeats", 1, "--out", "part.csv")
    assert code == 130
    assert "Stopped early; what was finished is in the table." in err
    assert pd.read_csv("part.csv")["n_subjects"].max() == 2


def test_the_filters_options_need_something_to_filter_by(run: Any) -> None:
    code, _, err = run("study", "--outcome", "o.csv", "--out", "out", "--min-icc", "0.9")
    assert code == 2
    assert "Give --robustness" in err
