"""Which texts say nothing about a person."""

from __future__ import annotations

import pytest

from feature_store.plain_words import coded, is_plain, masked, plain_file, plain_or_coded, plain_reason


@pytest.mark.parametrize(
    ("text", "theme"),
    [
        ("lumbar_stenosis", "clinical"), ("degenerative spondylolisthesis L4-L5, grade II", "clinical"),
        ("TLIF", "clinical"), ("disc herniation", "clinical"), ("vertebrae_L5", "anatomy"), ("VertebraL4", "anatomy"),
        ("iliopsoas_left", "anatomy"), ("A", "rater"), ("reader_b", "rater"), ("R2", "rater"),
        ("adjudicator", "rater"), ("Siemens Healthineers", "scanner"), ("Aquilion ONE", "scanner"),
    ],
)  # fmt: skip
def test_the_fields_own_words_are_plain(text: str, theme: str) -> None:
    assert is_plain(text, theme)
    assert plain_or_coded(text, theme) == text


@pytest.mark.parametrize("text", ["Smith", "J. S.", "stenosis of Jane", "born 12.4.1960", "4711", "12-34-56", "Müller",
                                  "stenosis\n", "x" * 65, "", "stenosis 20240112"])  # fmt: skip
def test_what_people_are_called_by_is_not(text: str) -> None:
    assert not any(is_plain(text, theme) for theme in ("clinical", "anatomy", "rater", "scanner"))


def test_a_code_is_the_same_for_the_same_text_and_says_nothing_of_it() -> None:
    assert coded("Smith") == coded("Smith") != coded("Jones")
    assert coded("Smith", "rater").startswith("rater-")
    assert len({coded(f"person {n}") for n in range(100)}) > 97


def test_a_masked_path_is_a_pattern_that_finds_the_file() -> None:
    assert plain_file("ct_mask.nii.gz") == "ct_mask.nii.gz"
    assert plain_file("SMITH_JOHN_19600412/ct.nii.gz") == "*_*_*/ct.nii.gz"
    assert plain_file("sub-4711/anat/sub-4711_acq-sag_T2w.nii.gz") == "sub-*/anat/sub-*_acq-sag_T2w.nii.gz"
    assert plain_file("1960/04/12.nii") == "*/04/12.nii"
    assert plain_file("12/34/56.nii") == "*/*/*.nii"
    assert plain_reason("wrong side, sent for Smith") == "wrong side, sent for *"
    assert masked("Ärzte", "files") == "*"
