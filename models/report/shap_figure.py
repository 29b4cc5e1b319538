"""SHAP of the combined model: how much each input counts, and which way it moves each patient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from models.report import style

MOST_INPUTS = 15
HALF = 0.36
LOW_TO_HIGH = LinearSegmentedColormap.from_list("low to high", [style.BLUE, "#d9d9d9", style.VERMILLION])


def shap_figure(drawn: Mapping[str, Any]) -> Figure:
    """Left: mean |SHAP| of each input. Right: a dot a patient, coloured by the input's own value (ranks)."""
    names = [style.term_name(name) for name in drawn["names"]][:MOST_INPUTS]
    values = np.asarray(drawn["values"], dtype=np.float64)[:, : len(names)]
    inputs = np.array(drawn["inputs"], dtype=np.float64)[:, : len(names)]
    figure = Figure(figsize=(9.2, 1.5 + 0.5 * max(2, len(names))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.7), sharey=True)
    places = np.arange(len(names))
    left.barh(places, np.abs(values).mean(axis=0), color=style.GREEN, height=0.6)
    left.set_yticks(places, names)
    left.set(xlabel="Mean |SHAP|\n(change of log-odds)", title="How much it counts")
    left.invert_yaxis()
    left.tick_params(axis="y", length=0)
    right.axvline(0, color=style.GREY, linewidth=0.8)
    for place in places:
        colours = _ranks(inputs[:, place])
        known = np.isfinite(colours)
        rows = place + _spread(values[:, place])
        right.scatter(values[known, place], rows[known], c=colours[known], cmap=LOW_TO_HIGH, vmin=0, vmax=1, s=11)
        right.scatter(values[~known, place], rows[~known], color=style.GREY, s=11)
    right.set(
        xlabel="SHAP value (change of log-odds)\n← lowers the risk      raises the risk →",
        title="Which way, patient by patient",
    )
    right.tick_params(axis="y", length=0)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), LOW_TO_HIGH), ax=right, ticks=[0, 1], aspect=30, pad=0.02)
    bar.ax.set_yticklabels(["low", "high"])
    bar.set_label("Value of the input", labelpad=-12)
    bar.outline.set_visible(False)
    return figure


def _ranks(x: np.ndarray) -> np.ndarray:
    """0 for the lowest value, 1 for the highest, equal values alike; NaN stays."""
    found = np.full(len(x), np.nan)
    known = np.isfinite(x)
    levels, place = np.unique(x[known], return_inverse=True)
    found[known] = place / max(1, len(levels) - 1)
    return found


def _spread(x: np.ndarray) -> np.ndarray:
    """Up and down from the middle, so that dots of like values lie beside each other."""
    bins = np.round((x - x.min()) / max(float(np.ptp(x)), 1e-12) * 60).astype(int)
    offsets = np.zeros(len(x))
    for one in np.unique(bins):
        members = np.flatnonzero(bins == one)
        steps = np.arange(len(members))
        offsets[members] = np.where(steps % 2, 1, -1) * ((steps + 1) // 2)
    return offsets * min(0.07, HALF / max(1.0, float(np.abs(offsets).max())))
