"""BIDS data sets as a source of cases: names, sessions, sidecars, participants, masks and lookup tables."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import BidsError
from pipelines.cases.bids.dataset import find_bids, open_bids
from pipelines.cases.bids.lookup import read_lookup
from pipelines.cases.bids.masks import MapChoice
from pipelines.cases.bids.names import parse_name
from pipelines.cases.bids.participants import read_clinical
from pipelines.cases.bids.subject import BidsChoices, read_subject
from pipelines.cases.case import CaseReading, case_rows
from pipelines.cases.label_map import shipped_label_map
from pipelines.cases.manifest_schema import Clinical
from tests.pipelines.cases.bids_folder import (
    AXIAL,
    describe,
    write_bids,
    write_image,
    write_json,
    write_mask,
    write_text,
    write_tptbox_samples,
)

CHOICES = BidsChoices("clinic_a")


def _map(name: str, entity: str = "", value: str = "") -> MapChoice:
    return MapChoice(shipped_label_map(name), entity, value)


def _read(root: Path, subject: str = "01", choices: BidsChoices = CHOICES) -> CaseReading:
    return read_subject(open_bids(root), subject, choices)


def _rois(reading: CaseReading) -> set[tuple[str, str, str, str]]:
    return {(roi.sequence, roi.structure, roi.level, roi.side) for roi in reading.rois}


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    return write_bids(tmp_path / "set")


# --- names ----------------------------------------------------------------------------------------
def test_names() -> None:
    name = parse_name("sub-01_ses-pre_acq-sag_seg-vert-raw_msk.nii.gz")
    assert name is not None
    assert name.entities == {"sub": "01", "ses": "pre", "acq": "sag", "seg": "vert-raw"}
    assert (name.suffix, name.extension) == ("msk", ".nii.gz")
    for wrong in ("README", "ct.nii.gz.part", "sub-01_sub-02_T1w.nii", "sub-01_x_T1w.nii", "sub-_T1w.nii", "T1w"):
        assert parse_name(wrong) is None or not parse_name(wrong).entities, wrong  # type: ignore[union-attr]


def test_the_root_is_found_from_a_subject(bids: Path, tmp_path: Path) -> None:
    assert find_bids(bids) == (bids, None)
    assert find_bids(bids / "sub-01") == (bids, "01")
    assert find_bids(bids / "derivatives") is None
    assert find_bids(tmp_path) is None


# --- a whole subject ------------------------------------------------------------------------------
def test_a_subject_is_a_case(bids: Path) -> None:
    reading = _read(bids)
    assert reading.findings == []
    manifest = reading.manifest
    assert manifest is not None
    assert (manifest.patient_id, manifest.site) == ("01", "clinic_a")
    assert manifest.clinical == Clinical(
        age=61, sex="female", bmi=24.5, osteoporosis=False, fused_levels=["L4-L5", "L5-S1"]
    )
    assert {one.sequence for one in reading.series} == {"t1_sag", "t2_sag", "t2_ax"}
    assert _rois(reading) == {
        ("t2_sag", "vertebra", "L4", "both"),
        ("t2_sag", "vertebra", "L5", "both"),
        ("t2_sag", "vertebra", "all", "both"),
        ("t2_ax", "paraspinal_muscle", "unknown", "left"),
        ("t2_ax", "paraspinal_muscle", "unknown", "right"),
        ("t2_ax", "paraspinal_muscle", "all", "both"),
    }
    assert "participants.tsv: columns that are no clinical variable here are left alone: height" in reading.notes
    assert "t2_sag: 1 labels of lookup-table outside the vocabulary are left alone: lesion" in reading.notes
    assert "t1_sag has no mask, so it has no ROIs yet" in reading.notes
    scanners = {one.sequence: one.scanner for one in reading.series}
    assert (scanners["t2_sag"].vendor, scanners["t2_sag"].model, scanners["t2_sag"].field_strength_t) == (
        "ACME", "One", 1.5,  # the nearest sidecar goes first
    )  # fmt: skip
    assert scanners["t2_ax"].field_strength_t == 3
    assert scanners["t1_sag"].vendor is None
    rows = case_rows(reading)
    assert len(rows["series"]) == 3
    assert rows["cases"][0]["index_date_known"] is False


def test_the_plane_follows_from_the_voxels_where_the_name_is_silent(bids: Path) -> None:
    reading = _read(bids, "02")
    assert reading.findings == []
    assert [one.sequence for one in reading.series] == ["t2_sag"]
    assert reading.manifest is not None
    assert reading.manifest.clinical == Clinical(sex="male", osteoporosis=True)
    path = bids / "sub-02/anat/sub-02_T2w.nii.gz"
    write_image(path, direction=AXIAL)
    shutil.rmtree(bids / "derivatives/manual/sub-02")
    assert [one.sequence for one in _read(bids, "02").series] == ["t2_ax"]
    write_image(path, slice_mm=1.0)
    assert [one.sequence for one in _read(bids, "02").series] == ["t2_iso"]


def test_the_same_case_twice_is_the_same_rows(bids: Path) -> None:
    assert case_rows(_read(bids)) == case_rows(_read(bids))


def test_a_ct_needs_no_plane(tmp_path: Path) -> None:
    root = describe(tmp_path)
    ct = write_image(root / "sub-7/ct/sub-7_ct.nii.gz", direction=AXIAL)
    write_mask(root / "derivatives/totalsegmentator/sub-7/ct/sub-7_dseg.nii.gz", ct, [27, 28, 1])
    choices = replace(CHOICES, label_maps=[_map("totalsegmentator-ct")])
    reading = _read(root, "7", choices)
    assert reading.findings == []
    assert _rois(reading) == {("ct", "vertebra", level, "both") for level in ("L5", "L4", "all")}
    assert "there are no clinical variables" in reading.notes[0]


# --- sessions -------------------------------------------------------------------------------------
def test_several_sessions_need_a_choice(tmp_path: Path) -> None:
    root = describe(tmp_path)
    for number, session in enumerate(("01", "02")):
        t2 = write_image(root / f"sub-1/ses-{session}/anat/sub-1_ses-{session}_acq-sag_T2w.nii.gz", number)
        write_mask(root / f"derivatives/m/sub-1/ses-{session}/anat/sub-1_ses-{session}_acq-sag_dseg.nii.gz", t2, [1, 2])
    choices = replace(CHOICES, label_maps=[_map("spider")])
    reading = _read(root, "1", choices)
    assert reading.manifest is None
    assert "the subject has 2 sessions (ses-01, ses-02)" in reading.findings[0].message
    first, second = (_read(root, "1", replace(choices, session=session)) for session in ("01", "ses-02"))
    assert first.findings == second.findings == []
    assert first.series[0].image_hash != second.series[0].image_hash
    assert "1 masks of other sessions are left alone" in first.notes
    assert "has no ses-03" in _read(root, "1", replace(choices, session="03")).findings[0].message
    shutil.rmtree(root / "sub-1/ses-02")
    assert _read(root, "1", choices).usable  # one session needs no choice


# --- masks ----------------------------------------------------------------------------------------
def test_a_map_for_masks_of_one_name(tmp_path: Path) -> None:
    """As SPINEPS writes them: seg-vert and seg-subreg of one image, each with its own map."""
    root = describe(tmp_path)
    t2 = write_image(root / "sub-1/anat/sub-1_acq-sag_T2w.nii.gz")
    for seg, numbers in (("vert", [20, 21, 120]), ("subreg", [49, 100])):
        write_mask(root / f"derivatives_seg/sub-1/anat/sub-1_acq-sag_mod-T2w_seg-{seg}_msk.nii.gz", t2, numbers)
    maps = [_map("tptbox-vertebrae", "seg", "vert"), _map("tptbox-subregions", "seg", "subreg")]
    reading = _read(root, "1", replace(CHOICES, label_maps=maps))
    assert reading.findings == []
    assert {(roi.structure, roi.level) for roi in reading.rois} == {
        ("vertebra", "L1"), ("vertebra", "L2"), ("vertebra", "all"), ("intervertebral_disc", "L1-L2"),
        ("intervertebral_disc", "all"), ("vertebral_body", "unknown"),
    }  # fmt: skip
    assert "t2_sag: intervertebral_disc is drawn by another mask too and is left alone in this one" in reading.notes
    only = _read(root, "1", replace(CHOICES, label_maps=maps[:1]))
    assert [finding.message for finding in only.findings] == ["nothing says what its numbers mean."]


def test_repeated_segmentations_by_desc(bids: Path) -> None:
    folder = bids / "derivatives/manual/sub-02/anat"
    image = bids / "sub-02/anat/sub-02_T2w.nii.gz"
    write_mask(folder / "sub-02_desc-readerB_dseg.nii.gz", image, [4, 5])
    reading = _read(bids, "02")
    assert reading.findings == []
    assert {roi.segmentation for roi in reading.rois} == {"primary", "readerB"}
    (folder / "sub-02_dseg.nii.gz").rename(folder / "sub-02_desc-readerA_dseg.nii.gz")
    reading = _read(bids, "02")
    assert len(reading.findings) == 2
    assert "none is the primary one" in reading.findings[0].message
    (folder / "sub-02_desc-readerB_dseg.nii.gz").unlink()
    assert {roi.segmentation for roi in _read(bids, "02").rois} == {"primary"}  # a lone desc is the primary one


def test_a_sidecar_may_name_the_image(tmp_path: Path) -> None:
    root = describe(tmp_path)
    t1 = write_image(root / "sub-1/anat/sub-1_acq-sag_T1w.nii.gz", 1)
    write_image(root / "sub-1/anat/sub-1_acq-sag_T2w.nii.gz", 2)
    mask = write_mask(root / "derivatives/m/sub-1/anat/sub-1_acq-sag_dseg.nii.gz", t1, [1, 2])
    choices = replace(CHOICES, label_maps=[_map("spider")])
    unclear = _read(root, "1", choices)
    assert [f.message for f in unclear.findings] == ["it fits 2 images (t1_sag, t2_sag)."]
    sidecar = mask.with_name("sub-1_acq-sag_dseg.json")
    write_json(sidecar, {"Sources": ["bids:raw:sub-1/anat/sub-1_acq-sag_T1w.nii.gz"]})
    clear = _read(root, "1", choices)
    assert clear.findings == []
    assert {roi.sequence for roi in clear.rois} == {"t1_sag"}


def test_a_lookup_table_knows_transitional_anatomy(tmp_path: Path) -> None:
    """TPTBox's names on other numbers: with an L6 the disc below L5 has no name in the vocabulary."""
    root = describe(tmp_path)
    t2 = write_image(root / "sub-1/anat/sub-1_acq-sag_T2w.nii.gz")
    write_mask(root / "derivatives/m/sub-1/anat/sub-1_acq-sag_dseg.nii.gz", t2, [1, 2, 3, 4])
    table = root / "derivatives/m/sub-1/anat/sub-1_acq-sag_dseg.tsv"
    write_text(table, "index\tname\n1\tL5\n2\tL5_ivd\n3\tL6\n4\tS1\n")
    reading = _read(root, "1")
    assert ("t2_sag", "intervertebral_disc", "L5-S1", "both") not in _rois(reading)
    assert any("label 2 (L5_ivd) is left alone" in note for note in reading.notes)
    write_text(table, "index\tname\n1\tL5\n2\tL5_ivd\n3\tnucleus\n4\tS1\n")
    assert ("t2_sag", "intervertebral_disc", "L5-S1", "both") in _rois(_read(root, "1"))


