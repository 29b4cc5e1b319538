"""Encoders and their weights in the store: register, find, load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_store.blobs import Blobs
from feature_store.errors import BlobCorrupt, NotFound
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore
from models.encoders import ARCHITECTURE_DIMENSIONS, EncoderSettings, InflationSettings, encoder_row, named_encoder

if TYPE_CHECKING:
    from models.checkpoints import Weights

ARTEFACTS = "artefacts"


def resolve_encoder(store: FeatureStore, name: str) -> EncoderSettings:
    """``vit_small`` or ``vit_base`` (random weights, seed 0), or the id of a registered encoder.

    Raises NotFound for an id the store does not have.
    """
    if name in ARCHITECTURE_DIMENSIONS:
        return named_encoder(name)
    found = store.snapshot().table("encoders", columns=["settings"], where={"encoder": name}).to_pylist()
    if not found:
        raise NotFound(
            f"there is no encoder {name!r}.",
            action=f"Name {' or '.join(ARCHITECTURE_DIMENSIONS)}, or the id of a registered encoder.",
        )
    return EncoderSettings.from_canonical(found[0]["settings"])


def register_encoder(
    store: FeatureStore,
    settings: EncoderSettings,
    *,
    origin: str | None = None,
    outcomes_seen: bool = False,
    patients_seen: Sequence[str] | None = None,
    outcomes_of: Sequence[str] | None = None,
    derived: Mapping[str, Any] | None = None,
) -> str:
    """Make sure the encoder's row and weights are in the store; returns the checkpoint's hash.

    Random weights are drawn and stored on first use. Stored checkpoints need their ``origin`` (see
    :func:`models.encoders.encoder_row`) when they are registered, and never again.
    """
    found = store.snapshot().table("encoders", columns=["checkpoint_hash"], where={"encoder": settings.id})
    if len(found) and store.blobs.has(ARTEFACTS, found["checkpoint_hash"][0].as_py()):
        return str(found["checkpoint_hash"][0].as_py())
    if settings.seed is None:
        checkpoint_hash = settings.checkpoint
        if not store.blobs.has(ARTEFACTS, checkpoint_hash):
            raise NotFound("the encoder's checkpoint is not in the store.", action="Register its file first.")
    else:
        from models.checkpoints import dump, random_weights

        checkpoint_hash = store.blobs.put_bytes(ARTEFACTS, dump(random_weights(settings.architecture, settings.seed)))
    if not len(found):
        row = encoder_row(
            settings,
            checkpoint_hash,
            origin=origin,
            outcomes_seen=outcomes_seen,
            patients_seen=patients_seen,
            outcomes_of=outcomes_of,
            derived=derived,
        )
        store.push({"encoders": [row]}, kind="encoder", source="extraction")
    return checkpoint_hash


def register_checkpoint_file(
    store: FeatureStore,
    path: Path,
    architecture: str,
    *,
    margin_mm: float = EncoderSettings().margin_mm,
    inflation: InflationSettings | None = None,
    outcomes_seen: bool = False,
    patients_seen: Sequence[str] | None = None,
) -> EncoderSettings:
    """Keep a checkpoint file as an encoder; its origin becomes ``file:SHA256`` of the file's own bytes.

    ``inflation`` says how 2D weights become 3D ones; the encoder's row says that it was done. Whether outcomes
    were seen is for the caller to state: a file does not tell. Raises CheckpointError.
    """
    from models.checkpoints import dump, read_checkpoint

    file = read_checkpoint(path, architecture, inflation)
    checkpoint = store.blobs.put_bytes(ARTEFACTS, dump(file.weights))
    settings = EncoderSettings.model_validate(
        {"architecture": architecture, "margin_mm": margin_mm, "checkpoint": checkpoint}
    )
    register_encoder(
        store,
        settings,
        origin=f"file:{file.sha256}",
        outcomes_seen=outcomes_seen,
        patients_seen=patients_seen,
        derived=file.derived,
    )
    return settings


@dataclass(frozen=True)
class KnownEncoder:
    """A registered encoder, and whom it has seen."""

    settings: EncoderSettings
    checkpoint_hash: str
    outcomes_seen: bool
    patients_seen: frozenset[str]
    outcomes_of: frozenset[str] | None

    @property
    def tuned_on(self) -> frozenset[str]:
        """Whose outcomes may have been used."""
        if not self.outcomes_seen:
            return frozenset()
        return self.patients_seen if self.outcomes_of is None else self.outcomes_of


def known_encoder(snapshot: Snapshot, id_: str) -> KnownEncoder:
    """Raises NotFound."""
    rows = snapshot.table("encoders", where={"encoder": id_}).to_pylist()
    if not rows:
        raise NotFound(f"there is no encoder {id_!r}.", action="`asdeg encoders` lists them.")
    row = rows[0]
    return KnownEncoder(
        EncoderSettings.from_canonical(row["settings"]),
        row["checkpoint_hash"],
        row["outcomes_seen"],
        frozenset(row["patients_seen"] or ()),
        None if row["outcomes_of"] is None else frozenset(row["outcomes_of"]),
    )


def keep_trained(
    store: FeatureStore,
    cut: EncoderSettings,
    state: Mapping[str, Any],
    start: KnownEncoder | None,
    *,
    origin: str,
    patients: Iterable[str],
    outcomes_of: Iterable[str] = (),
    derived: Mapping[str, Any],
    loss_name: str,
) -> str:
    """Register the weights of a training's final state, with its learning curve beside them; the encoder's id.

    ``cut`` says how cubes were cut; ``start`` is what the training began from: whom that has seen, this has.
    """
    from models.checkpoints import dump
    from models.learning.curve import curve_figure, curve_lines

    checkpoint = store.blobs.put_bytes(ARTEFACTS, dump(state["weights"]))
    settings = cut.model_copy(update={"checkpoint": checkpoint})
    tuned = {*outcomes_of, *(start.tuned_on if start is not None else ())}
    outcomes_seen = bool(tuned) or (start is not None and start.outcomes_seen)
    register_encoder(
        store,
        settings,
        origin=origin,
        outcomes_seen=outcomes_seen,
        patients_seen=sorted({*patients, *(start.patients_seen if start is not None else ())}),
        outcomes_of=sorted(tuned) if outcomes_seen else None,
        derived={
            **derived,
            "started_from": None if start is None else start.settings.id,
            "steps": int(state["step"]),
            "curve": store.blobs.put_bytes(ARTEFACTS, curve_lines(state["curve"])),
            "figure": store.blobs.put_bytes(ARTEFACTS, curve_figure(state["curve"], loss_name)),
        },
    )
    return settings.id


def load_weights(blobs: Blobs, checkpoint_hash: str) -> Weights:
    """Weights of a stored checkpoint. Raises NotFound, or BlobCorrupt where the bytes changed."""
    import safetensors
    import safetensors.torch

    try:
        weights: Weights = safetensors.torch.load(blobs.read_bytes(ARTEFACTS, checkpoint_hash))
    except safetensors.SafetensorError as error:
        raise BlobCorrupt("the blob is no checkpoint.", action="Register the encoder again.") from error
    return weights
