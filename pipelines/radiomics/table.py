"""Radiomics of two files, without a store: a table with one row a label."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from feature_store.errors import AsdegError, LabelEmpty, UsageError
from pipelines.cases.label_map import LabelMap
from pipelines.imaging.images import load_image
from pipelines.imaging.masks import align_mask, read_mask
from pipelines.radiomics.crop import bounding_box
from pipelines.radiomics.extractor import RadiomicsExtractor
from pipelines.radiomics.feature_set_choice import feature_set_for
from pipelines.radiomics.feature_sets import FeatureSet
from pipelines.radiomics.preprocessing import preprocess_mask
from pipelines.radiomics.series import RadiomicsSeries

SUFFIXES = (".csv", ".parquet")


def radiomics_table(
    image: Path,
    mask: Path,
    labels: Sequence[int] | None = None,
    feature_set: str | FeatureSet = "pyradiomics-default",
    names: LabelMap | None = None,
    held: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> pd.DataFrame:
    """One row a label: column ``label``, then PyRadiomics' names. All labels of the mask when none are given.

    With a label map as ``names``: columns ``structure``, ``level`` and ``side`` after ``label``, empty where the
    map has no meaning for a label that was asked for; when none are given, the labels it has a meaning for.
    ``held`` gives a context that each label's features are computed in (a limit of memory, say).
    The mask's axes may run otherwise than the image's over the same voxels. Raises what reading raises,
    GridMismatch, LabelEmpty for a label that is asked for and not there, RoiTooSmall and ExtractionError
    with the label they are about, NotFound for an unknown feature set.
    """
    settings = feature_set_for("", feature_set)
    loaded = load_image(image)
    series = loaded.image
    label_map = preprocess_mask(align_mask(read_mask(mask, None, loaded, labels), series, mask.name), settings)
    voxels = sitk.GetArrayFromImage(label_map)
    prepared = RadiomicsSeries.of(series, settings)
    present = [int(label) for label in np.unique(voxels) if label]
    named = {} if names is None else names.read(present)[0]
    labels = there(labels if labels is not None or names is None else sorted(named), present, mask.name)
    extractor = RadiomicsExtractor(settings)
    box = bounding_box(np.isin(voxels, list(labels)))
    around = (box[0], box[1], box[2])
    rows = []
    for label in labels:
        try:
            with held():
                rows.append(extractor.extract_from_crop(prepared.crop(voxels == label, around)))
        except AsdegError as error:
            raise type(error)(f"label {label}: {error.message}", action=error.action, file=mask.name) from error
    table = pd.DataFrame(np.array(rows), columns=list(settings.feature_names))
    table.insert(0, "label", list(labels))
    for place, column in enumerate(("structure", "level", "side") if names is not None else (), 1):
        table.insert(place, column, [getattr(named.get(label), column, None) for label in labels])
    return table


def there(labels: Sequence[int] | None, present: Sequence[int], file: str) -> list[int]:
    """The labels that are asked for (None: all that are ``present``). Raises LabelEmpty where one is not there."""
    wanted = list(present) if labels is None else list(dict.fromkeys(labels))
    absent = [label for label in wanted if label not in present]
    if absent or not wanted:
        raise LabelEmpty(
            f"no voxel has label {', '.join(map(str, absent))}." if absent else "no voxel has a label to compute.",
            action=f"Labels there are: {', '.join(map(str, present)) or 'none'}.",
            file=file,
        )
    return wanted


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write CSV or Parquet by suffix; a file that exists is replaced whole, or stays as it was.

    Raises UsageError for another suffix or a folder that is not there.
    """
    if out.suffix not in SUFFIXES:
        raise UsageError(f"{out.name} ends in neither of {', '.join(SUFFIXES)}.", action="Name it features.csv.")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}.", action="Make it first.")
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.stem}-", suffix=out.suffix)
    os.close(handle)
    part = Path(name)
    try:
        if out.suffix == ".csv":
            table.to_csv(part, index=False)
        else:
            table.to_parquet(part, index=False)
        mode = out.stat().st_mode & 0o777 if out.exists() else 0o666 & ~_umask()
        part.chmod(mode)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