# --- what must not happen -------------------------------------------------------------------------
def test_findings_name_no_patient(bids: Path) -> None:
    (bids / "sub-02").rename(bids / "sub-DoeJane")
    image = bids / "sub-DoeJane/anat/sub-02_T2w.nii.gz"
    image.rename(image.with_name("sub-DoeJane_T2w.nii.gz"))
    mask = write_mask(
        bids / "derivatives/manual/sub-DoeJane/anat/sub-DoeJane_dseg.nii.gz",
        image.with_name("sub-DoeJane_T2w.nii.gz"),
        [300],
    )
    mask.with_name("sub-DoeJane_seg-x_probseg.nii.gz").write_bytes(b"x")
    write_text(bids / "participants.tsv", "participant_id\tage\tsex\nsub-DoeJane\t1963\tDoe\n")
    reading = _read(bids, "DoeJane")
    assert len(reading.findings) == 4
    assert "Doe" not in repr(reading.findings)
    assert "1963" not in repr(reading.findings)
    assert {finding.file for finding in reading.findings} > {"derivatives/manual/sub-*/anat/sub-*_dseg.nii.gz"}


def test_a_link_out_of_the_data_set_is_not_followed(bids: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.nii.gz"
    path = bids / "sub-02/anat/sub-02_T2w.nii.gz"
    shutil.move(path, outside)
    path.symlink_to(outside)
    reading = _read(bids, "02")
    assert not reading.usable
    assert [finding.code for finding in reading.findings] == ["ManifestError"]


def test_subjects_without_images_are_told(bids: Path) -> None:
    with (bids / "participants.tsv").open("a") as file:
        file.write("sub-03\t1\tM\tn/a\tno\tn/a\tn/a\n")
    dataset = open_bids(bids)
    assert list(dataset.subjects) == ["01", "02"]
    assert dataset.without_images() == ["03"]


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"Name": "x"}', "BIDSVersion is missing"),
        ('{"Name": "x", "BIDSVersion": "1.8.0", "DatasetType": "derivative"}', "a derivative data set"),
    ],
)
def test_a_data_set_without_a_usable_description(bids: Path, description: str, words: str) -> None:
    write_text(bids / "dataset_description.json", description)
    with pytest.raises(BidsError, match=words):
        open_bids(bids)


