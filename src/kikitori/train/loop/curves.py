"""The picture of a run: training losses and dev scores over epochs, drawn from `metrics.jsonl`.

Needs matplotlib (`pip install kikitori[train]`); without it there is no picture, and no error.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

DEV, FINAL = "dev_", "final_"
NO_LOSS = {"epoch", "step", "time", "time_shares", "lr", "grad_norm", "padding", "positions_per_second"}
NO_LOSS |= {f"{DEV}{what}_perplexity" for what in ("target", "prediction")}  # of far larger numbers than the loss
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito, for all kinds of eyes

Row = dict[str, Any]
Curve = list[tuple[float, float]]


def draw_curves(metrics: Path, picture: Path) -> bool:
    """Draws the losses in a run's `metrics.jsonl` above and, where there are any, the dev scores below, as PNG.

    A torn line and what a resumed run repeated are left out. False if matplotlib is missing or there is nothing to
    draw.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    losses, scores = read_curves(metrics)
    rows = _read(metrics)
    finals = {key.removeprefix(FINAL): row[key] for row in rows for key in row if key.startswith(FINAL)}
    groups = [group for group in (losses, scores) if group]
    if not groups:
        return False
    figure = Figure(figsize=(8, 3.2 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for panel, group in zip(panels, groups, strict=True):
        _draw(panel, group, finals if group is scores else {})
        panel.set_ylabel("training loss" if group is losses else "dev score")
    panels[-1].set_xlabel("epoch")
    figure.savefig(picture, dpi=120)
    return True


def read_curves(metrics: Path) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """The training losses and the dev scores of a run by name, over epochs; empty where there are none."""
    rows = _read(metrics)
    losses = _curves([row for row in rows if not _has(row, DEV) and not _has(row, FINAL)], rows, "")
    return losses, _curves([row for row in rows if _has(row, DEV)], rows, DEV)


def _draw(panel: Any, group: dict[str, Curve], finals: dict[str, float]) -> None:
    for number, (name, curve) in enumerate(group.items()):
        epochs, values = zip(*curve, strict=True)
        colour = COLOURS[number % len(COLOURS)]
        marker = "o" if len(curve) < 40 else ""
        label = f"{name}, at the end {values[-1]:.3g}"
        if name in finals:
            label += f", exported model {finals[name]:.3g}"
            panel.axhline(finals[name], color=colour, linewidth=0.8, linestyle=":")
        panel.plot(epochs, values, label=label, color=colour, linewidth=1.4, marker=marker, markersize=3)
    panel.grid(alpha=0.3)
    panel.margins(x=0.02)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize="small")


def _read(metrics: Path) -> list[Row]:
    """Rows in order, without those whose steps a resumed run did again."""
    rows: list[Row] = []
    if not metrics.is_file():
        return rows
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # torn by a kill
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            continue
        if not _has(row, DEV) and not _has(row, FINAL):
            rows = [earlier for earlier in rows if earlier["step"] < row["step"]]
        rows.append(row)
    return rows


def _curves(rows: list[Row], all_rows: list[Row], prefix: str) -> dict[str, Curve]:
    """(epoch, value) pairs by name; the whole loss comes first."""
    curves: dict[str, Curve] = {}
    for row in rows:
        for key, value in row.items():
            numeric = isinstance(value, int | float) and math.isfinite(value)
            if key.startswith(prefix) and key not in NO_LOSS and numeric:
                curves.setdefault(key.removeprefix(prefix), []).append((_epoch(row, all_rows), float(value)))
    parts = [name for name in curves if name != "loss"]
    if len(parts) == 1 and curves.get("loss") == curves[parts[0]]:
        del curves["loss"]  # the only part is the loss itself
    return curves


def _epoch(row: Row, rows: list[Row]) -> float:
    """Epochs done at a row, from its step where dev rows say how many steps an epoch has."""
    if _has(row, DEV):
        return float(row["epoch"])
    known = [(other["step"], other["epoch"]) for other in rows if _has(other, DEV) and other["step"] > 0]
    if not known:
        return float(row["epoch"] if "epoch" in row else row["step"])
    steps, epochs = zip(*[(0, 0), *known], strict=True)
    if row["step"] > steps[-1]:
        return float(row["step"] * epochs[-1] / steps[-1])
    return float(np.interp(row["step"], steps, epochs))


def _has(row: Row, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in row)
