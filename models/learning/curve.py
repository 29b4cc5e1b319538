"""A learning curve: rows, their file, their figure."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TypeAlias

CurveRow: TypeAlias = dict[str, float]
"""``step``, ``learning_rate``, ``training_loss`` (mean since the row before), ``held_out_loss``, and
``held_out_auc`` when fine-tuning."""


def curve_lines(rows: Sequence[CurveRow]) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def curve_figure(rows: Sequence[CurveRow], loss_name: str) -> bytes:
    """Losses against steps, as PNG; the held-out AUC on an axis of its own, where there is one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [row["step"] for row in rows]
    axes.plot(steps, [row["training_loss"] for row in rows], label="training", color="#4c72b0", marker=".")
    axes.plot(steps, [row["held_out_loss"] for row in rows], label="held out", color="#c44e52", marker=".")
    axes.set_xlabel("step")
    axes.set_ylabel(loss_name)
    if any("held_out_auc" in row for row in rows):
        other = axes.twinx()
        other.plot(steps, [row.get("held_out_auc", float("nan")) for row in rows], "--", color="#8c8c8c")
        other.set_ylabel("held-out AUC (dashed)")
        other.set_ylim(0, 1)
    axes.legend(frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
