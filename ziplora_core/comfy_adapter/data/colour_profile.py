"""Colour profiles of picture files."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageCms

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_COLOURLESS = ("1", "L", "LA")
_INVISIBLE = 2
"""The difference from sRGB, of 255, up to which a profile is one of the many of sRGB itself."""


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str] | None:
    """Convert a picture of 8 bits a channel to sRGB.

    Args:
        image: the picture; its transparency is lost.
        profile: its ICC profile.

    Returns:
        the picture in RGB and the name of its profile; None if that is sRGB already.

    Raises:
        ImageCms.PyCMSError: a damaged profile, or one for another kind of picture.
    """
    source: Any = ImageCms.getOpenProfile(BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if not _fits(space, image.mode):
        raise ImageCms.PyCMSError(f"it is one of {space} colours")
    mode = _MODES[space]
    if mode != "CMYK":
        probe = _every_colour(mode)
        moved = ImageChops.difference(_converted(probe, source), probe.convert("RGB"))
        if np.asarray(moved).max() <= _INVISIBLE:
            return None
    name = ImageCms.getProfileDescription(source).strip()
    return _converted(image.convert(mode), source), name


def _fits(space: str, mode: str) -> bool:
    """Tell whether a profile of `space` can belong to a picture of this mode."""
    if space == "GRAY":
        return mode in _COLOURLESS
    return space in _MODES and (space == "CMYK") == (mode == "CMYK")


def _converted(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    """Convert relative to white, with the blacks matched, as photograph editors do."""
    converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    assert converted is not None
    return converted


def _every_colour(mode: str) -> Image.Image:
    """Draw 6³ colours, or 256 greys."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 6, dtype=np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3))
