"""One picture file: turned upright, in sRGB, on a background."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageColor, ImageOps
from torch import Tensor

from ...errors import ZipLoRAError, problem
from .colour_profile import to_srgb
from .deep_pixels import cut_grey, deep_pixels, grey_pixels, is_cut_to_8_bits

READ = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".tif",
    ".tiff", ".gif", ".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx",
    ".j2c", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi",
}  # fmt: skip
"""Endings of the picture files that are read, where Pillow or a package can."""
UNREADABLE = (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError)
"""What Pillow and the packages that read HEIC and JPEG XL raise for a damaged file."""
_PHOTOGRAPHS = ("MPO", "HEIF")
"""Formats whose further pictures are thumbnails, depth maps, or the other eye's view."""


def _load_plugins() -> None:
    """Let Pillow read HEIC and JPEG XL where the packages that can are installed."""
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    with suppress(ImportError):
        import_module("pillow_jxl")


_load_plugins()


@dataclass(frozen=True)
class PictureFile:
    """A picture as it is trained on.

    Args:
        pixels: the picture `(1, h, w, 3)` in 0…1.
        profile: the name of the colour profile from which it was converted; empty for sRGB.
        ignored: why its colour profile was not used; empty if it was.
        is_transparent: whether the background shows.
        is_cut: whether 16 bits a channel were cut to 8.
    """

    pixels: Tensor
    profile: str = ""
    ignored: str = ""
    is_transparent: bool = False
    is_cut: bool = False


def parse_colour(text: str) -> tuple[int, int, int]:
    """Read a colour such as `#ff8800` or `white`.

    Raises:
        ZipLoRAError: no colour.
    """
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise problem(
            "background",
            found=repr(text),
            expected="a colour as #rrggbb, or its English name",
            advice="Write #ffffff for white.",
        ) from error


def read_picture(path: Path, background: tuple[int, int, int]) -> PictureFile:
    """Read a picture and turn it upright; of several photographs in one file, the first.

    Args:
        path: the file.
        background: the colour, of 255, under transparent parts.

    Raises:
        ZipLoRAError: an unreadable file, an animation, or 32 bits a channel.
    """
    upright, deep, is_cut = _load(path)
    rgba = np.asarray(upright.convert("RGBA"), np.float32) / 255 if deep is None else deep
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    name, ignored = "", ""
    if profile := upright.info.get("icc_profile"):
        shown = upright if deep is None else _of_8_bits(deep, upright.mode)
        try:
            if converted := to_srgb(shown, profile):
                rgb, name = np.asarray(converted[0], np.float32) / 255, converted[1]
                is_cut = is_cut or deep is not None
        except (ImageCms.PyCMSError, ImportError) as error:  # some builds of Pillow lack LittleCMS
            ignored = str(error)
    pixels = rgb * alpha + np.asarray(background, np.float32) / 255 * (1 - alpha)
    is_transparent = bool(alpha.min() < 1)
    return PictureFile(torch.from_numpy(pixels)[None], name, ignored, is_transparent, is_cut)


def read_formats() -> list[str]:
    """List Pillow's names of the formats that are read; others, such as EPS, start programs."""
    endings = Image.registered_extensions()
    return sorted({endings[ending] for ending in READ & {*endings}} & {*Image.OPEN})


def _load(path: Path) -> tuple[Image.Image, NDArray[np.float32] | None, bool]:
    """Load a picture upright.

    Returns:
        the picture of 8 bits a channel, with its profile; if the file has 16, these as
        `(h, w, 4)` in 0…1, else None; and whether it has 16 that could not be read.
    """
    try:
        with Image.open(path, formats=read_formats()) as image:
            pictures = getattr(image, "n_frames", 1) - bool(image.info.get("default_image"))
            kind = image.format
            is_deep = is_cut_to_8_bits(image)  # before EXIF: a PNG is loaded for that
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            upright = ImageOps.exif_transpose(image)
            upright.load()
    except UNREADABLE as error:
        raise _unusable(path, f"an unreadable file ({error})") from error
    if pictures > 1 and kind not in _PHOTOGRAPHS:
        several = "a file of {} pages" if kind == "TIFF" else "an animation of {} pictures"
        raise _unusable(path, several.format(pictures))
    if upright.mode.startswith("I;16"):
        return cut_grey(upright), _with_alpha(grey_pixels(upright)), False
    if upright.mode.startswith(("I", "F")):
        raise _unusable(path, f"a picture of 32 bits a channel ({upright.mode})")
    deep = deep_pixels(path, orientation) if is_deep else None
    return upright, None if deep is None else _with_alpha(deep), is_deep and deep is None


def _of_8_bits(deep: NDArray[np.float32], mode: str) -> Image.Image:
    """Cut `(h, w, 4)` of 16 bits to 8: what Pillow itself reads of planes is another picture."""
    pixels = (deep[..., :3] * 255).round().astype(np.uint8)
    return Image.fromarray(pixels).convert("L" if mode in ("L", "LA") else "RGB")


def _with_alpha(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Extend `(h, w, channel)` of grey, colour, or colour and alpha to `(h, w, 4)`."""
    colour = pixels[..., :3] if pixels.shape[-1] > 1 else pixels.repeat(3, -1)
    alpha = pixels[..., 3:] if pixels.shape[-1] == 4 else np.ones_like(pixels[..., :1])
    return np.concatenate([colour, alpha], -1)


def _unusable(path: Path, found: str) -> ZipLoRAError:
    return problem(
        path.name,
        found=found,
        expected="a still picture of 8 or 16 bits a channel",
        advice="Save it again as .png or .jpg, or take it out of the folder.",
    )
