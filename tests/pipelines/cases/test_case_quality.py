"""Quality control of whole cases: real ones, phantoms, and what of it goes into the store's rows."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import SimpleITK as sitk
from PIL import Image

from pipelines.cases.case import CaseReading, case_rows, read_case
from pipelines.cases.case_quality import judge_case, judge_mask, overlay_hash, quality_rows
from pipelines.cases.quality.settings import DEFAULT, QualitySettings
from pipelines.cases.quality.verdict import Verdict
from pipelines.phantom import write_phantom_cohort
from tests.pipelines.real_cases import REAL_CASES, write_real_cases

EXPECTED = {
    # what is limited in the real cases, and nothing else: codes by structure and level (empty: the image)
    "ct_lumbar": {"": ["MetalInImage", "PixelsCoarse", "SlicesThick"]},
    "ct_dicom": {
        "": ["FieldOfViewShort"], "vertebra T11": ["ClippedAtEdge", "Scattered"], "vertebra T12": ["ClippedAtEdge"],
    },
    "mr_axial_slab": {
        "": ["FieldOfViewShort", "PixelsCoarse"], "iliopsoas all": ["AreaSmall"],
        "iliopsoas unknown left": ["AreaSmall", "VoxelsFew"], "iliopsoas unknown right": ["VoxelsFew"],
        "intervertebral_disc unknown": ["ClippedAtEdge"], "vertebra unknown": ["ClippedAtEdge"],
    },
    "ct_single_vertebra": {
        "": ["FieldOfViewShort"], "vertebra L2": ["ClippedAtEdge"], "vertebra L4": ["ClippedAtEdge"],
        "vertebra all": ["ClippedAtEdge"], "vertebral_body unknown": ["ClippedAtEdge"],
    },
    "t2_single_disc": {"": ["FieldOfViewShort"], "vertebra unknown": ["ClippedAtEdge"]},
    "axial_muscles": {},
}  # fmt: skip
"""Real images warn for what they lack and never fail. The metal in ct_lumbar is a hip replacement."""


def found(reading: CaseReading) -> dict[str, list[str]]:
    codes = {"": sorted({r.code for quality in reading.quality.series.values() for r in quality.reasons})}
    for name, quality in reading.quality.rois.items():
        side = "" if name.side == "both" else f" {name.side}"
        codes[f"{name.structure} {name.level}{side}"] = sorted(reason.code for reason in quality.reasons)
    return {name: some for name, some in codes.items() if some}


@pytest.mark.parametrize("name", REAL_CASES)
def test_real_cases_warn_for_what_they_lack(shared_data: Path, tmp_path: Path, name: str) -> None:
    (folder,) = write_real_cases(shared_data, tmp_path, [name])
    reading = read_case(folder)
    assert found(reading) == EXPECTED[name]
    assert reading.quality.count(Verdict.FAIL) == 0
    assert set(reading.overlays) == {(one.sequence, one.segmentation) for one in reading.series}
    for png in reading.overlays.values():
        assert len(png) < 400_000
        assert Image.open(io.BytesIO(png)).size[0] == 1080


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[CaseReading]:
    """A case of each of three sites, and the broken one."""
    cohort = write_phantom_cohort(tmp_path_factory.mktemp("phantoms") / "c", patients=3, sites=3, broken=True)
    return [read_case(case.folder) for case in (*cohort.cases, *cohort.broken)]


def test_phantoms_warn_for_their_coarse_voxels_alone(phantoms: list[CaseReading]) -> None:
    """Phantoms are small on purpose; their anatomy, levels and sides are right at every site."""
    for reading in phantoms:
        codes = {reason.code for quality in reading.quality.series.values() for reason in quality.reasons}
        assert codes == {"PixelsCoarse", "SlicesThick"}
        of_rois = {reason.code for quality in reading.quality.rois.values() for reason in quality.reasons}
        assert of_rois <= {"VoxelsFew"}
        assert reading.quality.count(Verdict.FAIL) == 0


def test_a_row_an_image_and_a_roi(phantoms: list[CaseReading]) -> None:
    for reading in phantoms:
        rows = case_rows(reading)
        quality = rows["quality"]
        assert len(quality) == len(rows["series"]) + len(rows["rois"])
        kept = {overlay_hash(png) for png in reading.overlays.values()}
        assert {row["overlay_hash"] for row in quality} == kept
        images = {(row["sequence"], row["image_hash"]) for row in rows["series"]}
        masks = {(row["structure"], row["level"], row["side"], row["mask_hash"]) for row in rows["rois"]}
        for row in quality:
            assert (row["sequence"], row["image_hash"]) in images
            assert row["quality_settings"] == DEFAULT.id
            assert json.loads(row["measured"])
            assert bool(row["reasons"]) == (row["verdict"] != "pass")
            if row["structure"] == "image":
                assert row["mask_hash"] is None
            else:
                assert (row["structure"], row["level"], row["side"], row["mask_hash"]) in masks
        assert not any(reading.manifest.patient_id in str(row["reasons"]) for row in quality if reading.manifest)


def test_other_bounds_are_other_settings(phantoms: list[CaseReading]) -> None:
    strict = QualitySettings(least_roi_voxels=10_000)
    quality = judge_case(phantoms[0].series, strict)
    assert quality.count(Verdict.WARN) > phantoms[0].quality.count(Verdict.WARN)
    one = phantoms[0].series[0]
    judged = [quality.rois[roi.name] for roi in one.rois]
    rows = quality_rows(
        one.sequence, one.image_hash, quality.series[one.sequence], one.mask_hash, one.rois, judged, None, strict
    )
    assert {row["quality_settings"] for row in rows} == {strict.id} != {DEFAULT.id}


def test_a_mask_that_comes_later_is_judged_by_itself(phantoms: list[CaseReading]) -> None:
    """A segmentation net's mask on a stored image: the same verdicts as at ingest."""
    for one in phantoms[0].series:
        image = sitk.Image(one.image)
        series, rois = judge_mask(image, one.mask, one.rois, one.sequence)
        assert series == phantoms[0].quality.series[one.sequence]
        assert rois == [phantoms[0].quality.rois[roi.name] for roi in one.rois]
        assert judge_mask(image, None, [], one.sequence) == (series, [])


def test_no_patient_id_is_in_a_picture(tmp_path: Path, phantoms: list[CaseReading]) -> None:
    """The same images under another patient's id give the same bytes; only phantoms say that they are phantoms."""
    cohort = write_phantom_cohort(tmp_path / "c", patients=1, sites=1)
    manifest = cohort.cases[0].folder / "case.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("phantom-0001", "phantom-7777"), encoding="utf-8")
    renamed = read_case(cohort.cases[0].folder)
    assert renamed.overlays == phantoms[0].overlays
    manifest.write_text(text.replace("phantom-0001", "p7777"), encoding="utf-8")
    assert read_case(cohort.cases[0].folder).overlays != phantoms[0].overlays
