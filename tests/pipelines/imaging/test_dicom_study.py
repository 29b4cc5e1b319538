"""Which series of a study is taken for a sequence, by headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

import infra.cli
from feature_store.errors import DicomSeriesError, ImageUnitError
from pipelines.cases.case import read_case
from pipelines.cases.manifest import load_manifest
from pipelines.imaging.acquisition import Acquisition, kernel_kind, weighting
from pipelines.imaging.dicom_study import read_study
from pipelines.imaging.images import load_image
from tests.pipelines.imaging.dicom_folder import AXIAL, CORONAL, SAGITTAL, Tags, slice_dataset, write_dicom

T1 = {"EchoTime": 12, "RepetitionTime": 600, "ScanningSequence": "SE"}
T2 = {"EchoTime": 95, "RepetitionTime": 3500, "ScanningSequence": "SE"}
STIR = {**T2, "EchoTime": 45, "InversionTime": 160, "ScanningSequence": ["SE", "IR"]}


class Study:
    """A folder that series are written into, each with voxels that are its number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self, number: int, tags: Tags, orientation: Any = AXIAL, slices: int = 5, distance: float = 3.0, **more: Any
    ) -> None:
        voxels = np.full((slices, 6, 7), number)
        voxels[0, 0, 0] = -1000  # no constant image, and air for a CT
        voxels[0, 0, 1] = 1000
        write_dicom(
            self.folder / f"deep/{number:03d}",
            voxels,
            series=f"1.2.{number}",
            orientation=orientation,
            distance=distance,
            tags={"SeriesNumber": number, **tags},
            **more,
        )

    def taken(self, sequence: str = "", series_number: int | None = None) -> int:
        """The number of the series whose voxels come back."""
        image = load_image(self.folder, "study", sequence=sequence, series_number=series_number).image
        return int(sitk.GetArrayViewFromImage(image)[-1, -1, -1])


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "study")


@pytest.fixture
def whole_study(study: Study) -> Study:
    """What a lumbar examination exports, with all that must not be taken."""
    mr = {"modality": "MR"}
    study.add(1, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, SAGITTAL, **mr)
    study.add(2, T1, SAGITTAL, **mr)
    study.add(3, T2, SAGITTAL, **mr)
    study.add(4, STIR, SAGITTAL, **mr)
    study.add(5, T2, AXIAL, **mr)
    study.add(6, {**T1, "ContrastBolusAgent": "GADO"}, SAGITTAL, **mr)
    study.add(7, {**T2, "ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"]}, SAGITTAL, **mr)
    study.add(8, {**T2, "ScanOptions": "FS"}, SAGITTAL, **mr)
    study.add(9, {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, AXIAL, **mr)
    study.add(20, {"ConvolutionKernel": "Br38f"}, slices=8)
    study.add(21, {"ConvolutionKernel": ["Br64f", "3"]}, slices=8)
    study.add(22, {"ConvolutionKernel": "Br38f", "ImageType": ["DERIVED", "SECONDARY", "MPR"]}, SAGITTAL)
    study.add(23, {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "Modality": "OT"})
    folder = study.folder
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "autorun.inf").write_text("[autorun]")
    (folder / ".DS_Store").write_bytes(b"x")
    report = slice_dataset(
        np.zeros((2, 2), np.int16), {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}
    )
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    return study


@pytest.mark.parametrize(
    ("sequence", "number"), [("ct", 20), ("t1_sag", 2), ("t2_sag", 3), ("t2_ax", 5), ("stir_sag", 4)]
)
def test_each_sequence_of_a_whole_study(whole_study: Study, sequence: str, number: int) -> None:
    assert whole_study.taken(sequence) == number


def test_a_pin_goes_before_every_rule(whole_study: Study) -> None:
    assert whole_study.taken("t2_sag", 7) == 7
    assert whole_study.taken("ct", 21) == 21
    with pytest.raises(DicomSeriesError, match="holds no series 99"):
        whole_study.taken("ct", 99)


