"""case.yaml: what is refused as a whole, what is left out alone, and under which words."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.errors import ManifestError
from feature_store.schemas import CLINICAL
from pipelines.cases.manifest import case_id, day_offsets, load_manifest, read_manifest, resolve_inside
from pipelines.cases.manifest_schema import Clinical

SECRETS = ("Doe", "P-77", "1963", "22265", "0.0023")
GOOD = """\
patient_id: P-77
site: clinic_a
index_date: 2024-05-31
clinical: {age: 61, sex: female, bmi: 24.5, surgical_segments: 1, fused_levels: [L4-L5], osteoporosis: false,
           diagnosis: stenosis, procedure: PLIF, prior_surgery: false, infection_or_tumour: false, image_quality: good}
series:
  - sequence: ct
    image: ct.nii.gz
    mask: ct_mask.nii.gz
    labels:
      27: {structure: vertebral_body, level: L5}
      28: {structure: vertebral_body, level: L4, side: both}
    study_date: "2024-05-01"
    scanner: {vendor: ACME, model: One, field_strength_t: 1.5}
  - {sequence: dixon_water_ax, image: water}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "case.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_whole_manifest(tmp_path: Path) -> None:
    manifest = load_manifest(write(tmp_path, GOOD))
    assert (manifest.patient_id, manifest.site, manifest.index_date) == ("P-77", "clinic_a", date(2024, 5, 31))
    assert manifest.case_id == case_id("clinic_a", "P-77") == "879e6c0358e58c1f"
    assert manifest.clinical.fused_levels == ["L4-L5"]
    ct, water = manifest.series
    assert (ct.segmentation, ct.study_date) == ("primary", date(2024, 5, 1))
    assert {n: (m.structure, m.level, m.side) for n, m in ct.labels.items()} == {
        27: ("vertebral_body", "L5", "both"),
        28: ("vertebral_body", "L4", "both"),
    }
    assert (water.mask, water.labels) == (None, {})
    dumped = yaml.dump(manifest.without_dates().model_dump(mode="json"))
    assert "2024" not in dumped


def test_clinical_has_the_columns_of_its_table() -> None:
    keys = {"site", "patient_id", "case_id", "days_from_index"}
    assert set(Clinical.model_fields) == set(CLINICAL.column_names) - keys


def test_an_empty_clinical_section_is_none(tmp_path: Path) -> None:
    text = "patient_id: a\nsite: b\nclinical:\nseries: [{sequence: ct, image: ct.nii}]\n"
    assert load_manifest(write(tmp_path, text)).clinical == Clinical()


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9)
)