cells = st.text(st.characters(blacklist_characters="\t\r\n", blacklist_categories=["Cs"]), max_size=12)
columns = st.sampled_from(["age", "sex", "bmi", "surgical_segments", "fused_levels", "osteoporosis", "diagnosis", "x"])


@settings(max_examples=60, deadline=None)
@given(
    row=st.dictionaries(columns, cells, min_size=1),
    described=st.dictionaries(columns, st.dictionaries(st.sampled_from(["Units", "Levels"]), st.none() | cells)),
    table=st.lists(st.tuples(cells, cells), max_size=4),
)
def test_any_table_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, str], described: object, table: list[tuple[str, str]]
) -> None:
    root = describe(tmp_path_factory.mktemp("b"))
    (root / "sub-1").mkdir()
    write_text(
        root / "participants.tsv", "\t".join(["participant_id", *row]) + "\n" + "\t".join(["sub-1", *row.values()])
    )
    write_json(root / "participants.json", described)
    clinical, errors, _ = read_clinical(open_bids(root), "1")
    assert isinstance(clinical, Clinical)
    assert all(isinstance(error, BidsError) for error in errors)
    lookup = write_text(root / "dseg.tsv", "index\tname\n" + "".join(f"{a}\t{b}\n" for a, b in table))
    with pytest.raises(BidsError):
        read_lookup(lookup, "dseg.tsv")


