"""A U-Net learns phantoms, does better than guessing on those held out, and its masks go the whole way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml

import infra.cli
from feature_store.errors import Conflict, LabelEmpty, MaskUnreadable, NotFound, TooFewPatients, UsageError
from feature_store.store import FeatureStore
from infra.cli.segmentation import draw_missing
from infra.cli.session import Session
from infra.settings import load_settings
from models.segmentation.metrics import mean_dice
from models.segmentation.recipe import SegmentClass, default_recipe
from pipelines.cases.case import case_rows, read_case, store_images
from pipelines.cases.label_map import read_label_map
from pipelines.imaging.images import read_image
from pipelines.imaging.masks import align_mask, read_mask
from pipelines.segmentation.drawn import choose_classes, drawn_cases, store_of_readings, usable_for
from pipelines.segmentation.missing import segment_missing
from pipelines.segmentation.registry import find_segmenter, load_segmenter, register_segmenter, segmenters
from pipelines.segmentation.training import split, train_segmenter
from tests.pipelines.segmentation.trained import SMALL, Phantoms, make_phantoms


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small only wait for each other on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def phantoms(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Phantoms:
    return make_phantoms(tmp_path_factory.mktemp("segmentation"))


def arrays(phantoms: Phantoms, patients: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    blobs = phantoms.store.blobs
    return [
        (
            sitk.GetArrayFromImage(case.read_image(blobs)),
            sitk.GetArrayFromImage(case.read_labels(blobs, phantoms.recipe.classes)),
        )
        for case in phantoms.cases
        if case.patient in patients
    ]


@pytest.mark.slow
def test_it_does_better_than_guessing_on_patients_held_out(phantoms: Phantoms) -> None:
    """Guessing: the best threshold in HU, or where most training patients have bone, both chosen on training."""
    done = phantoms.done
    training, held_out = arrays(phantoms, done.patients_seen), arrays(phantoms, done.patients_held_out)

    def dice(guesses: list[np.ndarray], drawn: list[np.ndarray]) -> float:
        pairs = zip(guesses, drawn, strict=True)
        return float(np.mean([mean_dice(guess.astype(np.uint8), label, 1) for guess, label in pairs]))

    def best(guess: Any, settings: Any) -> float:
        chosen = max(settings, key=lambda s: dice([guess(i, s) for i, _ in training], [d for _, d in training]))
        return dice([guess(i, chosen) for i, _ in held_out], [d for _, d in held_out])

    share = np.mean([drawn for _, drawn in training], axis=0)
    guessing = max(
        best(lambda image, level: image > level, range(0, 600, 50)),
        best(lambda image, least: share > least, (0.1, 0.3, 0.5, 0.7)),
    )
    assert done.metrics is not None
    assert guessing < 0.8
    assert done.metrics["dice"] > guessing + 0.08
    assert done.metrics["surface_mm"] < 2.5
    assert done.metrics["images"] == len(held_out) == 2


@pytest.mark.slow
def test_who_was_seen_and_who_was_held_out_stands_in_the_row(phantoms: Phantoms) -> None:
    row = find_segmenter(phantoms.store, "ct")
    assert row["segmenter"] == phantoms.done.segmenter
    assert row["origin"] == "trained_on_phantoms"
    assert not set(row["patients_seen"]) & set(row["patients_held_out"])
    assert len(row["patients_seen"]) + len(row["patients_held_out"]) == 8
    assert row["classes"] == ["vertebral_body/all/both"]
    assert row["dice"] == pytest.approx(json.loads(row["metrics"])["classes"]["vertebral_body/all/both"]["dice"])
    curve = json.loads((phantoms.work / "curve.json").read_text())
    assert curve == phantoms.done.curve
    assert curve[-1]["step"] == SMALL["steps"]
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert curve[-1]["held_out_dice"] == pytest.approx(row["dice"], abs=0.03)


@pytest.mark.slow
def test_the_same_training_again_is_the_same_segmenter_and_another_is_refused(phantoms: Phantoms) -> None:
    again = train_segmenter(phantoms.store, phantoms.recipe, phantoms.cases, phantoms.work)
    assert again == phantoms.done
    assert len(segmenters(phantoms.store)) == 1
    other = default_recipe("ct", phantoms.recipe.classes, **SMALL, seed=1)
    with pytest.raises(Conflict, match="another recipe"):
        train_segmenter(phantoms.store, other, phantoms.cases, phantoms.work)


@pytest.mark.slow
def test_a_mask_is_drawn_on_the_images_grid_and_radiomics_take_it(
    phantoms: Phantoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    case = next(c for c in phantoms.cohort.cases if c.site == "site_b")  # oblique
    image, out = case.folder / "ct.nii.gz", tmp_path / "mask.nii.gz"
    store = phantoms.store.uri
    assert infra.cli.main(["segment", str(image), "--out", str(out), "--store", store, "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["segmenter"] == phantoms.done.segmenter
    assert "trained on phantoms" in said.err
    there = align_mask(read_mask(out), read_image(image))
    assert np.bincount(sitk.GetArrayViewFromImage(there).ravel())[1] == told["labels"][0]["voxels"]
    names = read_label_map(tmp_path / "mask.labels.yaml")
    assert {n: (one.structure, one.level) for n, one in names.labels.items()} == {1: ("vertebral_body", "all")}
    series = {"sequence": "ct", "image": image.name, "mask": out.name, "labels": "mask.labels.yaml"}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump({"site": "s", "patient_id": "p", "series": [series]}))
    (tmp_path / image.name).write_bytes(image.read_bytes())
    assert [(roi.structure, roi.level) for roi in read_case(tmp_path).rois] == [("vertebral_body", "all")]
    assert infra.cli.main(["radiomics", str(image), str(out), "--out", "features.csv"]) == 0
    assert len((tmp_path / "features.csv").read_text().splitlines()) == 2
    code = infra.cli.main(["segment", str(image), "--out", str(out), "--store", store, "--sequence", "t2_sag"])
    assert code == 1
    assert "asdeg segmenter train --sequence t2_sag" in capsys.readouterr().err
    assert infra.cli.main(["segmenters", "--store", store, "--json"]) == 0
    assert [row["held_out"] for row in json.loads(capsys.readouterr().out)] == [2]


@pytest.mark.slow
def test_a_missing_mask_is_drawn_once_judged_and_marked(phantoms: Phantoms, tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    copy_segmenter(phantoms, store)
    folder = without_mask(phantoms, tmp_path / "case", phantoms.cohort.cases[0].patient_id)
    add(store, folder)
    assert drawn_cases(store, "ct") == []
    report = segment_missing(store)
    assert dict(report.drawn) == {phantoms.done.segmenter: 1}
    assert not report.failed
    rois = store.snapshot().table("rois").to_pylist()
    assert [(row["structure"], row["level"], row["segmenter"]) for row in rois] == [
        ("vertebral_body", "all", phantoms.done.segmenter)
    ]
    assert store.blobs.has("masks", rois[0]["mask_hash"])
    judged = store.snapshot().table("quality", where={"structure": "vertebral_body"}).to_pylist()
    assert [row["mask_hash"] for row in judged] == [rois[0]["mask_hash"]]
    assert store.blobs.has("overlays", judged[0]["overlay_hash"])
    assert not segment_missing(store).drawn
    assert drawn_cases(store, "ct") == []  # a net's own masks are nothing to learn from


@pytest.mark.slow
def test_what_is_not_fit_draws_nothing_by_itself(
    phantoms: Phantoms, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    copy_segmenter(phantoms, store)
    add(store, without_mask(phantoms, tmp_path / "person", "person"))  # a phantom's net is for phantoms
    report = segment_missing(store)
    assert (dict(report.drawn), dict(report.without)) == ({}, {"ct": 1})
    add(store, without_mask(phantoms, tmp_path / "case", "phantom-0001"))
    assert not segment_missing(store, least_dice=0.999).drawn
    assert dict(segment_missing(store, sites=["elsewhere"]).without) == {}
    draw_missing(Session(load_settings({}), as_json=False), store, None)  # as `asdeg extract` does first
    said = capsys.readouterr().err
    assert f"1 series without a mask were drawn by {phantoms.done.segmenter}" in said
    assert "1 ct series have no mask, and no U-Net of the store is fit to draw it" in said


@pytest.mark.slow
def test_an_image_without_a_spine_is_named(phantoms: Phantoms) -> None:
    row = find_segmenter(phantoms.store, "ct", phantoms.done.segmenter)
    rng = np.random.default_rng(0)
    air = np.where(rng.random((20, 20, 20)) < 0.001, 400, -1000 + rng.integers(0, 9, (20, 20, 20))).astype(np.int16)
    strict = load_segmenter(phantoms.store, {**row, "settings": row["settings"].replace("100.0", "100000.0")})
    with pytest.raises(LabelEmpty, match="none of its 1 classes"):
        strict.segment(sitk.GetImageFromArray(air))


def test_nothing_registered_says_how_to_train(tmp_path: Path) -> None:
    store = FeatureStore.open(tmp_path / "store", create=True)
    with pytest.raises(NotFound, match="no trained U-Net for ct") as error:
        find_segmenter(store, "ct")
    assert "asdeg segmenter train --sequence ct" in error.value.action
    recipe = default_recipe("ct", [SegmentClass(structure="vertebral_body")], **SMALL)
    with pytest.raises(TooFewPatients, match="none of 0 cases"):
        train_segmenter(store, recipe, [], tmp_path / "work")
    with pytest.raises(UsageError):
        store_of_readings([], tmp_path / "none")


def test_classes_follow_what_was_drawn(phantoms: Phantoms) -> None:
    each = choose_classes(phantoms.cases, "each")
    assert [one.level for one in each] == ["L1", "L2", "L3", "L4", "L5"]
    assert [str(one) for one in choose_classes(phantoms.cases, "all")] == ["vertebral_body/all/both"]
    muscles = choose_classes(drawn_cases(phantoms.store, "t2_ax"), "each", ["psoas_major"])
    assert [(one.structure, one.side) for one in muscles] == [("psoas_major", "left"), ("psoas_major", "right")]
    assert {one.structure for one in choose_classes(drawn_cases(phantoms.store, "t2_sag"))} == {
        "vertebral_body",
        "intervertebral_disc",
    }
    with pytest.raises(NotFound, match="sacrum"):
        choose_classes(phantoms.cases, "each", ["sacrum"])


def test_a_case_whose_structures_were_not_all_drawn_is_not_learnt_from(phantoms: Phantoms) -> None:
    case = drawn_cases(phantoms.store, "t2_sag")[0]
    classes = choose_classes([case])
    assert usable_for(case, classes)
    bodies = {one: source for one, source in case.regions.items() if one.structure == "vertebral_body"}
    assert not usable_for(replace(case, regions=bodies), classes)
    lower = {one: source for one, source in bodies.items() if one.level in ("L4", "L5")}
    assert usable_for(replace(case, regions=lower), [one for one in classes if one in bodies])


def test_classes_that_share_voxels_cannot_be_learnt_together(phantoms: Phantoms) -> None:
    union = SegmentClass(structure="vertebral_body", level="all")
    single = SegmentClass(structure="vertebral_body", level="L3")
    with pytest.raises(MaskUnreadable, match="share voxels"):
        phantoms.cases[0].read_labels(phantoms.store.blobs, [union, single])


def test_patients_are_held_out_whole_and_by_the_seed(phantoms: Phantoms) -> None:
    twice = [*phantoms.cases, *phantoms.cases]
    training, held_out = split(twice, phantoms.recipe)
    assert not {c.patient for c in training} & {c.patient for c in held_out}
    assert len(held_out) == 4
    other = default_recipe("ct", phantoms.recipe.classes, **SMALL, seed=3)
    assert {c.patient for c in split(twice, other)[1]} != {c.patient for c in held_out}
    alone, nobody = split(phantoms.cases[:1], phantoms.recipe)
    assert (len(alone), nobody) == (1, [])


def test_patients_kept_for_judging_are_not_learnt_from(phantoms: Phantoms, tmp_path: Path) -> None:
    cases = [read_case(case.folder) for case in phantoms.cohort.cases[:2]]
    store = store_of_readings(cases, tmp_path / "store")
    first, second = drawn_cases(store, "ct")
    rows = [
        {
            "cohort": "c", "version": 1, "site": case.site, "patient_id": case.patient_id, "case_id": "x",
            "partition": partition, "outcome": 0, "rule": "r", "as_of": 1,
        }
        for case, partition in ((first, "external_test"), (second, "training"))
    ]  # fmt: skip
    store.push({"cohorts": rows}, kind="cohort", source="test")
    assert [case.patient for case in drawn_cases(store, "ct")] == [second.patient]
    assert len(drawn_cases(store, "ct", with_test_patients=True)) == 2


def copy_segmenter(phantoms: Phantoms, store: FeatureStore) -> None:
    from pipelines.embedding.registry import load_weights

    row = find_segmenter(phantoms.store, "ct")
    register_segmenter(
        store,
        phantoms.recipe,
        load_weights(phantoms.store.blobs, row["checkpoint_hash"]),
        patients_seen=row["patients_seen"],
        patients_held_out=row["patients_held_out"],
        metrics=json.loads(row["metrics"]),
    )


def without_mask(phantoms: Phantoms, folder: Path, patient_id: str) -> Path:
    """The first phantom's CT as a case of its own, nobody having drawn anything in it."""
    source = phantoms.cohort.cases[0].folder
    manifest = yaml.safe_load((source / "case.yaml").read_text())
    entry = next(one for one in manifest["series"] if one["sequence"] == "ct")
    folder.mkdir()
    (folder / entry["image"]).write_bytes((source / entry["image"]).read_bytes())
    series = [{"sequence": "ct", "image": entry["image"]}]
    content = {"site": manifest["site"], "patient_id": patient_id, "series": series}
    (folder / "case.yaml").write_text(yaml.safe_dump(content))
    return folder


def add(store: FeatureStore, folder: Path) -> None:
    reading = read_case(folder)
    assert not reading.findings
    store_images(reading, store.blobs)
    rows = case_rows(reading)
    store.push({name: rows[name] for name in ("cases", "series", "rois")}, kind="case", source="test")
