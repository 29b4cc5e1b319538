"""How everything in the report looks and what it is called: palette, names, panels, and figures as SVG and PNG.

Okabe and Ito's colours (2008), told apart with every common colour blindness; a second sign (dash, marker) goes
with each, so that a black-and-white print can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from feature_store.errors import UsageError
from feature_store.vocabulary import Partition, parse_feature_name
from models.evaluation.inputs import BoolArray, FloatArray

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#22303c", "#7a8793", "#dfe4e8"

MODELS = {
    "rad": "Rad-sign",
    "dl": "DL-sign",
    "combined": "Combined",
    "clinical": "Clinical only",
    "size": "Size only",
}
COLOURS = {"rad": BLUE, "dl": VERMILLION, "combined": GREEN, "clinical": PURPLE, "size": GREY}
DASHES = {"rad": "-", "dl": (0, (5, 1.5)), "combined": (0, (7, 1.5, 1.5, 1.5)), "clinical": ":", "size": (0, (1, 1))}
MARKERS = {"rad": "o", "dl": "s", "combined": "D", "clinical": "^", "size": "v"}
NO_SITE = "unknown"
"""The site of patients whose table names none (``models.study_tables.ONE_SITE``)."""
SIGNATURES = ("rad", "dl", "combined")

PARTITIONS = {
    Partition.TRAINING.value: "Training (nested out-of-fold)",
    Partition.INTERNAL_VALIDATION.value: "Internal validation",
    Partition.EXTERNAL_TEST.value: "External test",
}

SEQUENCES = {"ct": "CT", "t1_sag": "sagittal T1", "t2_sag": "sagittal T2", "t2_ax": "axial T2"}
PHANTOM = "PHANTOM: made-up patients, no clinical result"
"""Stands in every figure of a phantom cohort, wherever the file is taken."""

FULL_WIDTH = 10.2
"""Inches of a figure that is as wide as the page."""

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.08,
    "svg.hashsalt": "asdeg",
    "svg.fonttype": "path",
}


@contextmanager
def drawing() -> Iterator[None]:
    """The report's look, for the time of drawing and saving; matplotlib's own settings come back after it."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def model_name(kind: str) -> str:
    """``rad`` reads Rad-sign."""
    return MODELS.get(kind, kind)


def cohort_name(cohort: str) -> str:
    """``external_test/leeds`` reads External test: leeds."""
    partition, _, site = cohort.partition("/")
    name = PARTITIONS.get(partition, partition.replace("_", " ").capitalize())
    return f"{name}: {site}" if site else name


def feature_parts(name: str) -> tuple[str, str]:
    """A feature's own name and where it was measured: (wavelet-HHH_gldm_…, sagittal T2, intervertebral disc)."""
    try:
        roi, feature = parse_feature_name(name)
    except UsageError:
        return name, ""
    where = [words(roi.sequence), words(roi.structure)]
    where += [part for part in (roi.level, roi.side) if part not in ("all", "both")]
    return feature, ", ".join(where)


def words(name: str) -> str:
    """A sequence, structure, variable or classifier as people write it: ``t2_sag`` reads sagittal T2."""
    return SEQUENCES.get(name, name.replace("_", " "))


def part_name(name: str) -> str:
    """A part of an ablation: a source reads as its signature, a family or structure as its words."""
    return "Clinical variables" if name == "clinical" else MODELS.get(name, words(name))


def term_name(name: str) -> str:
    """A term of the clinical variables, or an input of the combined model: ``rad-sign`` reads Rad-sign."""
    if name.endswith("-sign"):
        return model_name(name.removesuffix("-sign"))
    variable, equals, level = name.partition("=")
    return f"{words(variable)}: {words(level)}" if equals else words(variable)


def shown(predictions: pd.DataFrame, partition: str, kind: str) -> tuple[BoolArray, FloatArray] | None:
    """Outcomes and probabilities of one partition's patients that have one; None where nobody has."""
    if kind not in predictions:
        return None
    rows = predictions[(predictions["partition"] == partition) & predictions[kind].notna()]
    if rows.empty:
        return None
    return rows["outcome"].to_numpy(dtype=np.float64) == 1, rows[kind].to_numpy(dtype=np.float64)


def partitions_of(predictions: pd.DataFrame) -> list[str]:
    """The partitions that have patients, in the order of the paper's tables; never the locked test."""
    there = set(predictions["partition"])
    return [name for name in PARTITIONS if name in there]


def sites_of(rows: pd.DataFrame) -> str:
    """Of how many sites patients are: 2 sites, or site unknown where no table names one."""
    names = set(rows["site"])
    return "site unknown" if names == {NO_SITE} else f"{len(names)} site{'s' * (len(names) != 1)}"


def panels(columns: int, *, width: float = 3.5, height: float = 3.5, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels in inches, row by row."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def empty(axes: Axes, message: str) -> None:
    """Says in a panel why it is empty."""
    axes.text(0.5, 0.5, message, ha="center", va="center", transform=axes.transAxes, color=GREY)


def save(figure: Figure, folder: Path, name: str, mark: str = "") -> str:
    """Writes NAME.png and NAME.svg, the same bytes for the same figure; returns the SVG to put into a page.

    ``mark`` is written at the foot of the figure: what must be known of it wherever the file is taken.
    """
    if mark:
        figure.supxlabel(mark, fontsize=7, fontweight="bold", color=GREY)
    # The panels are laid out once, not once a format: layout is most of the work.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    bitmap = BytesIO()
    FigureCanvasAgg(figure).print_figure(bitmap, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    (folder / f"{name}.png").write_bytes(bitmap.getvalue())
    vector = StringIO()
    FigureCanvasSVG(figure).print_figure(
        vector, format="svg", facecolor="white", metadata={"Date": None, "Creator": None}
    )
    (folder / f"{name}.svg").write_text(vector.getvalue(), encoding="utf-8")
    return inline(vector.getvalue(), name)


def inline(svg: str, name: str) -> str:
    """An SVG file as an element of an HTML page: no prologue, no metadata, no addresses, ids of its own.

    Three panels fill the page; what is narrower takes its share of it, so that letters have one size everywhere.
    """
    svg = svg[svg.index("<svg") :]
    points = re.search(r'<svg[^>]*? width="([\d.]+)pt"', svg)
    share = min(100.0, 100 * float(points.group(1)) / (72 * FULL_WIDTH)) if points else 100.0
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" style="max-width: {share:.0f}%" aria-labelledby="{name}-caption" ', 1)
