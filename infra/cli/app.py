"""The application that all commands are added to."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Predict high-risk adjacent segment degeneration before lumbar fusion: a feature store for several "
        "hospitals, pipelines, training and serving. For research use only.\n\nExample: asdeg demo"
    ),
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    store: Annotated[str | None, typer.Option("--store", metavar="URI", help="The feature store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """What stands before the command counts for it, unless it says otherwise itself."""
    context.obj = {"store": store, "as_json": as_json}
    if version:
        from importlib.metadata import version as installed

        print(f"asdeg {installed('asdeg')}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())


def build() -> typer.Typer:
    """The application with every command, in the order `asdeg --help` lists them."""
    from infra.cli import (
        audit,
        cases,
        dicom,
        encoders,
        feature_sets,
        features,
        images,
        label_maps,
        phantoms,
        pseudonyms,
        quality,
        retraining,
        robustness,
        runs,
        segmentation,
        serving,
        store,
        studies,
        withdrawals,
    )

    for group in (
        phantoms,
        cases,
        dicom,
        images,
        label_maps,
        quality,
        withdrawals,
        features,
        feature_sets,
        robustness,
        segmentation,
        encoders,
        runs,
        retraining,
        studies,
        serving,
        pseudonyms,
        audit,
        store,
    ):
        group.register(app)
    return app