def test_an_error_lists_candidates_without_free_text(whole_study: Study) -> None:
    with pytest.raises(DicomSeriesError) as raised:
        whole_study.taken("t1_ax")
    line = raised.value.line()
    assert "none fits for t1_ax" in line
    assert "series 5: axial, t2, 5 slices of 3.0 mm" in line
    assert "series_number" in raised.value.action
    assert "SECRET" not in line
    assert "and 1 more" in line


CHOICES: dict[str, tuple[str, list[tuple[Tags, dict[str, Any]]], int]] = {
    "thinner slices": ("ct", [({}, {}), ({}, {"distance": 1.0})], 2),
    "a soft kernel before thin slices": (
        "ct",
        [({"ConvolutionKernel": "B60f"}, {"distance": 1.0}), ({"ConvolutionKernel": "B30f"}, {})],
        2,
    ),
    "an unknown kernel before a sharp one": ("ct", [({"ConvolutionKernel": "LUNG"}, {}), ({}, {})], 2),
    "without contrast before all": (
        "ct",
        [({"ContrastBolusAgent": "X"}, {"distance": 1.0}), ({"ConvolutionKernel": "BONE"}, {})],
        2,
    ),
    "with contrast where nothing else is": ("t1_sag", [({**T1, "ContrastBolusAgent": "X"}, {}), (T2, {})], 1),
    "axial before coronal": ("ct", [({}, {"orientation": CORONAL}), ({}, {"distance": 5.0})], 2),
    "original before derived": (
        "ct",
        [({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, {"distance": 1.0}), ({}, {})],
        2,
    ),
    "twice the slices": ("ct", [({}, {"slices": 4}), ({}, {"slices": 8})], 2),
    "an own name asks by its parts": ("mr_t2_cor", [(T2, {"orientation": CORONAL}), (T2, {"orientation": AXIAL})], 1),
}


@pytest.mark.parametrize("rule", CHOICES)
def test_rules_of_choice(study: Study, rule: str) -> None:
    sequence, series, winner = CHOICES[rule]
    is_ct = sequence == "ct"
    for order in (1, -1):
        for number, (tags, more) in list(enumerate(series, start=1))[::order]:
            orientation = more.get("orientation", AXIAL if is_ct else SAGITTAL)
            rest = {key: value for key, value in more.items() if key != "orientation"}
            study.add(number, tags, orientation, modality="CT" if is_ct else "MR", **rest)
    assert study.taken(sequence) == winner


TIES: dict[str, tuple[str, list[Tags]]] = {
    "the same twice": ("t2_sag", [T2, T2]),
    "nothing states a weighting": ("t2_sag", [{}, {}]),
    "by elimination is a guess": ("t2_sag", [T1, {}]),
    "no sequence": ("", [T1, T2]),
    "a site's own name asks for nothing here": ("special", [T1, T2]),
}


@pytest.mark.parametrize("kind", TIES)
def test_a_tie_or_none_is_an_error_and_a_pin_helps(study: Study, kind: str) -> None:
    sequence, series = TIES[kind]
    for number, tags in enumerate(series, start=1):
        study.add(number, tags, SAGITTAL, modality="MR")
    with pytest.raises(DicomSeriesError, match=r"2 series \(10 files\).*series 1: sagittal.*series 2: sagittal"):
        study.taken(sequence)
    assert study.taken(sequence, 2) == 2


def test_the_best_one_is_not_replaced_because_it_lacks_a_slice(study: Study) -> None:
    study.add(1, {}, distance=1.0)
    study.add(2, {})
    next((study.folder / "deep/001").glob("s003*")).unlink()
    with pytest.raises(DicomSeriesError, match="missing"):
        study.taken("ct")
    assert study.taken("ct", 2) == 2


def test_a_lone_series_is_taken_unless_it_contradicts_its_name(study: Study) -> None:
    study.add(1, {"EchoTime": 95, "RepetitionTime": 3500}, SAGITTAL, modality="MR")
    assert study.taken() == study.taken("t2_sag") == study.taken("special") == study.taken("t1_sag", 1) == 1
    with pytest.raises(DicomSeriesError, match="no t1_sag: its echo and repetition times say t2"):
        study.taken("t1_sag")
    with pytest.raises(DicomSeriesError, match="no t2_ax: its slices are sagittal"):
        study.taken("t2_ax")
    with pytest.raises(ImageUnitError, match="no ct: its modality is MR"):
        study.taken("ct")


def test_a_lone_reformat_is_the_senders_choice(study: Study) -> None:
    study.add(1, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]})
    assert study.taken("ct") == 1


