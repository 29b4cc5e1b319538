"""Artefacts: the same after keeping, the same bytes for the same fit, refused when they are something else."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import bentoml
import pandas as pd
import pytest
from bentoml._internal.models.model import ModelStore

from feature_store.errors import BlobCorrupt
from models.artefact_payload import load_estimator
from models.artefacts import load, save
from models.combined import CombinedSignature
from models.signature import Signature
from models.study import run_study
from models.study_result import StudyResult
from tests.models.study_fixtures import MemoryBlobs, small_settings, small_tables


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return run_study(
        small_tables(), small_settings(classifiers={"rad": "xgboost", "dl": "mlp", "combined": "lightgbm"})
    )


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    study = small_tables()
    return pd.concat([study.radiomics, study.deep, study.clinical], axis=1)


def test_a_loaded_signature_scores_to_the_bit(result: StudyResult, table: pd.DataFrame) -> None:
    blobs = MemoryBlobs()
    for kind, signature in result.signatures.items():
        assert isinstance(signature, Signature | CombinedSignature)
        loaded = load(save(signature, blobs), blobs)
        assert isinstance(loaded, Signature | CombinedSignature)
        assert loaded.kind == kind
        assert loaded.features == signature.features
        assert loaded.probabilities(table).tobytes() == signature.probabilities(table).tobytes()
        assert loaded.score(table.iloc[0].to_dict()) == signature.score(table.iloc[0].to_dict())


def test_a_selector_is_an_artefact_of_its_own(result: StudyResult, table: pd.DataFrame) -> None:
    blobs = MemoryBlobs()
    signature = result.signatures["dl"]
    assert isinstance(signature, Signature)
    loaded = load(save(signature.selector, blobs), blobs)
    raw = table[list(signature.selector.columns)].to_numpy(dtype=float)
    assert loaded.transform(raw).tobytes() == signature.selector.transform(raw).tobytes()  # type: ignore[union-attr]


def test_the_same_fit_has_the_same_hash_and_a_combined_one_names_its_signs(result: StudyResult) -> None:
    first, second = MemoryBlobs(), MemoryBlobs()
    again = run_study(small_tables(), small_settings(classifiers=result.settings.classifiers))
    hashes = {kind: save(signature, first) for kind, signature in result.signatures.items()}  # type: ignore[arg-type]
    assert {kind: save(signature, second) for kind, signature in again.signatures.items()} == hashes  # type: ignore[arg-type]
    assert len(set(hashes.values())) == 3
    with tarfile.open(fileobj=io.BytesIO(first[hashes["combined"]])) as archive:
        settings = json.load(archive.extractfile("payload/settings.json"))  # type: ignore[arg-type]
    assert settings["signs"] == {"rad": hashes["rad"], "dl": hashes["dl"]}
    assert set(first) == set(hashes.values())


def test_bentoml_itself_imports_what_is_kept(result: StudyResult, tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    (tmp_path / "rad.bentomodel").write_bytes(blobs[save(result.signatures["rad"], blobs)])  # type: ignore[arg-type]
    (tmp_path / "store").mkdir()
    model = bentoml.models.import_model(str(tmp_path / "rad.bentomodel"), _model_store=ModelStore(tmp_path / "store"))
    files = {path.name for path in Path(model.path_of("payload")).iterdir()}
    assert files == {"settings.json", "arrays.safetensors", "estimator.skops"}


def test_types_that_are_not_listed_are_refused() -> None:
    buffer = io.BytesIO()
    node = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "__id__": 1, "content": {}}
    node["content"] = {"module_path": "os", "function": "system"}
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps({**node, "protocol": 2, "_skops_version": "0.16.0"}))
    with pytest.raises(BlobCorrupt, match="not trusted"):
        load_estimator(buffer.getvalue())


def test_what_is_no_artefact_is_named() -> None:
    blobs = MemoryBlobs()
    with pytest.raises(BlobCorrupt, match="no exported model"):
        load(blobs.put_bytes("artefacts", b"rubbish"), blobs)
