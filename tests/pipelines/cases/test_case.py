"""A case folder end to end: what is kept, what becomes a finding, and the rows of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import SimpleITK as sitk
import yaml

from feature_store.schemas import TABLES
from feature_store.vocabulary import RoiName
from pipelines.cases.case import CaseReading, case_rows, read_case, store_images
from pipelines.imaging.images import content_hash, read_canonical
from tests.pipelines.imaging.dicom_folder import write_dicom
from tests.pipelines.real_cases import REAL_CASES, write_real_cases

SIZE = (12, 10, 8)
LABELS = {1: {"structure": "vertebral_body", "level": "L4"}, 2: {"structure": "vertebral_body", "level": "L5"}}


def _image(seed: int = 0) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(seed).integers(-900, 1500, SIZE[::-1]).astype(np.int16))
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin((3.0, 4.0, 5.0))
    return image


def _mask(image: sitk.Image) -> sitk.Image:
    array = np.zeros(SIZE[::-1], np.uint8)
    array[1:4, 2:6, 2:6] = 1
    array[5:7, 2:6, 2:6] = 2
    mask = sitk.GetImageFromArray(array)
    mask.CopyInformation(image)
    return mask


def _entry(name: str, **more: Any) -> dict[str, Any]:
    return {"sequence": name, "image": f"{name}.nii.gz", "mask": f"{name}_mask.nii.gz", "labels": LABELS, **more}


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """Two good series, known index date."""
    for seed, name in enumerate(("ct", "t2_sag")):
        sitk.WriteImage(_image(seed), str(tmp_path / f"{name}.nii.gz"))
        sitk.WriteImage(_mask(_image(seed)), str(tmp_path / f"{name}_mask.nii.gz"))
    _manifest(tmp_path, [_entry("ct", study_date="2024-05-01"), _entry("t2_sag")])
    return tmp_path


def _manifest(folder: Path, series: list[dict[str, Any]], **more: Any) -> None:
    data = {"patient_id": "p1", "site": "a", "index_date": "2024-05-31", "clinical": {"age": 61}, "series": series}
    (folder / "case.yaml").write_text(yaml.safe_dump({**data, **more}))


def test_a_good_case(case: Path) -> None:
    reading = read_case(case)
    assert reading.usable
    assert (reading.findings, reading.notes) == ([], [])
    assert reading.index_date_known
    assert [(one.sequence, one.days_from_index, len(one.rois)) for one in reading.series] == [
        ("ct", -30, 3),
        ("t2_sag", None, 3),
    ]
    assert RoiName("ct", "vertebral_body", "all") in reading.rois
    assert reading.summary() == "2 sequences, 6 ROIs; 0 findings"


def _nan(folder: Path) -> None:
    image = sitk.Cast(_image(), sitk.sitkFloat32)
    image[1, 1, 1] = float("nan")
    sitk.WriteImage(image, str(folder / "ct.nii.gz"))


def _shifted(folder: Path) -> None:
    mask = _mask(_image())
    mask.SetOrigin((3.0, 4.5, 5.0))
    sitk.WriteImage(mask, str(folder / "ct_mask.nii.gz"))


def _fractions(folder: Path) -> None:
    sitk.WriteImage(sitk.Cast(_mask(_image()), sitk.sitkFloat32) * 0.3, str(folder / "ct_mask.nii.gz"))


def _without_label(folder: Path) -> None:
    mask = sitk.ChangeLabel(_mask(_image()), {2: 7})
    sitk.WriteImage(mask, str(folder / "ct_mask.nii.gz"))


def _tiny_label(folder: Path) -> None:
    mask = sitk.ChangeLabel(_mask(_image()), {2: 0})
    mask[8, 8, 7] = 2
    sitk.WriteImage(mask, str(folder / "ct_mask.nii.gz"))


def _ct(make: Any) -> Any:
    return lambda folder: sitk.WriteImage(make(), str(folder / "ct.nii.gz"))


def _dicom_of(modality: str) -> Any:
    def make(folder: Path) -> None:
        (folder / "ct.nii.gz").unlink()
        write_dicom(folder / "ct.nii.gz", sitk.GetArrayFromImage(_image()), modality=modality)

    return make


def _changed_entry(**more: Any) -> Any:
    return lambda folder: _manifest(folder, [_entry("ct", **more), _entry("t2_sag")])


# (what is broken, code and file of the one finding, sequences that are kept, ROIs of the ct)
BROKEN = {
    "image missing": (lambda f: (f / "ct.nii.gz").unlink(), "ImageUnreadable", "ct.nii.gz", ["t2_sag"]),
    "image cut short": (
        lambda f: (f / "ct.nii.gz").write_bytes((f / "ct.nii.gz").read_bytes()[:500]),
        "ImageUnreadable", "ct.nii.gz", ["t2_sag"],
    ),
    "NaN": (_nan, "ImageNotFinite", "ct.nii.gz", ["t2_sag"]),
    "constant": (_ct(lambda: _image() * 0), "ImageConstant", "ct.nii.gz", ["t2_sag"]),
    "not Hounsfield": (_ct(lambda: _image() + 1024), "ImageUnitError", "ct.nii.gz", ["t2_sag"]),
    "MR called ct": (_dicom_of("MR"), "ImageUnitError", "ct.nii.gz", ["t2_sag"]),
    "after surgery": (_changed_entry(study_date="2024-06-01"), "ManifestError", "ct.nii.gz", ["t2_sag"]),
    "years before": (_changed_entry(study_date="2004-06-01"), "ManifestError", "ct.nii.gz", ["t2_sag"]),
    "series key": (_changed_entry(foo=1), "ManifestError", "case.yaml", ["t2_sag"]),
    "clinical unit": (
        lambda f: _manifest(f, [_entry("ct"), _entry("t2_sag")], clinical={"age": 22000, "bmi": 25}),
        "ManifestError", "case.yaml", ["ct", "t2_sag"],
    ),
    "mask missing": (lambda f: (f / "ct_mask.nii.gz").unlink(), "MaskUnreadable", "ct_mask.nii.gz", ["ct", "t2_sag"]),
    "mask of fractions": (_fractions, "MaskUnreadable", "ct_mask.nii.gz", ["ct", "t2_sag"]),
    "mask shifted": (_shifted, "GridMismatch", "ct_mask.nii.gz", ["ct", "t2_sag"]),
    "label empty": (_without_label, "LabelEmpty", "ct_mask.nii.gz", ["ct", "t2_sag"]),
    "label tiny": (_tiny_label, "RoiTooSmall", "ct_mask.nii.gz", ["ct", "t2_sag"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_one_fault_is_named_and_the_rest_stays(case: Path, kind: str) -> None:
    whole = case_rows(read_case(case))
    broken, code, file, kept = BROKEN[kind]
    broken(case)
    reading = read_case(case)
    assert [(finding.code, finding.file) for finding in reading.findings] == [(code, file)]
    assert reading.findings[0].action
    assert [one.sequence for one in reading.series] == kept
    rows = case_rows(reading)
    assert rows["cases"][0]["rejected"] == [reading.findings[0].line()]
    # the untouched series is exactly what it was
    for table in ("series", "rois"):
        untouched = [[row for row in tables[table] if row["sequence"] == "t2_sag"] for tables in (whole, rows)]
        assert untouched[0] == untouched[1] != []
    if kind.startswith("label"):
        assert {roi.name.level for roi in reading.series[0].rois} == {"L4", "all"}


def test_nothing_usable_says_so(case: Path) -> None:
    for path in case.glob("*.nii.gz"):
        path.write_bytes(b"rubbish")
    reading = read_case(case)
    assert not reading.usable
    assert reading.summary() == "nothing in this case can be used; 2 findings"
    assert case_rows(reading)["cases"][0]["sequences"] == []


def test_without_a_manifest_nobody_knows_whose_case_it_is(tmp_path: Path) -> None:
    reading = read_case(tmp_path / "absent")
    assert reading.manifest is None
    assert [finding.code for finding in reading.findings] == ["ManifestError"]
    assert case_rows(reading) == {}


def test_a_link_out_of_the_folder_is_not_followed(case: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "ct.nii.gz"
    shutil.move(case / "ct.nii.gz", outside)
    (case / "ct.nii.gz").symlink_to(outside)
    reading = read_case(case)
    assert [finding.code for finding in reading.findings] == ["ManifestError"]
    assert [one.sequence for one in reading.series] == ["t2_sag"]


def test_a_series_without_mask_is_kept(case: Path) -> None:
    _manifest(case, [{"sequence": "ct", "image": "ct.nii.gz"}, _entry("t2_sag")])
    reading = read_case(case)
    assert reading.findings == []
    assert reading.notes == ["ct has no mask, so it has no ROIs yet"]
    assert reading.series[0].mask is None
    assert len(case_rows(reading)["series"]) == 2


def test_repeated_segmentations_share_their_image(case: Path) -> None:
    sitk.WriteImage(sitk.BinaryDilate(_mask(_image()) == 1), str(case / "b.nii.gz"))
    repeat = {"sequence": "ct", "image": "ct.nii.gz", "mask": "b.nii.gz", "segmentation": "reader_b"}
    _manifest(case, [_entry("ct"), {**repeat, "labels": {1: LABELS[1]}}])
    reading = read_case(case)
    assert reading.findings == []
    first, second = reading.series
    assert first.image is second.image
    assert first.mask_hash != second.mask_hash
    rows = case_rows(reading)
    assert len(rows["series"]) == 1
    assert {(row["segmentation"], row["level"]) for row in rows["rois"]} == {
        ("primary", "L4"), ("primary", "L5"), ("primary", "all"), ("reader_b", "L4"), ("reader_b", "all"),
    }  # fmt: skip


def test_the_study_date_stands_in_for_the_surgery(case: Path) -> None:
    write_dicom(case / "d", sitk.GetArrayFromImage(_image()), modality="MR", study_date="20240520")
    dicom = {"sequence": "t2_ax", "image": "d"}
    _manifest(case, [_entry("ct", study_date="2024-05-01"), dicom], index_date=None)
    reading = read_case(case)
    assert not reading.index_date_known
    assert {one.sequence: one.days_from_index for one in reading.series} == {"ct": -19, "t2_ax": 0}
    row = next(row for row in case_rows(reading)["series"] if row["sequence"] == "t2_ax")
    assert (row["scanner_vendor"], row["field_strength_t"]) == ("ACME", 1.5)


def test_no_calendar_date_and_no_name_leaves(case: Path) -> None:
    write_dicom(case / "d", sitk.GetArrayFromImage(_image()), modality="MR", study_date="20240520")
    _manifest(case, [_entry("ct", study_date="2024-05-01"), {"sequence": "t2_ax", "image": "d"}])
    reading = read_case(case)
    text = repr((reading.manifest, reading.series, reading.findings, case_rows(reading)))
    assert "2024" not in text
    assert "SECRET" not in text


# --- rows and blobs -------------------------------------------------------------------------------
def _assert_rows_fit(reading: CaseReading) -> dict[str, list[dict[str, Any]]]:
    rows = case_rows(reading)
    assert set(rows) == {"cases", "series", "rois", "quality", "clinical"}
    for table, some in rows.items():
        schema = TABLES[table]
        arrow = pa.schema([(column.name, column.type) for column in schema.columns])
        for row in some:
            assert set(row) == set(schema.column_names)
            for column in schema.columns:
                assert column.nullable or row[column.name] is not None, column.name
                assert not column.values or row[column.name] in (None, *column.values)
        pa.Table.from_pylist(some, schema=arrow)
        keys = [tuple(row[k] for k in schema.key) for row in some]
        assert len(set(keys)) == len(keys)
    return rows


def test_rows_are_as_declared_and_repeatable(case: Path) -> None:
    rows = _assert_rows_fit(read_case(case))
    assert case_rows(read_case(case)) == rows
    assert rows["clinical"][0]["age"] == 61.0


def test_manifest_hash_is_of_its_meaning(case: Path) -> None:
    def digest() -> str:
        return str(case_rows(read_case(case))["cases"][0]["manifest_hash"])

    first = digest()
    text = (case / "case.yaml").read_text(encoding="utf-8")
    (case / "case.yaml").write_text("# a comment\n" + text)
    assert digest() == first
    shutil.move(case / "ct.nii.gz", case / "renamed.nii.gz")
    (case / "case.yaml").write_text(text.replace("ct.nii.gz", "renamed.nii.gz"))
    assert digest() == first
    for change in (("age: 61", "age: 62"), ("2024-05-31", "2024-05-30"), ("level: L5", "level: L3")):
        (case / "case.yaml").write_text(text.replace("ct.nii.gz", "renamed.nii.gz").replace(*change))
        assert digest() != first, change


class FolderOfBlobs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.puts: list[tuple[str, str]] = []

    def path(self, kind: str, name: str) -> Path:
        return self.folder / f"{kind}-{name}.nrrd"

    def has(self, kind: str, name: str) -> bool:
        return self.path(kind, name).exists()

    def put_file(self, kind: str, path: Path, sha256: str | None = None) -> str:
        assert sha256
        self.puts.append((kind, sha256))
        shutil.copyfile(path, self.path(kind, sha256))
        return sha256


def test_blobs_are_kept_once_and_read_back_exactly(case: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    blobs = FolderOfBlobs(tmp_path_factory.mktemp("blobs"))
    reading = read_case(case)
    store_images(reading, blobs)
    assert len(blobs.puts) == len(set(blobs.puts)) == 3  # two images; the masks are the same
    store_images(read_case(case), blobs)
    assert len(blobs.puts) == 3
    for one in reading.series:
        assert one.mask is not None
        read_canonical(blobs.path("images", one.image_hash), one.image_hash)
        mask = read_canonical(blobs.path("masks", one.mask_hash), one.mask_hash)
        assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(one.mask))


def test_the_same_voxels_in_another_format_are_the_same_case(case: Path) -> None:
    before = case_rows(read_case(case))
    for path in case.glob("*.nii.gz"):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path).replace(".nii.gz", ".nrrd"))
    text = (case / "case.yaml").read_text(encoding="utf-8").replace(".nii.gz", ".nrrd")
    (case / "case.yaml").write_text(text)
    assert case_rows(read_case(case)) == before


# --- real cases -----------------------------------------------------------------------------------
REAL = {  # sequence, ROIs, structures whose `all` exists, structures whose `all` says why not
    "ct_lumbar": ("ct", 14, ["iliopsoas", "paraspinal_muscle", "sacrum", "vertebra"], 0),
    "ct_dicom": ("ct", 5, ["paraspinal_muscle"], 1),
    "mr_axial_slab": ("mr_ax", 8, ["iliopsoas", "paraspinal_muscle"], 2),
    "ct_single_vertebra": ("ct", 5, ["vertebra"], 1),
    "t2_single_disc": ("t2_sag", 2, [], 2),
    "axial_muscles": ("dixon_water_ax", 3, ["paraspinal_muscle"], 0),
}


@pytest.mark.parametrize("name", REAL_CASES)
def test_real_cases(shared_data: Path, tmp_path: Path, name: str) -> None:
    sequence, rois, have_all, absent = REAL[name]
    (folder,) = write_real_cases(shared_data, tmp_path, [name])
    reading = read_case(folder)
    assert reading.findings == []
    assert len(reading.rois) == rois
    assert [roi.structure for roi in reading.rois if roi.level == "all"] == have_all
    assert len(reading.notes) == absent
    rows = _assert_rows_fit(reading)
    assert rows["cases"][0]["sequences"] == [sequence]
    for one in reading.series:
        assert one.mask is not None
        assert one.mask.GetOrigin() == one.image.GetOrigin()
        labels = sitk.GetArrayViewFromImage(one.mask)
        for roi in one.rois:
            assert roi.voxel_count == int(np.isin(labels, roi.labels).sum())
        _assert_sides(one)


def _assert_sides(one: Any) -> None:
    """In the world's coordinates (LPS) x grows to the patient's left."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(one.mask)
    x = {roi.name: np.mean([shape.GetCentroid(n)[0] for n in roi.labels]) for roi in one.rois}
    for name, place in x.items():
        if name.side == "left":
            other = RoiName(name.sequence, name.structure, name.level, "right", name.segmentation)
            assert place > x[other]


def test_the_dicom_case_is_the_nifti_case(shared_data: Path, tmp_path: Path) -> None:
    """The same CT sent as NIfTI has the same voxels and ROIs (its float32 header may move the last digits)."""
    (folder,) = write_real_cases(shared_data, tmp_path, ["ct_dicom"])
    dicom = read_case(folder)
    assert dicom.series[0].scanner.vendor == "SIEMENS"
    sitk.WriteImage(dicom.series[0].image, str(folder / "ct.nii.gz"))
    manifest = yaml.safe_load((folder / "case.yaml").read_text(encoding="utf-8"))
    manifest["series"][0]["image"] = "ct.nii.gz"
    (folder / "case.yaml").write_text(yaml.safe_dump(manifest))
    nifti = read_case(folder)
    assert content_hash(nifti.series[0].image) == content_hash(dicom.series[0].image)
    assert [roi.voxel_count for roi in nifti.series[0].rois] == [roi.voxel_count for roi in dicom.series[0].rois]
