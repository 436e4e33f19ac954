"""Charts as pictures: the one plot style of the pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_COLOURS = {"content": "#4cc2ff", "style": "#ff9f43", "penalty": "#9b8cff", "loss": "#e8e8e8"}
_BACKGROUND, _INK = "#1e1e22", "#d8d8dc"


def loss_curves(
    history: Mapping[str, Sequence[float]], steps: int, width: int = 512, height: int = 320
) -> NDArray[np.uint8]:
    """Draw the terms of the loss over the steps, logarithmic, as `(height, width, 3)` uint8.

    One step's loss mostly tells which timestep was drawn, so each faint curve carries its running
    mean.
    """
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=_BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=_BACKGROUND)
    for name, values in history.items():
        if name == "loss" or not any(v > 0 for v in values):
            continue
        colour = _COLOURS.get(name, _INK)
        x = np.arange(1, len(values) + 1)
        smooth = _running_mean(np.asarray(values))
        axes.plot(x, values, color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(x, smooth, color=colour, linewidth=1.6, label=f"{name} {smooth[-1]:.3g}")
    axes.set_xlim(0, max(steps, 1))
    axes.set_yscale("log")
    axes.set_xlabel("step", color=_INK)
    axes.tick_params(colors=_INK, which="both", labelsize=8)
    axes.grid(color="#3a3a40", linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_color("#3a3a40")
    if axes.lines:
        axes.legend(
            loc="upper right", fontsize=8, labelcolor=_INK, facecolor=_BACKGROUND, framealpha=0.8
        )
    figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _running_mean(values: NDArray[np.float64], window: int = 20) -> NDArray[np.float64]:
    """Mean of the last `window` values up to each one."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (total[last] - total[first]) / (last - first)
