"""Selectors and signatures as artefacts: exported BentoML models, kept by the hash of their bytes.

What is inside is plain: arrays as safetensors, settings as JSON, the estimator as skops with the types it may
hold listed here; nothing is unpickled. The same fit gives the same bytes: everything that tells when, where or
in which process it was written is taken out.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Protocol

import yaml

from feature_store.errors import BlobCorrupt
from models.artefact_payload import READABLE, from_payload, to_payload
from models.combined import CombinedSignature
from models.selection.selector import Selector
from models.signature import Signature

KIND = "artefacts"
SUFFIX = ".bentomodel"
NAME = "asdeg"
PAYLOAD = "payload"
Artefact = Selector | Signature | CombinedSignature


class Blobs(Protocol):
    """The part of the store that keeps files by their hash."""

    def put_bytes(self, kind: str, data: bytes) -> str: ...

    def read_bytes(self, kind: str, name: str) -> bytes: ...


def save(artefact: Artefact, blobs: Blobs) -> str:
    """Keeps a selector or signature; returns its content hash. A combined one keeps its signs first, then itself."""
    signs = {}
    if isinstance(artefact, CombinedSignature):
        signs = {kind: save(sign, blobs) for kind, sign in artefact.signs.items()}
    return blobs.put_bytes(KIND, to_bento(to_payload(artefact, signs)))


def load(content_hash: str, blobs: Blobs) -> Artefact:
    """The selector or signature of that hash. NotFound, or BlobCorrupt where it is not what was kept."""
    payload = from_bento(blobs.read_bytes(KIND, content_hash))
    settings = json.loads(payload["settings.json"])
    if settings.get("format") not in READABLE:
        raise BlobCorrupt("The artefact has another format.", action="Load it with the version that made it.")
    signs = {}
    for kind, name in settings.get("signs", {}).items():
        sign = load(name, blobs)
        if not isinstance(sign, Signature):
            raise BlobCorrupt("A combined signature names something that is no sign.", action="Train it again.")
        signs[kind] = sign
    return from_payload(payload, signs)


def to_bento(payload: dict[str, bytes]) -> bytes:
    """An exported BentoML model (a tar.xz that ``bentoml models import`` takes) holding these files."""
    bentoml = _bentoml()
    digest = hashlib.sha256()
    for name in sorted(payload):
        digest.update(f"{name} {hashlib.sha256(payload[name]).hexdigest()}\n".encode())
    tag = f"{NAME}:{digest.hexdigest()[:20]}"
    with tempfile.TemporaryDirectory(prefix="asdeg-bento-") as folder:
        store = _model_store(Path(folder) / "store")
        with bentoml.models.create(tag, _model_store=store) as model:
            target = Path(model.path_of(PAYLOAD))
            target.mkdir()
            for name, data in payload.items():
                (target / name).write_bytes(data)
        exported = Path(folder) / "exported"
        bentoml.models.export_model(tag, str(exported), output_format="folder", _model_store=store)
        return _archive(exported)


def from_bento(archive: bytes) -> dict[str, bytes]:
    """The files inside an exported model. BlobCorrupt where it is none."""
    bentoml = _bentoml()
    with tempfile.TemporaryDirectory(prefix="asdeg-bento-") as folder:
        path = Path(folder) / f"model{SUFFIX}"
        path.write_bytes(archive)
        try:
            model = bentoml.models.import_model(str(path), _model_store=_model_store(Path(folder) / "store"))
            return {file.name: file.read_bytes() for file in sorted(Path(model.path_of(PAYLOAD)).iterdir())}
        except Exception as error:
            raise BlobCorrupt(
                f"The artefact is no exported model ({type(error).__name__}).", action="Restore it from a backup."
            ) from error


def _archive(folder: Path) -> bytes:
    """A tar.xz of the folder that depends on names and contents only."""
    described = folder / "model.yaml"
    information = yaml.safe_load(described.read_text(encoding="utf-8"))
    # BentoML writes the moment of saving; the moment of training stands in the run's record.
    information["creation_time"] = "2000-01-01T00:00:00+00:00"
    described.write_text(yaml.safe_dump(information, sort_keys=True))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    archive.addfile(entry, file)
    return buffer.getvalue()


def _bentoml() -> Any:
    """BentoML, told before its import not to report its use to anybody."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml

    return bentoml


def _model_store(folder: Path) -> Any:
    """A BentoML store of its own for one call: concurrent saves cannot meet, and nobody's home is used."""
    from bentoml._internal.models.model import ModelStore

    folder.mkdir(parents=True, exist_ok=True)
    return ModelStore(folder)
