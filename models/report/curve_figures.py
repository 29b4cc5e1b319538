"""ROC, calibration and decision curves, a panel a partition (paper, Figures 7, 9, 10 and 11)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.evaluation.auc import auc, delong_ci
from models.evaluation.calibration import brier, calibration_curve, calibration_intercept, calibration_slope
from models.evaluation.inputs import BoolArray, FloatArray
from models.evaluation.net_benefit import decision_curve
from models.evaluation.proportions import wilson
from models.evaluation.roc import roc_band, roc_curve
from models.report import style
from models.report.tables import number

TRAINING = "training"
FEW = 10
"""Events, or non-events, under which a calibration panel says itself that its curve is a guess."""


def roc(predictions: pd.DataFrame, kinds: Sequence[str]) -> Figure:
    """ROC curves of ``kinds`` together; of a single one with its bootstrap band."""
    partitions = style.partitions_of(predictions)
    figure, axes = style.panels(len(partitions))
    for ax, partition in zip(axes, partitions, strict=True):
        ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        for kind in kinds:
            data = style.shown(predictions, partition, kind)
            if data is None:
                continue
            y, p = data
            if y.all() or not y.any():
                style.empty(ax, "one outcome only")
                break
            curve = roc_curve(y, p)
            ax.plot(
                curve.fpr,
                curve.tpr,
                color=style.COLOURS.get(kind, style.BLACK),
                linestyle=style.DASHES.get(kind, "-"),
                linewidth=1.6 if kind in style.SIGNATURES else 1.2,
                label=_auc_label(kind, partition, y, p),
            )
            if len(kinds) == 1:
                band = roc_band(y, p)
                ax.fill_between(band.fpr, band.low, band.high, color=style.COLOURS.get(kind), alpha=0.15, linewidth=0)
        ax.set(
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
            xlabel="1 − specificity",
            ylabel="Sensitivity",
            title=style.cohort_name(partition),
        )
        if ax.get_legend_handles_labels()[1]:
            ax.legend(
                loc="lower right",
                fontsize=7.5,
                handlelength=2.2,
                borderaxespad=0.2,
                frameon=True,
                framealpha=0.85,
                edgecolor="none",
            )
    return figure


def calibration(predictions: pd.DataFrame, kind: str) -> Figure:
    """Flexible curve with its band, groups with Wilson's intervals, and how the risks are spread."""
    partitions = style.partitions_of(predictions)
    figure, axes = style.panels(len(partitions), height=3.2)
    colour = style.COLOURS.get(kind, style.BLACK)
    for ax, partition in zip(axes, partitions, strict=True):
        ax.set(
            xlim=(-0.02, 1.02),
            ylim=(-0.14, 1.02),
            xlabel="Predicted risk",
            ylabel="Observed risk",
            title=style.cohort_name(partition),
        )
        ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        data = style.shown(predictions, partition, kind)
        if data is None:
            style.empty(ax, "no predictions")
            continue
        y, p = data
        curve = calibration_curve(y, p)
        if curve is not None:
            ax.plot(curve.predicted, curve.observed, color=colour, label="flexible curve, 95 % band")
            ax.fill_between(curve.predicted, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        _groups(ax, y, p, colour)
        _risks(ax, y, p)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
        ax.text(0.03, 0.985, _calibration_text(y, p), transform=ax.transAxes, va="top", fontsize=7.5, linespacing=1.4)
    return figure


def decision(predictions: pd.DataFrame, kinds: Sequence[str], thresholds: Sequence[float] = ()) -> Figure:
    """Net benefit of ``kinds`` beside treating everybody and nobody; ``thresholds`` are the ones decided by."""
    partitions = style.partitions_of(predictions)
    figure, axes = style.panels(len(partitions), height=2.9)
    for ax, partition in zip(axes, partitions, strict=True):
        top = 0.05
        for i, kind in enumerate(kinds):
            data = style.shown(predictions, partition, kind)
            if data is None:
                continue
            curve = decision_curve(*data)
            if not i:
                ax.plot(curve.thresholds, curve.treat_all, color=style.GREY, linewidth=1.1, label="Treat all")
                ax.axhline(0, color=style.BLACK, linewidth=1.1, label="Treat none")
            top = max(top, float(curve.model.max()), float(curve.treat_all.max()))
            ax.plot(
                curve.thresholds,
                curve.model,
                color=style.COLOURS.get(kind, style.BLACK),
                linestyle=style.DASHES.get(kind, "-"),
                linewidth=1.6 if kind in style.SIGNATURES else 1.2,
                label=style.model_name(kind),
            )
        for threshold in thresholds:
            ax.axvline(threshold, color=style.ORANGE, linewidth=1, linestyle=(0, (3, 2)), label="Threshold")
        ax.set(
            xlim=(0, 1),
            ylim=(-0.25 * top, 1.12 * top),
            xlabel="Threshold probability",
            ylabel="Net benefit",
            title=style.cohort_name(partition),
        )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _auc_label(kind: str, partition: str, y: BoolArray, p: FloatArray) -> str:
    name = f"{style.model_name(kind)} {auc(y, p):.3f}"
    if partition == TRAINING:
        return name
    low, high = delong_ci(y, p)
    return f"{name} ({low:.3f}–{high:.3f})"


def _groups(ax: Axes, y: BoolArray, p: FloatArray, colour: str) -> None:
    """Groups of about equal size by predicted risk, at least ten patients each, at most ten groups."""
    count = min(10, y.size // 10)
    if count < 2:
        return
    for rows in np.array_split(np.argsort(p, kind="stable"), count):
        k, n = int(y[rows].sum()), rows.size
        low, high = wilson(k, n)
        x = float(p[rows].mean())
        ax.plot([x, x], [low, high], color=colour, linewidth=0.8, alpha=0.8)
        ax.plot([x], [k / n], "o", color="white", markeredgecolor=colour, markersize=4.5, markeredgewidth=1.2)


def _risks(ax: Axes, y: BoolArray, p: FloatArray) -> None:
    """Two small histograms under the plot: events up, non-events down."""
    edges = np.linspace(0, 1, 41)
    up, down = np.histogram(p[y], edges)[0], np.histogram(p[~y], edges)[0]
    unit = 0.055 / max(1, int(up.max()), int(down.max()))
    base = np.full(40, -0.075)
    ax.bar(edges[:-1], up * unit, 0.025, bottom=base, align="edge", color=style.INK, linewidth=0)
    ax.bar(edges[:-1], -down * unit, 0.025, bottom=base, align="edge", color=style.GREY, alpha=0.7, linewidth=0)
    ax.text(1.03, -0.068, "events", fontsize=6.5, va="bottom")
    ax.text(1.03, -0.082, "others", fontsize=6.5, va="top", color=style.GREY)


def _calibration_text(y: BoolArray, p: FloatArray) -> str:
    text = f"Slope {number(calibration_slope(y, p), 2)}\nIntercept {number(calibration_intercept(y, p), 2)}\n"
    text += f"Brier {number(brier(y, p))}   n {y.size}"
    few = min(int(y.sum()), int((~y).sum()))
    return text + (f"\nonly {few} of one outcome: a guess" if few < FEW else "")
