"""What can be extracted: ``feature-sets`` lists the settings, and every feature of one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.command import command
from infra.cli.session import Session

SET_COLUMNS = ("feature_set", "id", "image_types", "discretisation", "spacing_mm", "intensities", "features")
FEATURE_COLUMNS = ("feature", "family", "ibsi_code", "unit", "meaning")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "feature-sets", example="asdeg feature-sets study-ct --out features.csv")(feature_sets)


def feature_sets(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="A name or id, or a YAML or JSON file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the features to this .csv or .parquet.")] = None,
) -> None:
    """List the feature sets; with NAME every feature of it: family, IBSI code, unit, meaning."""
    from feature_store.errors import UsageError
    from pipelines.radiomics.feature_set_choice import feature_set
    from pipelines.radiomics.feature_sets import REGISTRY

    if name is None:
        if out is not None:
            raise UsageError("--out needs a feature set.", action="Write asdeg feature-sets NAME --out FILE.")
        session.table("Feature sets", SET_COLUMNS, [_set_row(known) for known in REGISTRY.values()])
        return
    settings = feature_set(name)
    rows = _feature_rows(settings)
    if out is None:
        session.table(f"{settings.id}: {len(rows)} features", FEATURE_COLUMNS, rows)
        return
    import pandas as pd

    from pipelines.radiomics.table import write_table

    write_table(pd.DataFrame(rows, columns=list(FEATURE_COLUMNS)), out)
    session.result({"out": str(out), "features": len(rows)}, f"{len(rows)} features of {settings.id}: {out}")


def _set_row(settings: Any) -> dict[str, Any]:
    images = [name for name in settings.image_types if name != "log"]
    if settings.log_sigma:
        images.append(f"LoG {', '.join(f'{sigma:g}' for sigma in settings.log_sigma)} mm")
    bins = f"width {settings.bin_width:g}" if settings.bin_count is None else f"{settings.bin_count} bins"
    return {
        "feature_set": settings.name,
        "id": settings.id,
        "image_types": images,
        "discretisation": bins,
        "spacing_mm": "as it is" if settings.spacing is None else " x ".join(f"{v:g}" for v in settings.spacing),
        "intensities": f"z-score x {settings.normalize_scale:g}" if settings.normalize else "as they are",
        "features": len(settings.feature_names),
    }


def _feature_rows(settings: Any) -> list[dict[str, Any]]:
    from pipelines.radiomics.feature_docs import feature_doc

    return [
        {
            "feature": full_name,
            "family": doc.family,
            "ibsi_code": doc.ibsi_code,
            "unit": doc.unit(settings.image_unit),
            "meaning": doc.meaning,
        }
        for full_name in settings.feature_names
        for doc in (feature_doc(full_name),)
    ]
