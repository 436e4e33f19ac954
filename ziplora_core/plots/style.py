"""Style of the figures: colours, sizes, axes, legends and rasterising."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture `(height, width, 3)`."""

NODE_WIDTH = 420
"""Width in pixels at which figures are read; a wider figure has larger text, not more."""


@dataclass(frozen=True)
class Theme:
    """The colours of a figure; text and curves have a contrast of 4.5 (WCAG 2, AA) to the ground.

    Args:
        ground, ink, faint: colours of the background, of text and of grid lines.
        content, style, penalty, other: colours of the curves, or of other marks of these terms.
    """

    ground: str
    ink: str
    faint: str
    content: str
    style: str
    penalty: str
    other: str

    def of(self, term: str) -> str:
        """Return the colour of a loss term, given its name."""
        if term in ("content", "instance", "slider", "high"):
            return self.content
        if term in ("style", "prior", "low"):
            return self.style
        return self.penalty if term == "penalty" else self.other


# The same colours as in js/colours.js.
DARK = Theme("#1e1e22", "#d8d8dc", "#3a3a40", "#4cc2ff", "#ff9f43", "#9b8cff", "#62d48a")
LIGHT = Theme("#ffffff", "#26262b", "#d8d8de", "#0a66b7", "#b35300", "#5b46c8", "#1d7f45")
THEMES = {"dark": DARK, "light": LIGHT}


def make_figure(width: int, height: int, theme: Theme, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure of `rows` charts, one below the other."""
    dpi = 100 * width / NODE_WIDTH
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor=theme.ground)
    charts = [
        figure.add_subplot(rows, 1, row + 1, facecolor=theme.ground, axisbelow=True)
        for row in range(rows)
    ]
    for axes in charts:
        axes.tick_params(colors=theme.ink, which="both", labelsize=8)
        axes.spines[:].set_color(theme.faint)
        axes.grid(color=theme.faint, linewidth=0.5)
    return figure, charts


def legend_above(axes: Axes, theme: Theme, handles: list | None = None) -> None:
    """Draw the legend in one row above the chart, where it hides nothing."""
    axes.legend(
        **({} if handles is None else {"handles": handles}), loc="lower center",
        bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=7.5, labelcolor=theme.ink, frameon=False,
        handlelength=1, columnspacing=1, handletextpad=0.5, borderaxespad=0.2,
    )  # fmt: skip


def say(axes: Axes, text: str, theme: Theme) -> None:
    """Show a message in place of a chart."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, color=theme.ink, fontsize=9, ha="center", va="center", wrap=True)


def pixels(figure: Figure) -> Pixels:
    """Rasterise a figure to `(height, width, 3)` uint8."""
    canvas = FigureCanvasAgg(figure)
    if figure.axes:
        figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def rgb(colour: str) -> tuple[int, int, int]:
    """Convert a colour `#rrggbb` to (red, green, blue) in 0…255."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
