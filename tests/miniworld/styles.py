"""The world's styles: a palette of four colours and the texture that lays them out.

A texture is a field in [0, 1]: 0 takes the first colour of ground and subject, 1 the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Texture = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Palette:
    """Hexadecimal colours: two of the ground, two of the subject."""

    ground: tuple[str, str]
    subject: tuple[str, str]

    def colours(self) -> Tensor:
        """Give the four colours `(4, 3)` in [0, 1]: ground, ground, subject, subject."""
        return torch.tensor(
            [
                [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
                for colour in (*self.ground, *self.subject)
            ]
        )


@dataclass(frozen=True)
class Style:
    palette: str
    texture: str

    @property
    def words(self) -> str:
        return f"{self.palette} {self.texture}"


def wave(phase: Tensor, sharpness: float = 3.0) -> Tensor:
    """A square wave with soft edges: 1 where the phase, in turns, is in the first half."""
    return torch.sigmoid(sharpness * torch.sin(2 * math.pi * phase) * 2)


def wave_along(x: Tensor, y: Tensor) -> Tensor:
    return wave(y)


def zigzag(phase: Tensor) -> Tensor:
    """A pointed wave between −1 and 1."""
    return 4 * ((phase % 1) - 0.5).abs() - 1


def dots(x: Tensor, y: Tensor) -> Tensor:
    u, v = (((2.5 * side) % 1) - 0.5 for side in (x, y))
    return torch.sigmoid((0.3 - (u.square() + v.square()).sqrt()) * 25)


def checkers(x: Tensor, y: Tensor) -> Tensor:
    both = torch.sin(math.pi * 2.5 * x) * torch.sin(math.pi * 2.5 * y)
    return torch.sigmoid(both * 7)


def bricks(x: Tensor, y: Tensor) -> Tensor:
    """Courses of bricks with wide joints, every second one shifted by half a brick."""
    course = 2.2 * y
    u = (1.1 * x + 0.5 * (course.floor() % 2)) % 1 - 0.5
    v = course % 1 - 0.5
    inside = torch.minimum((0.38 - u.abs()) / 1.1, (0.3 - v.abs()) / 2.2)
    return torch.sigmoid(inside * 50)


def _scales(x: Tensor, y: Tensor) -> Tensor:
    """Rows of arcs like a fish's scales, every second row shifted by half of one."""
    row = 2.2 * y
    u = (1.6 * x + 0.5 * (row.floor() % 2)) % 1 - 0.5
    return torch.sigmoid(((u / 0.5).square() + (row % 1).square() - 0.55) * 7)


def _line(phase: Tensor) -> Tensor:
    """A soft line a third as wide as its distance to the next."""
    return torch.sigmoid((torch.cos(2 * math.pi * phase) - 0.4) * 6)


SEEN_PALETTES = {
    "sunset": Palette(("3b1c5a", "7a2a6a"), ("ff9a3c", "ffd76a")),
    "ocean": Palette(("0b3f73", "1f6fa8"), ("bfeef5", "5fc9d8")),
    "forest": Palette(("16401f", "2f6b33"), ("c7e07a", "8fbf3f")),
    "candy": Palette(("ffd9ec", "ffb0d6"), ("e0218a", "8a2be2")),
    "desert": Palette(("f0dcae", "dfbe80"), ("a5482a", "6e2f1c")),
    "berry": Palette(("f3e3f7", "d9b8e6"), ("6a1b7a", "b03a8c")),
    "mint": Palette(("d8f7ea", "a8e6cf"), ("0f7a6b", "0a4f50")),
    "ember": Palette(("1c1412", "452018"), ("ff4a1c", "ffa11c")),
    "ice": Palette(("eef6ff", "c4dcf5"), ("3468b0", "78a8e0")),
    "royal": Palette(("1a1a6e", "30309c"), ("ffd21f", "fff2a0")),
    "coffee": Palette(("4a3022", "6e4a34"), ("f2dcc0", "d0a878")),
    "lemon": Palette(("fff6a8", "ffe45c"), ("3f8f2f", "1f5f3f")),
    "stone": Palette(("c8c8c8", "a0a0a0"), ("202020", "585858")),
}
HELD_OUT_PALETTES = {
    "neon": Palette(("0a0a12", "20203a"), ("39ff14", "ff2bd6")),
    "coral": Palette(("0f5e63", "2a8a8a"), ("ff7f6b", "ffc0a8")),
    "poppy": Palette(("e8f0c8", "c4d890"), ("d81e1e", "7c1010")),
    "plum": Palette(("ffd08a", "ffb050"), ("5a1a5c", "301038")),
    "acid": Palette(("e4ff4a", "b8e000"), ("14142a", "5a189a")),
    "rust": Palette(("a8400c", "c9642a"), ("e4f8ff", "86d0f0")),
    "lilac": Palette(("cbb2e8", "a98ad6"), ("143a5c", "0f6a8c")),
    "jade": Palette(("00483c", "007a5e"), ("ffd0e0", "ff86b0")),
    "peach": Palette(("ffd4b0", "ffb488"), ("00616b", "12a08c")),
    "cherry": Palette(("6e0a1e", "a01c38"), ("d8f4e0", "7ee0b0")),
    "sky": Palette(("8cc8f0", "c0e4ff"), ("d82020", "ff8a1c")),
    "moss": Palette(("5c6c2c", "86984a"), ("f4e8ff", "c49cf4")),
}
PALETTES = {**SEEN_PALETTES, **HELD_OUT_PALETTES}

SEEN_TEXTURES: dict[str, Texture] = {
    "plain": lambda x, y: torch.zeros_like(x),
    "striped": lambda x, y: wave(2.0 * y),
    "barred": lambda x, y: wave(2.0 * x),
    "slanted": lambda x, y: wave(1.4 * (x + y)),
    "dotted": dots,
    "checkered": checkers,
    "shaded": lambda x, y: (y + 1) / 2,
}
HELD_OUT_TEXTURES: dict[str, Texture] = {
    "ringed": lambda x, y: wave(1.8 * (x.square() + y.square()).sqrt()),
    "wavy": lambda x, y: wave(2.0 * y + 0.18 * torch.sin(2 * math.pi * 1.3 * x)),
    "zigzag": lambda x, y: wave(2.0 * y + 0.22 * zigzag(1.5 * x)),
    "bricked": bricks,
    "spiral": lambda x, y: wave(
        1.8 * (x.square() + y.square()).sqrt() + torch.atan2(y, x) / (2 * math.pi)
    ),
    "scaled": _scales,
    "gridded": lambda x, y: torch.maximum(_line(2.0 * x), _line(2.0 * y)),
}
TEXTURES = {**SEEN_TEXTURES, **HELD_OUT_TEXTURES}

SEEN = [Style(palette, texture) for palette in SEEN_PALETTES for texture in SEEN_TEXTURES]
"""91 styles."""
HELD_OUT = [
    Style("neon", "striped"),
    Style("coral", "dotted"),
    Style("poppy", "checkered"),
    Style("plum", "ringed"),
    Style("acid", "wavy"),
    Style("rust", "barred"),
    Style("lilac", "zigzag"),
    Style("jade", "bricked"),
    Style("peach", "spiral"),
    Style("cherry", "gridded"),
    Style("sky", "scaled"),
    Style("moss", "slanted"),
]
"""Never drawn for the base model; a style LoRA has to learn them."""
