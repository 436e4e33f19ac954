"""Tables drawn as pictures, or as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import DARK, NODE_WIDTH, Pixels, Theme, pixels

_LINE = 26
"""Height of a row in pixels, in a table as wide as a node."""


def table(rows: Sequence[Sequence[str]], width: int = 1024, theme: Theme = DARK) -> Pixels:
    """Draw rows of cells as `(height, width, 3)` uint8; the first row is the heading.

    Columns are as wide as their longest cell; all but the first are right-aligned.
    """
    dpi, height = 100 * width / NODE_WIDTH, _LINE * (len(rows) + 0.5)
    figure = Figure(figsize=(NODE_WIDTH / 100, height / 100), dpi=dpi, facecolor=theme.ground)
    widest = [max(map(len, column)) + 3 for column in zip(*rows, strict=True)]
    ends = [sum(widest[: n + 1]) / sum(widest) for n in range(len(widest))]
    for r, row in enumerate(rows):
        y = 1 - _LINE * (r + 0.75) / height
        for c, cell in enumerate(row):
            x, side = (0.02, "left") if c == 0 else (0.02 + 0.96 * ends[c], "right")
            weight = "normal" if r else "bold"
            figure.text(
                x, y, cell, ha=side, va="center", color=theme.ink, fontsize=9, fontweight=weight
            )
        if r == 0:
            line = [y - 0.5 * _LINE / height] * 2
            figure.add_artist(Line2D([0.02, 0.98], line, color=theme.faint, linewidth=1))
    return pixels(figure)


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