def test_two_studies_with_one_number(study: Study) -> None:
    study.add(1, {})
    write_dicom(
        study.folder / "other", np.ones((4, 6, 7)), series="1.9", tags={"SeriesNumber": 1, "StudyInstanceUID": "7"}
    )
    with pytest.raises(DicomSeriesError, match="several series have the number 1"):
        study.taken("ct", 1)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (Acquisition(echo_time=60, repetition_time=1500), "t2"),
        (Acquisition(echo_time=30, repetition_time=1200), "t1"),
        (Acquisition(echo_time=10, repetition_time=2000, inversion_time=900), "t1"),
        (Acquisition(echo_time=20, repetition_time=3000), "pd"),
        (Acquisition(echo_time=60, repetition_time=4000, inversion_time=150), "stir"),
        (Acquisition(echo_time=100, repetition_time=9000, inversion_time=2500), "flair"),
        (Acquisition(echo_time=15, repetition_time=500, scanning_sequence=("GR",)), "gradient_echo"),
        (Acquisition(echo_time=90, repetition_time=3000, fat_suppressed=True), "t2_fat_suppressed"),
        (Acquisition(echo_time=90, repetition_time=3000, image_type=("ORIGINAL", "PRIMARY", "W", "W")), "dixon"),
        (Acquisition(echo_time=90, repetition_time=3000, diffusion=True), "diffusion"),
        (Acquisition(echo_time=90, repetition_time=3000, scanning_sequence=("EP", "SE")), "echo_planar"),
        (Acquisition(echo_time=90, repetition_time=500), "mr_other"),
        (Acquisition(echo_time=90), ""),
    ],
)
def test_weighting(made: Acquisition, name: str) -> None:
    assert weighting(made) == name


def test_kernels() -> None:
    soft, sharp = ("Br38f", "B30f", "I31f", "STANDARD", "B", "FC08"), ("Br64", "B70s", "BONEPLUS", "YA", "FC52", "Bl57")
    assert {kernel_kind(name) for name in soft} == {"soft"}
    assert {kernel_kind(name) for name in sharp} == {"sharp"}
    assert kernel_kind("SOMETHING") == kernel_kind("") == ""


# --- from case.yaml and by command ------------------------------------------------------------------
def _case(study: Study, series: list[dict[str, Any]]) -> Path:
    manifest = {"patient_id": "p", "site": "s", "series": series}
    (study.folder.parent / "case.yaml").write_text(yaml.safe_dump(manifest))
    return study.folder.parent


def test_a_case_takes_all_its_sequences_from_one_study_folder(whole_study: Study) -> None:
    names = ("ct", "t1_sag", "t2_sag", "t2_ax")
    case = _case(whole_study, [{"sequence": name, "image": "study"} for name in names])
    reading = read_case(case)
    assert reading.findings == []
    numbers = {one.sequence: int(sitk.GetArrayViewFromImage(one.image)[-1, -1, -1]) for one in reading.series}
    assert numbers == {"ct": 20, "t1_sag": 2, "t2_sag": 3, "t2_ax": 5}


