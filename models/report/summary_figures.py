"""Who is in a study, every AUC side by side, fourteen classifiers, permuted outcomes, odds ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FixedLocator, NullLocator

from feature_store.vocabulary import Partition
from models.report import style
from models.report.figure_data import FlowStep


def flow(steps: Sequence[FlowStep], predictions: pd.DataFrame) -> Figure:
    """From the first patient to the partitions, with counted reasons for who left (paper, Figure 1)."""
    steps = [step for step in steps if step["label"] not in set(Partition)]
    steps = steps or [{"label": "Patients with a known outcome", "n": len(predictions), "excluded": {}}]
    partitions = [p.value for p in Partition if (predictions["partition"] == p.value).any()]
    lines = [max(1, len(step["excluded"])) for step in steps]
    tops = np.cumsum([0.0, *(0.75 + 0.22 * n for n in lines)])
    height = float(tops[-1]) + 1.2
    figure = Figure(figsize=(8.4, height), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, 8.4), ylim=(-height, 0.05))
    ax.axis("off")
    for i, step in enumerate(steps):
        y = -float(tops[i]) - 0.32
        if i:
            ax.annotate("", (2.4, y + 0.24), (2.4, -float(tops[i - 1]) - 0.56), arrowprops=_ARROW)
        _box(ax, 2.4, y, 3.6, 0.48, f"{step['label']}\nn = {step['n']}")
        if step["excluded"]:
            reasons = "\n".join(f"{reason}: {count}" for reason, count in step["excluded"].items())
            tall = 0.34 + 0.17 * len(step["excluded"])
            middle = y + 0.42 if i else y
            ax.annotate("", (4.9, middle), (2.4 if i else 4.2, middle), arrowprops=_ARROW)
            left = sum(step["excluded"].values())
            _box(ax, 6.6, middle, 3.4, tall, f"Left out: {left}\n{reasons}", face="#f7f4ef")
    last, foot = -float(tops[len(steps) - 1]) - 0.56, -height + 0.42
    width = min(2.5, 8.2 / len(partitions) - 0.15)
    margin = 0.1 + width / 2
    spots = np.linspace(margin, 8.4 - margin, len(partitions)) if len(partitions) > 1 else [2.4]
    fork = 0.5 * (last + foot + 0.33)
    ax.plot([2.4, 2.4], [last, fork], color=style.GREY, linewidth=1)
    ax.plot([min(2.4, *spots), max(2.4, *spots)], [fork, fork], color=style.GREY, linewidth=1)
    for x, partition in zip(spots, partitions, strict=True):
        rows = predictions[predictions["partition"] == partition]
        events = int(rows["outcome"].sum())
        text = f"{style.cohort_name(partition).partition(' (')[0]}\nn = {len(rows)}"
        # A locked test is not looked at: neither its outcomes nor its scores.
        text += "" if partition == Partition.LOCKED_TEST else f", events {events} ({100 * events / len(rows):.0f} %)"
        text += f"\n{style.sites_of(rows)}"
        ax.annotate("", (x, foot + 0.33), (x, fork), arrowprops=_ARROW)
        _box(ax, x, foot, width, 0.66, text, face="#eaf3f8")
    return figure


def forest(rows: Sequence[tuple[str, str, float, tuple[float, float] | None]]) -> Figure:
    """AUC of every model on every cohort: rows of (cohort, kind, AUC, interval or None)."""
    cohorts = list(dict.fromkeys(cohort for cohort, *_ in rows))
    kinds = list(dict.fromkeys(kind for _, kind, *_ in rows))
    height = 0.9 + sum(0.2 + 0.19 * sum(c == cohort for c, *_ in rows) for cohort in cohorts)
    figure = Figure(figsize=(8.4, height), layout="constrained")
    ax = figure.subplots()
    y, ticks, names = 0.0, [], []
    for cohort in cohorts:
        here = [row for row in rows if row[0] == cohort]
        ticks.append(y + 0.5 * (len(here) - 1))
        names.append(style.cohort_name(cohort).replace(" (", "\n("))
        for _, kind, area, interval in here:
            colour = style.COLOURS.get(kind, style.BLACK)
            if interval:
                ax.plot(interval, [y, y], color=colour, linewidth=1.6)
            ax.plot([area], [y], style.MARKERS.get(kind, "o"), color=colour, markersize=5.5, clip_on=False)
            text = f"{area:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")
            ax.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=colour)
            y += 1
        ax.axhline(y, color=style.PALE, linewidth=0.8)
        y += 1
    ax.axvline(0.5, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    for kind in kinds:
        marker, colour = style.MARKERS.get(kind, "o"), style.COLOURS.get(kind, style.BLACK)
        ax.plot([], [], marker=marker, color=colour, markersize=5.5, label=style.model_name(kind))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(kinds), fontsize=8)
    lowest = min(0.45, *(min(area, *(interval or (area,))) for *_, area, interval in rows))
    ax.set_yticks(ticks, names)
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(max(0.0, lowest - 0.03), 1.0), ylim=(y - 1.5, -0.7), xlabel="AUC (95 % interval)")
    return figure


def classifiers(tables: Mapping[str, Sequence[Mapping[str, Any]]], chosen: Mapping[str, str]) -> Figure:
    """Cross-validated AUC of the fourteen classifiers with one SD over the folds; the chosen one is filled."""
    kinds = [kind for kind in tables if tables[kind]]
    figure, axes = style.panels(len(kinds), width=3.4, height=3.7)
    for ax, kind in zip(axes, kinds, strict=True):
        ranked = sorted((row for row in tables[kind] if row.get("cv_auc") is not None), key=lambda row: row["cv_auc"])
        colour = style.COLOURS.get(kind, style.BLUE)
        for y, row in enumerate(ranked):
            sd = row.get("cv_auc_sd") or 0.0
            ax.plot([row["cv_auc"] - sd, row["cv_auc"] + sd], [y, y], color=colour, linewidth=1.1, alpha=0.6)
            face = colour if row["name"] == chosen.get(kind) else "white"
            ax.plot([row["cv_auc"]], [y], "o", color=face, markeredgecolor=colour, markersize=5.5)
        ax.set_yticks(range(len(ranked)), [str(row["name"]).replace("_", " ") for row in ranked])
        for label, row in zip(ax.get_yticklabels(), ranked, strict=True):
            label.set_fontweight("bold" if row["name"] == chosen.get(kind) else "normal")
        ax.axvline(0.5, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        ax.tick_params(axis="y", length=0, labelsize=7.5)
        ax.set(title=style.model_name(kind), xlabel="Cross-validated AUC ± SD")
    return figure


def leakage(permuted: Sequence[float], mean: float, interval: Sequence[float], real: float | None, name: str) -> Figure:
    """Each run on permuted outcomes, their mean with its interval, and the real AUC."""
    figure = Figure(figsize=(7.2, 1.9), layout="constrained")
    ax = figure.subplots()
    rng = np.random.default_rng(0)
    if len(permuted):
        jitter = rng.uniform(-0.16, 0.16, len(permuted))
        ax.plot(permuted, jitter, "o", color=style.GREY, alpha=0.6, markersize=4.5, label="one run, permuted outcomes")
    ax.plot(interval, [0.34, 0.34], color=style.INK, linewidth=2)
    ax.plot([mean], [0.34], "D", color=style.INK, markersize=5, label="their mean, 95 % interval")
    ax.axvline(0.5, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    if real is not None:
        ax.axvline(real, color=style.GREEN, linewidth=2, label=f"true outcomes: {real:.3f}")
    values = [*permuted, *interval, *([] if real is None else [real])]
    ax.set(
        xlim=(min(0.3, *values) - 0.02, max(0.7, *values) + 0.02),
        ylim=(-0.35, 0.6),
        yticks=[],
        xlabel=f"AUC, {name}",
    )
    ax.spines["left"].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def ablation(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Left: AUC of a part alone; right: change of the AUC without it. One cohort; signatures by colour and marker."""
    kinds = [kind for kind in style.SIGNATURES if any(row["signature"] == kind for row in rows)]
    places: dict[tuple[str, str, str], float] = {}
    y = 0.0
    for kind in kinds:
        axes = dict.fromkeys(row["axis"] for row in rows if row["signature"] == kind)
        for axis in axes:
            for part in dict.fromkeys(r["part"] for r in rows if (r["signature"], r["axis"]) == (kind, axis)):
                places[kind, axis, part] = y
                y += 1
            y += 0.6
    figure = Figure(figsize=(9.2, 1.2 + 0.19 * y), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for row in rows:
        ax, value, interval = panels[0], row.get("auc"), row.get("auc_ci")
        if row["use"] == "without":
            ax, value, interval = panels[1], row.get("difference"), row.get("difference_ci")
        if value is not None:
            place, colour = places[row["signature"], row["axis"], row["part"]], style.COLOURS[row["signature"]]
            if interval and None not in interval:
                ax.plot(interval, [place, place], color=colour, linewidth=1.4)
            ax.plot([value], [place], style.MARKERS[row["signature"]], color=colour, markersize=4.5)
    for ax, line in zip(panels, (0.5, 0.0), strict=True):
        ax.axvline(line, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        ax.tick_params(axis="y", length=0, labelsize=7.5)
    panels[0].set_yticks(list(places.values()), [style.part_name(part) for *_, part in places])
    panels[0].set(xlabel="AUC (95 % interval)", title="This part alone", ylim=(y - 0.4, -0.8))
    panels[1].set(xlabel="Change of AUC (95 % interval)", title="All but this part")
    for kind in kinds:
        panels[1].plot([], [], style.MARKERS[kind], color=style.COLOURS[kind], label=style.model_name(kind))
    figure.legend(loc="outside upper center", ncols=len(kinds))
    return figure


def odds_ratios(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Clinical odds ratios on a logarithmic axis; those selected are filled."""
    drawn = [row for row in rows if row.get("odds_ratio") and row.get("ci") and None not in row["ci"]][::-1]
    figure = Figure(figsize=(7.2, 1.0 + 0.3 * max(2, len(drawn))), layout="constrained")
    ax = figure.subplots()
    for y, row in enumerate(drawn):
        low, high = np.clip(np.asarray(row["ci"], dtype=np.float64), 1e-3, 1e3)
        ax.plot([low, high], [y, y], color=style.PURPLE, linewidth=1.6)
        face = style.PURPLE if row.get("selected") else "white"
        ax.plot([np.clip(row["odds_ratio"], 1e-3, 1e3)], [y], "s", color=face, markeredgecolor=style.PURPLE)
    ax.set_xscale("log")
    ax.axvline(1, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    ax.set_yticks(range(len(drawn)), [style.term_name(str(row["variable"])) for row in drawn])
    ax.xaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel="Odds ratio (95 % interval); filled: selected", ylim=(-0.6, max(1, len(drawn)) - 0.4))
    return figure


_ARROW = {"arrowstyle": "-|>", "color": style.GREY, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, face: str = "white") -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=face,
            edgecolor=style.GREY,
            linewidth=1,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, linespacing=1.35)
