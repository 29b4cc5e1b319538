"""What the LASSO took: its path, its cross-validation, and the features that stayed (paper, Figures 6 and 8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from models.report import style
from models.report.figure_data import LassoPath

MOST_FEATURES = 15


def lasso(path: LassoPath, kind: str) -> Figure:
    """Left: coefficients over the penalty; right: cross-validated error with one SD over the folds."""
    figure, (left, right) = style.panels(2, width=5.2, height=3.6)
    order = np.argsort(np.asarray(path["lambdas"], dtype=np.float64))
    lambdas = np.asarray(path["lambdas"], dtype=np.float64)[order]
    chosen = float(path["chosen"])
    at = int(np.argmin(np.abs(np.log(lambdas) - np.log(chosen))))
    kept = 0
    for coefficients in path["paths"].values():
        values = np.asarray(coefficients, dtype=np.float64)[order]
        stays = values[at] != 0
        kept += int(stays)
        colour = (style.BLUE if values[at] > 0 else style.VERMILLION) if stays else style.PALE
        left.plot(lambdas, values, color=colour, linewidth=1.2 if stays else 0.7, zorder=3 if stays else 1)
    left.axhline(0, color=style.GREY, linewidth=0.8)
    left.plot([], [], color=style.BLUE, label="kept, raises the risk")
    left.plot([], [], color=style.VERMILLION, label="kept, lowers the risk")
    left.plot([], [], color=style.PALE, label="left out at the chosen λ")
    left.set(ylabel="Coefficient (per SD)", title=f"{style.model_name(kind)}: LASSO path")

    mean = np.asarray(path["cv_mean"], dtype=np.float64)[order]
    sd = np.asarray(path["cv_sd"], dtype=np.float64)[order]
    colour = style.COLOURS.get(kind, style.BLUE)
    right.fill_between(lambdas, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0, label="± 1 SD over folds")
    right.plot(lambdas, mean, color=colour, label="mean over folds")
    right.set(ylabel="Mean squared error", title=f"{style.model_name(kind)}: cross-validation")
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xlabel("Penalty λ")
        _features_on_top(ax, path, order, lambdas)
        label = f"chosen λ = {chosen:.3g}, {kept} feature{'s' if kept != 1 else ''}"
        ax.axvline(chosen, color=style.INK, linewidth=1, linestyle=(0, (3, 2)), label=label if ax is right else None)
        ax.legend(loc="best", fontsize=7.5, frameon=True, framealpha=0.85, edgecolor="none")
    return figure


def ranking(features: Sequence[tuple[str, float | None, float | None]], title: str) -> Figure:
    """Features of (name, coefficient, importance), the largest on top; a panel for each of the two that is known.

    Coefficients: blue raises the risk, vermillion lowers it.
    """
    panels = [
        (label, column)
        for label, column in (("Coefficient (per SD)", 1), ("Importance\n(mean |change of log-odds|)", 2))
        if any(row[column] for row in features)
    ]
    first = panels[0][1]
    listed = sorted(features, key=lambda row: -abs(float(row[first] or 0.0)))[:MOST_FEATURES][::-1]
    parts = [style.feature_parts(row[0]) for row in listed]
    tall = 0.34 if any(where for _, where in parts) else 0.22
    figure = Figure(figsize=(9.2, 1.1 + tall * max(len(listed), 2)), layout="constrained")
    axes = list(np.ravel(figure.subplots(1, len(panels), squeeze=False, sharey=True)))
    for ax, (label, column) in zip(axes, panels, strict=True):
        values = np.array([float(row[column] or 0.0) for row in listed])
        colours = np.where(values > 0, style.BLUE, style.VERMILLION) if column == 1 else style.GREY
        ax.barh(range(len(listed)), values, color=colours, height=0.62)
        ax.axvline(0, color=style.GREY, linewidth=0.8)
        ax.tick_params(axis="y", length=0, labelsize=7)
        ax.set(xlabel=label, ylim=(-0.6, len(listed) - 0.4))
    names = [f"{f}\n{where}" if where else _short(f) for f, where in parts]
    axes[0].set_yticks(range(len(listed)), names)
    more = f" (the {MOST_FEATURES} largest of {len(features)})" if len(features) > MOST_FEATURES else ""
    figure.suptitle(title + more, fontsize=10, fontweight="bold")
    return figure


def _features_on_top(ax: Axes, path: LassoPath, order: np.ndarray, lambdas: np.ndarray) -> None:
    """A second axis above: how many features each penalty leaves."""
    counts = (np.array([np.asarray(c, dtype=np.float64)[order] for c in path["paths"].values()]) != 0).sum(axis=0)
    spots = np.unique(np.linspace(0, lambdas.size - 1, 7).round().astype(int))
    top = ax.secondary_xaxis("top")
    top.xaxis.set_major_locator(FixedLocator(lambdas[spots].tolist()))
    top.xaxis.set_major_formatter(FixedFormatter([str(counts[i]) for i in spots]))
    top.xaxis.set_minor_locator(NullLocator())
    top.tick_params(length=2, labelsize=7)
    top.set_xlabel("features left", fontsize=7.5)


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:22]}…{name[-25:]}"
