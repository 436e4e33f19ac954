"""Charts as pictures: the one plot style of the pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

_COLOURS = {
    "content": "#4cc2ff",
    "style": "#ff9f43",
    "penalty": "#9b8cff",
    "instance": "#4cc2ff",
    "prior": "#ff9f43",
    "slider": "#4cc2ff",
    "high": "#4cc2ff",
    "low": "#ff9f43",
}
_GAP, _LABEL = 4, 24
"""Pixels between pictures, and above them for names."""
_BACKGROUND, _INK, _GRID = "#1e1e22", "#d8d8dc", "#3a3a40"


def loss_curves(
    history: Mapping[str, Sequence[float]], steps: int, width: int = 512, height: int = 320
) -> NDArray[np.uint8]:
    """Draw the terms of the loss over the steps as `(height, width, 3)` uint8.

    The errors are logarithmic, on the left; a penalty has its own linear axis on the right. One
    step's error mostly tells which timestep was drawn, so each faint curve carries its running
    mean.
    """
    figure, axes = _figure(width, height)
    axes.set_xlim(0, max(steps, 1))
    axes.set_yscale("log")
    axes.set_xlabel("step", color=_INK)
    axes.grid(color=_GRID, linewidth=0.5)
    right = axes.twinx() if any(history.get("penalty", ())) else None
    lines: list[Line2D] = []
    for name, values in history.items():
        on = right if name == "penalty" else axes
        if name == "loss" or on is None or not any(v > 0 for v in values):
            continue
        colour, x = _COLOURS.get(name, _INK), np.arange(1, len(values) + 1)
        smooth = np.asarray(values)
        if name != "penalty":
            on.plot(x, smooth, color=colour, alpha=0.3, linewidth=0.8)
            smooth = _running_mean(smooth)
        label = f"{name} {smooth[-1]:.3g}"
        lines += on.plot(x, smooth, color=colour, linewidth=1.6, label=label)
    if right:
        right.spines[:].set_color(_GRID)
        right.tick_params(labelsize=8)
        right.set_ylim(bottom=0)
        right.tick_params(colors=_COLOURS["penalty"])
    axes.legend(
        handles=lines, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3, fontsize=8,
        labelcolor=_INK, frameon=False,
    )  # fmt: skip
    return _pixels(figure)


def bars(
    values: Mapping[str, float], title: str, width: int = 512, height: int = 320
) -> NDArray[np.uint8]:
    """Draw a few named values beside each other as `(height, width, 3)` uint8."""
    figure, axes = _figure(width, height)
    drawn = axes.bar(list(values), list(values.values()), color=_COLOURS["content"], width=0.6)
    axes.bar_label(drawn, fmt="%.3g", color=_INK, fontsize=8)
    axes.set_title(title, color=_INK, fontsize=9)
    axes.grid(axis="y", color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    return _pixels(figure)


def grid(pictures: Tensor, columns: Sequence[str], rows: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Put pictures `(row, column, h, w, 3)` in 0…1 into one, with names above and at the left."""
    height, width = pictures.shape[2:4]
    left = 8 * max(map(len, rows), default=0) + (_GAP if rows else 0)
    size = (left + len(columns) * (width + _GAP), _LABEL + len(pictures) * (height + _GAP))
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, facecolor=_BACKGROUND)
    style = {"color": _INK, "fontsize": 9, "va": "center"}
    for n, name in enumerate(columns):
        x = left + n * (width + _GAP) + width / 2
        figure.text(x / size[0], 1 - _LABEL / 2 / size[1], name, ha="center", **style)
    for n, name in enumerate(rows):
        y = _LABEL + n * (height + _GAP) + height / 2
        figure.text(_GAP / size[0], 1 - y / size[1], name, **style)
    drawn = _pixels(figure)
    for r, row in enumerate((pictures * 255).round().to(torch.uint8).numpy()):
        for c, picture in enumerate(row):
            top, side = _LABEL + r * (height + _GAP), left + c * (width + _GAP)
            drawn[top : top + height, side : side + width] = picture
    return drawn


def strip(chart: NDArray[np.uint8], pictures: Sequence[Tensor]) -> NDArray[np.uint8]:
    """Put pictures `(h, w, 3)` in 0…1 side by side below a chart `(height, width, 3)`."""
    if not pictures:
        return chart
    width = chart.shape[1]
    step = (width + _GAP) // len(pictures)
    row = [_scaled(picture, step - _GAP, len(chart) // 2) for picture in pictures]
    below = np.zeros((max(len(picture) for picture in row), width, 3), np.uint8)
    for n, picture in enumerate(row):
        below[: len(picture), n * step : n * step + picture.shape[1]] = picture
    return np.concatenate([chart, below])


def _figure(width: int, height: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=_BACKGROUND)
    axes = figure.add_subplot(facecolor=_BACKGROUND)
    axes.tick_params(colors=_INK, which="both", labelsize=8)
    axes.spines[:].set_color(_GRID)
    return figure, axes


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    canvas = FigureCanvasAgg(figure)
    if figure.axes:
        figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _scaled(picture: Tensor, width: int, height: int) -> NDArray[np.uint8]:
    """Scale a picture into a place of this size."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
    image = F.interpolate(picture.movedim(-1, 0)[None], size, mode="area")
    return (image[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy()


def _running_mean(values: NDArray[np.float64], window: int = 20) -> NDArray[np.float64]:
    """Mean of the last `window` values up to each one."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (total[last] - total[first]) / (last - first)