# --- real samples ---------------------------------------------------------------------------------
TPTBOX = replace(
    CHOICES, label_maps=[_map("tptbox-subregions", "seg", "subreg"), _map("tptbox-vertebrae", "seg", "vert")]
)


def test_the_ct_sample_of_tptbox(shared_data: Path, tmp_path: Path) -> None:
    reading = _read(write_tptbox_samples(shared_data, tmp_path), "ct", TPTBOX)
    assert reading.findings == []
    assert _rois(reading) == {
        ("ct", "vertebra", "L2", "both"), ("ct", "vertebra", "L3", "both"), ("ct", "vertebra", "L4", "both"),
        ("ct", "vertebra", "all", "both"), ("ct", "vertebral_body", "unknown", "both"),
    }  # fmt: skip
    assert any("Arcus_Vertebrae" in note for note in reading.notes)


def test_the_mr_sample_of_tptbox(shared_data: Path, tmp_path: Path) -> None:
    """Its instance numbers (5 to 7) are counted, so the levels are unknown; its voxels are isotropic."""
    counted = replace(TPTBOX, label_maps=[TPTBOX.label_maps[0], _map("spineps-instances", "seg", "vert")])
    root = write_tptbox_samples(shared_data, tmp_path)
    reading = _read(root, "mri", counted)
    assert reading.findings == []
    assert _rois(reading) == {
        ("t2_iso", "vertebra", "unknown", "both"),
        ("t2_iso", "vertebral_body", "unknown", "both"),
        ("t2_iso", "intervertebral_disc", "unknown", "both"),
    }
    for folder in ("rawdata/sub-mri/anat", "derivatives/sub-mri/anat"):
        for path in sorted((root / folder).iterdir()):
            path.rename(path.with_name(path.name.replace("sub-mri_", "sub-mri_acq-sag_")))
    assert {roi.sequence for roi in _read(root, "mri", counted).rois} == {"t2_sag"}
