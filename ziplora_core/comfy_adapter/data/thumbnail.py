"""Small pictures for the panels, of files that may come from strangers."""

from __future__ import annotations

import io
import threading
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

from ...files.fingerprint import state_of
from .deep_pixels import cut_grey
from .picture_file import UNREADABLE, read_formats

LONGEST = 512
"""Pixels of the longer side; enough to be seen large, too."""
MAX_BYTES = 64 << 20
MAX_PIXELS = 64_000_000
"""A file of kilobytes can stand for gigabytes of pixels."""
_KEPT = 128
"""Thumbnails of about 50 KB."""

_one_at_a_time = threading.Lock()


def thumbnail(path: Path) -> bytes | None:
    """Make a JPEG of a picture, turned upright, on white, of an animation the first picture.

    Returns:
        the JPEG; None where there is no picture, or one that is damaged or larger than allowed.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        return _thumbnail(path, state_of(path))
    except UNREADABLE:
        return None


@lru_cache(maxsize=_KEPT)
def _thumbnail(path: Path, state: tuple[int, ...]) -> bytes | None:
    """Make it once for each state of the file.

    Raises:
        UNREADABLE: it is damaged.
    """
    with _one_at_a_time, Image.open(path, formats=read_formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            return None
        image.thumbnail((LONGEST, LONGEST))  # of a JPEG, only what is needed is decoded
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            upright = cut_grey(upright)
        pixels = upright.convert("RGBA")
    page = Image.new("RGB", pixels.size, "white")
    page.paste(pixels, mask=pixels.getchannel("A"))
    written = io.BytesIO()
    page.save(written, "JPEG", quality=85)
    return written.getvalue()
