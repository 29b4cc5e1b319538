"""Malformed manifests, label maps and BIDS data sets: how each is made, and the error it must get.

``python -m tests.pipelines.cases.malformed`` prints the table as ``kind -> Error: message``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from feature_store.errors import InputError
from pipelines.cases.bids.dataset import open_bids
from pipelines.cases.bids.masks import MapChoice
from pipelines.cases.bids.subject import BidsChoices, read_subject
from pipelines.cases.case import read_case
from pipelines.cases.label_map import named_label_map, shipped_label_map
from tests.pipelines.cases.bids_folder import AXIAL, write_bids, write_image, write_mask, write_text

Maker = Callable[[Path], list[str]]
"""Makes the malformed thing in an empty folder, reads it as a user would have it read, gives the errors' lines."""

CASE = """\
patient_id: p1
site: a
clinical: {age: 61, sex: female, bmi: 24.5}
series:
  - sequence: t2_sag
    image: t2.nii.gz
    mask: mask.nii.gz
    labels: own.yaml
"""
MAP = """\
name: ours
note: Drawn by hand.
labels:
  1: {structure: vertebral_body, level: L5}
  2: {structure: vertebral_body, level: L4}
"""
ANAT = "sub-01/anat"
DERIVED = "derivatives/manual/sub-01/anat"
T2 = f"{ANAT}/sub-01_acq-sag_T2w.nii.gz"
MASK = f"{DERIVED}/sub-01_acq-sag_mod-T2w_dseg.nii.gz"
TABLE = "derivatives/manual/dseg.tsv"


def _lines(read: Callable[[], list[str]]) -> list[str]:
    try:
        return read()
    except InputError as error:
        return [error.line()]


def case(old: str = "", new: str = "", labels: str = MAP, numbers: tuple[int, ...] = (1, 2)) -> Maker:
    """A case folder with a site's own label map; ``old`` in case.yaml becomes ``new``."""

    def make(folder: Path) -> list[str]:
        assert old in CASE
        write_text(folder / "case.yaml", CASE.replace(old, new) if old else CASE)
        write_text(folder / "own.yaml", labels)
        write_mask(folder / "mask.nii.gz", write_image(folder / "t2.nii.gz"), numbers)
        return [finding.line() for finding in read_case(folder).findings]

    return make


def own_map(old: str, new: str) -> Maker:
    """The same with a rule broken in the label map."""
    assert old in MAP
    return case(labels=MAP.replace(old, new))


def bids(edit: Callable[[Path], object], choices: BidsChoices | None = None) -> Maker:
    """Subject 01 of a small data set, after ``edit`` of its root."""

    def make(folder: Path) -> list[str]:
        root = write_bids(folder / "set")
        edit(root)

        def read() -> list[str]:
            reading = read_subject(open_bids(root), "01", choices or BidsChoices("a"))
            return [finding.line() for finding in reading.findings]

        return _lines(read)

    return make


def text(file: str, content: str) -> Maker:
    return bids(lambda root: write_text(root / file, content))


def told(file: str, data: object) -> Maker:
    return text(file, json.dumps(data))


def renamed(file: str, name: str) -> Maker:
    return bids(lambda root: (root / file).rename((root / file).with_name(name)))


def participants(header: str, *rows: str) -> Maker:
    return text("participants.tsv", "\n".join((header, *rows)) + "\n")


def unit(column: str, units: str) -> Maker:
    return told("participants.json", {column: {"Units": units}})


def _second_session(root: Path) -> None:
    write_image(root / "sub-01/ses-2/anat/sub-01_ses-2_acq-sag_T2w.nii.gz")


def _without_images(root: Path) -> None:
    for path in (root / ANAT).glob("*.nii.gz"):
        path.unlink()


def _repeats(root: Path) -> None:
    path = root / MASK
    for reader in ("A", "B"):
        write_mask(path.with_name(f"sub-01_acq-sag_mod-T2w_desc-{reader}_dseg.nii.gz"), root / T2, [4, 5])
    path.unlink()


def _other_numbers(root: Path) -> None:
    write_mask(root / MASK, root / T2, [99])


def _other_grid(root: Path) -> None:
    other = write_image(root / "other.nii.gz", slice_mm=2.0)
    write_mask(root / MASK, other, [5])


def _no_map(folder: Path) -> list[str]:
    return _lines(lambda: [str(named_label_map("verse"))])


SPIDER = BidsChoices("a", label_maps=[MapChoice(shipped_label_map("spider"), "mod", "T2w")])
Y = "participant_id\tage\tsex\tbmi\tosteoporosis"

