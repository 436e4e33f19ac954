"""Subjects and styles that have no word: what the base model knows beyond its vocabulary.

A model that has seen thirteen palettes only can draw no fourteenth, and a LoRA then has nothing to
build on. Names such as "#3941" stand for a concept drawn from that seed; captions leave them out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from .shapes import Shape, box, disc, ellipse, polygon, union, without
from .styles import Palette, Texture, bricks, checkers, dots, wave, wave_along, zigzag

NUMBERS = 1_000_000


def draw_name(rng: random.Random) -> str:
    """Draw a name; any two are alike once in a million."""
    return f"#{rng.randrange(NUMBERS)}"


def is_unnamed(name: str) -> bool:
    return name.startswith("#")


def shape(name: str) -> Shape:
    """Build a subject: an outline, or two or three pieces, with up to two holes."""
    rng = random.Random(f"shape {name}")
    if rng.random() < 0.4:
        pieces = [_outline(rng)]
    else:
        pieces = [_piece(rng, 0.35 if i else 0.7) for i in range(rng.choice((2, 2, 3)))]
        if rng.random() < 0.5:
            pieces += [_mirrored(piece) for piece in pieces[1:]]
    holes = [_piece(rng, 0.2) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    if holes and rng.random() < 0.4:
        holes.append(_mirrored(holes[0]))

    def distance(x: Tensor, y: Tensor) -> Tensor:
        body = union(*(piece(x, y) for piece in pieces))
        return without(body, *(hole(x, y) for hole in holes)) if holes else body

    return distance


def palette(name: str) -> Palette:
    """Build a palette: a ground and a subject that can be told apart, each with a second colour."""
    rng = random.Random(f"palette {name}")
    ground = [rng.random() for _ in range(3)]
    subject = ground
    while math.dist(ground, subject) < 0.55:
        subject = [rng.random() for _ in range(3)]
    another = [rng.random() for _ in range(3)] if rng.random() < 0.3 else _near(rng, subject, 0.25)
    return Palette(
        (_hexadecimal(ground), _hexadecimal(_near(rng, ground, 0.15))),
        (_hexadecimal(subject), _hexadecimal(another)),
    )


def texture(name: str) -> Texture:
    """Build a texture: waves, dots, checkers, bricks or rings, turned, bent, of any width."""
    rng = random.Random(f"texture {name}")
    pattern = rng.choice((wave_along, wave_along, dots, checkers, bricks, _rings(rng)))
    angle, width = rng.uniform(0, math.pi), rng.uniform(0.6, 1.5)
    along, across = width * math.cos(angle), width * math.sin(angle)
    bend = _bend(rng) if rng.random() < 0.4 else torch.zeros_like

    def pattern_at(x: Tensor, y: Tensor) -> Tensor:
        u, v = along * x - across * y, across * x + along * y
        return pattern(u, v + bend(u))

    return pattern_at


def _rings(rng: random.Random) -> Texture:
    """Rings about any point."""
    cx, cy = rng.uniform(-1, 1), rng.uniform(-1, 1)
    return lambda x, y: wave(1.5 * ((x - cx).square() + (y - cy).square()).sqrt())


def _bend(rng: random.Random) -> Callable[[Tensor], Tensor]:
    """A smooth or a pointed wave, as an offset across its run."""
    height, turns = rng.uniform(0.05, 0.2), rng.uniform(0.8, 2.2)
    if rng.random() < 0.5:
        return lambda u: height * torch.sin(2 * math.pi * turns * u)
    return lambda u: height * zigzag(turns * u)


def _outline(rng: random.Random) -> Shape:
    """A polygon about the centre, its corners at any distance."""
    count = rng.randint(3, 10)
    start = rng.uniform(0, 2 * math.pi)
    corners = [
        (radius * math.sin(angle), -radius * math.cos(angle))
        for i in range(count)
        for radius, angle in [(rng.uniform(0.45, 1.05), start + 2 * math.pi * i / count)]
    ]
    return lambda x, y: polygon(x, y, corners)


def _piece(rng: random.Random, size: float) -> Shape:
    """A disc, an ellipse, a box or a triangle, small enough to stay within the unit circle."""
    width, height = (size * rng.uniform(0.6, 1.3) for _ in range(2))
    reach = max(1.0 - max(width, height), 0.0)
    cx, cy = rng.uniform(-reach, reach), rng.uniform(-reach, reach)
    kind = rng.randrange(4)
    if kind == 0:
        return lambda x, y: disc(x, y, cx, cy, min(width, height))
    if kind == 1:
        return lambda x, y: ellipse(x, y, cx, cy, width, height)
    if kind == 2:
        return lambda x, y: box(x, y, cx - width, cy - height, cx + width, cy + height)
    angles = [rng.uniform(0, 2 * math.pi) + 2 * math.pi * i / 3 for i in range(3)]
    corners = [(cx + 1.3 * width * math.sin(a), cy + 1.3 * height * math.cos(a)) for a in angles]
    return lambda x, y: polygon(x, y, corners)


def _mirrored(piece: Shape) -> Shape:
    return lambda x, y: piece(-x, y)


def _near(rng: random.Random, colour: list[float], reach: float) -> list[float]:
    return [min(max(part + rng.gauss(0, reach), 0.0), 1.0) for part in colour]


def _hexadecimal(colour: list[float]) -> str:
    return "".join(f"{round(255 * part):02x}" for part in colour)
