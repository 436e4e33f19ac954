"""Scenes: the content of a picture, its caption in plain words, and its drawing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import unnamed
from .shapes import SHAPES, Shape
from .styles import PALETTES, TEXTURES, Palette, Style, Texture

SIDE = 128
"""Pixels of a picture's side."""

PLACES = {
    "": (0.0, 0.0),
    "on the left": (-0.4, 0.0),
    "on the right": (0.4, 0.0),
    "at the top": (0.0, -0.4),
    "at the bottom": (0.0, 0.4),
}
COMPANIONS = ("circle", "square", "triangle")
COMPANION_PLACE = (0.72, 0.72)
COMPANION_RADIUS = 0.21

SIZES = ((0.34, "tiny"), (0.46, "small"), (0.58, ""), (0.7, "large"), (9.0, "huge"))
"""Words by the radius up to which they hold; the picture's half side is 1."""
BRIGHTNESSES = (
    (-0.6, "very dark"),
    (-0.2, "dark"),
    (0.2, ""),
    (0.6, "bright"),
    (9.0, "very bright"),
)
"""Words by the brightness up to which they hold, in [-1, 1]."""


@dataclass(frozen=True)
class Scene:
    """One picture's content.

    Args:
        subject: a name of `shapes.SHAPES`, or of an unnamed one.
        place: a key of `PLACES`; the subject is within 0.06 of it.
        companion: a small second object in the corner below right, or "".
        radius: the subject's, of the picture's half side; 0.25 … 0.8.
        brightness: −1 (night) … 0 (the palette's own colours) … 1 (haze).
        shift: how far the subject is from its place.
        stretch: −1 (high) … 0 … 1 (wide), in octaves of width to height; no caption speaks of it.
    """

    subject: str
    style: Style
    place: str = ""
    companion: str = ""
    radius: float = 0.52
    brightness: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    stretch: float = 0.0

    @property
    def centre(self) -> tuple[float, float]:
        x, y = PLACES[self.place]
        return x + self.shift[0], y + self.shift[1]


def word(words: tuple[tuple[float, str], ...], value: float) -> str:
    """Choose the word of a continuous attribute; "" for the ordinary."""
    return next(text for limit, text in words if value <= limit)


def caption(scene: Scene, subject: str | None = None, style: str | None = None) -> str:
    """Say what is in the picture: *a dark small star on the left in ocean striped style*.

    Args:
        subject: said in place of the subject's name, as *sks shape*.
        style: said in place of the style's words; "" leaves the style out.
    """
    style = scene.style.words if style is None else style
    parts = [
        word(BRIGHTNESSES, scene.brightness),
        word(SIZES, scene.radius),
        scene.subject if subject is None else subject,
        scene.place,
        f"with a small {scene.companion}" if scene.companion else "",
        f"in {style} style" if style else "",
    ]
    return " ".join(["a", *(part for part in parts if part)])


def silhouette(scene: Scene, side: int = SIDE) -> Tensor:
    """Draw where the subject is: `(side, side)` in [0, 1], with soft edges a pixel wide."""
    x, y = _grid(side)
    return _subject(scene, x, y, side)


def render(scene: Scene, side: int = SIDE) -> Tensor:
    """Draw the scene: `(3, side, side)`, float32 in [0, 1]."""
    x, y = _grid(side)
    body = _subject(scene, x, y, side)
    if scene.companion:
        small = _cover(scene.companion, x, y, COMPANION_PLACE, COMPANION_RADIUS, side)
        body = torch.maximum(body, small)
    pattern = texture_of(scene.style)(x, y)
    ground, ground2, paint, paint2 = palette_of(scene.style).colours()[:, :, None, None]
    picture = torch.lerp(
        torch.lerp(ground, ground2, pattern), torch.lerp(paint, paint2, pattern), body
    )
    if scene.brightness < 0:
        return picture * (1 + 0.65 * scene.brightness)
    return picture + (1 - picture) * 0.55 * scene.brightness


def palette_of(style: Style) -> Palette:
    return PALETTES.get(style.palette) or unnamed.palette(style.palette)


def texture_of(style: Style) -> Texture:
    return TEXTURES.get(style.texture) or unnamed.texture(style.texture)


def _shape(name: str) -> Shape:
    return SHAPES.get(name) or unnamed.shape(name)


def _grid(side: int) -> tuple[Tensor, Tensor]:
    line = (torch.arange(side) + 0.5) * 2 / side - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def _subject(scene: Scene, x: Tensor, y: Tensor, side: int) -> Tensor:
    """How much of each pixel the subject covers."""
    (cx, cy), wide = scene.centre, 2 ** (scene.stretch / 2)
    x, y = cx + (x - cx) / wide, cy + (y - cy) * wide
    return _cover(scene.subject, x, y, scene.centre, scene.radius, side)


def _cover(
    name: str, x: Tensor, y: Tensor, centre: tuple[float, float], radius: float, side: int
) -> Tensor:
    """How much of each pixel the shape covers."""
    distance = _shape(name)((x - centre[0]) / radius, (y - centre[1]) / radius) * radius
    return (0.5 - distance * side / 2).clamp(0, 1)
