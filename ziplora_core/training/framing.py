"""Resizing and cropping of training pictures, with SDXL's size and crop conditioning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

PIXELS_PER_LATENT = 8
"""Side of one latent element in pixels."""


def latent_size(height: int, width: int) -> tuple[int, int]:
    """Compute the `(height, width)` in latents of a picture whose sides are in pixels."""
    return height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT


@dataclass(frozen=True)
class Framing:
    """The size and crop conditioning of one training picture (SDXL, arXiv:2307.01952, §2.2).

    All values are in pixels, as `(height, width)` and `(top, left)`.

    Args:
        original: size of the original picture.
        resized: size after resizing, before cropping.
        crop: top left corner of the crop in the resized picture.
        target: size of the training picture.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]

    @classmethod
    def drawn(cls, height: int, width: int) -> Framing:
        """Return the framing of a picture that was generated at this size."""
        size = (height, width)
        return cls(size, size, (0, 0), size)

    def mirrored(self) -> Framing:
        """Return the framing of the mirrored picture, whose crop begins at the other side."""
        top, left = self.crop
        right = self.resized[1] - left - self.target[1]
        return Framing(self.original, self.resized, (top, right), self.target)


def framing(height: int, width: int, resolution: int) -> Framing:
    """Choose the size nearest in aspect with at most `resolution`² pixels, and a centre crop.

    Sides are multiples of a sixteenth of the resolution, and no side is longer than four times the
    other. A square picture stays square. A smaller picture is enlarged, and SDXL's conditioning
    gets its true size.

    Args:
        height, width: size of the picture in pixels.
        resolution: side of a square training picture in pixels, a multiple of 8.
    """
    unit = max(PIXELS_PER_LATENT, resolution // 16 // PIXELS_PER_LATENT * PIXELS_PER_LATENT)
    half = max(unit, resolution // 2 // unit * unit)
    sides = range(half, 2 * resolution + 1, unit)
    sizes = [(resolution, resolution)]  # not always a multiple of the unit
    sizes += [(h, max(unit, resolution**2 // h // unit * unit)) for h in sides]
    wanted = math.log(width / height)
    target = min(sizes, key=lambda size: abs(math.log(size[1] / size[0]) - wanted))
    scale = max(target[0] / height, target[1] / width)
    resized = (max(target[0], round(height * scale)), max(target[1], round(width * scale)))
    crop = ((resized[0] - target[0]) // 2, (resized[1] - target[1]) // 2)
    return Framing((height, width), resized, crop, target)


def reframe(pixels: Tensor, frame: Framing) -> Tensor:
    """Resize (bicubic, antialiased) and crop `(h, w, 3)` in 0…1 to `(target h, target w, 3)`."""
    image = pixels.movedim(-1, 0)[None].float()
    if frame.resized != frame.original:
        image = F.interpolate(image, frame.resized, mode="bicubic", antialias=True).clamp(0, 1)
    (top, left), (height, width) = frame.crop, frame.target
    return image[0].movedim(0, -1)[top : top + height, left : left + width]
