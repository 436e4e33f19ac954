"""Loss curves of a training, term by term."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ..ziplora.closed_form import BY_PASS
from .style import DARK, Pixels, Theme, legend_above, make_figure, pixels

_DECADES = 3
"""Largest number of powers of ten on the axis, as in js/chart_axes.js."""
_LATEST = 0.1
"""Share of the latest value in the running mean, as in js/chart_axes.js."""
_FEW = 9
"""Number of values up to which a curve has no running mean, as in js/chart.js."""


def loss_curves(
    history: Mapping[str, Sequence[float]],
    steps: int,
    width: int = 512,
    height: int = 320,
    theme: Theme = DARK,
) -> Pixels:
    """Draw the terms of the loss over the steps as `(height, width, 3)` uint8.

    The errors have a logarithmic axis on the left, a penalty its own linear axis on the right. One
    step's error mostly depends on the drawn timestep, so each curve is faint, with a running mean
    over it; a few values are drawn without. The total is drawn only when it is the only term. The
    errors of the closed form, `BY_PASS`, have a linear axis and a tick for each pass.
    """
    figure, (axes,) = make_figure(width, height, theme)
    passes = history.get(BY_PASS, ())
    start, steps = (0, len(passes) - 1) if passes else (1, steps)
    axes.set_xlim(0, 1.01 * max(steps, 1))
    axes.set_yscale("linear" if passes else "log")
    axes.set_xlabel("pass" if passes else "step", color=theme.ink, fontsize=9)
    axes.locator_params(axis="x", integer=True)
    if passes:
        axes.set_xticks(range(len(passes)))
        axes.set_ylim(0, 1.05 * max(filter(math.isfinite, passes), default=1.0))
    right = axes.twinx() if any(history.get("penalty", ())) else None
    lines: list[Line2D] = []
    errors: list[float] = []
    for name, values in history.items():
        on = right if name == "penalty" else axes
        total = name == "loss" and len(history) > 1
        if total or on is None or not any(v > 0 for v in values):
            continue
        colour, x = theme.of(name), np.arange(start, start + len(values))
        smooth = np.asarray(values)
        known = [value for value in values if math.isfinite(value)]
        if on is axes:
            errors += known
        if on is axes and len(known) > _FEW:
            on.plot(x, smooth, color=colour, alpha=0.3, linewidth=0.8)
            smooth = _running_mean(smooth)
        label = f"{name} {smooth[-1]:.3g}"
        marker = "." if len(known) <= _FEW else None
        lines += on.plot(x, smooth, color=colour, linewidth=1.6, label=label, marker=marker)
    if right:
        right.spines[:].set_color(theme.faint)
        right.tick_params(labelsize=8)
        right.set_ylim(bottom=0)
        right.tick_params(colors=theme.penalty)
    if not passes:
        _leave_out_dips(axes, errors)
    for line in lines:
        if line.axes is axes and np.max(line.get_ydata()) < axes.get_ylim()[0]:
            line.set_label(f"{line.get_label()} (below)")
    legend_above(axes, theme, lines)
    return pixels(figure)


def _leave_out_dips(axes: Axes, errors: Sequence[float]) -> None:
    """Limit the axis to a few powers of ten; one step with a tiny error would flatten the rest."""
    greatest = max(errors, default=0.0)
    if any(0 < error < greatest / 10**_DECADES for error in errors):
        axes.set_ylim(greatest / 10**_DECADES, 1.5 * greatest)


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the mean of all values up to each, of which the later ones count more.

    No value leaves it at once, which would bend the curve. A value that is not finite has no part.
    """
    mean, total, weight = np.full(len(values), np.nan), 0.0, 0.0
    for at, value in enumerate(values):
        if math.isfinite(value):
            total = (1 - _LATEST) * total + _LATEST * value
            weight = (1 - _LATEST) * weight + _LATEST
        if weight:
            mean[at] = total / weight
    return mean