# (what is changed, into what, the words of the error): the case cannot be read at all
FATAL = {
    "no mapping": (GOOD, "- a\n- b\n", "not a mapping"),
    "empty file": (GOOD, "", "not a mapping"),
    "broken YAML": ("series:\n", "series: [\n", "not valid YAML (line"),
    "tab indentation": ("  - sequence", "\t- sequence", "not valid YAML (line"),
    "control character": ("clinic_a", '"\x01"', "not valid YAML"),
    "impossible date": ("2024-05-31", "2024-02-31", "not valid YAML"),
    "key twice": ("site: clinic_a", "site: clinic_a\nsite: clinic_b", "'site' stands twice (line 3)"),
    "label twice": ("28:", "27:", "'27' stands twice (line"),
    "alias bomb": (GOOD, BOMB, "aliases unfold to more than"),
    "alias inside itself": ("site: clinic_a", "site: &a [*a]", "an alias stands inside what it names"),
    "alias without a name": ("site: clinic_a", "site: *a", "not valid YAML (line"),
    "merge key": ("site: clinic_a", "<<: {site: clinic_a}", "tags"),
    "python tag": ("site: clinic_a", "site: !!python/object/apply:os.system [ls]", "tags"),
    "own tag": ("site: clinic_a", "site: !x clinic_a", "tags"),
    "binary": ("site: clinic_a", "site: !!binary aGVsbG8=", "tags"),
    "too deep": ("site: clinic_a", "site: " + "[" * 60 + "]" * 60, "nesting"),
    "too large": ("site: clinic_a", "site: clinic_a #" + "x" * 2**20, "larger than"),
    "key that is a list": ("site: clinic_a", "[a, b]: clinic_a", "neither text nor"),
    "unknown key": ("site: clinic_a", "site: clinic_a\nindexdate: 2024-05-31", "indexdate is no key"),
    "patient missing": ("patient_id: P-77\n", "", "patient_id is missing"),
    "patient as number": ("patient_id: P-77", "patient_id: 0077", "patient_id must be text"),
    "patient with a slash": ("patient_id: P-77", "patient_id: Doe/1963", "patient_id must be up to 64 letters"),
    "patient with a blank": ("patient_id: P-77", "patient_id: Jane Doe", "patient_id must be up to 64 letters"),
    "site that YAML takes for false": ("site: clinic_a", "site: no", "site must be text"),
    "site too long": ("site: clinic_a", f"site: {'x' * 65}", "site must be up to 64 letters"),
    "date in another order": ("2024-05-31", "31.05.1963", "index_date must be a calendar date"),
    "date with a time": ("2024-05-31", "2024-05-31 10:00:00", "index_date must be a calendar date"),
    "date as number": ("2024-05-31", "20240531", "index_date must be a calendar date"),
    "year mistyped": ("2024-05-31", "2204-05-31", "index_date must lie between the years"),
    "no series": (GOOD[GOOD.index("series:") :], "", "series needs at least one entry"),
    "series no list": (GOOD[GOOD.index("series:") :], "series: {sequence: ct}", "series must be"),
    "clinical no mapping": ("{age: 61,", "[{age: 61,", "not valid YAML"),
    "clinical as text": (
        GOOD[GOOD.index("clinical") : GOOD.index("series")], "clinical: Doe\n", "clinical must be a map",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FATAL)
def test_what_cannot_be_read_at_all(tmp_path: Path, kind: str) -> None:
    old, new, words = FATAL[kind]
    assert old in GOOD
    for read in (load_manifest, read_manifest):
        with pytest.raises(ManifestError) as raised:
            read(write(tmp_path, GOOD.replace(old, new)))
        _check(raised.value, words)


def test_aliases_that_programs_write_are_read(tmp_path: Path) -> None:
    """PyYAML writes a mapping that is used twice as an anchor and an alias."""
    labels = {1: {"structure": "sacrum"}}
    series = [{"sequence": name, "image": name, "mask": name + "_m", "labels": labels} for name in ("ct", "t2_sag")]
    text = yaml.safe_dump({"patient_id": "a", "site": "b", "series": series})
    assert "*id001" in text
    assert [list(entry.labels) for entry in load_manifest(write(tmp_path, text)).series] == [[1], [1]]


def test_absent_and_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="missing"):
        load_manifest(tmp_path)
    (tmp_path / "case.yaml").write_bytes("site: Züri".encode("latin1"))
    with pytest.raises(ManifestError, match="UTF-8"):
        load_manifest(tmp_path)