KINDS: dict[str, tuple[Maker, str, str]] = {
    # case.yaml
    "case.yaml: empty": (case(CASE, ""), "ManifestError", "not a mapping"),
    "case.yaml: broken YAML": (case("series:\n", "series: [\n"), "ManifestError", "not valid YAML"),
    "case.yaml: a key twice": (case("site: a", "site: a\nsite: b"), "ManifestError", "'site' stands twice"),
    "case.yaml: a tag": (case("site: a", "site: !!python/name:os a"), "ManifestError", "tags"),
    "case.yaml: unknown key": (case("site: a", "site: a\nward: 3"), "ManifestError", "ward is no key"),
    "case.yaml: no patient": (case("patient_id: p1\n", ""), "ManifestError", "patient_id is missing"),
    "case.yaml: patient with a blank": (case("id: p1", "id: Jane Doe"), "ManifestError", "up to 64 letters"),
    "case.yaml: no series": (case(CASE[CASE.index("series:") :], ""), "ManifestError", "series needs at least one"),
    "case.yaml: age in days": (case("age: 61", "age: 22000"), "ManifestError", "between 0 and 120 year"),
    "case.yaml: bmi in kg/cm²": (case("bmi: 24.5", "bmi: 0.0024"), "ManifestError", "between 8 and 90 kg/m²"),
    "case.yaml: sex by letter": (case("sex: female", "sex: F"), "ManifestError", "must be one of female, male"),
    "case.yaml: sequence in capitals": (case("t2_sag", "T2"), "ManifestError", "must be lower case"),
    "case.yaml: image upwards": (case("image: t2", "image: ../t2"), "ManifestError", "a path inside the case folder"),
    "case.yaml: image missing": (case("image: t2", "image: t1"), "ImageUnreadable", "no such file"),
    "case.yaml: mask without labels": (case("    labels: own.yaml\n", ""), "ManifestError", "has a mask but no labels"),
    "case.yaml: labels without mask": (case("    mask: mask.nii.gz\n", ""), "ManifestError", "labels but no mask"),
    "case.yaml: date in another order": (case("site: a", "site: a\nindex_date: 31.05.2024"), "ManifestError", "2024"),
    "case.yaml: label listed and absent": (
        case("own.yaml", "{9: {structure: sacrum}}"), "LabelEmpty", "label 9 (sacrum) is declared and has no voxel",
    ),
    # label maps
    "label map: unknown name": (_no_map, "LabelMapError", "no label map of that name"),
    "label map: unknown name in case.yaml": (case("own.yaml", "verse"), "LabelMapError", "no label map of that name"),
    "label map: file missing": (case("own.yaml", "other.yaml"), "LabelMapError", "missing or cannot be read"),
    "label map: file outside": (case("own.yaml", "../own.yaml"), "LabelMapError", "a path inside the case folder"),
    "label map: not YAML": (own_map("labels:", "labels: ["), "LabelMapError", "not valid YAML"),
    "label map: no note": (own_map("note: Drawn by hand.\n", ""), "LabelMapError", "note is missing"),
    "label map: unknown structure": (own_map("vertebral_body", "corpus"), "LabelMapError", "structure must be one of"),
    "label map: L6": (own_map("level: L5", "level: L6"), "LabelMapError", "must be a vertebra such as L5"),
    "label map: a disc's level for a bone": (own_map("level: L5", "level: L4-L5"), "LabelMapError", "a vertebra such"),
    "label map: side by letter": (own_map("level: L5", "side: l"), "LabelMapError", "side must be one of left"),
    "label map: a number twice": (own_map("  2:", "  1:"), "LabelMapError", "'1' stands twice"),
    "label map: background named": (own_map("  2:", "  0:"), "LabelMapError", "labels.0 must be greater"),
    "label map: known and left alone": (case(labels=MAP + "also: {1: x}\n"), "LabelMapError", "both under labels and"),
    "label map: not the mask's": (case(numbers=(7, 8)), "LabelEmpty", "holds no label that ours has a structure for"),
    # BIDS: the data set
    "BIDS: description is no JSON": (text("dataset_description.json", "Name: x"), "BidsError", "not valid JSON"),
    "BIDS: description without version": (told("dataset_description.json", {"Name": "x"}), "BidsError", "BIDSVersion"),
    "BIDS: a derivative data set": (
        told("dataset_description.json", {"Name": "x", "BIDSVersion": "1", "DatasetType": "derivative"}),
        "BidsError", "is a derivative data set",
    ),
    "BIDS: no subject": (
        bids(lambda root: [(root / f"sub-0{i}").rename(root / f"0{i}") for i in (1, 2)]), "BidsError", "no folder sub-",
    ),
    "BIDS: two sessions and no choice": (bids(_second_session), "BidsError", "the subject has 2 sessions"),
    "BIDS: a session that is not there": (bids(lambda _: None, BidsChoices("a", "9")), "BidsError", "has no ses-9"),
    "BIDS: no images": (bids(_without_images), "BidsError", "the subject has no usable image"),
    # BIDS: images
    "BIDS: image of another subject": (renamed(T2, "sub-02_acq-sag_T2w.nii.gz"), "BidsError", "is not that of"),
    "BIDS: image name without form": (renamed(T2, "t2 sagittal.nii.gz"), "BidsError", "is not that of"),
    "BIDS: image named for a session": (renamed(T2, "sub-01_ses-1_T2w.nii.gz"), "BidsError", "different sessions"),
    "BIDS: unknown suffix": (renamed(T2, "sub-01_acq-sag_UNIT1.nii.gz"), "BidsError", "no sequence is known for"),
    "BIDS: image in another format": (renamed(T2, "sub-01_acq-sag_T2w.mha"), "BidsError", "it is no NIfTI"),
    "BIDS: mask among the images": (renamed(T2, "sub-01_acq-sag_dseg.nii.gz"), "BidsError", "a mask among the images"),
    "BIDS: plane against voxels": (
        bids(lambda root: write_image(root / T2, direction=AXIAL)), "BidsError", "says sag, and its slices are ax",
    ),
    "BIDS: two images of a sequence": (
        bids(lambda root: write_image(root / ANAT / "sub-01_acq-sag_run-2_T2w.nii.gz")), "BidsError", "2 images that",
    ),
    "BIDS: image that is text": (text(T2, "no image"), "ImageUnreadable", "no reader takes this file"),
    "BIDS: sidecar is no JSON": (text(T2.replace("nii.gz", "json"), "{"), "BidsError", "not valid JSON"),
    "BIDS: field strength in gauss": (
        told(T2.replace("nii.gz", "json"), {"MagneticFieldStrength": 15000}), "BidsError", "MagneticFieldStrength must",
    ),
    # BIDS: participants
    "BIDS: participants without ids": (participants("age\tsex", "61\tF"), "BidsError", "participant_id is missing"),
    "BIDS: participants by commas": (participants("participant_id,age", "sub-01,61"), "BidsError", "is missing"),
    "BIDS: ragged row": (participants("participant_id\tage", "sub-01"), "BidsError", "row 2 has 1 cells"),
    "BIDS: a column twice": (participants("participant_id\tage\tage", "sub-01\t1\t2"), "BidsError", "stands twice"),
    "BIDS: a subject twice": (participants("participant_id\tage", "sub-01\t1", "sub-01\t2"), "BidsError", "several"),
    "BIDS: age in words": (participants(Y, "sub-01\t89+\tF\t24\tno"), "BidsError", "age must be a number"),
    "BIDS: age in months": (unit("age", "months"), "BidsError", "declared in another unit than year"),
    "BIDS: bmi in lb/in2": (unit("bmi", "lb/in2"), "BidsError", "declared in another unit than kg/m²"),
    "BIDS: age of 732": (participants(Y, "sub-01\t732\tF\t24\tno"), "BidsError", "age must lie between 0 and 120 year"),
    "BIDS: sex by number": (participants(Y, "sub-01\t61\t2\t24\tno"), "BidsError", "sex must be one of female"),
    "BIDS: osteoporosis in words": (participants(Y, "sub-01\t61\tF\t24\tmild"), "BidsError", "must be yes or no"),
    # BIDS: masks
    "BIDS: mask without a map": (bids(lambda root: (root / TABLE).unlink()), "BidsError", "nothing says what"),
    "BIDS: mask of no image": (renamed(MASK, "sub-01_acq-cor_dseg.nii.gz"), "BidsError", "fits no usable image"),
    "BIDS: mask of two images": (renamed(MASK, "sub-01_acq-sag_dseg.nii.gz"), "BidsError", "fits 2 images"),
    "BIDS: a probability map": (renamed(MASK, "sub-01_acq-sag_probseg.nii.gz"), "BidsError", "no label map"),
    "BIDS: repeats and no primary": (bids(_repeats), "BidsError", "none is the primary one"),
    "BIDS: map of another tool": (bids(_other_numbers, SPIDER), "LabelEmpty", "spider has"),
    "BIDS: mask on another grid": (
        bids(_other_grid), "GridMismatch", "lie up to",
    ),
    "BIDS: lookup without names": (text(TABLE, "index\tcolour\n1\tred\n"), "BidsError", "the column name is missing"),
    "BIDS: lookup of unknown names": (text(TABLE, "index\tname\n5\tfemur\n"), "BidsError", "none of its 1 names"),
    "BIDS: lookup with an index twice": (text(TABLE, "index\tname\n5\tL5\n5\tL4\n"), "BidsError", "5 stands twice"),
    "BIDS: lookup with a broken index": (text(TABLE, "index\tname\n5.5\tL5\n"), "BidsError", "must be a whole number"),
}  # fmt: skip


def errors_of(kind: str, folder: Path) -> list[str]:
    """The lines ``Code: file: message`` that a malformed thing gets."""
    return KINDS[kind][0](folder)


if __name__ == "__main__":
    for name in KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            lines = errors_of(name, Path(scratch))
        print(f"{name} -> {next((line for line in lines if KINDS[name][2] in line), 'NOTHING SAID')}")
    print(f"{len(KINDS)} kinds")
