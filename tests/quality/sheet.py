"""Contact sheets: what each merge draws, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

INK, PAPER, MUTED = "#1c1c20", "#ffffff", "#66666e"
GAP, BAND, MARGIN = 4, 14, 220
FONT = 13
"""Least size of the text; beside pictures of 128 pixels it has 18."""

Row = Mapping[str, Tensor]
"""Pictures `(n, 3, h, w)` in [0, 1] by the name of their column."""


def contact_sheet(title: str, rows: Mapping[str, Row], scale: float = 0.75) -> Image.Image:
    """Draw a table of pictures: a line a row, its name on the left, columns named above.

    Args:
        rows: by name; a row may lack columns.
        scale: of the pictures.
    """
    size = max(FONT, round(18 * scale))
    widths: dict[str, int] = {}
    side = round(next(iter(next(iter(rows.values())).values())).shape[-1] * scale)
    for row in rows.values():
        for column, pictures in row.items():
            widths[column] = max(widths.get(column, 0), len(pictures))
    left, at = {}, MARGIN
    font = _font(size)
    for column, count in widths.items():
        left[column] = at
        at += max(count * (side + GAP), round(font.getlength(column))) + BAND
    top = 64
    sheet = Image.new("RGB", (at, top + len(rows) * (side + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP * 2, 10), title, INK, _font(size + 3))
    for column, x in left.items():
        draw.text((x, 40), column, MUTED, font)
    for n, (name, row) in enumerate(rows.items()):
        y = top + n * (side + GAP)
        draw.multiline_text((GAP * 2, y + side // 2 - size), _wrapped(name), INK, font)
        for column, pictures in row.items():
            for i, picture in enumerate(pictures):
                place = (left[column] + i * (side + GAP), y)
                sheet.paste(as_image(picture).resize((side, side), Image.Resampling.LANCZOS), place)
    return sheet


def as_image(picture: Tensor) -> Image.Image:
    """Convert `(3, h, w)` in [0, 1]."""
    values = (picture.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.asarray(values.permute(1, 2, 0)))


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu, which matplotlib brings along: Pillow's own font has no Greek."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _wrapped(name: str, length: int = 24) -> str:
    lines = [""]
    for word in name.split(" "):
        if len(lines[-1]) + len(word) > length:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
