"""Grids of pictures with labelled axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .style import DARK, NODE_WIDTH, Pixels, Theme, pixels, rgb

_GAP, _LABEL = 4, 22
"""Gap between pictures, and height of a line of text in a grid as wide as a node, in pixels."""


def grid(
    pictures: Tensor,
    columns: Sequence[str],
    rows: Sequence[str] = (),
    across: str = "",
    down: str = "",
    theme: Theme = DARK,
) -> Pixels:
    """Draw pictures `(row, column, h, w, 3)` in 0…1 as one picture, with labelled axes.

    A wide grid has large text, so that it can be read at a node's width.

    Args:
        pictures: pictures as above.
        columns, rows: labels of the columns, above, and of the rows, at the left.
        across, down: names of the axes; empty for none.
        theme: colours of background and text.
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
    """Draw one line of text, centred in a box; a long line gets smaller letters."""
    points = min(0.56 * height, 1.6 * width / max(len(text), 1)) * 72 / 100
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=theme.ground)
    figure.text(0.5, 0.5, text, color=theme.ink, fontsize=points, ha="center", va="center")
    return pixels(figure)