def test_case_yaml_pins_a_series(whole_study: Study) -> None:
    case = _case(whole_study, [{"sequence": "t2_sag", "image": "study", "series_number": 8}])
    (one,) = read_case(case).series
    assert sitk.GetArrayViewFromImage(one.image)[-1, -1, -1] == 8
    assert load_manifest(case).series[0].series_number == 8
    (finding,) = read_case(_case(whole_study, [{"sequence": "ct", "image": "study", "series_number": "8"}])).findings
    assert finding.code == "ManifestError"
    two = [{"sequence": "ct", "image": "study", "series_number": n} for n in (20, 21)]
    assert "names another image" in read_case(_case(whole_study, two)).findings[0].message


def test_a_link_deep_in_a_study_does_not_leave_the_case(
    whole_study: Study, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.dcm"
    secret.write_bytes(next((whole_study.folder / "deep/020").iterdir()).read_bytes())
    (whole_study.folder / "deep/020/link.dcm").symlink_to(secret)
    (finding,) = read_case(_case(whole_study, [{"sequence": "ct", "image": "study"}])).findings
    assert "leads out of the case folder" in finding.message


def test_series_are_listed_by_command(whole_study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert infra.cli.main(["series", str(whole_study.folder), "--json"]) == 0
    said = capsys.readouterr().out
    rows = {row["series_number"]: row for row in json.loads(said)}
    assert {n: row["sequence"] for n, row in rows.items() if row["sequence"]} == {
        2: ["t1_sag"], 3: ["t2_sag"], 5: ["t2_ax"], 20: ["ct"],
    }  # fmt: skip
    assert (rows[3]["plane"], rows[3]["weighting"], rows[3]["slices"], rows[3]["size"]) == ("sagittal", "t2", 5, [7, 6])
    assert rows[3]["spacing"] == [0.8, 0.8, 3.0]
    assert rows[3]["usable"]
    assert (rows[1]["usable"], rows[1]["reason"]) == (False, "a localizer.")
    assert rows[22]["reason"] == "a reformat."
    assert rows[23]["reason"] == "modality OT."
    assert "SECRET" not in said
    assert infra.cli.main(["series", str(whole_study.folder)]) == 0
    assert infra.cli.main(["series", str(whole_study.folder / "nowhere")]) == 2
    (whole_study.folder / "empty").mkdir()
    assert infra.cli.main(["series", str(whole_study.folder / "empty")]) == 1


def test_a_study_is_read_from_headers_only(whole_study: Study) -> None:
    """Pixels that cannot be decoded do not hinder the listing; they do hinder the reading."""
    path = sorted((whole_study.folder / "deep/020").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-10])
    study = read_study(whole_study.folder, "study")
    assert study.taken()["ct"].header.series_number == 20
    with pytest.raises(DicomSeriesError, match="damaged or cut short"):
        whole_study.taken("ct")
    assert whole_study.taken("t2_sag") == 3


def test_what_is_broken_in_a_study_spoils_its_own_series_only(whole_study: Study) -> None:
    """A header cut short behind its identifiers, and a multi-frame capture without positions."""
    path = sorted((whole_study.folder / "deep/005").iterdir())[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\x28\x00\x02\x00")])  # up to the image's own attributes
    capture = slice_dataset(np.zeros((6, 4), np.int16), {"Modality": "OT", "SeriesInstanceUID": "1.2.77"})
    capture.NumberOfFrames, capture.Rows = 3, 2
    capture.save_as(whole_study.folder / "capture.dcm", enforce_file_format=True)
    assert whole_study.taken("t2_sag") == 3
    with pytest.raises(DicomSeriesError, match="damaged, cut short, or holds no image"):
        whole_study.taken("t2_ax")
    faults = {one.header.series_number: one.fault for one in read_study(whole_study.folder, "study").candidates}
    assert faults[None] == "modality OT. a multi-frame file does not say where its frames lie."
