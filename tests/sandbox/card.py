"""A card for diagrams in the shapes and styles of the miniature world."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from miniworld.scenes import Scene, render

SIDE, SMOOTH = 512, 2
GROUND, INK, MUTED, LINE, LIGHT = "#1d1e26", "#ffffff", "#a9adbb", "#4a4d5c", "#7aa2ff"


class Card:
    """One picture, 512 × 512 unless said; positions and sizes are in its own pixels."""

    def __init__(self, *title: str, size: tuple[int, int] = (SIDE, SIDE)) -> None:
        self.size = size
        self.image = Image.new("RGB", (size[0] * SMOOTH, size[1] * SMOOTH), GROUND)
        self.draw = ImageDraw.Draw(self.image)
        for number, line in enumerate(title):
            self.text(line, SIDE / 2, 38 + 36 * number, 31, INK)

    def text(self, words: str, x: float, y: float, size: int = 21, colour: str = MUTED) -> None:
        """Write words centred on a point."""
        self.draw.text(
            (x * SMOOTH, y * SMOOTH), words, colour, _font(colour, size * SMOOTH), anchor="mm"
        )

    def tile(self, scene: Scene, x: float, y: float, side: int, words: str = "") -> None:
        """Draw a scene with its upper left corner at a point, and words below it."""
        pixels = side * SMOOTH
        values = (render(scene, pixels).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
        mask = Image.new("L", (pixels, pixels))
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, pixels - 1, pixels - 1), 10 * SMOOTH, 255)
        place = (round(x * SMOOTH), round(y * SMOOTH))
        self.image.paste(Image.fromarray(np.asarray(values)), place, mask)
        if words:
            self.text(words, x + side / 2, y + side + 20)

    def frame(self, x: float, y: float, side: int) -> None:
        """Draw a frame around the tile at a point, as around one that was chosen."""
        box = [edge * SMOOTH for edge in (x - 8, y - 8, x + side + 7, y + side + 7)]
        self.draw.rounded_rectangle(box, 16 * SMOOTH, outline=LIGHT, width=5 * SMOOTH)

    def file(self, x: float, y: float, side: int, words: str, below: str = "") -> None:
        """Draw a LoRA file in a square: a sheet with words on it."""
        left, right, corner = x + side * 0.14, x + side * 0.86, side * 0.24
        sheet = [(left, y), (right - corner, y), (right, y + corner), (right, y + side),
                 (left, y + side)]  # fmt: skip
        scaled = [(a * SMOOTH, b * SMOOTH) for a, b in sheet]
        self.draw.polygon(scaled, "#31343f", LIGHT, 3 * SMOOTH)
        size = 21
        while _font(INK, size).getlength(words) > side * 0.62:
            size -= 1
        self.text(words, x + side / 2, y + side * 0.58, size, INK)
        if below:
            self.text(below, x + side / 2, y + side + 20)

    def arrow(self, x: float, y: float, across: float, down: float) -> None:
        """Draw an arrow from a point."""
        ends = ((x * SMOOTH, y * SMOOTH), ((x + across) * SMOOTH, (y + down) * SMOOTH))
        self.draw.line(ends, LIGHT, 5 * SMOOTH)
        tip, wing = np.array(ends[1]), np.array([across, down]) / np.hypot(across, down)
        turned = np.array([-wing[1], wing[0]])
        base = tip - wing * 4 * SMOOTH
        points = (
            tip + wing * 14 * SMOOTH,
            base + turned * 12 * SMOOTH,
            base - turned * 12 * SMOOTH,
        )
        self.draw.polygon([tuple(point) for point in points], LIGHT)

    def track(self, y: float, at: float) -> None:
        """Draw a slider from −2 to 2 with its knob."""
        left, right = 90 * SMOOTH, (SIDE - 90) * SMOOTH
        self.draw.line((left, y * SMOOTH, right, y * SMOOTH), LINE, 8 * SMOOTH)
        knob, radius = left + (right - left) * (at + 2) / 4, 15 * SMOOTH
        self.draw.line((left + (right - left) / 2, y * SMOOTH, knob, y * SMOOTH), LIGHT, 8 * SMOOTH)
        box = (knob - radius, y * SMOOTH - radius, knob + radius, y * SMOOTH + radius)
        self.draw.ellipse(box, INK)
        for value in (-2, 0, 2):
            self.text(f"{value:+d}".replace("-", "−") if value else "0",
                      90 + (SIDE - 180) * (value + 2) / 4, y + 34)  # fmt: skip

    def lines(self, x: float, y: float, wide: int, high: int, *series: tuple[float, ...]) -> None:
        """Draw series of values in [0, 1] as lines in one plot; the first line is muted."""
        self._axes(x, y, wide, high)
        for values, colour in zip(series, (MUTED, LIGHT), strict=True):
            step = wide / (len(values) - 1)
            points = [
                ((x + number * step) * SMOOTH, (y + high * (1 - value)) * SMOOTH)
                for number, value in enumerate(values)
            ]
            self.draw.line(points, colour, 5 * SMOOTH, joint="curve")

    def hill(self, x: float, y: float, wide: int, high: int, cut: float = 0.0) -> None:
        """Draw a histogram around zero; bars nearer to zero than `cut` are muted."""
        self._axes(x, y, wide, high)
        bars = 25
        for number, place in enumerate(np.linspace(-1, 1, bars)):
            left, top = x + wide * number / bars, y + high * (1 - 0.96 * np.exp(-3 * abs(place)))
            box = [left + 2, top, left + wide / bars - 1, y + high - 2]
            self.draw.rectangle(
                [side * SMOOTH for side in box], LINE if abs(place) < cut else LIGHT
            )

    def _axes(self, x: float, y: float, wide: int, high: int) -> None:
        corners = [(x, y), (x, y + high), (x + wide, y + high)]
        self.draw.line([(a * SMOOTH, b * SMOOTH) for a, b in corners], LINE, 3 * SMOOTH)

    def save(self, path: Path) -> None:
        small = self.image.resize(self.size, Image.Resampling.LANCZOS)
        small.save(path, quality=88, optimize=True)


def _font(colour: str, size: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu, which comes with matplotlib; bold for text in `INK`."""
    name = "DejaVuSans-Bold.ttf" if colour == INK else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
