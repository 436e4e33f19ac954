"""Several pictures as one: a grid with its axes named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .style import DARK, NODE_WIDTH, Pixels, Theme, pixels, rgb

_GAP, _LABEL = 4, 22
"""Pixels between pictures, and of a line of text in a grid as wide as a node."""


def grid(
    pictures: Tensor,
    columns: Sequence[str],
    rows: Sequence[str] = (),
    across: str = "",
    down: str = "",
    theme: Theme = DARK,
) -> Pixels:
    """Put pictures `(row, column, h, w, 3)` in 0…1 into one, with the axes named.

    A wide grid has large letters: it is read where it is shown at a node's width.

    Args:
        pictures: as above.
        columns, rows: what tells them apart, above and at the left.
        across, down: the name of each axis; empty for none.
        theme: of ground and letters.
    """
    height, width = pictures.shape[2:4]
    line = round(_LABEL * max(1.0, len(columns) * (width + _GAP) / NODE_WIDTH))
    top, left = line * (1 + bool(across)), line * (bool(rows) + bool(down))
    inner_width, inner_height = len(columns) * (width + _GAP), len(pictures) * (height + _GAP)
    drawn = np.empty((top + inner_height, left + inner_width, 3), np.uint8)
    drawn[:] = rgb(theme.ground)
    if across:
        drawn[:line, left:] = _words(across, inner_width, line, theme)
    if down:
        drawn[top:, :line] = np.rot90(_words(down, inner_height, line, theme))
    for c, name in enumerate(columns):
        side = left + c * (width + _GAP)
        drawn[top - line : top, side : side + width] = _words(name, width, line, theme)
    for r, name in enumerate(rows):
        y = top + r * (height + _GAP)
        drawn[y : y + height, left - line : left] = np.rot90(_words(name, height, line, theme))
    for r, row in enumerate((pictures * 255).round().to(torch.uint8).numpy()):
        for c, picture in enumerate(row):
            y, x = top + r * (height + _GAP), left + c * (width + _GAP)
            drawn[y : y + height, x : x + width] = picture
    return drawn


def _words(text: str, width: int, height: int, theme: Theme) -> Pixels:
    """Write one line of text in the middle of a box; a long one gets smaller letters."""
    points = min(0.56 * height, 1.6 * width / max(len(text), 1)) * 72 / 100
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=theme.ground)
    figure.text(0.5, 0.5, text, color=theme.ink, fontsize=points, ha="center", va="center")
    return pixels(figure)
