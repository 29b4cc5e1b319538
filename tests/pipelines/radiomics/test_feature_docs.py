"""Every feature has a family, a unit that its values obey, a meaning, and the code of the IBSI's manual."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from pipelines.radiomics.feature_docs import DOCS, FAMILIES, feature_doc, image_unit, meaning
from pipelines.radiomics.feature_names import CLASSES
from pipelines.radiomics.feature_sets import REGISTRY, STUDY_CT, STUDY_MR
from pipelines.radiomics.texture.dependence import gldm, glszm
from pipelines.radiomics.texture.firstorder import firstorder
from pipelines.radiomics.texture.glcm import glcm
from pipelines.radiomics.texture.glrlm import glrlm
from pipelines.radiomics.texture.neighbourhood import count, make_grid
from pipelines.radiomics.texture.ngtdm import ngtdm
from pipelines.radiomics.texture.shape import shape
from tests.pipelines.radiomics.test_references import IBSI

FACTOR = 2.0
UNSCALABLE = {"Id", "Idm", "Idmn", "Idn"}
"""Called dimensionless although the distance of two levels stands beside a constant."""


def test_every_feature_of_every_set_has_a_family_a_unit_and_a_meaning() -> None:
    for family, features in CLASSES.items():
        assert set(DOCS[family]) == set(features)
        for doc in DOCS[family].values():
            assert doc.family in FAMILIES
            assert len(doc.meaning) >= 10
            assert doc.unit("image unit")
    for known in REGISTRY.values():
        row = known.row()
        assert {len(row[key]) for key in ("feature_names", "units", "families", "ibsi_codes")} == {  # type: ignore[arg-type]
            len(known.feature_names)
        }
        assert all((*known.units, *known.families))


def test_units_follow_the_image() -> None:
    ct = dict(zip(STUDY_CT.feature_names, STUDY_CT.units, strict=True))
    mr = dict(zip(STUDY_MR.feature_names, STUDY_MR.units, strict=True))
    assert ct["original_shape_MeshVolume"] == mr["original_shape_MeshVolume"] == "mm³"
    assert ct["wavelet-LLH_firstorder_TotalEnergy"] == "image unit²·mm³"
    assert mr["original_firstorder_Mean"] == "SD/100"
    assert mr["original_firstorder_TotalEnergy"] == "(SD/100)²·mm³"
    assert mr["original_glcm_JointEntropy"] == "bit"
    assert mr["original_gldm_SmallDependenceLowGrayLevelEmphasis"] == "voxel⁻²·grey level⁻²"
    assert mr["original_shape_Sphericity"] == "1"
    assert image_unit(True, 1) == "SD"
    assert feature_doc("log-sigma-2-0-mm-3D_ngtdm_Contrast").ibsi_code == "65HE"


def test_codes_are_those_of_the_ibsi_manual() -> None:
    with (Path(__file__).parent / "ibsi_codes.csv").open() as file:
        codes = {row["ibsi_tag"]: row["code"] for row in csv.DictReader(file)}
    tags = {(family, name): tag for family, features in IBSI.items() for name, tag in features.items()}
    for family, features in CLASSES.items():
        for name, code in features.items():
            assert code == codes[tags[family, name]] if (family, name) in tags else not code, (family, name)
    assert len(tags) == len(set(tags.values())) == len(codes) == 102


def _texture() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    mask = random.random((9, 10, 11)) < 0.9
    return random.integers(1, 9, int(mask.sum())).astype(np.int32), mask


def _expected(family: str, before: dict[str, float], powers: tuple[str, ...]) -> dict[str, float]:
    scale = {name: FACTOR ** sum(p for s, p in DOCS[family][name].dimension if s in powers) for name in before}
    return {name: value * scale[name] for name, value in before.items()}


def test_shape_scales_as_its_units_say() -> None:
    _, mask = _texture()
    small, large = (shape(mask, (0.7 * k, 0.9 * k, 2.5 * k)) for k in (1.0, FACTOR))
    assert large == pytest.approx(_expected("shape", small, ("mm",)), rel=1e-9)


def test_first_order_scales_as_its_units_say() -> None:
    values = np.random.default_rng(3).normal(40, 30, 500)
    voxels = np.array([20, 200, 200, 80])  # the bins are as wide as the values are scaled, so these stay
    before, after = (firstorder(values * k, voxels, 1.5, 0.0) for k in (1.0, FACTOR))
    assert after == pytest.approx(_expected("firstorder", before, ("i",)), rel=1e-9)
    wider = firstorder(values, voxels, 1.5 * FACTOR, 0.0)
    assert wider == pytest.approx(
        {n: v * (FACTOR if ("mm", 3) in DOCS["firstorder"][n].dimension else 1) for n, v in before.items()}, rel=1e-9
    )


@pytest.mark.parametrize("family", ["glcm", "glrlm", "glszm", "gldm", "ngtdm"])
def test_textures_scale_with_the_grey_level_as_their_units_say(family: str) -> None:
    levels, mask = _texture()
    grid = make_grid(mask)
    counts = count(levels, grid)

    def features(factor: int) -> dict[str, float]:
        greys = counts.greys * factor
        return {
            "glcm": lambda: glcm(counts.cooccurrences, greys),
            "glrlm": lambda: glrlm(counts.runs, greys),
            "glszm": lambda: glszm(counts.zones, greys),
            "gldm": lambda: gldm(counts.dependences, greys, 4 * len(grid.steps) + 1),
            "ngtdm": lambda: ngtdm(greys, counts.voxels, counts.differences * factor),
        }[family]()

    before, after = features(1), features(2)
    expected = _expected(family, before, ("level",))
    assert set(before) == set(DOCS[family])
    for name in set(before) - (UNSCALABLE if family == "glcm" else set()):
        assert after[name] == pytest.approx(expected[name], rel=1e-9), name


def test_a_feature_in_words_with_the_image_it_is_made_of() -> None:
    text = DOCS["glcm"]["Contrast"].meaning
    assert meaning("original_glcm_Contrast") == meaning("MR_original_glcm_Contrast") == text
    assert meaning("wavelet-HLH_glcm_Contrast") == f"{text}; in the wavelet sub-band HLH"
    assert meaning("log-sigma-3-0-mm-3D_glcm_Contrast").endswith("of 3 mm")
    assert meaning("log-sigma-2-5-mm-3D_glcm_Contrast").endswith("of 2.5 mm")
    assert [meaning(name) for name in ("PC1", "x_y", "original_glcm_Nothing", "a_nowhere_Contrast")] == [""] * 4
