"""Encoders and how they learn: ``encoders``, ``encoders add``, ``pretrain``, ``finetune``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from feature_store.vocabulary import PHANTOM_NOTICE, is_phantom
from infra.cli.command import command
from infra.cli.session import Session

if TYPE_CHECKING:
    from pipelines.embedding.distributed import Compute
    from pipelines.embedding.training import Trained

Architecture = Literal["vit_small", "vit_base"]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the optimiser.  [default: the settings']")]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples a step, over all workers.  [default: 8]")]
Rate = Annotated[
    float | None,
    typer.Option("--learning-rate", min=1e-9, max=1, help="Highest learning rate.  [default: the settings']"),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything that draws.  [default: 0]")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that train together (Ray Train), a GPU each if any.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of a worker.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster.  [default: this machine]")]
Work = Annotated[
    Path, typer.Option(help="Folder for states to go on from and cut cubes; several machines have to share it.")
]
WORK = Path("asdeg-training")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    encoders = typer.Typer(invoke_without_command=True)
    app.add_typer(encoders, name="encoders")

    @encoders.callback(
        help="List the encoders of the store, with their origin and whom they have seen.\n\nExample: asdeg encoders"
    )
    def root(
        context: typer.Context,
        store: Annotated[str | None, typer.Option("--store", metavar="URI", help="The feature store.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    ) -> None:
        from infra.settings import load_settings

        before: dict[str, Any] = context.obj or {}
        context.obj = {"store": store or before.get("store"), "as_json": as_json or bool(before.get("as_json"))}
        if context.invoked_subcommand is None:
            list_encoders(Session(load_settings(store=context.obj["store"]), context.obj["as_json"]))

    command(encoders, "add", example="asdeg encoders add vit.safetensors --architecture vit_base --inflate")(add)
    command(app, "pretrain", example="asdeg pretrain --architecture vit_small --steps 2000")(pretrain)
    command(app, "finetune", example="asdeg finetune --cohort cohort.yaml --encoder vit_small-1a2b3c4d")(finetune)


def list_encoders(session: Session) -> None:
    """A row an encoder: whom it has seen as a count, how its weights were made as words."""
    rows = []
    for row in session.house().store.snapshot().table("encoders").to_pylist():
        patients = row["patients_seen"]
        derived = json.loads(row["derived"]) if row["derived"] else {}
        rows.append(
            {
                "encoder": row["encoder"],
                "architecture": row["architecture"],
                "origin": row["origin"] if len(row["origin"]) < 24 else f"{row['origin'][:20]}…",
                "made": ", ".join(key for key in MADE if key in derived) or None,
                "outcomes_seen": row["outcomes_seen"],
                "patients_seen": None if patients is None else len(patients),
                "tuned_on": len(row["outcomes_of"] or []) if row["outcomes_seen"] else 0,
                "dimension": row["dimension"],
                "derived": derived,
            }
        )
    columns = ("encoder", "origin", "made", "outcomes_seen", "patients_seen", "tuned_on", "dimension")
    session.table("Encoders", columns, rows)


MADE = ("inflated_from_2d", "masked_autoencoder", "fine_tuned")


def add(
    session: Session,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=".safetensors, or a PyTorch state.")],
    architecture: Annotated[Architecture, typer.Option(help="What the weights are of.")],
    inflate: Annotated[bool, typer.Option("--inflate", help="2D weights become 3D ones.")] = False,
    kernel: Annotated[Literal["average", "centre"], typer.Option(help="Patch kernel along depth.")] = "average",
    depth: Annotated[Literal["tiled", "sinusoidal"], typer.Option(help="Positions along depth.")] = "tiled",
    margin_mm: Annotated[float, typer.Option(min=0, max=100, help="Around the ROI's box.")] = 5.0,
    outcomes_seen: Annotated[
        bool, typer.Option("--outcomes-seen/--no-outcomes-seen", help="Whether ASDeg outcomes were used to fit it.")
    ] = False,
) -> None:
    """Register an encoder's weights from a file: MONAI's 3D ViT, or with --inflate a 2D one (timm, torchvision, HF)."""
    from models.encoders import InflationSettings
    from pipelines.embedding.registry import register_checkpoint_file

    settings = register_checkpoint_file(
        session.house(create=True).store,
        file,
        architecture,
        margin_mm=margin_mm,
        inflation=InflationSettings(kernel=kernel, depth_position=depth) if inflate else None,
        outcomes_seen=outcomes_seen,
    )
    session.result(
        {"encoder": settings.id, "checkpoint": settings.checkpoint, "inflated": inflate},
        f"Encoder: {settings.id}",
        f"Next: asdeg extract --encoder {settings.id}",
    )


def pretrain(
    session: Session,
    architecture: Annotated[Architecture, typer.Option(help="The net.")] = "vit_small",
    encoder: Annotated[str | None, typer.Option(help="Start from this encoder.  [default: random weights]")] = None,
    cohort: Annotated[str | None, typer.Option(help="Only the training patients of this frozen cohort.")] = None,
    steps: Steps = None,
    batch: Batch = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    workers: Workers = 1,
    threads: Threads = None,
    ray_address: Address = None,
    work: Work = WORK,
) -> None:
    """Teach an encoder to paint masked patches of the store's own images; no outcome is used.

    Test patients of frozen cohorts are left out. The same call goes on where a killed one stopped.
    """
    from models.learning.settings import PretrainSettings
    from pipelines.embedding.pretraining import pretrain as run

    given = _given(steps=steps, batch=batch, learning_rate=learning_rate, seed=session.settings.but(seed=seed).seed)
    settings = PretrainSettings.model_validate({"architecture": architecture, **given})
    compute = _compute(session, workers, threads, ray_address)
    store = session.house().store
    folder = work / f"pretrain-{_hash(settings.hash(), store.uri, cohort, encoder)}"
    with session.progress("pretrain") as progress:
        found = run(store, settings, folder, compute, cohort=cohort, encoder=encoder, progress=progress)
    _tell(session, found, folder, f"{found.left_out} test patients left out")


def finetune(
    session: Session,
    cohort: Annotated[Path, typer.Option(help="cohort.yaml; the cohort is frozen as `train` does.")],
    encoder: Annotated[str, typer.Option(help="Start from this encoder's id, or vit_small or vit_base (random).")],
    subset: Annotated[
        float | None,
        typer.Option(min=0.05, max=0.95, help="Share of the training patients to tune on.  [default: 0.5]"),
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    workers: Workers = 1,
    threads: Threads = None,
    ray_address: Address = None,
    work: Work = WORK,
) -> None:
    """Tune an encoder to the outcome on a part (A) of the training patients; the rest (B) is left to `train`.

    The same call goes on where a killed one stopped.
    """
    from feature_store.cohort_settings import CohortSettings
    from feature_store.cohorts import freeze_cohort
    from models.learning.settings import FinetuneSettings
    from pipelines.embedding.finetuning import finetune as run

    given = _given(steps=steps, batch=batch, learning_rate=learning_rate, seed=session.settings.but(seed=seed).seed)
    settings = FinetuneSettings.model_validate({**given, **_given(subset=subset)})
    plan = CohortSettings.load(cohort)
    store = session.house().store
    folder = work / f"finetune-{_hash(settings.hash(), store.uri, plan.name, encoder)}"
    with session.progress("finetune") as progress:
        found = run(
            store,
            settings,
            folder,
            _compute(session, workers, threads, ray_address),
            freeze_cohort(store, plan),
            encoder=encoder,
            sequences=plan.sequences,
            progress=progress,
        )
    _tell(session, found, folder, f"{found.left_out} training patients left to fit on")


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _hash(*what: str | None) -> str:
    """What tells one run's folder from another's."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _compute(session: Session, workers: int, threads: int | None, address: str | None) -> Compute:
    from pipelines.embedding.distributed import Compute

    where = address or session.settings.ray_address or None
    return Compute(workers=workers, threads=threads, ray_address=where, cpus=session.settings.num_cpus)


def _tell(session: Session, found: Trained, folder: Path, others: str) -> None:
    """The result; what the run kept to go on from is no longer needed, the store has it all."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    last = found.curve[-1]
    encoders = session.house().store.snapshot().table("encoders", ["patients_seen"], {"encoder": found.encoder})
    seen = encoders["patients_seen"].to_pylist()[0] or ()
    phantom = any(is_phantom(patient.rpartition("/")[2]) for patient in seen)
    figures = ", ".join(f"{name.replace('_', ' ')} {last[name]:.3f}" for name in last if name.startswith("held_out"))
    session.result(
        {**vars(found), "phantom": phantom},
        *([PHANTOM_NOTICE] if phantom else []),
        f"Encoder: {found.encoder} ({found.steps} steps, {found.patients} patients, {others})",
        f"At the end: training loss {last['training_loss']:.3f}, {figures}",
        f"Next: asdeg extract --encoder {found.encoder}",
    )