# the same, where only a part is left out: what remains stands in the last column
PARTIAL: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "age in days": ("age: 61", "age: 22265", "clinical.age must lie between 0 and 120 year", {"age": None}),
    "bmi in kg/cm2": ("bmi: 24.5", "bmi: 0.0023", "clinical.bmi must lie between 8 and 90 kg/m²", {"bmi": None}),
    "age not a number": ("age: 61", "age: .nan", "clinical.age must be a finite number", {"age": None}),
    "age as truth": ("age: 61", "age: true", "clinical.age must be", {"age": None}),
    "age as text": ("age: 61", "age: '61'", "clinical.age must be", {"age": None}),
    "sex by letter": ("sex: female", "sex: F", "clinical.sex must be one of female, male, other", {"sex": None}),
    "segments": ("surgical_segments: 1", "surgical_segments: 4", "between 1 and 3", {"surgical_segments": None}),
    "half a segment": ("surgical_segments: 1", "surgical_segments: 1.5", "surgical_segments must", {"age": 61.0}),
    "levels against segments": ("[L4-L5]", "[L4-L5, L3-L4]", "as many discs as", {"fused_levels": None, "age": 61.0}),
    "fused vertebra": ("[L4-L5]", "[L4]", "clinical.fused_levels.0 must be one of C1-C2", {"fused_levels": None}),
    "yes as text": ("osteoporosis: false", "osteoporosis: 'no'", "clinical.osteoporosis must be", {"age": 61.0}),
    "quality": ("image_quality: good", "image_quality: fine", "image_quality must be one of good", {"age": 61.0}),
    "unknown variable": ("age: 61", "age: 61, height: 172", "clinical.height is no key", {"age": 61.0}),
    "label level of a disc": (
        "level: L5", "level: L4-L5", "series[0].labels.27.level must be a vertebra", {"labels": [28]},
    ),
    "label level unknown word": (
        "level: L5", "level: L6", "series[0].labels.27.level must be a vertebra", {"labels": [28]},
    ),
    "structure": (
        "27: {structure: vertebral_body", "27: {structure: liver", "structure must be one of", {"labels": [28]},
    ),
    "side": ("side: both", "side: L", "series[0].labels.28.side must be one of left", {"labels": [27]}),
    "label number as text": ("27:", "'27':", "series[0].labels.27 must be", {"labels": [28]}),
    "background as label": ("27:", "0:", "series[0].labels.0 must be greater", {"labels": [28]}),
    "label too large": ("27:", "70000:", "series[0].labels.70000 must be less", {"labels": [28]}),
    "label without structure": (
        "{structure: vertebral_body, level: L5}", "L5", "series[0].labels.27 must", {"labels": [28]},
    ),
    "unknown key of a label": ("level: L5", "level: L5, name: Doe", "labels.27.name is no key", {"labels": [28]}),
    "field strength in gauss": ("t: 1.5", "t: 15000", "field_strength_t must lie between 0 and 12 T", {"series": 2}),
    "sequence": ("sequence: ct", "sequence: CT", "series[0].sequence must be lower case", {"series": 1}),
    "image missing": ("    image: ct.nii.gz\n", "", "series[0].image is missing", {"series": 1}),
    "image absolute": ("image: ct.nii.gz", "image: /etc/Doe", "series[0].image must be a path inside", {"series": 1}),
    "image upwards": ("image: ct.nii.gz", "image: a/../../Doe", "series[0].image must be a path inside", {"series": 1}),
    "image of Windows": (
        "image: ct.nii.gz", "image: 'C:\\Doe'", "series[0].image must be a path inside", {"series": 1},
    ),
    "image name too long": (
        "image: ct.nii.gz", f"image: {'x' * 300}", "series[0].image must be a shorter", {"series": 1},
    ),
    "mask upwards": ("mask: ct_mask.nii.gz", "mask: ../Doe", "series[0].mask must be a path inside", {"series": 1}),
    "labels without mask": ("    mask: ct_mask.nii.gz\n", "", "series[0] has labels but no mask", {"series": 1}),
    "study date": ("2024-05-01", "Doe", "series[0].study_date must be a calendar date", {"series": 1}),
    "unknown key of a series": (
        "image: water", "image: water, lables: {}", "series[1].lables is no key", {"series": 1},
    ),
    "second image of a sequence": (
        "sequence: dixon_water_ax", "sequence: ct", "series[1] names another image", {"series": 1},
    ),
    "entry that is text": (
        "{sequence: dixon_water_ax, image: water}", "Doe", "series[1] must be a mapping", {"series": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PARTIAL)
def test_one_fault_leaves_the_rest(tmp_path: Path, kind: str) -> None:
    old, new, words, remains = PARTIAL[kind]
    assert old in GOOD
    folder = write(tmp_path, GOOD.replace(old, new, 1))
    manifest, errors = read_manifest(folder)
    _check(errors[0], words)
    with pytest.raises(ManifestError):
        load_manifest(folder)
    for key, value in remains.items():
        if key == "labels":
            assert list(manifest.series[0].labels) == value
        elif key == "series":
            assert len(manifest.series) == value
        else:
            assert getattr(manifest.clinical, key) == value


def _check(error: ManifestError, words: str) -> None:
    assert words in error.message
    assert error.file == "case.yaml"
    assert error.action
    assert "\n" not in error.line()
    for secret in SECRETS:
        assert secret not in error.line()


def test_several_faults_are_all_told(tmp_path: Path) -> None:
    text = GOOD.replace("age: 61", "age: 200").replace("sex: female", "sex: f").replace("sequence: ct", "sequence: CT")
    manifest, errors = read_manifest(write(tmp_path, text.replace("image: water", "picture: water")))
    assert [e.message.split()[0] for e in errors] == [
        "clinical.age",
        "clinical.sex",
        "series[0].sequence",
        "series[1].image",
        "series[1].picture",
    ]
    assert manifest.series == []


def test_masks_of_one_image(tmp_path: Path) -> None:
    """Two masks of different structures share a segmentation; a repeat needs a name of its own."""
    entry = "  - {sequence: ct, image: ct.nii.gz, mask: %s, segmentation: %s, labels: {1: {structure: %s}}}\n"
    text = GOOD + entry % ("b.nii", "primary", "sacrum") + entry % ("c.nii", "reader_b", "vertebral_body")
    assert len(load_manifest(write(tmp_path, text)).series) == 4
    _, errors = read_manifest(write(tmp_path, text + entry % ("d.nii", "primary", "sacrum")))
    assert [error.message.split(":")[0] for error in errors] == ["series[4] draws a structure again"]


# --- paths ----------------------------------------------------------------------------------------
def test_links_may_not_lead_out(tmp_path: Path) -> None:
    home, outside = tmp_path / "case", tmp_path / "outside"
    (home / "dicom").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.nii").write_bytes(b"x")
    (home / "real.nii").write_bytes(b"x")
    (home / "within.nii").symlink_to(home / "real.nii")
    (home / "link.nii").symlink_to(outside / "secret.nii")
    (home / "folder").symlink_to(outside)
    (home / "dicom" / "1.dcm").symlink_to(outside / "secret.nii")
    (home / "circle").symlink_to(home / "circle")
    assert resolve_inside(home, "within.nii", "image").read_bytes() == b"x"
    assert not resolve_inside(home, "absent.nii", "image").exists()  # absence is the image reader's to tell
    for inner in ("link.nii", "folder", "folder/secret.nii", "dicom", "circle"):
        with pytest.raises(ManifestError, match="out of the case folder"):
            resolve_inside(home, inner, "image")


# --- time -----------------------------------------------------------------------------------------
def test_days_from_the_index_date() -> None:
    studies = [date(2024, 5, 1), None, date(2024, 6, 2)]
    assert day_offsets(date(2024, 5, 31), studies) == [-30, None, 2]
    assert day_offsets(None, studies) == [-32, None, 0]  # the latest study stands in
    assert day_offsets(None, [None]) == [None]
    assert day_offsets(date(2024, 5, 31), []) == []


@settings(deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("m")
    (folder / "case.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ManifestError):
        read_manifest(folder)


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates(),
    st.sampled_from(["ct", "L5", "left", "vertebra", "a.nii", "female"]),
)  # fmt: skip
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner)
)
entries = st.dictionaries(
    st.sampled_from(["sequence", "image", "mask", "labels", "segmentation", "scanner", "study_date", "x"]), trees
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    clinical=st.dictionaries(st.sampled_from(["age", "sex", "bmi", "fused_levels", "x"]), trees),
    series=st.lists(st.one_of(entries, trees), max_size=3),
)
def test_any_tree_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, clinical: Any, series: Any) -> None:
    folder = tmp_path_factory.mktemp("m")
    text = yaml.safe_dump({"patient_id": "p", "site": "s", "clinical": clinical, "series": series})
    (folder / "case.yaml").write_text(text, encoding="utf-8")
    try:
        manifest, errors = read_manifest(folder)
    except ManifestError:
        return
    assert manifest.patient_id == "p"
    assert errors or len(manifest.series) == len(series)
