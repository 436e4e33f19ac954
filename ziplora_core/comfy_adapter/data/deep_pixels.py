"""Pictures of 16 bits a channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

_LAYOUTS = ("gray16", "ya16", "rgb48", "rgba64", "gbrp16", "gbrap16")
_WHITE = 65535


def is_cut_to_8_bits(image: Image.Image) -> bool:
    """Tell whether Pillow will read this picture, of 16 bits a channel, as one of 8.

    Pillow even takes the bytes of planes for channels. The picture must not be loaded yet.
    """
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if isinstance(image, TiffImageFile):
        return 16 in image.tag_v2.get(BITSPERSAMPLE, ())
    return image.format == "PNG" and any(
        "16" in str(tile[3]) for tile in getattr(image, "tile", ())
    )


def grey_pixels(image: Image.Image) -> NDArray[np.float32]:
    """Convert a picture of mode I;16 to `(h, w, 1)` in 0…1."""
    return np.divide(np.asarray(image)[..., None], _WHITE, dtype=np.float32)


def cut_grey(image: Image.Image) -> Image.Image:
    """Convert a picture of mode I;16 to 8 bits; Pillow's own conversion makes most of it white."""
    cut = Image.fromarray((grey_pixels(image)[..., 0] * 255).round().astype(np.uint8))
    cut.info = image.info
    return cut


def deep_pixels(path: Path, orientation: int) -> NDArray[np.float32] | None:
    """Read a PNG or TIFF of 16 bits a channel with PyAV, as ComfyUI's Load Image does.

    Args:
        path: the file.
        orientation: its EXIF orientation, by which the picture is turned upright.

    Returns:
        the picture `(h, w, channel)` in 0…1, of 1, 3 or 4 channels; None if its layout is another.
    """
    try:
        with path.open("rb") as file, av.open(file) as container:
            frame: Any = next(container.decode(video=0))
    except (av.error.FFmpegError, StopIteration):
        return None
    layout = frame.format.name[:-2]  # without the order of bytes
    if layout not in _LAYOUTS:
        return None
    pixels = frame.to_ndarray(format="rgba64le" if layout == "ya16" else None)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return _upright(np.divide(pixels, _WHITE, dtype=np.float32), orientation)


def _upright(pixels: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Turn and mirror `(h, w, channel)` as EXIF's orientations 1 to 8 say."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
