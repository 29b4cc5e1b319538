"""How robust the features of each family are, in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from feature_store.vocabulary import PHANTOM_NOTICE, RESEARCH_USE
from models.report import style

FAMILIES: dict[str, tuple[str, Any]] = {
    "shape": (style.BLACK, "-"),
    "firstorder": (style.BLUE, "-"),
    "glcm": (style.VERMILLION, "-"),
    "gldm": (style.GREEN, (0, (5, 1.5))),
    "glrlm": (style.ORANGE, (0, (5, 1.5))),
    "glszm": (style.PURPLE, (0, (1, 1))),
    "ngtdm": (style.SKY, (0, (7, 1.5, 1.5, 1.5))),
}
TITLES = {"readers": "Another segmentation", "perturbation": "Small changes of region and image"}
THRESHOLDS = (0.75, 0.9)


def robustness_figure(table: pd.DataFrame, folder: Path, name: str, *, phantom: bool = False) -> None:
    """NAME.png and NAME.svg: the ICC(2,1) of each family's features, largest first; a panel a kind.

    A curve stays above a threshold for the share of features that reach it. Features without an ICC are at
    the right end, where no curve is drawn. ``phantom`` writes into it that the patients are made up.
    """
    kinds = [kind for kind in TITLES if (table["kind"] == kind).any()]
    with style.drawing():
        figure, panels = style.panels(max(len(kinds), 1), width=5.6, height=3.9)
        for axes, kind in zip(panels, kinds, strict=False):
            _panel(axes, table[table["kind"] == kind], TITLES[kind])
        if not kinds:
            style.empty(panels[0], "No feature was measured.")
        notice = f"{PHANTOM_NOTICE} {RESEARCH_USE}" if phantom else RESEARCH_USE
        figure.supxlabel(notice, fontsize=7, color=style.GREY)
        style.save(figure, folder, name)


def _panel(axes: Axes, table: pd.DataFrame, title: str) -> None:
    family = table["feature"].str.rpartition(".")[2].str.split("_").str[1]
    for name, (colour, dashes) in FAMILIES.items():
        values = table["icc_2_1"][family == name].to_numpy(dtype=np.float64)
        if not len(values):
            continue
        known = np.sort(values[np.isfinite(values)])[::-1]
        share = 100 * (np.arange(len(known)) + 0.5) / len(values)
        marker = "o" if len(known) == 1 else None
        axes.plot(share, known, color=colour, linestyle=dashes, marker=marker, label=f"{name} ({len(values)})")
    for threshold in THRESHOLDS:
        axes.axhline(threshold, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    low = float(np.nanmin(table["icc_2_1"].to_numpy(dtype=np.float64), initial=0.0))
    axes.set(xlim=(0, 100), ylim=(min(-0.02, low - 0.02), 1.02), yticks=[0, 0.25, 0.5, *THRESHOLDS, 1])
    axes.set(xlabel="Features of the family, most robust first (%)", ylabel="ICC(2,1)")
    subjects, versions = int(table["n_subjects"].max()), int(table["n_versions"].max())
    axes.set_title(f"{title}\n{subjects} subjects, {versions} versions", fontsize=9)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="Family (features)", title_fontsize=8)
